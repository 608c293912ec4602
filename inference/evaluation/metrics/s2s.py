"""The figures of spoken questions: by voice and by category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .quality import SIMILARITY, UNREFERENCED, UTMOS
from .statistics import Better, Metric, Statistic, fraction, percentiles
from .words import LETTERS, WordErrors, word_errors

Row = dict[str, Any]

_OWN = "LLaMA-Omni-8B, its own test"
_LOW, _FRACTION = Better.LOWER, "%"
METRICS = (
    Metric(key="right", name="Answered right", unit=_FRACTION),
    Metric(key="right_by_ear", name="Answered right, by a recogniser", unit=_FRACTION),
    Metric(key="transcript_wer", name="Word error rate of what it heard", unit=_FRACTION, better=_LOW),
    Metric(key="content_text", name="Content, text (judged, 1 to 5)"),
    Metric(key="style_text", name="Style, text (judged, 1 to 5)"),
    Metric(key="content_speech", name="Content, speech (judged, 1 to 5)"),
    Metric(key="style_speech", name="Style, speech (judged, 1 to 5)"),
    Metric(key="reply_wer", name="ASR-WER of reply speech", unit=_FRACTION, better=_LOW, reference=(0.108, _OWN)),
    Metric(key="reply_cer", name="ASR-CER of reply speech", unit=_FRACTION, better=_LOW),
    Metric(key="synthesiser_wer", name="ASR-WER of the synthesiser", unit=_FRACTION, better=Better.NEITHER),
    UTMOS,
    *UNREFERENCED,
    SIMILARITY,
    Metric(
        key="compute_delay_ms", name="Compute delay, median", unit="ms", better=_LOW, statistic=Statistic.P50,
        reference=(226.0, "LLaMA-Omni-8B on its GPU at 10 units"),
    ),
    Metric(key="compute_delay_ms", name="Compute delay, 95th", unit="ms", better=_LOW, statistic=Statistic.P95),
    Metric(key="first_word_ms", name="First word, median", unit="ms", better=_LOW, statistic=Statistic.P50),
    Metric(key="real_time_factor", name="Real-time factor, median", better=_LOW, statistic=Statistic.P50),
    Metric(key="decode_text_s", name="Decoding time, text alone", unit="s", better=_LOW),
    Metric(key="decode_speech_s", name="Decoding time, with speech", unit="s", better=_LOW),
)  # fmt: skip


def summarise(rows: Sequence[Row], how: str = "plain") -> dict[str, Any]:
    """Everything a card states. Fractions are of the questions that could be spoken, and that have a slot; error rates
    are over all their words, normalised as ``how`` says.

    right: the reply's text holds the answer; right_by_ear: so does what a recogniser hears in its speech.
    reply_speech: word error rate of that against the reply's text, beside the synthesiser's own for the same texts.
    compute_delay_ms: last samples of the question handed over -> first samples of the reply ready.
    """
    good = [row for row in rows if not row["failed"]]
    voices, categories = (sorted({row[name] for row in good}) for name in ("voice", "category"))
    rendered = [row for row in good if row["synthesiser_heard"] is not None]
    spoken = rendered or [row for row in good if row["heard"] is not None]  # without flite none is rendered
    own = _errors(spoken, "heard", "reply", how)
    theirs = _errors(rendered, "synthesiser_heard", "reply", how)
    by_category = {name: _scores([row for row in good if row["category"] == name], how) for name in categories}
    known = [scores["right"] for scores in by_category.values() if scores["right"] is not None]
    return {
        "overall": _scores(good, how) | {"right_macro": float(np.mean(known)) if known else None},
        "by_voice": {voice: _scores([row for row in good if row["voice"] == voice], how) for voice in voices},
        "by_category": by_category,
        "by_voice_and_category": {
            voice: {
                name: _scores(both, how)
                for name in categories
                if (both := [row for row in good if row["voice"] == voice and row["category"] == name])
            }
            for voice in voices
        },
        "reply_speech": {
            "replies": len(spoken),
            "words": own.words,
            "wer": own.rate,
            "synthesiser_wer": theirs.rate,
            "difference": None if own.rate is None or theirs.rate is None else own.rate - theirs.rate,
        },
        "compute_delay_ms": percentiles([row["timings"]["compute_delay_ms"] for row in good]),
        "first_word_ms": percentiles([row["timings"]["first_word_ms"] for row in good]),
        "real_time_factor": percentiles([row["timings"]["real_time_factor"] for row in good]),
        "peak_rss_mib": max((row["peak_rss_mib"] for row in good), default=None),
        "failed": len(rows) - len(good),
    }


def _scores(rows: Sequence[Row], how: str) -> dict[str, Any]:
    written = [row for row in rows if row["transcript"] is not None]
    return {
        "questions": len(rows),
        "right": fraction(row["right"] for row in rows if row["right"] is not None),
        "right_by_ear": fraction(row["right_by_ear"] for row in rows if row["right_by_ear"] is not None),
        "transcript_wer": _errors(written, "transcript", "question", how).rate,
        "transcript_exact": fraction(row["transcript"] == row["question"] for row in written),
    }


def _errors(rows: Sequence[Row], hypothesis: str, reference: str, how: str) -> WordErrors:
    """Of words; of characters where there are no spaces between words."""
    return word_errors(
        [row[hypothesis] for row in rows], [row[reference] for row in rows], how, letters=how == LETTERS
    )
