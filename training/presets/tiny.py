"""Every stage at a size that overfits a few clips on a CPU within a test: nano's shape, 64 wide, two layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...data_prep.speech.manners import MANNERS
from ...model.adaptor.ctc import CTCAdaptorConfig
from ...model.adaptor.stack import StackConfig
from ...model.audio_encoder.manner import MannerConfig
from ...model.codec.codec import CodecConfig
from ...model.codec.quantiser import QuantiserConfig
from ...model.codec.spectral_encoder import SpectralEncoderConfig
from ...model.duplex.monitor import MonitorConfig
from ...model.speech_decoder.source_filter import SourceFilterConfig
from ..losses.codebooks import CodebookConfig
from ..losses.random_quantiser import RandomQuantiserConfig
from . import nano


def llm() -> dict[str, Any]:
    """nano's language model, 64 wide, two layers."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    return nano.llm() | sizes | {"intermediate_size": 128}


PLAIN: dict[str, Any] = {"precision": "no", "workers": 0}
ENCODER = {"encoder": replace(nano.ENCODER, n_audio_state=64, n_audio_head=2, n_audio_layer=2), "augment": "none"}
MONITOR = MonitorConfig(in_dim=64, hidden_dim=64)
SPEECH_TO_TEXT = nano.NANO["speech_to_text"] | PLAIN | ENCODER | {
    "start": (), "adaptor": StackConfig(in_dim=64, hidden_dim=128, out_dim=64, stack=4), "llm": llm, "dev_data": (),
    "text_fraction": 0.0, "steps": 200, "batch_size": 8, "warmup": 10, "lr": 3e-3, "optimiser": "adamw",
    "save_every": 200,
}  # fmt: skip
DUPLEX = SPEECH_TO_TEXT | {
    "learn": ("monitor", "adaptor", "llm", "encoder"), "monitor": MONITOR, "noise_fraction": 0.0, "far_fraction": 0.0,
    "pause_fraction": 0.0, "turn_state_weight": 5.0, "steps": 160, "lr": 2e-3, "save_every": 160,
}  # fmt: skip
CTC_ADAPTOR = nano.CTC_ADAPTOR | PLAIN | ENCODER | {
    "adaptor": CTCAdaptorConfig(in_dim=64, dim=64, layers=1, heads=2, out_dim=64, vocab=64), "start": (),
    "dev_data": (), "rare": 1, "steps": 150, "batch_size": 8, "warmup": 10, "lr": 3e-3, "save_every": 150,
}  # fmt: skip
TINY: dict[str, dict[str, Any]] = {
    "asr_pretrain": nano.NANO["asr_pretrain"] | PLAIN | ENCODER | {
        "dev_data": (), "steps": 300, "batch_size": 8, "warmup": 20, "save_every": 300,
    },
    "ssl": nano.NANO["ssl"] | PLAIN | ENCODER | {
        "quantiser": RandomQuantiserConfig(size=64, codebooks=2), "dev_data": (), "longest_ms": 2000, "mask_ms": 60,
        "mask_chance": 0.15, "steps": 150, "batch_size": 8, "warmup": 20, "lr": 4e-3, "save_every": 150,
    },
    "probe": nano.NANO["probe"] | PLAIN | ENCODER | {
        "source": "", "steps": 60, "batch_size": 8, "warmup": 5, "lr": 1e-2, "save_every": 60,
    },
    "manner": nano.NANO["manner"] | PLAIN | ENCODER | {
        "source": "", "manner": MannerConfig(in_dim=64, classes=MANNERS, hidden_dim=16), "dev_data": (), "steps": 60,
        "batch_size": 8, "warmup": 5, "lr": 1e-2, "save_every": 60,
    },
    "text_sft": nano.NANO["text_sft"] | PLAIN | {
        "llm": llm, "dialogues": 8, "practice": 0.0, "row_tokens": 32, "batch_size": 8, "steps": 150, "warmup": 10,
        "lr": 3e-3, "save_every": 150,
    },
    "reward": nano.NANO["reward"] | PLAIN | {
        "llm": llm, "start": (), "steps": 60, "batch_size": 8, "warmup": 5, "lr": 3e-3, "save_every": 60,
    },
    "speech_to_text": SPEECH_TO_TEXT,
    "dpo": nano.NANO["dpo"] | PLAIN | {
        "encoder": ENCODER["encoder"], "adaptor": SPEECH_TO_TEXT["adaptor"], "llm": llm, "start": (), "beta": 0.1,
        "sft_weight": 0.0, "steps": 60, "batch_size": 8, "warmup": 5, "lr": 3e-3, "save_every": 60,
    },
    "ctc_adaptor": CTC_ADAPTOR,
    "mwer": CTC_ADAPTOR | {"steps": 40, "lr": 1e-3, "save_every": 40},
    "duplex": DUPLEX,
    "word_monitor": DUPLEX | nano.WORD_MONITOR | {"word_monitor": MONITOR, "steps": 60, "lr": 1e-2, "save_every": 60},
    "unit_decoder": nano.NANO["unit_decoder"] | PLAIN | {
        "start": (), "llm": llm, "history": 0.0,
        "unit_decoder": replace(nano.UNIT_DECODER, in_dim=64, dim=64, heads=2, ffn_dim=128, upsample=12, band=4),
        "steps": 192, "batch_size": 8, "warmup": 10, "lr": 5e-3, "save_every": 192,
    },
    "unit_vocoder": nano.NANO["unit_vocoder"] | PLAIN | {
        "vocoder": replace(nano.VOCODER, embedding_dim=32, duration_hidden=32,
                           source_filter=SourceFilterConfig(dim=64, ffn_dim=128, layers=2)),
        "crop_ms": 400, "batch_size": 8, "steps": 100, "warmup": 10, "lr": 3e-3, "save_every": 100,
    },
    "codec": nano.NANO["codec"] | PLAIN | {
        "codec": CodecConfig(
            sample_rate=16000, encoder=SpectralEncoderConfig(dim=16, width=32, ffn_dim=64, layers=2, hop=240),
            quantiser=QuantiserConfig(dim=16, size=64),
            decoder=SourceFilterConfig(
                dim=64, ffn_dim=128, layers=2, ahead=4, hop=240, pitch_dim=16, bands=4,
            ),
        ),
        "crop_ms": 300, "batch_size": 8, "steps": 100, "warmup": 10, "lr": 3e-3, "optimiser": "adamw",
        "quantise_after": 0, "codebooks": CodebookConfig(dead_after=10), "gain_db": (0.0, 0.0), "save_every": 100,
    },
}  # fmt: skip
PRESETS = {"tiny": TINY}
