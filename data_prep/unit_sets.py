"""The recipe `units`: the units of a set of replies, in units.jsonl beside its shards.

One JSON object a clip: id, units (repeats merged) and durations (frames of 320 samples). The quantiser is read from its
folder, or fitted on the set and kept there, if that folder has none.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.config_io import config_from_dict
from ..model.encoder import WhisperEncoder, WhisperEncoderConfig
from ..model.errors import DuologueError
from ..model.mel import LogMel, LogMelConfig
from .features import SAMPLE_RATE, EncoderFeatures, Features, MfccFeatures
from .shards import Clip, ShardedDataset, write_json_lines
from .unit_quality import judge
from .units import CONFIG_FILE, KMeansUnits, deduplicate
from .voices import find_voices

UNITS_FILE = "units.jsonl"


@dataclass(frozen=True, kw_only=True)
class UnitsConfig:
    """
    data: folder of a set of replies; units.jsonl is written into it
    quantiser: folder of the clusters
    checkpoint: the model, or the run of asr_pretrain, whose encoder makes the features; empty: MFCC
    features: what makes them instead: hubert:FOLDER or hubert:HUB_ID, a HuBERT of transformers; empty: as above
    layer: of that encoder or HuBERT, counted in blocks
    clusters: how many units, when they are to be fitted
    fit_minutes: how much speech they are fitted on
    seed: of the clips picked for it and of the clusters' start
    judge: on how many clips phone purity and stability are measured; 0: on none
    """

    data: str
    quantiser: str
    checkpoint: str = ""
    features: str = ""
    layer: int = 3
    clusters: int = 200
    fit_minutes: float = 30.0
    seed: int = 0
    judge: int = 50

    def __post_init__(self) -> None:
        kind, _, source = self.features.partition(":")
        if self.features and (kind != "hubert" or not source):
            raise DuologueError(f"features={self.features}: expected hubert:FOLDER or hubert:HUB_ID")
        if self.features and self.checkpoint:
            raise DuologueError(f"features={self.features} and checkpoint={self.checkpoint}: give one of them")
        if self.clusters < 2:
            raise DuologueError(f"clusters={self.clusters}: expected at least 2")
        if self.fit_minutes <= 0:
            raise DuologueError(f"fit_minutes={self.fit_minutes}: expected more than 0")
        if self.judge < 0:
            raise DuologueError(f"judge={self.judge}: expected at least 0")


def waveform_of(clip: Clip) -> Tensor:
    """(samples,) float32 in [-1, 1]."""
    return torch.from_numpy(clip.pcm.astype(np.float32) / 32768)


def make_features(config: UnitsConfig) -> Features:
    if config.features:
        from .features_hubert import HubertFeatures

        return HubertFeatures(config.features.partition(":")[2], config.layer)
    if not config.checkpoint:
        return MfccFeatures()
    if (Path(config.checkpoint) / "recipe.json").is_file():
        return EncoderFeatures(*_ear_of_run(Path(config.checkpoint)), config.layer)
    from ..checkpoints.store import load

    model = load(config.checkpoint).model
    return EncoderFeatures(model.mel, model.encoder, config.layer)


def _ear_of_run(run: Path) -> tuple[LogMel, WhisperEncoder]:
    """The mel and the encoder of a training run's folder, sizes as its recipe states."""
    from safetensors.torch import load_file

    recipe = json.loads((run / "recipe.json").read_text())
    if "mel" not in recipe or "encoder" not in recipe or not (run / "model.safetensors").is_file():
        raise DuologueError(f"{run} is not a run that has trained an encoder: expected one of asr_pretrain")
    mel = LogMel(config_from_dict(LogMelConfig, recipe["mel"]))
    encoder = WhisperEncoder(config_from_dict(WhisperEncoderConfig, recipe["encoder"])).eval()
    tensors = load_file(run / "model.safetensors")
    encoder.load_state_dict({k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")})
    return mel, encoder


def prepare_units(config: UnitsConfig, *, progress: bool = True) -> dict[str, Any]:
    """Write units.jsonl; returns clips, units, how many a second, and the figures of unit_quality.judge.

    Raises DuologueError for an unfit data set.
    """
    dataset = ShardedDataset(config.data)
    if dataset.sample_rate != SAMPLE_RATE:
        raise DuologueError(f"{config.data} is at {dataset.sample_rate} Hz: units are made at {SAMPLE_RATE} Hz")
    if not len(dataset):
        raise DuologueError(f"{config.data} has no clips yet")
    features = make_features(config)
    folder = Path(config.quantiser)
    if (folder / CONFIG_FILE).exists():
        quantiser = KMeansUnits.load(folder, features)
    else:
        quantiser = KMeansUnits.fit(features, _some(dataset, config), config.clusters, config.seed)
        quantiser.save(folder)
    if len(quantiser) != config.clusters:
        raise DuologueError(f"{folder} holds {len(quantiser)} clusters, not {config.clusters}: name another folder")
    from rich.progress import track

    rows, total = [], 0
    for clip in track(dataset, "units", len(dataset), disable=not progress):
        units, durations = deduplicate(quantiser.encode(waveform_of(clip)))
        rows.append({"id": clip.meta["id"], "units": units.tolist(), "durations": durations.tolist()})
        total += len(units)
    write_json_lines(Path(config.data) / UNITS_FILE, rows)
    counts = {"clips": len(rows), "units": total, "per_second": round(total / (dataset.hours * 3600), 2)}
    return counts | (_figures(quantiser, dataset, config.judge) if config.judge else {})


def _figures(quantiser: KMeansUnits, dataset: ShardedDataset, count: int) -> dict[str, float]:
    """Phone purity where flite is installed and says all the clips in its own manner; stability everywhere."""
    clips = [dataset[index] for index in range(min(count, len(dataset)))]
    keys = {clip.meta["voice"] for clip in clips}
    known = len(keys) == 1 and shutil.which("flite") and all(clip.meta.get("prosody") is None for clip in clips)
    voice = find_voices(keys.pop())[0] if known and next(iter(keys)).startswith("flite:") else None
    return judge(quantiser, [(waveform_of(clip), clip.meta["text"]) for clip in clips], voice)


def _some(dataset: ShardedDataset, config: UnitsConfig) -> list[Tensor]:
    """Clips in an order drawn from the seed, until there are enough minutes."""
    picked, samples = [], 0
    for index in np.random.default_rng(config.seed).permutation(len(dataset)):
        picked.append(waveform_of(dataset[int(index)]))
        samples += len(picked[-1])
        if samples >= config.fit_minutes * 60 * SAMPLE_RATE:
            break
    return picked
