"""Where the speech of a recording is: it is cut there, so that silence changes nothing and long speech is heard whole.

    samples (n,) at 16 kHz -> framed -> probabilities of speech, one every 32 ms -> what is to be heard, in samples

Whether somebody speaks is decided as in a session (speech_gate.py). Sounds that are no speech are heard beside speech,
and where something is asked about them in writing; a recording of nothing else holds nothing to answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...model.dialogue_model import DialogueModel
from ...model.duplex.vad import SAMPLE_RATE, WINDOW
from .speech_gate import WINDOW_MS, GateConfig, SpeechGate

SILENCE = 10 ** (-50 / 20)  # a recording that never exceeds -50 dBFS holds no speech
NOTHING = "no speech was heard"
NO_WORDS = f"{NOTHING}: no words were understood in the recording"
MARGIN_MS, PAUSE_MS = 320, 960  # heard before and behind speech, for quiet beginnings and ends; of a pause, at most
LONGEST_S = 8.0  # of speech, pauses included, that is heard at once; more is cut at its longest pauses
_PIECE = 16 * WINDOW  # samples that the detector is given at a time
_MARGIN, _PAUSE = MARGIN_MS // WINDOW_MS, PAUSE_MS // WINDOW_MS  # windows
SHORTEST_MS = 128  # less speech than that, by itself, is none
# Only a recording that reaches this probability holds speech: a noise that begins all at once is taken for speech at
# first, but not so surely.
_CERTAIN = 0.9
_CUT = 224 // WINDOW_MS  # windows: what is only written down is cut at pauses from here on,
_TOGETHER_S = 3.0  # but for what lasts no longer: most likely one sentence
SOUND_DB, _ABOUT_DB = 16.0, 30.0  # sound so far under the speech is silence; where it is asked about in writing

Run = tuple[int, int]  # windows [first, end)


@dataclass(frozen=True)
class Place:
    """Where a part stands in its recording.

    stretches: [first, end) samples of the recording, which are the part one after the other: long pauses are left out.
    speech: mean probability of speech in it.
    """

    stretches: list[Run]
    speech: float

    def in_recording(self, seconds: float, *, end: bool = False) -> float:
        """A time in the part as one in the recording (s). ``end``: of what ends there, and not of what begins there."""
        at, rest = seconds * SAMPLE_RATE, 0.0
        for first, last in self.stretches:
            if at < last - first or (end and at <= last - first):
                return max(0.0, (first + at) / SAMPLE_RATE)
            at, rest = at - (last - first), last
        return rest / SAMPLE_RATE


@dataclass(frozen=True)
class Recording:
    """What is heard of a recording. seconds: its length as it was recorded.

    parts: samples (m,) each: none: nothing was said; one: it is heard as one turn; more: too long for one, they are
        written down one after the other.
    together: the parts are recordings of their own, which are heard in one turn.
    places: where the parts stand in the recording, if they are to be written down.
    """

    seconds: float
    parts: list[np.ndarray]
    warnings: tuple[str, ...] = ()
    together: bool = False
    places: tuple[Place, ...] = ()


def whole(model: DialogueModel, waveforms: list[np.ndarray]) -> Recording:
    """All of one recording or several, as they are; of each no more than a model of sounds can hear."""
    seconds = sum(map(len, waveforms)) / model.input_rate
    if not model.hears_sounds:
        return Recording(seconds, waveforms, together=True)
    most = int(model.longest_s * model.input_rate)
    warnings = (
        f"recording {at} was cut after {model.longest_s:.0f} s"
        for at, waveform in enumerate(waveforms, 1)
        if len(waveform) > most
    )
    return Recording(seconds, [waveform[:most] for waveform in waveforms], tuple(warnings), together=True)


def asked(
    model: DialogueModel, waveform: np.ndarray, clip: np.ndarray, probabilities: np.ndarray, about: bool = False
) -> Recording:
    """What is heard of a question.

    Args:
        waveform, clip, probabilities: the recording, and what :func:`framed` and :func:`detect` make of it.
        about: something is asked about it in writing, so that it may be a sound alone.
    """
    seconds, runs = len(waveform) / SAMPLE_RATE, spoken(probabilities)
    turn = _turn(clip, runs, about, model.longest_s)
    if not len(turn):
        return Recording(seconds, [], (_nothing(waveform),))
    longest, whole_clips = longest_s(model), model.clip_s is not None
    speech = _length(runs) * WINDOW / SAMPLE_RATE
    if speech > longest and model.transcribes:
        return Recording(seconds, parts(clip, runs, longest, not model.streams))
    if whole_clips and _little(waveform, turn):
        turn = waveform  # the released numbers of such an encoder are those of the clips as they were recorded
    if whole_clips and len(turn) > longest * SAMPLE_RATE:
        return Recording(seconds, [turn], (f"only the first {longest:.0f} s were heard",))
    return Recording(seconds, [turn])


def dictated(model: DialogueModel, waveform: np.ndarray, clip: np.ndarray, probabilities: np.ndarray) -> Recording:
    """What is heard of a recording whose words are to be written down: its speech, in parts.

    clip: (m,), what :func:`framed` makes of the recording, or the recording itself.
    """
    placed = list(_placed(clip, spoken(probabilities), longest_s(model), not model.streams))
    found, offset = [_joined(clip, each) for each in placed], 0 if clip is waveform else _frame(waveform)[0]
    places = [_place(each, probabilities, offset) for each in placed]
    if len(found) == 1 and not model.streams and _little(waveform, found[0]):
        found, places = [waveform], [Place([(0, len(waveform))], places[0].speech)]
    return Recording(len(waveform) / SAMPLE_RATE, found, () if found else (_nothing(waveform),), places=tuple(places))


def _place(windows: list[Run], probabilities: np.ndarray, offset: int) -> Place:
    """Of stretches of windows; offset: the recording's sample at which the first window begins."""
    heard = np.concatenate([probabilities[max(0, first) : end] for first, end in windows])
    return Place([(offset + a * WINDOW, offset + b * WINDOW) for a, b in windows], float(heard.mean()))


