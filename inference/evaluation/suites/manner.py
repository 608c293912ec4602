"""The manner of speaking that a head on the audio encoder tells: accuracy, confusions, recall, false alarms.

Clips are a data set with a `manner` each (`duologue prepare manner`). Those of synthesisers, recordings of people as
they are, and such recordings with a manner simulated on them (`kind`) are given apart, for they are not alike: nobody
whispers or shouts in the recordings, so what is measured of people is how often plain speech is called anything else,
and how often the simulation is recognised.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....checkpoints.parts import load_manner
from ....data_prep.datasets.shards import Clip, ShardedDataset
from ....model.errors import DuologueError
from ..metrics.statistics import Better, Metric
from ..report.page import Section, table
from ..report.plots import interval, number
from ..report.reporting import Parts, by_part, finish, good_rows
from ..report.run_folder import Row, open_folder, resume_rows

CALM = "calm"  # plain speech: anything else that it is called is a false alarm
UNKNOWN = "unknown"  # the kind of a clip that does not say it


def run(
    *, model: str, data: Path, out: Path, limit: int | None = None, seed: int = 0, quiet: bool = False
) -> dict[str, Any]:
    """Write report.json, report.html and summary.md about the head of ``model`` (a run of stage manner, or a model with
    the head) on the clips of ``data`` into ``out``.

    Args:
        limit: clips, evenly over the set; None: all.

    Raises:
        DuologueError: no such head, or no data set whose clips have manners that it tells apart.
    """
    mel, encoder, head = load_manner(model)
    classes, dataset = head.config.classes, ShardedDataset(data)
    if dataset.sample_rate != mel.config.sample_rate:
        raise DuologueError(f"{data} has {dataset.sample_rate} Hz; the encoder hears {mel.config.sample_rate} Hz")
    for meta in dataset.metas:
        if meta.get("manner") not in classes:
            raise DuologueError(
                f"{data}: clip {meta['id']} has manner {meta.get('manner')!r}; {model} tells {', '.join(classes)}"
            )
    every = range(0, len(dataset), max(1, len(dataset) // (limit or len(dataset) or 1)))
    clips = [dataset[at] for at in every][:limit]
    if not clips:
        raise DuologueError(f"{data} has no clips")
    settings = {"suite": "manner", "model": model, "data": str(data), "classes": list(classes), "clips": len(clips),
                "seed": seed}  # fmt: skip
    folder = open_folder(out, settings)

    @torch.inference_mode()
    def work(at: int, clip: Clip) -> Row:
        samples = torch.from_numpy(clip.pcm.astype("float32") / 32768)[None]
        frames = encoder(mel(samples))
        logits = head(frames, head.features(samples, frames.shape[1]))[0]  # (T, C)
        if not len(logits):
            raise DuologueError("it is too short to be heard")
        probabilities = logits[-1].float().softmax(-1).tolist()
        said = classes[max(range(len(classes)), key=probabilities.__getitem__)]
        return judged(clip.meta, said) | {"probabilities": dict(zip(classes, probabilities, strict=True))}

    rows = resume_rows(folder / "told.jsonl", "hearing", clips, work, quiet, lambda clip: str(clip.meta["id"]))
    good = good_rows(rows)
    metrics = metrics_of(classes)
    parts = by_part(good, "kind", metrics, seed)
    parts = [(name, [finding for finding in found if finding.count]) for name, found in parts]
    matrices = {name: confusion([row for row in good if row["kind"] == name], classes) for name, _ in parts}
    sections = [_by_kind(parts), *(_matrix(name, matrix, classes) for name, matrix in matrices.items())]
    return finish(
        folder, "Manner of speaking", settings, metrics, rows, sections, details={"confusion": matrices}, parts=parts,
        quiet=quiet,
    )  # fmt: skip


def judged(meta: dict[str, Any], said: str) -> Row:
    """What is known of a clip once the head has said a manner."""
    manner = meta["manner"]
    measures = {"right": [int(said == manner), 1], f"recall_{manner}": [int(said == manner), 1]}
    if manner == CALM:
        measures["false_alarms"] = [int(said != CALM), 1]
    return {
        "id": str(meta["id"]), "manner": manner, "said": said, "kind": meta.get("kind", UNKNOWN),
        "voice": meta.get("voice"), "measures": measures,
    }  # fmt: skip


def metrics_of(classes: Sequence[str]) -> list[Metric]:
    """Accuracy, recall of each class, and how often plain speech is called something else."""
    found = [Metric(key="right", name="Manner told right", unit="%")]
    found += [Metric(key=f"recall_{name}", name=f"Recall of {name}", unit="%") for name in classes]
    if CALM in classes:
        found.append(Metric(key="false_alarms", name="Calm speech called otherwise", unit="%", better=Better.LOWER))
    return found


def confusion(rows: Sequence[Row], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Of each manner that there are clips of, how many were called what."""
    count = Counter((row["manner"], row["said"]) for row in rows)
    there = [manner for manner in classes if any(row["manner"] == manner for row in rows)]
    return {manner: {said: count[manner, said] for said in classes} for manner in there}


def _by_kind(parts: Parts) -> Section:
    rows = [
        (name, found.metric.name, number(found.value, "%"), interval(found.low, found.high, "%"), str(found.count))
        for name, findings in parts
        for found in findings
    ]
    return Section(title="By kind of clip", body=table(("kind", "", "", "95 %", "clips"), rows, (2, 3, 4)))


def _matrix(name: str, matrix: dict[str, dict[str, int]], classes: Sequence[str]) -> Section:
    rows = [(manner, *(str(row[said]) for said in classes)) for manner, row in matrix.items()]
    body = table(("manner", *classes), rows, range(1, len(classes) + 1))
    return Section(title=f"{name}: what each manner was called", body=body)
