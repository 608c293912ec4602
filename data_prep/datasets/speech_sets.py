"""Sets of recorded utterances with their words, as the field keeps them on disk.

    a lhotse manifest     cuts.jsonl(.gz), or a folder with one, or with recordings and supervisions
    LibriSpeech           …/SPEAKER-CHAPTER.trans.txt beside SPEAKER-CHAPTER-NNNN.flac
    AISHELL               transcript/*.txt ("ID words …") and wav/**/ID.wav
    Fleurs                test.tsv (id, file, raw, words, …) and audio/test/FILE.wav
    ours                  manifest.jsonl with audio and text (see recordings.py)

Every utterance knows its set (the split's folder), so that figures can be given by set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...checkpoints.files import lines, numbered_json_lines, read_text, text_of
from ...model.errors import DuologueError
from ..audio import MAX_RATE, MIN_RATE, AudioSource
from ..text.spoken import UNITS
from .recordings import MANIFEST, WHOLE, Stretch, read_stretch

_CUTS = ("cuts.jsonl.gz", "cuts.jsonl")
_RECORDINGS, _SUPERVISIONS = "recordings", "supervisions"  # in the names of a pair of lhotse manifests


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """A recording and its words. sound: gives the path, or (rate in Hz, samples); it may raise DuologueError."""

    id: str
    text: str
    set: str
    sound: Callable[[], AudioSource]


@dataclass(frozen=True, kw_only=True)
class SoundFile:
    """A sound file, or a stretch of one, which is read at ``rate`` Hz; or why it cannot be read."""

    path: Path
    stretch: Stretch = WHOLE
    rate: int = 0
    problem: str = ""

    def __call__(self) -> AudioSource:
        """Raises DuologueError for a problem, and as `read_stretch`."""
        if self.problem:
            raise DuologueError(self.problem)
        if self.stretch == WHOLE:
            return self.path
        return self.rate, read_stretch(self.path, self.rate, self.stretch)


@dataclass(frozen=True, kw_only=True)
class RecordedUtterance(Utterance):
    """An utterance of a set on disk. fields: what else the set says of it: "label", "speaker", "translation", …"""

    sound: SoundFile
    fields: Mapping[str, str] = field(default_factory=dict)


def find_utterances(source: Path, *, wordless: bool = False) -> Iterator[RecordedUtterance]:
    """The utterances of a set, in order, whichever form it has.

    wordless: also those entries of a manifest.jsonl that have no text.

    Raises:
        DuologueError: no such place, or no form that is known.
    """
    if source.is_file():
        yield from _ours(source, wordless) if source.name.endswith(MANIFEST) else _lhotse(source)
        return
    if not source.is_dir():
        raise DuologueError(f"there is no {source}: give a folder or a lhotse manifest")
    cuts = next((source / name for name in _CUTS if (source / name).is_file()), None)
    if cuts is not None:
        yield from _lhotse(cuts)
    elif (source / MANIFEST).is_file():
        yield from _ours(source / MANIFEST, wordless)
    elif pairs := _pairs(source):
        for recordings, supervisions in pairs:
            yield from _lhotse_pair(recordings, supervisions)
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


def _loaded(path: Path) -> Any:
    """What lhotse reads of a manifest, whatever it holds."""
    try:
        from lhotse import load_manifest_lazy
    except ImportError:
        raise DuologueError("lhotse is not installed: pip install 'duologue[eval]'") from None
    try:
        return load_manifest_lazy(path)
    except Exception as error:  # lhotse raises whatever its parsers raise
        raise _no_manifest(path, error) from None


def _no_manifest(path: Path, error: Exception) -> DuologueError:
    return DuologueError(f"{path} is no lhotse manifest: {' '.join(str(error).split())[:200]}")


def _lhotse(path: Path) -> Iterator[RecordedUtterance]:
    cuts = _loaded(path)
    from lhotse import CutSet

    if not isinstance(cuts, CutSet):
        raise DuologueError(f"{path} holds no cuts: give the folder of its recordings and supervisions")
    yield from _cuts(cuts, path, path.name.split(".")[0])


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """(recordings, supervisions) of each split: x_recordings_test.jsonl.gz beside x_supervisions_test.jsonl.gz."""
    found = sorted(path for path in folder.glob(f"*{_RECORDINGS}*.jsonl*") if path.is_file())
    pairs = [(path, path.with_name(path.name.replace(_RECORDINGS, _SUPERVISIONS))) for path in found]
    return [pair for pair in pairs if pair[1].is_file()]


def _lhotse_pair(recordings: Path, supervisions: Path) -> Iterator[RecordedUtterance]:
    """A cut for each supervision."""
    both = _loaded(recordings), _loaded(supervisions)
    from lhotse import CutSet, RecordingSet, SupervisionSet

    if not isinstance(both[0], RecordingSet) or not isinstance(both[1], SupervisionSet):
        raise DuologueError(f"{recordings} and {supervisions} hold no recordings and supervisions of lhotse's")
    try:
        whole = CutSet.from_manifests(recordings=both[0].to_eager(), supervisions=both[1].to_eager())
        cuts = whole.trim_to_supervisions(keep_overlapping=False)
    except Exception as error:
        raise _no_manifest(supervisions, error) from None
    yield from _cuts(cuts, supervisions, supervisions.name.split(".")[0])


def _cuts(cuts: Iterable[Any], path: Path, part: str) -> Iterator[RecordedUtterance]:
    for cut in _each(cuts, path):
        texts = [one.text for one in cut.supervisions if one.text is not None]
        if strange := [text for text in texts if not isinstance(text, str)]:
            raise DuologueError(f"{path}: the text of {cut.id} is {strange[0]!r:.40}, and must be text")
        fields: dict[str, str] = {}
        for one in cut.supervisions:
            known = {"language": one.language, "speaker": one.speaker, "gender": one.gender, **(one.custom or {})}
            fields |= {key: value for key, value in known.items() if isinstance(value, str) and key not in fields}
        text = " ".join(filter(None, texts))
        yield RecordedUtterance(id=cut.id, text=text, set=part, sound=_sound_of(cut), fields=fields)


def _sound_of(cut: Any) -> SoundFile:
    """Of a lhotse cut: for our reader, as lhotse also opens addresses and runs commands that a manifest names."""
    recording: Any = getattr(cut, "recording", None)
    sources = [] if recording is None else recording.sources
    problem = ""
    if len(sources) != 1 or sources[0].type != "file" or recording.transforms or not isinstance(cut.channel, int):
        problem = f"{cut.id}: of lhotse's cuts, parts of one channel of a recording in one file are read"
    elif not MIN_RATE <= cut.sampling_rate <= MAX_RATE:
        problem = f"{cut.id}: it says {cut.sampling_rate} Hz: from {MIN_RATE} to {MAX_RATE} Hz can be read"
    if problem:
        return SoundFile(path=Path(), problem=problem)
    channel = cut.channel if len(recording.channel_ids) > 1 else None
    whole = cut.start == 0 and channel is None and round((recording.duration - cut.end) * cut.sampling_rate) <= 0
    stretch = WHOLE if whole else Stretch(start=cut.start, end=cut.end, channel=channel)
    return SoundFile(path=Path(str(sources[0].source)), stretch=stretch, rate=cut.sampling_rate)


def _each(cuts: Iterable[Any], path: Path) -> Iterator[Any]:
    """They are read one by one, and so they fail."""
    left = iter(cuts)
    while True:
        try:
            cut = next(left)
        except StopIteration:
            return
        except Exception as error:
            raise _no_manifest(path, error) from None
        yield cut


def _ours(manifest: Path, wordless: bool) -> Iterator[RecordedUtterance]:
    folder = manifest.parent
    for number, entry in numbered_json_lines(manifest):
        where = f"{manifest}, line {number}"
        text = text_of(entry, "text", where) if "text" in entry else ""
        digit = entry.get("digit")
        if wordless and not text.strip() and type(digit) is int and 0 <= digit <= 9:
            text = UNITS[digit]
        if not wordless and not text.strip():
            continue
        name = text_of(entry, "audio", where)
        part = text_of(entry, "set", where) if "set" in entry else folder.name
        fields = {key: value for key, value in entry.items() if isinstance(value, str)}
        yield RecordedUtterance(id=name, text=text, set=part, sound=_file(folder / name), fields=fields)


def _librispeech(path: Path, root: Path) -> Iterator[RecordedUtterance]:
    split = path.relative_to(root).parts[0] if len(path.relative_to(root).parts) > 3 else root.name
    for line in lines(read_text(path)):
        name, _, text = line.partition(" ")
        if name:
            yield RecordedUtterance(id=name, text=text, set=split, sound=_file(path.parent / f"{name}.flac"))


def _aishell(folder: Path) -> Iterator[RecordedUtterance]:
    sounds = {path.stem: path for path in sorted((folder / "wav").rglob("*.wav"))}
    for table in sorted((folder / "transcript").glob("*.txt")):
        for line in lines(read_text(table)):
            name, _, text = line.partition(" ")
            if name in sounds:  # the transcript covers all splits, of which only some may be there
                part = sounds[name].relative_to(folder / "wav").parts[0]
                yield RecordedUtterance(id=name, text=text.replace(" ", ""), set=part, sound=_file(sounds[name]))


def _fleurs(path: Path) -> Iterator[RecordedUtterance]:
    for number, line in enumerate(lines(read_text(path)), start=1):
        if not line.strip():
            continue
        row = line.split("\t")
        if len(row) < 4:
            raise DuologueError(f"{path}, line {number}: Fleurs has id, file, raw text and text, tabs between: {row}")
        where = path.parent / "audio" / path.stem / row[1]
        fields = {"raw": row[2]}
        yield RecordedUtterance(id=Path(row[1]).stem, text=row[3], set=path.stem, sound=_file(where), fields=fields)


def _file(path: Path) -> SoundFile:
    return SoundFile(path=path)
