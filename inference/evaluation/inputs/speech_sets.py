"""Sets of recorded utterances with their words, as the field keeps them on disk, for `duologue evaluate asr`.

    a lhotse manifest     cuts.jsonl(.gz), or a folder with one or with recordings and supervisions
    LibriSpeech           …/SPEAKER-CHAPTER.trans.txt beside SPEAKER-CHAPTER-NNNN.flac
    AISHELL               transcript/*.txt ("ID words …") and wav/**/ID.wav
    Fleurs                test.tsv (id, file, raw, words, …) and audio/test/FILE.wav
    ours                  manifest.jsonl with audio and text (data_prep/datasets/recordings.py)
    generated             a question set's questions in chosen voices

Every utterance knows its set (the split's folder, the voice), so that figures can be given by set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import lines, numbered_json_lines, read_text, text_of
from ....data_prep.audio import MAX_RATE, MIN_RATE, AudioSource, read_audio
from ....data_prep.datasets.recordings import MANIFEST, MAX_RECORDING_S
from ....data_prep.speech.engine import SAMPLE_RATE
from ....data_prep.speech.synthesis import synthesise
from ....data_prep.speech.voices import find_voices, require_voices
from ....model.errors import DuologueError
from .questions import questions_of

_LHOTSE = ("cuts.jsonl.gz", "cuts.jsonl")


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A recording and its words. sound: gives the path, or (rate in Hz, samples); it may raise DuologueError."""

    id: str
    text: str
    set: str
    sound: Callable[[], AudioSource]


def find_utterances(source: Path) -> Iterator[Utterance]:
    """The utterances of a set, in order, whichever form it has.

    Raises:
        DuologueError: no such place, or no form that is known.
    """
    if source.is_file():
        yield from _lhotse(source)
        return
    if not source.is_dir():
        raise DuologueError(f"there is no {source}: give a folder or a lhotse manifest")
    manifest = next((source / name for name in _LHOTSE if (source / name).is_file()), None)
    if manifest is not None:
        yield from _lhotse(manifest)
    elif (source / MANIFEST).is_file():
        yield from _ours(source)
    elif transcripts := sorted(source.rglob("*.trans.txt")):
        for path in transcripts:
            yield from _librispeech(path, source)
    elif (source / "transcript").is_dir() and (source / "wav").is_dir():
        yield from _aishell(source)
    elif tables := sorted(source.glob("*.tsv")):
        for path in tables:
            yield from _fleurs(path)
    else:
        raise DuologueError(
            f"{source} is no set that is known: a lhotse manifest, LibriSpeech, AISHELL, Fleurs, or a {MANIFEST}"
        )


def generated(voices: str, count: int, seed: int, split: str | None, data: str) -> Iterator[Utterance]:
    """The questions of a question set, by its name; the set of an utterance is its voice."""
    speakers = find_voices(voices)
    require_voices(speakers)
    for at, dialogue in enumerate(questions_of(data, seed, count, split)):
        voice = speakers[at % len(speakers)]

        def sound(text: str = dialogue.question, at: int = at) -> AudioSource:
            return SAMPLE_RATE, synthesise(text, speakers[at % len(speakers)])

        yield Utterance(id=f"{at:04d}", text=dialogue.question, set=voice.key, sound=sound)


