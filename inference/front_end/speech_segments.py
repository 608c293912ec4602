"""Where the speech of a recording is: it is cut there, so that silence changes nothing and long speech is heard whole.

    samples (n,) at 16 kHz -> framed -> probabilities of speech, one every 32 ms -> what is to be heard, in samples

Whether somebody speaks is decided as in a session (speech_gate.py). Sounds that are no speech are heard beside speech,
and where something is asked about them in writing; a recording of nothing else holds nothing to answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from ...model.duplex.vad import SAMPLE_RATE, WINDOW
from ...model.speech_lm import SpeechLM
from .speech_gate import WINDOW_MS, GateConfig, SpeechGate

SILENCE = 10 ** (-50 / 20)  # a recording that never exceeds -50 dBFS holds no speech
NOTHING = "no speech was heard"
_PIECE = 16 * WINDOW  # samples that the detector is given at a time


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """Milliseconds, seconds, dB.

    margin_ms: heard before and behind speech, for the quiet beginnings and ends of words.
    shortest_ms: less speech than that, by itself, is none.
    certain: a recording holds speech only if this probability of it is reached somewhere. (A noise that begins all at
        once is taken for speech at first, but not so surely.)
    pause_ms: longer silence inside a turn is shortened to this.
    cut_ms, together_s: what is only written down is cut at pauses from cut_ms on, but for what lasts no longer than
        together_s: most likely one sentence.
    longest_s: of speech, pauses included, that is heard at once; more is cut at its longest pauses.
    sound_db: sound so far under the speech is silence; about_db: the same where it is asked about in writing.
    """

    gate: GateConfig = field(default_factory=GateConfig)
    margin_ms: int = 320
    shortest_ms: int = 128
    certain: float = 0.9
    pause_ms: int = 960
    cut_ms: int = 224
    together_s: float = 3.0
    longest_s: float = 8.0
    sound_db: float = 16.0
    about_db: float = 30.0


CONFIG = SegmentConfig()


@dataclass(frozen=True)
class Recording:
    """What is heard of a recording. seconds: its length as it was recorded.

    parts: samples (m,) each: none: nothing was said; one: it is heard as one turn; more: too long for one, they are
        written down one after the other.
    """

    seconds: float
    parts: list[np.ndarray]
    warnings: tuple[str, ...] = ()


def whole(model: SpeechLM, waveform: np.ndarray) -> Recording:
    """All of a recording, as it is."""
    return Recording(len(waveform) / model.config.mel.sample_rate, [waveform])


def asked(
    model: SpeechLM, waveform: np.ndarray, clip: np.ndarray, probabilities: np.ndarray, about: bool = False
) -> Recording:
    """What is heard of a question.

    Args:
        waveform, clip, probabilities: the recording, and what :func:`framed` and :func:`detect` make of it.
        about: something is asked about it in writing, so that it may be a sound alone.
    """
    seconds, runs = len(waveform) / SAMPLE_RATE, spoken(probabilities)
    turn = _turn(clip, runs, about, hears_s(model))
    if not len(turn):
        return Recording(seconds, [], (_nothing(waveform),))
    longest, whole_clips = longest_s(model), model.config.listen_s is not None and not model.streams
    speech = _length(runs, CONFIG) * WINDOW / SAMPLE_RATE
    if speech > longest and model.config.layout.transcript is not None:
        return Recording(seconds, parts(clip, runs, longest, not model.streams))
    if whole_clips and _little(waveform, turn):
        turn = waveform  # the released numbers of such an encoder are those of the clips as they were recorded
    if whole_clips and len(turn) > longest * SAMPLE_RATE:
        return Recording(seconds, [turn], (f"only the first {longest:.0f} s were heard",))
    return Recording(seconds, [turn])


def dictated(model: SpeechLM, waveform: np.ndarray, clip: np.ndarray, probabilities: np.ndarray) -> Recording:
    """What is heard of a recording whose words are to be written down: its speech, in parts."""
    found = parts(clip, spoken(probabilities), longest_s(model), not model.streams)
    if len(found) == 1 and not model.streams and _little(waveform, found[0]):
        found = [waveform]
    return Recording(len(waveform) / SAMPLE_RATE, found, () if found else (_nothing(waveform),))


def hears_s(model: SpeechLM) -> float:
    """Seconds that a model's encoder can hear at once: those that it is given, or has positions for."""
    config = model.config
    if config.listen_s is not None and not model.streams:
        return config.listen_s
    samples = config.encoder.n_audio_ctx / Fraction(model.mel.rate * model.encoder.rate)
    return float(samples / config.mel.sample_rate)


def longest_s(model: SpeechLM, config: SegmentConfig = CONFIG) -> float:
    """Seconds of speech that a model is given at once."""
    return min(config.longest_s, hears_s(model)) if model.streams else hears_s(model)


