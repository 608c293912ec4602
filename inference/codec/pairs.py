"""``duologue codec pairs``: clips of a data set beside what a codec makes of them, to be listened to and judged.

    OUT/reference/NAME.wav    a clip, as it went in
    OUT/decoded/NAME.wav      the same after encoding and decoding
    OUT/codes/NAME.json       its codes, a list for each codebook
    OUT/codec.json            {"codebook_size": 4096, "times": {"NAME": seconds for both}, "weights": digest or null}

It is the form that the evaluation of codecs reads. A clip's name is its id without suffix.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...checkpoints.files import write_text
from ...data_prep.audio import resampled, write_wav
from ...data_prep.datasets.shards import ShardedDataset
from ...model.codec.codec import Codec
from ...model.errors import DuologueError


@torch.inference_mode()
def write_pairs(
    codec: Codec,
    data: Path,
    out: Path,
    limit: int | None = None,
    seconds: float = 1.0,
    codebooks: int | None = None,
    weights: str | None = None,
) -> dict[str, Any]:
    """Encode and decode clips of a data set (``duologue prepare``), whole; write them as pairs.

    Args:
        limit: how many clips, spread over the set evenly; ``None``: all.
        seconds: shorter clips are left out (measures of intelligibility want some speech).
        weights: digest of the codec's weights, for the figures to say whose they are.

    Returns:
        "clips", "seconds" of sound, "real_time_factor" (computing time over it), "used" entries of the first codebook.

    Raises:
        DuologueError: no data set, no clip as long, or a folder that cannot be written.
    """
    from rich.progress import track

    dataset = ShardedDataset(data)
    chosen = [i for i, meta in enumerate(dataset.metas) if meta["samples"] >= seconds * dataset.sample_rate]
    if not chosen:
        raise DuologueError(f"{data} has no clip of {seconds:g} s or more")
    if limit is not None and limit < len(chosen):
        chosen = [chosen[i * len(chosen) // limit] for i in range(limit)]
    rate, times, total = codec.config.sample_rate, {}, 0
    used: set[int] = set()
    for index in track(chosen, "codec"):
        clip = dataset[index]
        name = str(Path(clip.meta["id"]).with_suffix(""))
        wave = resampled(clip.pcm.astype(np.float32) / 32768, dataset.sample_rate, rate)
        started = time.perf_counter()
        codes = codec.encode(torch.from_numpy(wave)[None], codebooks)  # (1, K, T)
        decoded = codec.decode(codes)[0, : len(wave)]
        times[name] = round(time.perf_counter() - started, 4)
        total += len(wave)
        used |= set(codes[0, 0].tolist())
        for side in ("reference", "decoded", "codes"):
            (out / side / name).parent.mkdir(parents=True, exist_ok=True)
        write_wav(out / "reference" / f"{name}.wav", wave, rate)
        write_wav(out / "decoded" / f"{name}.wav", decoded.numpy(), rate)
        write_text(out / "codes" / f"{name}.json", json.dumps(codes[0].tolist()))
    facts = {"codebook_size": codec.config.quantiser.size, "times": times, "weights": weights}
    write_text(out / "codec.json", json.dumps(facts))
    return {
        "clips": len(chosen),
        "seconds": total / rate,
        "real_time_factor": sum(times.values()) * rate / total,
        "used": len(used),
    }
