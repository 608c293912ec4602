"""Are the units any good? Purity against the phones that flite said, bits a second, how they bear a shift."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..speech.engine import SynthesisError, Voice
from ..speech.engines import flite
from ..speech.synthesis import given
from .kmeans import Units


def flite_phones(text: str, voice: Voice) -> list[tuple[str, float]]:
    """The phones that flite says for `text` and when each ends, in seconds. Raises SynthesisError."""
    if voice.engine != "flite":
        raise SynthesisError(f"only flite tells its phones, not {voice.key}")
    flite.require()
    command = ["flite", "-voice", voice.name, "-psdur", "-t", given(text, voice), "none"]
    printed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    pairs = [item.rpartition(":") for item in printed.stdout.split()]
    if printed.returncode or not pairs:
        raise SynthesisError(f"{voice.key} told no phones for {text!r}")
    return [(phone, float(end)) for phone, _, end in pairs]


def frame_labels(phones: Sequence[tuple[str, float]], frames: int, frame_s: float = 0.02) -> list[str]:
    """The phone at the middle of each of `frames` frames."""
    ends = np.array([end for _, end in phones])
    middles = (np.arange(frames) + 0.5) * frame_s
    return [phones[min(int(at), len(phones) - 1)][0] for at in np.searchsorted(ends, middles, side="right")]


def phone_purity(units: Sequence[int] | Tensor, labels: Sequence[str]) -> float:
    """The fraction of frames right if every unit stood for its most frequent phone (HuBERT, arXiv 2106.07447, 4.3)."""
    counts: dict[int, dict[str, int]] = {}
    for unit, label in zip(torch.as_tensor(units).tolist(), labels, strict=True):
        of_unit = counts.setdefault(unit, {})
        of_unit[label] = of_unit.get(label, 0) + 1
    return sum(max(of_unit.values()) for of_unit in counts.values()) / max(1, len(labels))


def bit_rate(spoken: Sequence[Tensor], seconds: float) -> float:
    """Bits a second of units as they are written, (U,) each: their number a second times the entropy of their choice.

    Durations are not counted. Source: Dunbar et al., "The Zero Resource Speech Challenge 2019" (arXiv 1904.11469).
    """
    _, counts = torch.cat(list(spoken)).unique(return_counts=True)
    chance = counts / counts.sum()
    return float(-(chance * chance.log2()).sum() * counts.sum()) / seconds


def shift_stability(units: Units, waveforms: Sequence[Tensor], shifts: Sequence[int] = tuple(range(1, 21))) -> float:
    """The fraction of units that stay the same when whole frames of silence precede the clip, over clips and shifts."""
    same = total = 0
    for waveform in waveforms:
        plain = units.encode(waveform)  # (T,)
        for shift in shifts:
            shifted = units.encode(F.pad(waveform, (shift * units.hop, 0)))[shift:]  # (T,)
            same += int((shifted == plain).sum())
            total += len(plain)
    return same / max(1, total)


def judge(units: Units, clips: Sequence[tuple[Tensor, str]], voice: Voice | None) -> dict[str, float]:
    """Figures to compare units by: {"phone_purity", "shift_stability"}; the former only for a voice of flite's.

    Args:
        clips: waveform (n,) and text of each. Stability takes a fifth of them, at shifts of 1, 3, 8 and 20 frames.
        voice: who says them, in their own manner.
    """
    metrics = {}
    if voice is not None and voice.engine == "flite":
        found = [units.encode(waveform) for waveform, _ in clips]  # (T,) each
        frame_s = units.hop / units.sample_rate
        labels = [
            frame_labels(flite_phones(text, voice), len(u), frame_s) for u, (_, text) in zip(found, clips, strict=True)
        ]
        metrics["phone_purity"] = round(phone_purity(torch.cat(found), [one for of in labels for one in of]), 3)
    few = [waveform for waveform, _ in clips[: max(1, len(clips) // 5)]]
    metrics["shift_stability"] = round(shift_stability(units, few, (1, 3, 8, 20)), 3)
    return metrics
