"""nano, the bundled model: the sizes of its parts, and how each stage trains it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...data_prep.nano.vocabulary import token_ids
from ...data_prep.speech.manners import MANNERS
from ...model.adaptor.ctc import CTCAdaptorConfig
from ...model.adaptor.stack import StackConfig
from ...model.audio_encoder.manner import MannerConfig
from ...model.audio_encoder.mel import LogMelConfig
from ...model.audio_encoder.whisper import WhisperEncoderConfig
from ...model.codec.codec import CodecConfig
from ...model.codec.quantiser import QuantiserConfig
from ...model.codec.spectral_encoder import SpectralEncoderConfig
from ...model.duplex.monitor import MonitorConfig
from ...model.speech_decoder.source_filter import SourceFilterConfig
from ...model.speech_decoder.unit_decoder import UnitDecoderConfig
from ...model.speech_decoder.unit_vocoder import UnitVocoderConfig
from ..losses.codebooks import CodebookConfig
from ..losses.discriminators import DiscriminatorConfig
from ..losses.random_quantiser import RandomQuantiserConfig
from ..losses.spectral import SpectralLossConfig

MEL = LogMelConfig(n_mels=80, norm="causal")
# A chunk of 160 ms, and 9.92 s before it.
ENCODER = WhisperEncoderConfig(
    n_mels=80, n_audio_ctx=1500, n_audio_state=192, n_audio_head=3, n_audio_layer=5, chunk=8, left_context=496,
    causal_conv=True,
)  # fmt: skip
ADAPTOR = StackConfig(in_dim=192, hidden_dim=512, out_dim=256, stack=4)  # 80 ms an embedding
UNIT_DECODER = UnitDecoderConfig(
    in_dim=256, dim=256, layers=2, heads=4, ffn_dim=688, units=200, upsample=25, band=20, fuse_token=True,
    sub_position=True, blank_bias=-2.0,
)  # fmt: skip
SOURCE_FILTER = SourceFilterConfig()
VOCODER = UnitVocoderConfig(units=200, embedding_dim=128, source_filter=SOURCE_FILTER)
# For a codec's tokens in the place of units: as many classes as its codebook, and more of them a word.
CODEC_UNIT_DECODER = replace(UNIT_DECODER, units=4096, upsample=63)
# 3.7 M parameters (7.0 MiB as float16), 74 frames a second, 67.5 ms behind the microphone.
CODEC = CodecConfig(
    sample_rate=16000,
    encoder=SpectralEncoderConfig(dim=64, hop=216),
    quantiser=QuantiserConfig(dim=64),
    decoder=SourceFilterConfig(ffn_dim=512, ahead=4, hop=216, n_fft=512, pitch_dim=96, pitch_layers=3, bands=8),
)
# The same at 40 frames a second, 75 ms behind the microphone.
CODEC_40 = replace(
    CODEC,
    encoder=SpectralEncoderConfig(dim=64, hop=400),
    decoder=SourceFilterConfig(ffn_dim=512, ahead=2, hop=400, n_fft=640, pitch_dim=96, pitch_layers=3, bands=8),
)


def llm() -> dict[str, Any]:
    """The language model as a transformers config: a Llama of 4.9 M parameters over the grammar's words."""
    table = token_ids()
    return {
        "model_type": "llama", "vocab_size": len(table), "hidden_size": 256, "intermediate_size": 672,
        "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 4096,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "bos_token_id": table["<bos>"],
        "eos_token_id": table["<eos>"], "pad_token_id": table["<pad>"],
    }  # fmt: skip