def longest_s(model: DialogueModel) -> float:
    """Seconds of speech that a model is given at once."""
    return min(LONGEST_S, model.longest_s) if model.streams else model.longest_s


def _little(waveform: np.ndarray, heard: np.ndarray) -> bool:
    """Whether hardly anything was cut."""
    return len(waveform) - len(heard) <= PAUSE_MS * SAMPLE_RATE // 1000


def _nothing(waveform: np.ndarray) -> str:
    peak = float(np.abs(waveform).max(initial=0.0))
    if peak >= SILENCE:
        return f"{NOTHING}: there is sound in the recording, which can be asked about in writing"
    level = f"it never exceeds {20 * np.log10(peak):.0f} dBFS" if peak > 0 else "all samples are zero"
    return f"{NOTHING}: the recording is silent ({level})"


def framed(waveform: np.ndarray) -> np.ndarray:
    """(n,) -> (m,): from a margin before its first audible sample to one behind its last; (0,) if there is none.

    So what stands at a sample does not depend on how much silence there was at either end.
    """
    start, stop = _frame(waveform)
    if start == stop:
        return np.zeros(0, np.float32)
    heard = waveform[max(0, start) : stop].astype(np.float32)
    return np.pad(heard, (max(0, -start), max(0, stop - len(waveform))))


def _frame(waveform: np.ndarray) -> Run:
    """The samples [start, stop) that :func:`framed` gives, perhaps before the recording's first and behind its last."""
    audible = np.abs(waveform) > SILENCE
    if not audible.any():
        return 0, 0
    first, last = int(audible.argmax()), len(audible) - int(audible[::-1].argmax())
    return first - _MARGIN * WINDOW, last + _MARGIN * WINDOW + -(last - first) % WINDOW


def pieces(clip: np.ndarray) -> Iterator[np.ndarray]:
    """What the detector is given, one after the other."""
    return (clip[start : start + _PIECE] for start in range(0, len(clip), _PIECE))


@torch.inference_mode()
def detect(vad: Any, clip: np.ndarray) -> np.ndarray:
    """Probabilities of speech (n // 512,)."""
    state = vad.init_state()
    found = [vad.step(torch.from_numpy(piece)[None], state)[0].numpy() for piece in pieces(clip)]
    return np.concatenate([np.zeros(0, np.float32), *found])


def spoken(probabilities: np.ndarray) -> list[Run]:
    """Runs of windows [first, end) in which somebody speaks."""
    gate, runs, start = SpeechGate(GateConfig()), [], 0
    for at, probability in enumerate([*probabilities.tolist(), 0.0]):
        was_open = gate.open
        gate.push(probability)
        if gate.open and not was_open:
            start = at + 1 - gate.speech_ms // WINDOW_MS
        elif was_open and not gate.open:
            runs.append((start, at))
    if not any(probabilities[first:end].max() >= _CERTAIN for first, end in runs):
        return []
    groups = [near for near in _grouped(runs) if WINDOW_MS * sum(end - first for first, end in near) >= SHORTEST_MS]
    return list(itertools.chain(*groups))


def parts(clip: np.ndarray, runs: list[Run], longest_s: float, pack: bool = False) -> list[np.ndarray]:
    """What is said in these runs, samples (m,) each, none longer than ``longest_s``.

    pack: as few as can be, for a model that takes as long over a short one.
    """
    return [_joined(clip, stretches) for stretches in _placed(clip, runs, longest_s, pack)]


