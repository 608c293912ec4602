"""What the chunk size Ω of a reply's speech costs and gives; and what speaking costs beside writing.

Speech may be handed out as soon as there are Ω units of it. A small Ω answers sooner; a vocoder that sees one chunk at
a time pays for it at every join. Ours keeps its state, so its speech is the same for every Ω: the figures "without
context" are what the chunks would sound like if it did not.

Latency(Ω): last samples of the question handed over -> Ω units (or the whole reply) ready, computing time. Lagging
words: words of the reply written by then.

Source: LLaMA-Omni (arXiv 2409.06666), sections 3.5 and 5.3, tables 2 and 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ....checkpoints.recognisers.recogniser import RATE
from ....data_prep.audio import resampled
from ...assistant.assistant import Assistant
from ..judges.speech import SpeechJudge
from ..report.run_folder import Row
from .words import error_measures

SIZES: tuple[int | None, ...] = (10, 20, 40, 80, None)  # units; None: the whole reply


def latency(timeline: list[list[float]], size: int | None) -> tuple[float, int] | None:
    """(ms, words written) when the first chunk of ``size`` units is there. None of a reply without speech.

    timeline: (ms since the question, new words, new units) of each step.
    """
    total = sum(int(units) for _, _, units in timeline)
    if not total:
        return None
    wanted = total if size is None else min(size, total)
    words = units = 0
    for at_ms, more_words, more_units in timeline:
        words, units = words + int(more_words), units + int(more_units)
        if units >= wanted:
            if wanted == total and size is None:
                return timeline[-1][0], words  # and the vocoder's last samples
            return at_ms, words
    raise AssertionError("unreachable: all units have been counted")


def render_chunks(assistant: Assistant, row: Row, hearing: SpeechJudge) -> Row:
    """How a reply sounds that is synthesised in chunks of each size without context, and with it."""
    speech = assistant.model.speech
    out: Row = {"id": row["id"], "sizes": {}}
    if speech is None or speech.vocoder is None:
        return out
    units = torch.tensor([row["units"]], device=assistant.model.device)  # (1, U)
    for size in SIZES:
        with torch.inference_mode():
            pieces = [speech.vocoder(piece) for piece in units.split(size or units.shape[1], dim=1)]
        wave = torch.cat(pieces, dim=-1).flatten().float().clamp(-1, 1).cpu().numpy()  # (n,)
        wave = resampled(wave, assistant.output_rate, RATE)
        found = hearing.quality(wave)
        out["sizes"][str(size)] = found | error_measures(hearing.recogniser(wave), row["reply"], hearing.how, "reply_")
    return out


def chunk_table(rows: list[Row], chunked: list[Row]) -> list[dict[str, Any]]:
    """One entry a size: median latency and lagging words over all rows, quality over the chunked ones."""
    table = []
    for size in SIZES:
        known = [found for row in rows if (found := latency(row["timeline"], size)) is not None]
        entry: dict[str, Any] = {
            "units": size,
            "latency_ms": float(np.median([ms for ms, _ in known])) if known else None,
            "lagging_words": float(np.mean([words for _, words in known])) if known else None,
        }
        for name in ("dnsmos", "plcmos", "utmos", "reply_wer"):
            pairs = [row["sizes"][str(size)][name] for row in chunked if name in row["sizes"].get(str(size), {})]
            weight = sum(pair[1] for pair in pairs)
            entry[f"{name}_without_context"] = sum(pair[0] for pair in pairs) / weight if weight else None
        table.append(entry)
    return table
