"""Whether marks of SSML are rendered as asked: a pause, a rate or an emphasis at a random place of each sentence.

Each sentence is dictated twice, plain and with one mark (docs/ssml.md), and the two readings are compared by their
samples alone. As asked is

    break       the longest silence within the speech, but for what is silent there in the plain reading: within 20 % or
                50 ms of what was asked
    prosody     of the whole sentence, the seconds from its first sound to its last: the plain reading's over the rate,
                within 10 %
    emphasis    of a word: two of three, 10 % longer, 2 dB louder, 5 % higher; the sounds that differ are one stretch no
                longer than a word

A recogniser hears both (not with `words=false`): marks must not cost words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.recognisers.recogniser import ENGLISH, find_recogniser, usual_recogniser
from ....data_prep.audio import resampled, write_wav
from ....data_prep.speech.engine import SAMPLE_RATE
from ....model.dialogue_state import Sampling
from ....model.errors import DuologueError
from ....model.speech_decoder.ssml import RATES
from ...assistant.assistant import Assistant
from ...assistant.one_shot import OneShotRequest
from ..inputs.questions import BUNDLED, questions_of, usual_split
from ..metrics.manner import changed, longest_quiet, speech_s
from ..metrics.statistics import Better, Metric
from ..metrics.words import error_measures, usual_normaliser
from ..report.page import Section, example, sounds
from ..report.reporting import by_part, finish, good_rows
from ..report.run_folder import Row, loaded, open_folder, resume_rows

KINDS = ("break", "prosody", "emphasis")
ASKED = Metric(key="as_asked", name="Rendered as asked", unit="%")
METRICS = (
    ASKED,
    Metric(key="pause_error_ms", name="Pauses, distance from what was asked", unit="ms", better=Better.LOWER),
    Metric(key="rate_error", name="Rates, distance from what was asked", unit="%", better=Better.LOWER),
    Metric(key="longer", name="Emphasis, times as long", better=Better.NEITHER),
    Metric(key="louder_db", name="Emphasis, louder", unit="dB", better=Better.NEITHER),
    Metric(key="higher", name="Emphasis, times as high", better=Better.NEITHER),
    Metric(key="wer_plain", name="Word errors, plain", unit="%", better=Better.LOWER),
    Metric(key="wer_marked", name="Word errors, marked", unit="%", better=Better.LOWER),
)
PAUSES_MS = (250, 400, 500, 800, 1200)
_FEWEST, _MOST = 5, 15  # words of a sentence
_LONGER, _LOUDER_DB, _HIGHER = 1.1, 2.0, 1.05
_WORD_S = 1.2  # and no longer is a word, with what of its neighbours fades into it
_SHOWN = 9


@dataclass(frozen=True)
class Sentence:
    """A sentence with a mark. wanted: milliseconds of a pause, or a rate."""

    plain: str
    marked: str
    kind: str
    wanted: float


def run(
    *,
    out: Path,
    model: str | Assistant = BUNDLED,
    data: str | Path = BUNDLED,
    sentences: int = 100,
    split: str | None = None,
    words: bool = True,
    recogniser: str | None = None,
    language: str = ENGLISH,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure and write the reports into ``out``.

    Args:
        data: a question set, whose answers are said, or its questions where it has none. split: which of them; None:
            the test's, of a file all.
        words: whether a recogniser counts word errors. recogniser: see :func:`find_recogniser`.

    Raises:
        DuologueError: a model that renders no SSML, or too few sentences.
    """
    assistant, source = loaded(model)
    assistant.check_ssml()
    marked = marked_sentences(data, sentences, split, seed)
    hears = (recogniser or usual_recogniser()) if words else None
    settings = {"suite": "ssml", "model": source, "data": str(data), "split": split or usual_split(data),
                "sentences": sentences, "recogniser": hears, "language": language, "seed": seed}  # fmt: skip
    folder = open_folder(out, settings)
    (folder / "readings").mkdir(exist_ok=True)
    reader, rate = OneShotRequest(assistant, assistant.vad), assistant.output_rate
    recognise = None if hears is None else find_recogniser(hears, language)
    normaliser = usual_normaliser(language, "english")

    def work(at: int, sentence: Sentence) -> Row:
        plain, marked = (said(reader, text, ssml) for text, ssml in ((sentence.plain, False), (sentence.marked, True)))
        for name, wave in (("plain", plain), ("marked", marked)):
            write_wav(folder / "readings" / f"{at:04d}.{name}.wav", wave, rate)
        measures = compared(sentence, plain, marked, rate)
        for name, wave in (("wer_plain", plain), ("wer_marked", marked)) if recognise is not None else ():
            assert recognise is not None
            heard = recognise(resampled(wave, rate, SAMPLE_RATE))
            measures[name] = error_measures(heard, sentence.plain, normaliser)["wer"]
        return {"id": f"{at:04d}", "kind": sentence.kind, "text": sentence.marked, "wanted": sentence.wanted,
                "measures": measures}  # fmt: skip

    rows = resume_rows(folder / "read.jsonl", "reading", marked, work, quiet)
    good = good_rows(rows)
    return finish(folder, "Replies in SSML", settings, METRICS, rows, [_examples(folder, good)],
                  parts=by_part(good, "kind", METRICS[:6], seed), quiet=quiet)  # fmt: skip


