"""WavTokenizer's recipe: narrowed it trains with its discriminators, and what it costs is as docs/codec.md says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import duologue
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.model.codec.codec import Codec
from duologue.model.codec.seanet import SEANetConfig
from duologue.model.codec.vocos import VocosConfig
from duologue.training.loop.throughput import PEAKS
from duologue.training.loop.trainer import train
from duologue.training.losses.discriminators import Discriminators
from duologue.training.recipes.codec import recipe

DOCS = Path(duologue.__file__).parent / "docs/codec.md"


@pytest.fixture
def recordings(tmp_path: Path) -> str:
    """Three seconds of a chord at 24 kHz."""
    t = np.arange(72_000) / 24_000
    chord = np.sin(2 * np.pi * np.outer((220, 330, 415), t)).sum(0)
    writer = ShardWriter(tmp_path / "data", name="chord", sample_rate=24_000, seed=0, parameters={})
    writer.write(0, [Clip((4000 * chord).astype(np.int16), {"id": "chord", "text": "", "voice": "chord"})])
    writer.finish()
    return str(tmp_path / "data")


def few_steps(name: str, recordings: str, out: Path, **changes: Any) -> dict[str, float]:
    run = replace(recipe(name), data=(recordings,), out=str(out), batch_size=1, crop_ms=300, workers=0, log_every=1,
                  precision="no", **changes)  # fmt: skip
    return train(run, run.build(), progress=False)


@pytest.mark.parametrize("name", ["published-75", "causal-40"])
def test_the_recipe_trains(name: str, recordings: str, tmp_path: Path) -> None:
    """All of it but the widths: 24 kHz, k-means, hinges at every period, scale and resolution."""
    run = recipe(name)
    encoder, decoder = run.codec.encoder, run.codec.decoder
    assert isinstance(encoder, SEANetConfig) and isinstance(decoder, VocosConfig)
    sizes = replace(
        run.codec,
        encoder=replace(encoder, dim=16, filters=4),
        quantiser=replace(run.codec.quantiser, dim=16, size=32),
        decoder=replace(decoder, in_dim=16, dim=32, ffn_dim=64, layers=1),
    )
    narrow = replace(run.discriminator, channels=4, max_channels=8)
    found = few_steps(name, recordings, tmp_path / "run", codec=sizes, discriminator=narrow, steps=2)
    assert {"mel", "commitment", "discriminator", "adversarial", "features"} <= found.keys()
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.slow
def test_the_published_sizes_take_a_step(recordings: str, tmp_path: Path) -> None:
    assert np.isfinite(few_steps("published-75", recordings, tmp_path / "run", steps=1)["loss"])


def flop(work: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("rate", [75, 40])
def test_its_cost_is_as_the_docs_say(rate: int) -> None:
    """Three times the codec's forward pass a step (there and back), and nine times the discriminators': they learn from
    original and copy (six), and the codec learns from what they see in the original (one) and in the copy (two)."""
    run = recipe(f"published-{rate}")
    seconds = run.crop / run.codec.sample_rate
    with torch.device("meta"):
        codec, samples = Codec(run.codec), torch.zeros(1, run.crop)
        once = flop(lambda: codec.decoder(codec.encoder(samples[:, None]))) / seconds
    discriminators = Discriminators(run.discriminator)
    with FakeTensorMode(allow_non_fake_inputs=True):
        beside = flop(lambda: discriminators.features(torch.zeros(1, run.crop))) / seconds
    step = 3 * once + 9 * beside
    whole = step * run.steps * run.batch_size * seconds
    count = [sum(weight.numel() for weight in one.parameters()) / 1e6 for one in (codec, discriminators)]
    hours = whole / PEAKS["H100"] / 3600
    row = (f"| `published-{rate}`, `causal-{rate}` | {count[0]:.1f} M | {count[1]:.1f} M | {once / 1e9:.1f} | "
           f"{step / 1e9:.0f} | {whole / 1e18:.0f} · 10¹⁸ | {hours:.0f} | {hours / 0.3:.0f} |")  # fmt: skip
    assert row in DOCS.read_text(encoding="utf-8"), row
