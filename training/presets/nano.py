"""The sizes of nano, the bundled model: one place that every stage reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ...data_prep.nano.vocabulary import SPECIAL_TOKENS, token_ids
from ...model.adaptor.stack import StackConfig
from ...model.audio_encoder.mel import LogMelConfig
from ...model.audio_encoder.whisper import WhisperEncoderConfig
from ...model.duplex.monitor import MonitorConfig
from ...model.errors import DuologueError
from ...model.speech_decoder.source_filter import SourceFilterConfig
from ...model.speech_decoder.unit_decoder import UnitDecoderConfig
from ...model.speech_decoder.unit_vocoder import UnitVocoderConfig
from ...model.speech_lm import SpeechLM
from ...model.speech_lm_config import AdaptorConfig, EncoderConfig, SpeechLMConfig, VoiceConfig
from ...model.tokens import TokenLayout
from ..augment.augment import AugmentConfig
from ..augment.spec import SpecAugmentConfig
from ..data.turns import nano_tokens

NANO_UNITS = 200


@dataclass(frozen=True, kw_only=True)
class AugmentPreset:
    """How much a clip is changed on its way into training: the sound, and what is masked of its mel."""

    sound: AugmentConfig
    masks: SpecAugmentConfig


AUGMENTATIONS = {
    "none": None,
    "light": AugmentPreset(  # another voice, now and then another room: an encoder learns in hours, not days
        sound=AugmentConfig(
            noise_chance=0.3, room_chance=0.12, equaliser_chance=0.3, telephone_chance=0.03, mu_law_chance=0.02,
            quantise_chance=0.03, overdrive_chance=0.02, silence_s=(0.0, 0.3), level_dbfs=(-25.0, 0.0),
        ),
        masks=SpecAugmentConfig(mel_masks=1, mel_width=12, time_masks=1, time_width=12),
    ),
    "voices": AugmentPreset(  # most clips in a voice that nobody has, little else
        sound=AugmentConfig(
            speed_chance=0.5, pitch_chance=0.5, pitch=(0.8, 1.3), tempo_chance=0.25, tempo=(0.75, 1.3),
            formants_chance=0.4, formants=(0.8, 1.25), source_chance=0.3, noise_chance=0.3, room_chance=0.15,
            equaliser_chance=0.5, telephone_chance=0.12, mu_law_chance=0.02, quantise_chance=0.03,
            overdrive_chance=0.02, silence_s=(0.0, 0.3), level_dbfs=(-25.0, 0.0),
        ),
        masks=SpecAugmentConfig(mel_masks=2, mel_width=16, time_masks=2, time_width=16),
    ),
    "full": AugmentPreset(sound=AugmentConfig(), masks=SpecAugmentConfig()),
    "still": AugmentPreset(  # another place and line, at times another pitch; every sound stays when it was
        sound=AugmentConfig(
            speed_chance=0.0, tempo_chance=0.0, silence_chance=0.0, pitch_chance=0.2, noise_chance=0.3,
            room_chance=0.12, equaliser_chance=0.3, telephone_chance=0.03, mu_law_chance=0.02, quantise_chance=0.03,
            overdrive_chance=0.02, level_dbfs=(-25.0, 0.0),
        ),
        masks=SpecAugmentConfig(),
    ),
}  # fmt: skip


def keeps_time(sound: AugmentConfig) -> bool:
    """Whether what is heard comes when it came."""
    return not (sound.speed_chance or sound.tempo_chance or sound.silence_chance)


def augmentation_of(name: str) -> AugmentPreset | None:
    """The disguise of that name. Raises DuologueError for another name."""
    if name not in AUGMENTATIONS:
        raise DuologueError(f"augment is {name!r}; it must be one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


NANO_MEL = LogMelConfig(n_mels=80, norm="causal")
NANO_ENCODER = WhisperEncoderConfig(
    n_mels=80,
    n_audio_ctx=1500,
    n_audio_state=192,
    n_audio_head=3,
    n_audio_layer=5,
    chunk=8,  # 160 ms
    left_context=496,  # 9.92 s
    causal_conv=True,
)
NANO_ADAPTOR = StackConfig(in_dim=192, hidden_dim=512, out_dim=256, stack=4)  # 80 ms an embedding
NANO_UNIT_DECODER = UnitDecoderConfig(
    in_dim=256,
    dim=256,
    layers=2,
    heads=4,
    ffn_dim=688,
    units=NANO_UNITS,
    upsample=25,
    band=20,
    fuse_token=True,
    sub_position=True,
    blank_bias=-2.0,
)
NANO_VOCODER = UnitVocoderConfig(units=NANO_UNITS, embedding_dim=128, source_filter=SourceFilterConfig())
# For a codec's tokens in the place of units: as many classes as its codebook, and more of them a word.
NANO_CODEC_UNIT_DECODER = replace(NANO_UNIT_DECODER, units=4096, upsample=63)
NANO_MONITOR = MonitorConfig(in_dim=256, hidden_dim=128)
NANO_WORD_MONITOR = MonitorConfig(in_dim=256, hidden_dim=64)


def nano_llm() -> dict[str, Any]:
    """nano's LLM as a transformers config: a Llama of 4.9 M parameters over the grammar's words."""
    table = token_ids()
    return {
        "model_type": "llama",
        "vocab_size": len(table),
        "hidden_size": 256,
        "intermediate_size": 672,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": table["<bos>"],
        "eos_token_id": table["<eos>"],
        "pad_token_id": table["<pad>"],
    }


def tiny_llm() -> dict[str, Any]:
    """The same at the size of the ``tiny`` presets: 64 wide, two layers."""
    return nano_llm() | {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
    }


def nano_config(
    voice: VoiceConfig = NANO_VOCODER, unit_decoder: UnitDecoderConfig = NANO_UNIT_DECODER
) -> SpeechLMConfig:
    """The whole model; with another voice (a codec's: CodecVoiceConfig) and the unit decoder that writes for it."""
    table = token_ids()
    markers = ("bos", "eos", "pad", "user", "speech", "transcript", "reply", "query", "noise", "wait")
    return SpeechLMConfig(
        mel=NANO_MEL,
        encoder=NANO_ENCODER,
        adaptor=NANO_ADAPTOR,
        llm=nano_llm(),
        unit_decoder=unit_decoder,
        vocoder=voice,
        monitor=NANO_MONITOR,
        word_monitor=NANO_WORD_MONITOR,
        layout=TokenLayout(
            **{name: table[f"<{name}>"] for name in markers},
            text=(len(SPECIAL_TOKENS), len(table)),
            units=voice.units,
        ),
        prompt=nano_tokens().prompt,
        tail_s=0.3,
        transcript_ctc=0.4,
        history=192,
        past_in_words=True,
    )


def without_voice(
    mel: LogMelConfig,
    encoder: EncoderConfig,
    adaptor: AdaptorConfig,
    llm: dict[str, Any],
    monitor: MonitorConfig | None = None,
) -> SpeechLM:
    """A model that hears and writes, of these sizes, with nano's tokens and prompt: what the stages before the mouth
    train. It hears a clip as it was trained on, without a tail."""
    silent = replace(nano_config(), unit_decoder=None, vocoder=None, monitor=None, word_monitor=None, tail_s=0.0)
    return SpeechLM(replace(silent, mel=mel, encoder=encoder, adaptor=adaptor, llm=llm, monitor=monitor))