def marked_sentences(data: str | Path, count: int, split: str | None, seed: int) -> list[Sentence]:
    """Sentences of a question set with one mark each, as many of each kind.

    Raises:
        DuologueError: too few have 5 to 15 words.
    """
    rng, found = np.random.default_rng(seed), list[Sentence]()
    for dialogue in questions_of(data, seed, 20 * count, split):
        text = dialogue.answer or dialogue.question
        words = text.split()
        if _FEWEST <= len(words) <= _MOST and text not in {sentence.plain for sentence in found}:
            found.append(_with_mark(words, KINDS[len(found) % len(KINDS)], rng))
        if len(found) == count:
            return found
    raise DuologueError(f"{data} has {len(found)} sentences of {_FEWEST} to {_MOST} words, fewer than {count}")


def _with_mark(words: list[str], kind: str, rng: np.random.Generator) -> Sentence:
    plain = " ".join(words)
    if kind == "prosody":
        name = str(rng.choice([name for name, rate in RATES.items() if rate != 1]))
        return Sentence(plain, f'<prosody rate="{name}">{plain}</prosody>', kind, RATES[name])
    inside = [at for at in range(1, len(words) - 1) if (words[at - 1] + words[at]).isalnum()] or [1]
    if kind == "break":
        at, ms = int(rng.choice(inside)), int(rng.choice(PAUSES_MS))
        return Sentence(plain, " ".join([*words[:at], f'<break time="{ms}ms"/>', *words[at:]]), kind, ms)
    longest = sorted(inside, key=lambda at: len(words[at]))[-max(1, len(inside) // 2) :]  # function words are faint
    at = int(rng.choice(longest))
    said = [*words[:at], f'<emphasis level="strong">{words[at]}</emphasis>', *words[at + 1 :]]
    return Sentence(plain, " ".join(said), kind, 0.0)


def said(reader: OneShotRequest, text: str, ssml: bool) -> np.ndarray:
    """A text read aloud, samples (n,)."""
    reader.dictate(text, ssml=ssml)
    pieces, ended = list[np.ndarray](), False
    while not ended:
        step = reader.step(Sampling())
        pieces.append(step.pcm)
        ended = step.ended
    return np.concatenate(pieces)


def compared(sentence: Sentence, plain: np.ndarray, marked: np.ndarray, rate: int) -> dict[str, list[float]]:
    """The measures of a sentence, of its readings (n,)."""
    if sentence.kind == "break":
        start, length = longest_quiet(marked, rate)
        at = round(start * rate)
        silent = np.abs(plain) < 1e-3
        before, behind = (np.flatnonzero(~part) for part in (silent[:at][::-1], silent[at:]))
        own = sum(float(part[0]) / rate for part in (before, behind) if len(part))
        error = abs(1000 * (length - own) - sentence.wanted)
        return {"as_asked": [error <= max(50, 0.2 * sentence.wanted), 1], "pause_error_ms": [error, 1]}
    if sentence.kind == "prosody":
        error = abs(speech_s(marked, rate) * sentence.wanted / max(speech_s(plain, rate), 1e-3) - 1)
        return {"as_asked": [error <= 0.1, 1], "rate_error": [error, 1]}
    found = changed(plain, marked, rate)
    held = (found.longer >= _LONGER) + (found.louder_db >= _LOUDER_DB) + (found.higher >= _HIGHER)
    return {
        "as_asked": [held >= 2 and found.seconds <= _WORD_S, 1], "longer": [found.longer, 1],
        "louder_db": [found.louder_db, 1], "higher": [found.higher, 1],
    }  # fmt: skip


def _examples(folder: Path, rows: Sequence[Row]) -> Section:
    cards = []
    for row in sorted(rows, key=lambda row: bool(row["measures"]["as_asked"][0]))[:_SHOWN]:
        files = {name: folder / "readings" / f"{row['id']}.{name}.wav" for name in ("plain", "marked")}
        players = sounds({name: lambda file=file: file for name, file in files.items()})  # type: ignore[misc]
        cards.append(example([(row["id"], row["text"])], players))
    return Section(title="Not as asked, if there are any", body="".join(cards))
