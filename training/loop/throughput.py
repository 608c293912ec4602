"""Where a run's time goes: how long it waits for data, how much of a batch is padding, how much it takes in a second.

MFU (model FLOPs utilisation) is the fraction of a GPU's peak that the model's own arithmetic takes: Chowdhery et al.,
"PaLM" (arXiv 2204.02311), appendix B, with the operations counted by torch rather than by formula.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# Dense bf16 FLOP/s by the makers' data sheets; a name that is contained in the device's.
PEAKS = {"B200": 2.25e15, "H200": 9.89e14, "H100": 9.89e14, "A100": 3.12e14, "L40S": 3.62e14, "L4": 1.21e14}


@dataclass(frozen=True)
class StepCost:
    """How much a batch holds: ``real`` out of ``padded``, in ``unit`` ("tokens", or "s" of speech)."""

    real: float
    padded: float
    unit: str


def speech_load(lengths: Tensor, samples: Tensor, sample_rate: int) -> StepCost:
    """Of clips of (B,) real samples padded to (B, n)."""
    return StepCost(float(lengths.sum()) / sample_rate, samples.numel() / sample_rate, "speech_s")


def token_load(mask: Tensor) -> StepCost:
    """Of rows of tokens with a (B, L) mask of the real ones."""
    return StepCost(float(mask.sum()), mask.numel(), "tokens")


class Throughput:
    """Sums since the last :meth:`metrics`."""

    def __init__(self) -> None:
        self.flops_a_step = 0.0
        self._reset()

    def _reset(self) -> None:
        self._since = time.perf_counter()
        self._waited = self._real = self._padded = 0.0
        self._steps = 0
        self._unit = ""

    def waiting(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches, with the time spent on waiting for them counted."""
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._waited += time.perf_counter() - start
            yield batch

    def add(self, load: StepCost | None) -> None:
        """One more batch."""
        if load is not None:
            self._real += load.real
            self._padded += load.padded
            self._unit = load.unit

    def step(self) -> None:
        """One more optimiser step."""
        self._steps += 1

    def count_flops(self, step: Callable[[], T]) -> T:
        """Run ``step`` and remember how many floating-point operations its matrices took."""
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            made = step()
        self.flops_a_step = float(counter.get_total_flops())
        return made

    def metrics(self, device: torch.device, processes: int = 1) -> dict[str, float]:
        """``waiting`` and ``padding`` (shares), ``steps_s``, ``<unit>_s`` of all processes, ``mfu`` on a known GPU."""
        elapsed = max(1e-9, time.perf_counter() - self._since)
        out: dict[str, Any] = {"waiting": self._waited / elapsed, "steps_s": self._steps / elapsed}
        if self._padded:
            out["padding"] = 1 - self._real / self._padded
            out[f"{self._unit}_s"] = processes * self._real / elapsed
        if self.flops_a_step and device.type == "cuda":
            name = torch.cuda.get_device_name(device)
            peak = next((peak for key, peak in PEAKS.items() if key in name), None)
            if peak is not None:
                out["mfu"] = self.flops_a_step * self._steps / elapsed / peak
        self._reset()
        return out