def complete(model: DialogueModel, clip: np.ndarray, probabilities: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Of speech that goes on behind this clip: the parts that are complete, samples (m,) each, and the sample at which
    the rest begins."""
    found = list(_placed(clip, spoken(probabilities), longest_s(model), not model.streams))
    end = len(clip) // WINDOW
    if found and found[-1][-1][1] > end - _PAUSE:  # the last may go on
        return [_joined(clip, stretches) for stretches in found[:-1]], found[-1][0][0] * WINDOW
    return [_joined(clip, stretches) for stretches in found], max(0, end - _PAUSE) * WINDOW


def _placed(clip: np.ndarray, runs: list[Run], longest_s: float, pack: bool) -> Iterator[list[Run]]:
    """The parts, each as the stretches of windows that it is made of."""
    most = int(longest_s * SAMPLE_RATE) // WINDOW - 2 * _MARGIN
    small = most if pack else int(_TOGETHER_S * SAMPLE_RATE) // WINDOW
    levels, found = _levels(clip), []
    for near in _together(_grouped(runs), small):
        found += [near] if _length(near) <= most else _cut(near, levels, most)
    edges = [[(0, -2 * _MARGIN)], *found, [(len(levels) + 2 * _MARGIN, 0)]]
    for before, part, behind in zip(edges, found, edges[2:], strict=False):
        first, end = part[0][0], part[-1][1]
        start = max(0, first - min(_MARGIN, (first - before[-1][1]) // 2))
        stop = end + min(_MARGIN, (behind[0][0] - end + 1) // 2)
        yield _stretches(part, start, stop)


def _turn(clip: np.ndarray, runs: list[Run], about: bool, most_s: float) -> np.ndarray:
    """Speech and sounds as one turn, (m,): (0,) if there is nothing. Where they are longer than that, speech alone."""
    levels = _levels(clip)
    if not len(levels) or not (runs or about):
        return clip[:0]
    speech = np.zeros(len(levels), bool)
    for first, end in runs:
        speech[first:end] = True
    usual = np.sqrt(np.mean(np.square(levels[speech]))) if runs else levels.max()
    far = _ABOUT_DB if about else SOUND_DB
    sound = _runs(speech | (levels > usual * 10 ** (-far / 20)))
    if runs and _length(sound) * WINDOW > most_s * SAMPLE_RATE:
        sound = runs
    return _joined(clip, _stretches(sound, max(0, sound[0][0] - _MARGIN), sound[-1][1] + _MARGIN))


def _grouped(runs: list[Run]) -> list[list[Run]]:
    """Runs with no pause between them at which speech is cut, together."""
    groups: list[list[Run]] = []
    for run in runs:
        if groups and run[0] - groups[-1][-1][1] < _CUT:
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _levels(clip: np.ndarray) -> np.ndarray:
    """Root mean square of each window (n // 512,)."""
    whole = clip[: len(clip) // WINDOW * WINDOW].reshape(-1, WINDOW)
    return np.sqrt(np.mean(np.square(whole, dtype=np.float64), axis=1))


def _together(groups: list[list[Run]], small: int) -> list[list[Run]]:
    """Neighbours that are no more than so many windows together are one, those with the shortest pauses first."""
    pauses = [after[0][0] - before[-1][1] for before, after in itertools.pairwise(groups)]
    tied = [False] * len(pauses)
    for i in sorted(range(len(pauses)), key=pauses.__getitem__):
        low, high = i, i + 1
        while low > 0 and tied[low - 1]:
            low -= 1
        while high < len(tied) and tied[high]:
            high += 1
        tied[i] = _length(list(itertools.chain(*groups[low : high + 1]))) <= small
    out = groups[:1]
    for group, with_before in zip(groups[1:], tied, strict=True):
        if with_before:
            out[-1] = out[-1] + group
        else:
            out.append(group)
    return out


def _length(runs: list[Run]) -> int:
    """Windows from the first to the last, long pauses shortened: 0 where there are none."""
    pauses = sum(min(b[0] - a[1], _PAUSE) for a, b in itertools.pairwise(runs))
    return pauses + sum(end - first for first, end in runs)


def _cut(runs: list[Run], levels: np.ndarray, most: int) -> list[list[Run]]:
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


def _runs(mask: np.ndarray) -> list[Run]:
    """Of windows (n,): [first, end) of each stretch."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]


def _stretches(runs: list[Run], start: int, stop: int) -> list[Run]:
    """The windows from ``start`` to ``stop``, long pauses between the runs shortened in their middle."""
    long = [(a[1], b[0]) for a, b in itertools.pairwise(runs) if b[0] - a[1] > _PAUSE]
    firsts = [start, *(behind - _PAUSE // 2 for _, behind in long)]
    ends = [*(before + _PAUSE - _PAUSE // 2 for before, _ in long), stop]
    return list(zip(firsts, ends, strict=True))


def _joined(clip: np.ndarray, stretches: list[Run]) -> np.ndarray:
    """These stretches of windows, one after the other."""
    return np.concatenate([clip[a * WINDOW : b * WINDOW] for a, b in stretches])
