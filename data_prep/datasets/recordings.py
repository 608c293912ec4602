"""A folder of real recordings with a manifest: what each is, which part it belongs to, and its samples.

The folder holds `manifest.jsonl`, one JSON object a clip: `audio` (path from the folder) and `set` always; `text` (or a
`digit`) where words are said, `label` where something else is heard; `speaker` and `licence` where known.

Parts keep apart what must stay apart. A speaker set aside is in no part but their own:
    train       clips with words, of everyone else
    dev         the digits of fsdd's `lucas`
    acceptance  the digits of fsdd's `yweweler`
    noises      sounds and noise without words, for augmentation
    noises_dev  one sound in ten, and the whole of ESC-10's fourth fold
For a codec, which asks for no words, all speech is divided once more, speaker by speaker (clip by clip where nobody
knows the speaker); the acceptance speaker is in neither part:
    speech            nine speakers in ten, or as many as are not to be held out
    speech_held_out   the others, and the speaker of dev
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import numbered_json_lines, text_of
from ...model.errors import DuologueError
from ..audio import read_audio, shown
from ..text.plain_text import heard
from ..text.spoken import UNITS
from .splits import stable_fraction

MANIFEST = "manifest.jsonl"
SET_ASIDE = {("fsdd", "lucas"): "dev", ("fsdd", "yweweler"): "acceptance"}
SOUND_SETS = ("noise", "env_sounds", "esc10", "music_sounds")
NOT_A_SOUND = ("room impulse response",)
MAX_RECORDING_S = 3600.0  # of one clip, which is held in memory
HELD_OUT = 0.1  # fraction of the speakers in the part speech_held_out
LEVEL_DBFS, PEAK_DBFS = -23.0, -1.0  # of recordings in a data set
_FRAME_S = 0.02  # of the frames that loudness is measured in
_GATE_DB = 30.0  # frames this far under the loudest count as pauses


class Part(StrEnum):
    TRAIN = "train"
    DEV = "dev"
    ACCEPTANCE = "acceptance"
    NOISES = "noises"
    NOISES_DEV = "noises_dev"
    SPEECH = "speech"
    SPEECH_HELD_OUT = "speech_held_out"


CODEC_PARTS = (Part.SPEECH, Part.SPEECH_HELD_OUT)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A part of a recording: from ``start`` to ``end`` seconds (None: to its end), of one channel or of all."""

    start: float = 0.0
    end: float | None = None
    channel: int | None = None


WHOLE = Stretch()


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Its entries, sorted by audio path. Raises DuologueError where a line lacks a field or is given twice."""
    file = folder / MANIFEST
    if not file.is_file():
        raise DuologueError(f"{folder} has no {MANIFEST}: give a folder of recordings with one")
    entries = []
    for number, entry in numbered_json_lines(file):
        for field in ("audio", "set", *(name for name in ("text", "licence") if name in entry)):
            text_of(entry, field, f"{file}, line {number}")
        digit = entry.get("digit")
        if digit is not None and (type(digit) is not int or not 0 <= digit <= 9):
            raise DuologueError(f"{file}, line {number}: the field 'digit' is {digit!r:.40}, and must be 0 to 9")
        entries.append(entry)
    repeated = [path for path, count in Counter(entry["audio"] for entry in entries).items() if count > 1]
    if repeated:
        raise DuologueError(f"{file} lists {repeated[0]} more than once")
    return sorted(entries, key=lambda entry: entry["audio"])


def select(
    entries: list[dict[str, Any]], part: Part, sets: tuple[str, ...] = (), held_out: float = HELD_OUT
) -> list[dict[str, Any]]:
    """The entries that belong to `part`, by the rules of this module's docstring."""
    divide = functools.partial(speech_part_of, held_out=held_out) if part in CODEC_PARTS else part_of
    return [entry for entry in entries if divide(entry) == part and (not sets or entry["set"] in sets)]


def speech_part_of(entry: Mapping[str, Any], held_out: float = HELD_OUT) -> Part | None:
    """Where an entry stands when all speech, with words or without, is divided by speakers; None: in neither part.

    held_out: the fraction of speakers in the part that is held out.
    """
    aside = SET_ASIDE.get((entry["set"], str(entry.get("speaker"))))
    if entry["set"] in SOUND_SETS or aside == Part.ACCEPTANCE:
        return None
    who = f"speaker {entry['set']} {entry['speaker']}" if entry.get("speaker") else entry["audio"]
    return Part.SPEECH_HELD_OUT if aside or stable_fraction(who) < held_out else Part.SPEECH


def part_of(entry: Mapping[str, Any]) -> Part | None:
    """The one part an entry belongs to; None: no part has a use for it (speech without its words, a room response)."""
    if entry["set"] in SOUND_SETS:
        if entry.get("label") in NOT_A_SOUND:
            return None
        fold = Path(entry["audio"]).name.split("-")[0] if entry["set"] == "esc10" else ""
        return Part.NOISES_DEV if fold == "4" or stable_fraction(entry["audio"]) < 0.1 else Part.NOISES
    if not entry.get("text", "").strip() and not words_of(entry):
        return None
    aside = SET_ASIDE.get((entry["set"], str(entry.get("speaker"))))
    return Part(aside) if aside else Part.TRAIN