QUESTIONS: dict[str, Any] = {"data": ("work/questions",), "dev_data": ("work/dev_questions",)}
HEARING: dict[str, Any] = {"mel": MEL, "encoder": ENCODER}
PRETRAIN = QUESTIONS | HEARING | {
    "steps": 14000, "batch_size": 32, "lr": 2e-3, "warmup": 500, "optimiser": "muon", "precision": "auto",
}  # fmt: skip
SPEECH_TO_TEXT = QUESTIONS | HEARING | {
    "adaptor": ADAPTOR, "llm": llm, "learn": ("adaptor", "llm"),
    "start": ("encoder=runs/asr_pretrain", "llm=runs/text_sft"),
    "steps": 5000, "batch_size": 32, "lr": 1e-3, "warmup": 150, "optimiser": "muon", "precision": "auto",
}  # fmt: skip
DUPLEX = SPEECH_TO_TEXT | {
    "monitor": MonitorConfig(in_dim=256, hidden_dim=128), "learn": ("monitor", "adaptor", "llm"),
    "start": ("encoder=runs/asr_pretrain", "adaptor=runs/speech_to_text", "llm=runs/speech_to_text"),
    "data": ("work/questions", "work/asides"), "dev_data": ("work/dev_questions", "work/dev_asides"),
    "steps": 2000, "lr": 5e-4,
}  # fmt: skip
WORD_MONITOR: dict[str, Any] = {
    "word_monitor": MonitorConfig(in_dim=256, hidden_dim=64), "learn": ("word_monitor",), "optimiser": "adamw",
    "precision": "no", "weight_decay": 0.3, "warmup": 20, "lr": 1e-3, "workers": 0,
}  # fmt: skip
UNIT_DECODER_STAGE: dict[str, Any] = {
    "llm": llm, "unit_decoder": UNIT_DECODER, "hop": VOCODER.hop, "start": ("llm=runs/speech_to_text",),
    "learn": ("unit_decoder",), "data": ("work/replies",), "steps": 6000, "batch_size": 32, "lr": 1.5e-3,
    "warmup": 200, "precision": "auto", "save_every": 500,
}  # fmt: skip
CODEC_STAGE: dict[str, Any] = {
    "codec": CODEC, "codebooks": CodebookConfig(), "spectral": SpectralLossConfig(windows=(1024, 512), band_weight=5.0),
    "discriminator": DiscriminatorConfig(channels=8, max_channels=64, periods=(2, 3, 5), scales=1, resolutions=(512,),
                                         hinge=True, feature_weight=2.0),
    "learn": ("codec",), "data": ("work/recordings_speech",), "steps": 9000, "batch_size": 16, "lr": 2e-3,
    "warmup": 200, "optimiser": "muon", "quantise_after": 200, "betas": (0.8, 0.99), "weight_decay": 0.0, "clip": 10.0,
    "precision": "auto", "save_every": 500,
}  # fmt: skip
CTC_ADAPTOR = QUESTIONS | HEARING | {  # with llm=
    "adaptor": CTCAdaptorConfig(in_dim=192, dim=128, layers=2, out_dim=256, vocab=512), "llm": {},
    "learn": ("adaptor",), "start": ("encoder=runs/asr_pretrain",), "steps": 3000, "batch_size": 32, "lr": 1e-3,
    "warmup": 200, "precision": "auto", "save_every": 500,
}  # fmt: skip
NANO: dict[str, dict[str, Any]] = {
    "asr_pretrain": PRETRAIN | {"learn": ("encoder", "ctc_head", "decoder")},
    "ssl": PRETRAIN | {"learn": ("encoder", "head"), "quantiser": RandomQuantiserConfig()},
    "probe": QUESTIONS | HEARING | {
        "learn": ("heads",), "source": "runs/ssl", "steps": 1500, "batch_size": 32, "lr": 3e-3, "warmup": 50,
        "weight_decay": 0.0, "clip": 100.0,  # over all heads, which do not share anything
        "save_every": 500,
    },
    "manner": HEARING | {
        "manner": MannerConfig(in_dim=192, classes=MANNERS), "learn": ("manner",), "source": "nano",
        "data": ("work/manner",), "dev_data": ("work/dev_manner",), "steps": 2000, "batch_size": 32, "lr": 1e-3,
        "warmup": 50, "weight_decay": 0.05, "workers": 0, "save_every": 500,
    },
    "text_sft": {
        "llm": llm, "learn": ("llm",), "steps": 3000, "batch_size": 16, "lr": 2e-3, "warmup": 200, "precision": "auto",
        "save_every": 500,
    },
    "reward": {
        "llm": llm, "learn": ("llm", "reward"), "start": ("llm=nano",), "data": ("work/pairs.jsonl",), "steps": 300,
        "batch_size": 16, "lr": 1e-4, "warmup": 20, "precision": "auto",
    },
    "speech_to_text": SPEECH_TO_TEXT,
    "dpo": HEARING | {
        "adaptor": ADAPTOR, "llm": llm, "learn": ("llm",), "start": ("encoder=nano", "adaptor=nano", "llm=nano"),
        "data": ("work/pairs.jsonl",), "beta": 0.3, "sft_weight": 1.0, "steps": 150, "batch_size": 16, "lr": 1e-4,
        "warmup": 10, "weight_decay": 0.0, "precision": "auto", "save_every": 50,
    },
    "ctc_adaptor": CTC_ADAPTOR,
    "mwer": CTC_ADAPTOR | {"steps": 1000, "lr": 2e-4, "warmup": 50},  # with adaptor=
    "duplex": DUPLEX,
    "word_monitor": DUPLEX | WORD_MONITOR | {
        "start": ("encoder=runs/duplex", "adaptor=runs/duplex", "llm=runs/duplex"), "augment": "voices", "steps": 1500,
        "batch_size": 256, "save_every": 500,
    },
    "unit_decoder": UNIT_DECODER_STAGE,
    "unit_vocoder": {
        "vocoder": VOCODER, "spectral": SpectralLossConfig(),
        "discriminator": DiscriminatorConfig(channels=16, max_channels=128, periods=(2, 3, 5, 7), scales=2),
        "learn": ("vocoder",), "data": ("work/replies",), "steps": 6000, "batch_size": 12, "lr": 1e-3, "warmup": 100,
        "betas": (0.8, 0.99), "weight_decay": 0.0, "clip": 5.0, "precision": "auto", "save_every": 500,
    },
    "codec": CODEC_STAGE,
    # The whole, joined from the runs of its stages.
    "assemble": HEARING | {
        "adaptor": ADAPTOR, "llm": llm, "unit_decoder": UNIT_DECODER, "vocoder": VOCODER,
        "monitor": DUPLEX["monitor"], "word_monitor": WORD_MONITOR["word_monitor"], "tail_s": 0.3,
    },
}  # fmt: skip
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "nano": NANO,
    "nano-40": {"codec": CODEC_STAGE | {"codec": CODEC_40}},
    "codec": {  # nano's codec as the voice: 4,097 classes for each of 63 frames a word, so smaller batches
        "unit_decoder": UNIT_DECODER_STAGE | {
            "unit_decoder": CODEC_UNIT_DECODER, "hop": CODEC.hop, "units_file": "codec.jsonl", "batch_size": 8,
            "steps": 20000,
        }
    },
}  # fmt: skip
