"""WavTokenizer's codecs as published (arXiv 2408.16532, section 3.4), and causal ones of the same sizes: 24 kHz."""

from __future__ import annotations

from ...model.codec.codec import causal, published
from ..losses.codebooks import CodebookConfig
from ..losses.discriminators import DiscriminatorConfig
from ..losses.spectral import SpectralLossConfig
from . import nano

SETTINGS = nano.NANO["codec"] | {
    "crop_ms": 3000, "batch_size": 40, "steps": 1_000_000, "lr": 2e-4, "warmup": 0, "adversary": True, "clip": 1e3,
    "gain_db": (0.0, 0.0), "commitment_weight": 1000.0, "codebooks": CodebookConfig(kmeans_iterations=200),
    "spectral": SpectralLossConfig(sample_rate=24000, windows=(1024,), n_mels=100, mel_weight=45.0,
                                   magnitude_weight=0.0, convergence_weight=0.0),
    "discriminator": DiscriminatorConfig(scales=3, resolutions=(2048, 1024, 512), hinge=True, feature_weight=1.0,
                                         adversarial_weight=1.0),
    "workers": 8, "save_every": 5000, "optimiser": "adamw", "quantise_after": 0,
}  # fmt: skip
PRESETS = {
    f"{kind}-{rate}": {"codec": SETTINGS | {"codec": make(rate)}}
    for kind, make in (("published", published), ("causal", causal))
    for rate in (75, 40)
}