def words_of(entry: Mapping[str, Any]) -> str:
    """What is said, as words; "" if the manifest does not tell. Raises DuologueError that names what is no word."""
    if entry.get("text", "").strip():
        try:
            return heard(entry["text"])
        except DuologueError as error:
            raise DuologueError(f"text {entry['text'][:60]!r}: {error}") from None
    digit = entry.get("digit")
    return UNITS[digit] if isinstance(digit, int) and 0 <= digit <= 9 else ""


def describe(entry: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """A clip's fields in the data set, offset and length aside. Raises DuologueError as `words_of`, except for a codec.

    A codec asks for no words: what is none is kept as well.
    """
    sound = part in (Part.NOISES, Part.NOISES_DEV)
    text = "" if sound else entry.get("text", "")
    try:
        words = "" if sound else words_of(entry)
    except DuologueError:
        if part not in CODEC_PARTS:
            raise
        words = text
    text = text if text.strip() else words
    who = entry.get("label") if sound else entry.get("speaker")
    return {
        "id": entry["audio"],
        "text": text,
        **({"spoken": words} if words != text else {}),
        "voice": f"{entry['set']}:{who if isinstance(who, str | int) else 'unknown'}",
        "set": entry["set"],
        "licence": entry.get("licence") or "unknown",
        "source": entry.get("source_repo") or "unknown",
    }


def read_recording(
    path: Path, sample_rate: int, max_s: float = MAX_RECORDING_S, stretch: Stretch = WHOLE
) -> np.ndarray:
    """A recording of a set, or a stretch of it, (n,) float32 (see audio/). Raises DuologueError if it cannot be used.

    That is also a WAV that ends before its header says so, silence, less than 0.05 s and more than `max_s`.
    """
    name = shown(path.name)
    if os.path.exists(path) and not os.path.isfile(path):  # of a pipe the run would wait for somebody to write into it
        raise DuologueError(f"{name} is no regular file")
    if stretch == WHOLE:
        wav = read_audio(path, sample_rate, longest=max_s, whole=True, name=name)
    else:
        wav = read_stretch(path, sample_rate, stretch)
        if len(wav) > max_s * sample_rate:
            raise DuologueError(f"the part of {name} lasts {len(wav) / sample_rate:.0f} s: at most {max_s:g} s")
    if len(wav) < 0.05 * sample_rate:
        raise DuologueError(f"{name} lasts {len(wav) / sample_rate:.3f} s, at least 0.05 s is wanted")
    if np.abs(wav).max() < 1e-4:
        raise DuologueError(f"{name} is silent")
    return wav


def read_stretch(path: Path, sample_rate: int, stretch: Stretch) -> np.ndarray:
    """(n,) float32 of a stretch of a recording. Raises DuologueError as `read_audio`, and for one beyond its end."""
    wav = _whole(path, sample_rate, stretch.channel)
    begin = round(stretch.start * sample_rate)
    end = len(wav) if stretch.end is None else round(stretch.end * sample_rate)
    if begin >= len(wav):
        seconds = len(wav) / sample_rate
        raise DuologueError(f"{shown(path.name)} lasts {seconds:.2f} s: no part begins at {stretch.start:g} s")
    return wav[begin:end]


@functools.lru_cache(maxsize=1)  # parts of a recording follow each other
def _whole(path: Path, sample_rate: int, channel: int | None) -> np.ndarray:
    return read_audio(path, sample_rate, longest=MAX_RECORDING_S, channel=channel, name=shown(path.name))


def set_loudness(wav: np.ndarray, sample_rate: int, level_dbfs: float, peak_dbfs: float) -> np.ndarray:
    """Scale (n,) so that active frames have the root mean square `level_dbfs`, if no peak passes `peak_dbfs` then.

    Active: 20 ms frames within 30 dB of the loudest one, so that pauses do not make the speech louder.
    """
    frame = max(1, int(_FRAME_S * sample_rate))
    power = np.square(wav[: len(wav) // frame * frame].astype(np.float64)).reshape(-1, frame).mean(1)  # (frames,)
    active = power[power >= power.max() * 10 ** (-_GATE_DB / 10)].mean()
    gain = min(10 ** (level_dbfs / 20) / np.sqrt(active), 10 ** (peak_dbfs / 20) / float(np.abs(wav).max()))
    return (wav * gain).astype(np.float32)


def trimmed(wave: np.ndarray) -> np.ndarray:
    """(n,) float without the silence before and after, 34 dB under the loudest sample."""
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max(initial=1e-9))
    return wave[loud[0] : loud[-1] + 1] if len(loud) else wave