def _little(waveform: np.ndarray, heard: np.ndarray) -> bool:
    """Whether hardly anything was cut."""
    return len(waveform) - len(heard) <= CONFIG.pause_ms * SAMPLE_RATE // 1000


def _nothing(waveform: np.ndarray) -> str:
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak >= SILENCE:
        return f"{NOTHING}: there is sound in the recording, which can be asked about in writing"
    level = f"it never exceeds {20 * np.log10(peak):.0f} dBFS" if peak > 0 else "all samples are zero"
    return f"{NOTHING}: the recording is silent ({level})"


def framed(waveform: np.ndarray, config: SegmentConfig = CONFIG) -> np.ndarray:
    """(n,) -> (m,): from a margin before its first audible sample to one behind its last; (0,) if there is none.

    So what stands at a sample does not depend on how much silence there was at either end.
    """
    audible = np.abs(waveform) > SILENCE
    if not audible.any():
        return np.zeros(0, np.float32)
    first, last = int(audible.argmax()), len(audible) - int(audible[::-1].argmax())
    margin = config.margin_ms // WINDOW_MS * WINDOW
    start, stop = first - margin, last + margin + -(last - first) % WINDOW
    heard = waveform[max(0, start) : stop].astype(np.float32)
    return np.pad(heard, (max(0, -start), max(0, stop - len(waveform))))


def pieces(clip: np.ndarray) -> Iterator[np.ndarray]:
    """What the detector is given, one after the other."""
    return (clip[start : start + _PIECE] for start in range(0, len(clip), _PIECE))


@torch.inference_mode()
def detect(vad: Any, clip: np.ndarray) -> np.ndarray:
    """Probabilities of speech (n // 512,)."""
    state = vad.init_state()
    found = [vad.step(torch.from_numpy(piece)[None], state)[0].numpy() for piece in pieces(clip)]
    return np.concatenate([np.zeros(0, np.float32), *found])


