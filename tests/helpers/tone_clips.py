"""A data set in which questions are high tones and asides low ones, each a little over a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from duologue.data_prep.datasets.shards import Clip, ShardWriter

RATE = 16_000


def tone_clips(folder: Path, obeyed: tuple[int, ...] = (), alone: int = 0, breaths: bool = False) -> str:
    """Write four asides and four questions by turns, and the folder's name.

    obeyed: which of the asides are to be obeyed. alone: how many words by themselves follow, of which nothing is due.
    breaths: the second of a question begins where four fifths of it are over.
    """
    writer = ShardWriter(folder, name="questions", sample_rate=RATE, seed=0, parameters={})
    made = []
    for at in range(8 + alone):
        t = np.arange(RATE + 400 * at) / RATE
        hz, fields = (2500 + 60 * at, {"answer": "yes"}) if at % 2 else (300 + 20 * at, {"verdict": "noise"})
        fields = {"verdict": "query"} if at in obeyed else fields if at < 8 else {}
        fields |= {"pause": len(t) * 4 // 5} if breaths and at % 2 else {}
        pcm = (12_000 * np.sin(2 * np.pi * hz * t)).astype(np.int16)
        made.append(Clip(pcm, {"id": str(at), "text": "one", "voice": "tone", "prosody": None, **fields}))
    writer.write(0, made, [])
    writer.finish()
    return str(folder)
