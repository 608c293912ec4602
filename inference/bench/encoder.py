"""What hearing through a window changes, against an encoder that hears whole clips.

Each recording is heard both ways with the same weights. Measured: the frames' relative error away from the ends, and
how often the token that the language model says first is the same one; beside them how long the encoder lags behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoints import store
from ...checkpoints.files import write_json
from ...data_prep.datasets.shards import ShardedDataset
from ...model.audio_encoder.windowed import WindowConfig, WindowedEncoder, interior_error
from ...model.errors import DuologueError
from ...model.speech_lm import SpeechLM

PIECE_MS = 80  # of the microphone
WINDOWS = tuple(
    WindowConfig(left_ms=left, chunk_ms=chunk, right_ms=right)
    for left, chunk, right in ((8000, 400, 400), (8000, 400, 0), (4000, 400, 0), (2000, 200, 0), (1000, 200, 0))
)


@torch.inference_mode()
def first_token(model: SpeechLM, pcm: Tensor) -> int:
    """The likeliest first token of the answer (or transcript) to samples (1, n), which come piece by piece."""
    state = model.init_state()
    model.begin_turn(state)
    for piece in pcm.split(model.config.mel.sample_rate * PIECE_MS // 1000, dim=1):
        model.listen(piece, state)
    model.end_turn(state)
    return int(model.next_logits(state).argmax())


@torch.inference_mode()
def compare(
    model: SpeechLM, clips: Sequence[Tensor], windows: Sequence[WindowConfig] = WINDOWS
) -> list[dict[str, Any]]:
    """For each window its settings, ``lag_ms``, ``error`` and ``agreement`` over clips (1, n)."""
    model.listen_through(None)
    offline = [first_token(model, clip) for clip in clips]
    rows = []
    for window in windows:
        encoder = WindowedEncoder(model.mel, model.encoder, window)
        errors = [interior_error(encoder, clip) for clip in clips if clip.shape[1] > model.config.mel.sample_rate]
        model.listen_through(window)
        same = [first_token(model, clip) == wanted for clip, wanted in zip(clips, offline, strict=True)]
        hop_ms = 1000 * model.config.mel.hop / model.config.mel.sample_rate
        rows.append(
            {
                "left_ms": encoder.left * hop_ms, "chunk_ms": encoder.chunk * hop_ms,
                "right_ms": encoder.right * hop_ms,
                "lag_ms": 1000 * encoder.latency / model.config.mel.sample_rate,
                "error": float(np.mean(errors)) if errors else None, "agreement": float(np.mean(same)),
            }
        )  # fmt: skip
    return rows


def run(
    *,
    data: Path,
    out: Path | None,
    say: Callable[[str], None],
    model: str = "nano",
    count: int = 80,
    device: str = "cpu",
    dtype: str = "float32",
) -> None:
    """Measure on a data set, print a table, and write encoder.json to ``out``.

    Raises:
        DuologueError: no such model, device or data set.
    """
    loaded = store.load(model, store.device_of(device), store.dtype_of(dtype)).model
    recordings = ShardedDataset(data)
    if not len(recordings):
        raise DuologueError(f"no clips in {data}; prepare the data first (duologue prepare)")
    chosen = range(0, len(recordings), max(1, len(recordings) // max(1, count)))
    clips = [torch.from_numpy(recordings[i].pcm.astype(np.float32) / 32768)[None].to(loaded.device) for i in chosen]
    rows = compare(loaded, clips[:count])
    say(f"{model}: {len(clips[:count])} recordings of {data}, against the encoder that hears them whole")
    say(f"  {'before':>9}{'chunk':>9}{'after':>9}{'lag':>9}{'error':>9}{'same first token':>18}")
    for row in rows:
        times = "".join(f"{row[key]:>6.0f} ms" for key in ("left_ms", "chunk_ms", "right_ms", "lag_ms"))
        error = "-" if row["error"] is None else f"{row['error']:.2%}"
        say(f"  {times}{error:>9}{row['agreement']:>18.1%}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = {"model": model, "data": str(data), "clips": len(clips[:count]), "windows": rows}
        write_json(out / "encoder.json", report)
