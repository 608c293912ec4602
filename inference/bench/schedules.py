"""The speech of a reply made token by token, by our schedule and by the reference's, on one set of random weights.

See bench_streaming.py, which measures them.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.store import read_model_config
from ...model.errors import DuologueError
from ...model.layers.transformer import RopeScaling
from ...model.speech_decoder.speech_decoder import SpeechDecoder
from ...model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from ...model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig

PIECE = 40  # units that the reference's vocoder speaks at a time
PRESETS = ("nano", "llama-omni-8b")


@dataclass(frozen=True, kw_only=True)
class ScheduleCost:
    """What a token becomes: English at 3 tokens a second and 25 units a second, repeats merged."""

    units: int = 8
    frames: int = 2  # of 20 ms, each unit


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The parts that a reply's speech needs, and the language model before them."""

    unit_decoder: UnitDecoderConfig
    vocoder: UnitVocoderConfig
    llm: dict[str, Any]


def sizes_of(preset: str) -> Sizes:
    """nano's sizes as its checkpoint states them, or LLaMA-Omni's as released.

    Raises:
        DuologueError: another name.
    """
    if preset == "nano":
        config = read_model_config("nano")
        assert isinstance(config.unit_decoder, UnitDecoderConfig) and isinstance(config.vocoder, UnitVocoderConfig)
        return Sizes(unit_decoder=config.unit_decoder, vocoder=config.vocoder, llm=config.llm)
    if preset == "llama-omni-8b":
        decoder = UnitDecoderConfig(
            in_dim=4096, dim=4096, layers=2, heads=32, ffn_dim=11008, units=1000, upsample=25, rope_theta=500000.0,
            rope_scaling=RopeScaling(),
        )  # fmt: skip
        llm = {
            "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "max_position_embeddings": 131072, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
        }  # fmt: skip
        return Sizes(unit_decoder=decoder, vocoder=UnitVocoderConfig(units=1000), llm=llm)
    raise DuologueError(f"there is no preset {preset!r}; it must be {' or '.join(PRESETS)}")


def with_width(sizes: Sizes, width: int) -> Sizes:
    """The same with a unit decoder of another width, as many channels a head."""
    c = sizes.unit_decoder
    head = c.dim // c.heads
    if width % head:
        raise DuologueError(f"width {width} must be a multiple of the {head} channels of a head")
    ffn = c.ffn_dim * width // c.dim
    return dataclasses.replace(
        sizes, unit_decoder=dataclasses.replace(c, in_dim=width, dim=width, heads=width // head, ffn_dim=ffn)
    )


class Stopwatch:
    """Seconds at the end of each token, one list a stage."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # With one thread on a CPU, computing time: what others do on a busy machine is then not counted.
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.thread_time if alone else time.perf_counter
        self.spent: dict[str, list[float]] = {}

    def run(self, stage: str, work: Callable[[], Tensor]) -> Tensor:
        """Run ``work`` and add its time to the stage's present token."""
        self._wait()
        start = self.clock()
        result = work()
        self._wait()
        self.spent[stage][-1] += self.clock() - start
        return result

    def token(self, stages: tuple[str, ...]) -> None:
        """A token begins."""
        for stage in stages:
            self.spent.setdefault(stage, []).append(0.0)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


STAGES = ("unit_decoder", "vocoder")


@dataclass
class Cost:
    """What one reply cost: seconds of each token by stage, and at which token the first audio came out."""

    spent: dict[str, list[float]]
    first_audio_token: int | None

    def total(self, stage: str, tokens: int | None = None) -> float:
        return sum(self.spent[stage][:tokens])

    @property
    def first_audio_s(self) -> float | None:
        """Computing time from the reply's first state to its first samples."""
        if self.first_audio_token is None:
            return None
        return sum(self.total(stage, self.first_audio_token) for stage in self.spent)


class TimedSpeechDecoder(SpeechDecoder):
    """A speech decoder with random weights, run by either schedule."""

    vocoder: UnitVocoder

    def __init__(self, sizes: Sizes, load: ScheduleCost) -> None:
        super().__init__(UnitDecoder(sizes.unit_decoder), UnitVocoder(sizes.vocoder))
        self.load = load
        with torch.no_grad():  # every unit lasts `frames`: the durations' logarithm is the bias alone
            self.vocoder.duration.proj.weight.zero_()
            self.vocoder.duration.proj.bias.fill_(math.log(1 + load.frames))

    def set_units(self, tokens: int, device: torch.device) -> Tensor:
        """The units (1, U) that so many tokens are taken to become."""
        count = self.vocoder.config.units
        return (torch.arange(tokens * self.load.units, device=device) * 7 % count)[None]  # (1, U)

    def ours(self, hidden: Tensor) -> Cost:
        """States (1, T, D), one at a time."""
        watch = Stopwatch(hidden.device)
        fused = self.beside(hidden, lambda states: states)
        units = self.set_units(hidden.shape[1], hidden.device)
        state, first = self.init_state(), None
        for t in range(hidden.shape[1]):
            watch.token(STAGES)
            now = slice(t, t + 1)
            step = fused[:, now] if fused is not None else None
            watch.run("unit_decoder", lambda: self.units(hidden[:, now], state, step))  # noqa: B023
            new = units[:, t * self.load.units : (t + 1) * self.load.units]
            pcm = watch.run("vocoder", lambda: self.sound(new, state))  # noqa: B023
            first = t + 1 if first is None and pcm.shape[1] else first
        watch.run("vocoder", lambda: self.flush(state))
        return Cost(watch.spent, first)

    def reference(self, hidden: Tensor) -> Cost:
        """The same by the reference's schedule. Its decoder has no band: the whole prefix is what it runs over."""
        watch = Stopwatch(hidden.device)
        fused = self.beside(hidden, lambda states: states)
        units = self.set_units(hidden.shape[1], hidden.device)
        spoken, first = 0, None
        for t in range(1, hidden.shape[1] + 1):
            watch.token(STAGES)
            prefix = fused[:, :t] if fused is not None else None
            watch.run("unit_decoder", lambda: self.collapse(self.unit_decoder(hidden[:, :t], prefix)))  # noqa: B023
            last = t == hidden.shape[1]
            while t * self.load.units - spoken >= PIECE or (last and spoken < t * self.load.units):
                piece = units[:, spoken : min(spoken + PIECE, t * self.load.units)]
                watch.run("vocoder", lambda: self.vocoder(piece))  # noqa: B023
                spoken += piece.shape[1]
                first = t if first is None else first
        return Cost(watch.spent, first)


def exponent(cost: Cost, stage: str, tokens: list[int]) -> float | None:
    """How total cost grows with the reply's length: the slope of log(cost) over log(tokens)."""
    if len(tokens) < 2:
        return None
    x = torch.tensor([math.log(n) for n in tokens])
    y = torch.tensor([math.log(cost.total(stage, n)) for n in tokens])
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / x.square().sum())