def spoken(probabilities: np.ndarray, config: SegmentConfig = CONFIG) -> list[tuple[int, int]]:
    """Runs of windows [first, end) in which somebody speaks."""
    gate, runs, start = SpeechGate(config.gate), [], 0
    for at, probability in enumerate([*probabilities.tolist(), 0.0]):
        was_open = gate.open
        gate.push(probability)
        if gate.open and not was_open:
            start = at + 1 - gate.speech_ms // WINDOW_MS
        elif was_open and not gate.open:
            runs.append((start, at))
    if not any(probabilities[first:end].max() >= config.certain for first, end in runs):
        return []
    return [run for near in _grouped(runs, config.cut_ms // WINDOW_MS) if _speech_ms(near) >= config.shortest_ms
            for run in near]  # fmt: skip


def parts(
    clip: np.ndarray, runs: list[tuple[int, int]], longest_s: float, pack: bool = False, config: SegmentConfig = CONFIG
) -> list[np.ndarray]:
    """What is said in these runs, samples (m,) each, none longer than ``longest_s``.

    pack: as few as can be, for a model that takes as long over a short one.
    """
    return [part for _, _, part in _placed(clip, runs, longest_s, pack, config)]


def complete(
    model: SpeechLM, clip: np.ndarray, probabilities: np.ndarray, config: SegmentConfig = CONFIG
) -> tuple[list[np.ndarray], int]:
    """Of speech that goes on behind this clip: the parts that are complete, samples (m,) each, and the sample at which
    the rest begins."""
    found = list(_placed(clip, spoken(probabilities), longest_s(model), not model.streams, config))
    pause = config.pause_ms // WINDOW_MS
    end = len(clip) // WINDOW
    if found and found[-1][1] > end - pause:  # the last may go on
        return [part for _, _, part in found[:-1]], found[-1][0] * WINDOW
    return [part for _, _, part in found], max(0, end - pause) * WINDOW


def _placed(
    clip: np.ndarray, runs: list[tuple[int, int]], longest_s: float, pack: bool, config: SegmentConfig
) -> Iterator[tuple[int, int, np.ndarray]]:
    """The parts, and the windows [start, stop) that each comes from."""
    margin, most = config.margin_ms // WINDOW_MS, int(longest_s * SAMPLE_RATE) // WINDOW
    small = most - 2 * margin if pack else int(config.together_s * SAMPLE_RATE) // WINDOW
    levels, found = _levels(clip), []
    for near in _together(_grouped(runs, config.cut_ms // WINDOW_MS), small, config):
        found += [near] if _length(near, config) <= most - 2 * margin else _cut(near, levels, most - 2 * margin)
    edges = [[(0, -2 * margin)], *found, [(len(levels) + 2 * margin, 0)]]
    for before, part, behind in zip(edges, found, edges[2:], strict=False):
        first, end = part[0][0], part[-1][1]
        start = max(0, first - min(margin, (first - before[-1][1]) // 2))
        stop = end + min(margin, (behind[0][0] - end + 1) // 2)
        yield start, stop, _joined(clip, part, start, stop, config)


def _turn(
    clip: np.ndarray, runs: list[tuple[int, int]], about: bool, most_s: float, config: SegmentConfig = CONFIG
) -> np.ndarray:
    """Speech and sounds as one turn, (m,): (0,) if there is nothing. Where they are longer than that, speech alone."""
    levels = _levels(clip)
    if not len(levels) or not (runs or about):
        return clip[:0]
    speech = np.zeros(len(levels), bool)
    for first, end in runs:
        speech[first:end] = True
    usual = np.sqrt(np.mean(np.square(levels[speech]))) if runs else levels.max()
    far = config.about_db if about else config.sound_db
    sound = _runs(speech | (levels > usual * 10 ** (-far / 20)))
    if runs and _length(sound, config) * WINDOW > most_s * SAMPLE_RATE:
        sound = runs
    margin = config.margin_ms // WINDOW_MS
    return _joined(clip, sound, max(0, sound[0][0] - margin), sound[-1][1] + margin, config)


def _grouped(runs: list[tuple[int, int]], gap: int) -> list[list[tuple[int, int]]]:
    """Runs with fewer windows than ``gap`` between them, together."""
    groups: list[list[tuple[int, int]]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] < gap:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _speech_ms(runs: list[tuple[int, int]]) -> int:
    return WINDOW_MS * sum(end - first for first, end in runs)


def _levels(clip: np.ndarray) -> np.ndarray:
    """Root mean square of each window (n // 512,)."""
    whole = clip[: len(clip) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1))


def _together(groups: list[list[tuple[int, int]]], small: int, config: SegmentConfig) -> list[list[tuple[int, int]]]:
    """Neighbours that are no more than so many windows together are one, those with the shortest pauses first."""
    pauses = [after[0][0] - before[-1][1] for before, after in itertools.pairwise(groups)]
    tied = [False] * len(pauses)
    for i in sorted(range(len(pauses)), key=pauses.__getitem__):
        low, high = i, i + 1
        while low > 0 and tied[low - 1]:
            low -= 1
        while high < len(tied) and tied[high]:
            high += 1
        tied[i] = _length(list(itertools.chain(*groups[low : high + 1])), config) <= small
    out = groups[:1]
    for group, with_before in zip(groups[1:], tied, strict=True):
        if with_before:
            out[-1] = out[-1] + group
        else:
            out.append(group)
    return out


def _length(runs: list[tuple[int, int]], config: SegmentConfig) -> int:
    """Windows from the first to the last, long pauses shortened: 0 where there are none."""
    pauses = sum(min(b[0] - a[1], config.pause_ms // WINDOW_MS) for a, b in itertools.pairwise(runs))
    return pauses + sum(end - first for first, end in runs)


def _cut(runs: list[tuple[int, int]], levels: np.ndarray, most: int) -> list[list[tuple[int, int]]]:
    """Speech as several parts of at most so many windows: cut in two where the pause is longest, and each half again;
    where there is none, at its quietest place about the middle."""
    found, waiting = [], [runs]
    while waiting:
        runs = waiting.pop()
        first, end = runs[0][0], runs[-1][1]
        if end - first <= most:
            found.append(runs)
        elif len(runs) > 1:
            middle = (first + end) / 2
            gaps = [(after[0] - before[1], -abs(before[1] - middle)) for before, after in itertools.pairwise(runs)]
            at = 1 + gaps.index(max(gaps))
            waiting += [runs[at:], runs[:at]]
        else:
            quarter = (end - first) // 4
            nearby = np.convolve(levels[first + quarter : end - quarter], np.ones(3), "same")
            place = first + quarter + int(np.argmin(nearby))
            waiting += [[(place, end)], [(first, place)]]
    return found


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Of windows (n,): [first, end) of each stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _joined(clip: np.ndarray, runs: list[tuple[int, int]], start: int, stop: int, config: SegmentConfig) -> np.ndarray:
    """The windows from ``start`` to ``stop``, long pauses between the runs shortened in their middle."""
    pause = config.pause_ms // WINDOW_MS
    long = [(a[1], b[0]) for a, b in itertools.pairwise(runs) if b[0] - a[1] > pause]
    firsts = [start, *(behind - pause // 2 for _, behind in long)]
    ends = [*(before + pause - pause // 2 for before, _ in long), stop]
    return np.concatenate([clip[a * WINDOW : b * WINDOW] for a, b in zip(firsts, ends, strict=True)])
