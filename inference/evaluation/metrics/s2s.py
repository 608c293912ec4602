"""The figures of spoken questions that a model card states: by voice and by category."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .quality import SIMILARITY, UNREFERENCED, UTMOS
from .statistics import Better, Metric, Statistic, percentiles
from .words import word_errors

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


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Everything a card states. Shares are of the questions that could be spoken; error rates are over all their words.

    right: the reply's text holds the answer; right_by_ear: so does what pocketsphinx hears in its speech.
    reply_speech: word error rate of that against the reply's text, beside the synthesiser's own for the same texts.
    compute_delay_ms: last samples of the question handed over -> first samples of the reply ready.
    """
    good = [row for row in rows if not row["failed"]]
    voices, categories = (sorted({row[name] for row in good}) for name in ("voice", "category"))
    rendered = [row for row in good if row["synthesiser_heard"] is not None]
    spoken = rendered or [row for row in good if row["heard"] is not None]  # without flite none is rendered
    own = word_errors([row["heard"] for row in spoken], [row["reply"] for row in spoken])
    theirs = word_errors([row["synthesiser_heard"] for row in rendered], [row["reply"] for row in rendered])
    by_category = {name: _scores([row for row in good if row["category"] == name]) for name in categories}
    return {
        "overall": _scores(good)
        | {"right_macro": float(np.mean([scores["right"] for scores in by_category.values()])) if good else None},
        "by_voice": {voice: _scores([row for row in good if row["voice"] == voice]) for voice in voices},
        "by_category": by_category,
        "by_voice_and_category": {
            voice: {
                name: _scores(both)
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


def _scores(rows: Sequence[Row]) -> dict[str, Any]:
    errors = word_errors([row["transcript"] for row in rows], [row["question"] for row in rows])
    return {
        "questions": len(rows),
        "right": float(np.mean([row["right"] for row in rows])) if rows else None,
        "right_by_ear": float(np.mean([row["right_by_ear"] for row in rows])) if rows else None,
        "transcript_wer": errors.rate,
        "transcript_exact": float(np.mean([row["transcript"] == row["question"] for row in rows])) if rows else None,
    }
