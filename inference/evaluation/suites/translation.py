"""Speech translated into another language: BLEU and chrF against reference translations.

The references are in the set: a field of each entry (`reference=translation`), beside its recording. A translation is a
model's reply to the speech and `instruction`, or another system's words:

    --outputs DIR    DIR/hypotheses.jsonl, {"id": …, "text": …} a line, or DIR/ID.txt for each

BLEU and chrF are sacrebleu's, over the whole set, with its signature and its bootstrap. `sentence_chrf` is the mean of
each sentence's chrF: by it `compare` tells whether two systems differ. `language` is that of the translations, which
says how BLEU finds their words.

Sources: Post, "A Call for Clarity in Reporting BLEU Scores" (WMT 2018); Popović, "chrF" (WMT 2015).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....checkpoints.recognisers.recogniser import ENGLISH
from ....data_prep.audio import read_audio
from ....data_prep.datasets.speech_sets import RecordedUtterance, find_utterances
from ....model.errors import DuologueError
from ...assistant.assistant import Assistant
from ..inputs.hypotheses import texts_in
from ..metrics.statistics import Finding, Metric
from ..metrics.words import UNSPACED
from ..report.page import Section, example, sounds
from ..report.reporting import by_part, finish, good_rows, ranked
from ..report.run_folder import Row, loaded, open_folder, resume_rows

INSTRUCTION = "Translate the speech into English."
SENTENCE = Metric(key="sentence_chrf", name="chrF, mean of sentences")
_RESAMPLES, _SHOWN = 1000, 8


def run(
    *,
    data: Path,
    out: Path,
    model: str | Assistant | None = None,
    outputs: Path | None = None,
    reference: str = "translation",
    instruction: str = INSTRUCTION,
    language: str = ENGLISH,
    limit: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure and write the reports into ``out``.

    Args:
        data: a set of recordings (see data_prep/datasets/speech_sets.py).
        reference: the field with the translation. language: of the translations (ISO 639).

    Raises:
        DuologueError: no model and no outputs, or both, or no entry has a reference.
    """
    if (model is None) == (outputs is None):
        raise DuologueError("give a model, or the outputs of another system")
    found = (u for u in find_utterances(data, wordless=True) if u.fields.get(reference, "").strip())
    utterances = list(itertools.islice(found, limit))
    if not utterances:
        raise DuologueError(f"no entry of {data} has a field {reference!r} with its translation")
    assistant, source = (None, None) if model is None else loaded(model)
    settings = {"suite": "translation", "model": source, "outputs": outputs and str(outputs), "data": str(data),
                "reference": reference, "language": language, "utterances": len(utterances), "seed": seed}  # fmt: skip
    settings |= {} if assistant is None else {"instruction": instruction}
    folder = open_folder(out, settings)
    understood = None if outputs is None else texts_in(outputs)

    def work(at: int, utterance: RecordedUtterance) -> Row:
        if understood is not None:
            text = understood(utterance.id)
        else:
            assert assistant is not None
            wave = read_audio(utterance.sound(), assistant.input_rate)
            text = assistant.ask((assistant.input_rate, wave), instruction).text
        wanted = utterance.fields[reference]
        chrf = float(_metrics(language)["chrf"].corpus_score([text], [[wanted]]).score)
        return {"set": utterance.set, "text": wanted, "translation": text, "measures": {SENTENCE.key: [chrf, 1]}}

    rows = resume_rows(folder / "translated.jsonl", "translating", utterances, work, quiet, lambda u: u.id)
    good = good_rows(rows)
    findings, signatures = corpus_findings(
        [row["translation"] for row in good], [row["text"] for row in good], language
    )
    return finish(
        folder, "Speech translation", settings, (SENTENCE,), rows, [_examples(good, {u.id: u for u in utterances})],
        details={"signatures": signatures}, parts=by_part(good, "set", (SENTENCE,), seed), over_all=findings,
        quiet=quiet,
    )  # fmt: skip


def corpus_findings(
    texts: Sequence[str], references: Sequence[str], language: str
) -> tuple[list[Finding], dict[str, str]]:
    """BLEU and chrF of a whole set, 0 to 100, and their signatures."""
    findings, signatures = list[Finding](), dict[str, str]()
    for key, metric in _metrics(language).items() if texts else ():
        score = metric.corpus_score(list(texts), [list(references)], n_bootstrap=_RESAMPLES)
        signatures[key] = str(metric.get_signature())
        facts = json.loads(score.format(signature=signatures[key], is_json=True))
        mean, half = facts.get("confidence_mean"), facts.get("confidence_var")  # half the width of the interval
        known = mean is not None and half is not None
        findings.append(Finding(
            metric=Metric(key=key, name={"bleu": "BLEU", "chrf": "chrF"}[key]), value=float(score.score),
            low=mean - half if known else None, high=mean + half if known else None, count=len(texts),
        ))  # fmt: skip
    return findings, signatures


def _metrics(language: str) -> dict[str, Any]:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise DuologueError("BLEU and chrF need sacrebleu: pip install 'duologue[eval]'") from None
    words = "zh" if language == "zh" else "char" if language in UNSPACED else "13a"
    return {"bleu": BLEU(tokenize=words), "chrf": CHRF()}


def _examples(rows: Sequence[Row], spoken: dict[str, RecordedUtterance]) -> Section:
    cards = []
    for row in ranked(rows, SENTENCE.key, SENTENCE.better)[::-1][:_SHOWN]:
        lines = [(row["id"], row["set"]), ("reference", row["text"]), ("translation", row["translation"])]
        cards.append(example(lines, sounds({"sound": spoken[row["id"]].sound})))
    return Section(title="Worst translated", body="".join(cards))