def _lhotse(path: Path) -> Iterator[Utterance]:
    try:
        from lhotse import CutSet, load_manifest_lazy
    except ImportError:
        raise DuologueError("lhotse is not installed: pip install 'duologue[eval]'") from None
    try:
        cuts = load_manifest_lazy(path)
    except Exception as error:  # lhotse raises whatever its parsers raise
        raise DuologueError(f"{path} is no lhotse manifest: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(cuts, CutSet):
        raise DuologueError(f"{path} holds no cuts: make them of its recordings and supervisions (lhotse cut simple)")
    for cut in _each(cuts, path):
        texts = [part.text for part in cut.supervisions if part.text is not None]
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise DuologueError(f"{path}: the text of {cut.id} is {strange[0]!r:.40}, and must be text")
        text = " ".join(filter(None, texts))

        def sound(cut: Any = cut) -> AudioSource:
            return cut.sampling_rate, _cut_sound(cut)

        yield Utterance(id=cut.id, text=text, set=path.name.split(".")[0], sound=sound)


def _cut_sound(cut: Any) -> np.ndarray:
    """(n,) of a lhotse cut: by our reader, for lhotse also opens addresses and runs commands that a manifest names."""
    recording: Any = getattr(cut, "recording", None)
    sources = [] if recording is None else recording.sources
    if len(sources) != 1 or sources[0].type != "file" or recording.transforms or not isinstance(cut.channel, int):
        raise DuologueError(f"{cut.id}: of lhotse's cuts, parts of one channel of a recording in one file are read")
    if not MIN_RATE <= cut.sampling_rate <= MAX_RATE:
        raise DuologueError(f"{cut.id}: it says {cut.sampling_rate} Hz: from {MIN_RATE} to {MAX_RATE} Hz can be read")
    channel = cut.channel if len(recording.channel_ids) > 1 else None
    wave = _recording(str(sources[0].source), cut.sampling_rate, channel)
    return wave[round(cut.start * cut.sampling_rate) : round(cut.end * cut.sampling_rate)]


@functools.lru_cache(maxsize=1)  # cuts of a recording follow each other
def _recording(path: str, rate: int, channel: int | None) -> np.ndarray:
    return read_audio(path, rate, longest=MAX_RECORDING_S, channel=channel)


def _each(cuts: Iterable[Any], path: Path) -> Iterator[Any]:
    """They are read one by one, and so they fail."""
    left = iter(cuts)
    while True:
        try:
            cut = next(left)
        except StopIteration:
            return
        except Exception as error:
            raise DuologueError(f"{path} is no lhotse manifest: {' '.join(str(error).split())[:200]}") from None
        yield cut


def _ours(folder: Path) -> Iterator[Utterance]:
    for number, entry in numbered_json_lines(folder / MANIFEST):
        where = f"{folder / MANIFEST}, line {number}"
        if "text" in entry and text_of(entry, "text", where).strip():
            name = text_of(entry, "audio", where)
            part = text_of(entry, "set", where) if "set" in entry else folder.name
            yield Utterance(id=name, text=entry["text"], set=part, sound=_path(folder / name))


def _librispeech(path: Path, root: Path) -> Iterator[Utterance]:
    split = path.relative_to(root).parts[0] if len(path.relative_to(root).parts) > 3 else root.name
    for line in lines(read_text(path)):
        name, _, text = line.partition(" ")
        if name:
            yield Utterance(id=name, text=text, set=split, sound=_path(path.parent / f"{name}.flac"))


def _aishell(folder: Path) -> Iterator[Utterance]:
    sounds = {path.stem: path for path in sorted((folder / "wav").rglob("*.wav"))}
    for table in sorted((folder / "transcript").glob("*.txt")):
        for line in lines(read_text(table)):
            name, _, text = line.partition(" ")
            if name in sounds:  # the transcript covers all splits, of which only some may be there
                part = sounds[name].relative_to(folder / "wav").parts[0]
                yield Utterance(id=name, text=text.replace(" ", ""), set=part, sound=_path(sounds[name]))


def _fleurs(path: Path) -> Iterator[Utterance]:
    for number, line in enumerate(lines(read_text(path)), start=1):
        if not line.strip():
            continue
        row = line.split("\t")
        if len(row) < 4:
            raise DuologueError(f"{path}, line {number}: Fleurs has id, file, raw text and text, tabs between: {row}")
        where = path.parent / "audio" / path.stem / row[1]
        yield Utterance(id=Path(row[1]).stem, text=row[3], set=path.stem, sound=_path(where))


def _path(path: Path) -> Callable[[], AudioSource]:
    return lambda: path
