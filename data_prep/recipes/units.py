"""The speech units of a data set, in units.jsonl beside its shards; or a codec's tokens.

One JSON object a clip: id, units (repeats merged) and durations (frames of 320 samples). The quantiser is read from its
folder, or fitted on the set and kept there, if that folder has none. Or a codec's codes, one a frame of its own.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.files import expanded, write_json_lines
from ...checkpoints.units import CONFIG_FILE, HOP, SAMPLE_RATE
from ...model.errors import DuologueError
from ..datasets.shards import FAILED_FILE, Clip, ShardedDataset
from ..speech.voices import find_voices
from ..units.codec import CodecUnits
from ..units.features import EncoderFeatures, Features, MfccFeatures
from ..units.kmeans import KMeansUnits, Units
from ..units.quality import bit_rate, judge

UNITS_FILE = "units.jsonl"


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    data: folder of a set of replies; units.jsonl is written into it
    quantiser: folder of the clusters; empty with a codec
    codec: a codec whose codes are the units: a bundled name, a folder or a hub id
    file: what they are written into, if not units.jsonl
    checkpoint: the model, or the run of asr_pretrain or ssl, whose encoder makes the features; empty: MFCC
    features: what makes them instead: hubert:FOLDER or hubert:HUB_ID, a HuBERT of transformers; empty: as above
    layer: of that encoder or HuBERT, counted in blocks
    model: whose units these are to be, where its quantiser was not kept: the clusters, if they are to be found, are
        the means of these features over each unit of its own speech of the set's texts
    clusters: how many units, when they are to be fitted
    fit_minutes: how much speech they are fitted on, or found from
    seed: of the clips picked for it and of the clusters' start
    judge: on how many clips phone purity and stability are measured; 0: on none
    """

    data: str
    quantiser: str = ""
    codec: str = ""
    file: str = UNITS_FILE
    checkpoint: str = ""
    features: str = ""
    layer: int = 3
    model: str = ""
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
        if bool(self.codec) == bool(self.quantiser):
            raise DuologueError(
                "give quantiser=FOLDER (of clusters, to be fitted if it is empty) or codec=NAME, one of both"
            )
        if self.codec and (self.features or self.checkpoint or self.model):
            raise DuologueError(f"codec={self.codec} needs no features, checkpoint or model")
        if Path(self.file).name != self.file or not self.file.endswith(".jsonl"):
            raise DuologueError(f"file={self.file}: expected a name that ends in .jsonl, without a folder")
        if self.file == FAILED_FILE or self.file.startswith("shard-"):
            raise DuologueError(f"file={self.file} is a file of the data set itself: give another name")
        if self.clusters < 2:
            raise DuologueError(f"clusters={self.clusters}: expected at least 2")
        if self.fit_minutes <= 0:
            raise DuologueError(f"fit_minutes={self.fit_minutes}: expected more than 0")
        if self.judge < 0:
            raise DuologueError(f"judge={self.judge}: expected at least 0")


def waveform_of(clip: Clip) -> Tensor:
    """(samples,) float32 in [-1, 1]."""
    return torch.from_numpy(clip.pcm.astype(np.float32) / 32768)


def make_features(config: Config) -> Features:
    if config.features:
        from ..units.hubert import HubertFeatures

        return HubertFeatures(config.features.partition(":")[2], config.layer)
    if not config.checkpoint:
        return MfccFeatures()
    from ...checkpoints.parts import load_encoder

    return EncoderFeatures(*load_encoder(config.checkpoint), config.layer)


def run(config: Config, *, progress: bool = True) -> dict[str, Any]:
    """Write the units; returns clips, units, how many and how many bits a second, and what unit_quality.judge finds.

    Raises DuologueError for an unfit data set.
    """
    dataset = ShardedDataset(config.data)
    if not len(dataset):
        raise DuologueError(f"{config.data} has no clips yet")
    units = _units_of(config, dataset, progress)
    if dataset.sample_rate != units.sample_rate:
        raise DuologueError(
            f"{config.data} is at {dataset.sample_rate} Hz: these units are made at {units.sample_rate} Hz"
        )
    from rich.progress import track

    rows, written = [], []
    for clip in track(dataset, "units", len(dataset), disable=not progress):
        tokens, durations = units.spoken(waveform_of(clip))
        rows.append({"id": clip.meta["id"], "units": tokens.tolist(), "durations": durations.tolist()})
        written.append(tokens)
    write_json_lines(expanded(config.data) / config.file, rows)
    total, seconds = sum(map(len, written)), dataset.hours * 3600
    counts = {"clips": len(rows), "units": total, "per_second": round(total / seconds, 2),
              "bits_per_second": round(bit_rate(written, seconds), 1)}  # fmt: skip
    return counts | (_metrics(units, dataset, config.judge) if config.judge else {})


def _units_of(config: Config, dataset: ShardedDataset, progress: bool) -> Units:
    """The codec's, or the quantiser's, which is fitted if it is not there."""
    if config.codec:
        return CodecUnits.load(config.codec)
    if dataset.sample_rate != SAMPLE_RATE:
        raise DuologueError(f"{config.data} is at {dataset.sample_rate} Hz: units are made at {SAMPLE_RATE} Hz")
    features = make_features(config)
    folder = expanded(config.quantiser)
    if (folder / CONFIG_FILE).exists():
        quantiser = KMeansUnits.load(folder, features)
    elif config.model:
        quantiser = _found_again(features, dataset, config, progress)
        quantiser.save(folder)
    else:
        quantiser = KMeansUnits.fit(features, _some(dataset, config), config.clusters, config.seed)
        quantiser.save(folder)
    if len(quantiser) != config.clusters:
        raise DuologueError(f"{folder} holds {len(quantiser)} clusters, not {config.clusters}: name another folder")
    return quantiser


@torch.inference_mode()
def _found_again(features: Features, dataset: ShardedDataset, config: Config, progress: bool) -> KMeansUnits:
    """The clusters of a model's units, from what it says of the set's texts until there are enough minutes."""
    from rich.progress import Progress

    from ...checkpoints.store import load, read_model_config
    from ...model.speech_decoder.unit_vocoder import UnitVocoderConfig
    from ..units.own_speech import own_speech

    sizes = read_model_config(config.model).vocoder
    if not isinstance(sizes, UnitVocoderConfig) or (sizes.sample_rate, sizes.hop) != (SAMPLE_RATE, HOP):
        raise DuologueError(f"{config.model} has no unit vocoder with frames of {HOP} samples at {SAMPLE_RATE} Hz")
    if sizes.units != config.clusters:
        raise DuologueError(f"clusters={config.clusters}: {config.model} has {sizes.units} units")
    spoken, wanted = list[tuple[Tensor, Tensor]](), config.fit_minutes * 60 * SAMPLE_RATE
    texts = dict.fromkeys(str(meta["text"]) for meta in dataset.metas)
    with Progress(disable=not progress) as bar:
        made = bar.add_task("the model speaks", total=wanted)
        for waveform, frames in own_speech(load(config.model), texts):
            spoken.append((waveform, frames))
            bar.advance(made, len(waveform))
            if bar.tasks[made].completed >= wanted:
                break
    if not spoken:
        raise DuologueError(f"{config.model} knows the words of no text of {config.data}")
    return KMeansUnits.of_units(features, spoken, sizes.units)


def _metrics(units: Units, dataset: ShardedDataset, count: int) -> dict[str, float]:
    """Phone purity where flite is installed and says all the clips in its own manner; stability everywhere."""
    clips = [dataset[index] for index in range(min(count, len(dataset)))]
    keys = {clip.meta["voice"] for clip in clips}
    known = len(keys) == 1 and shutil.which("flite") and all(clip.meta.get("prosody") is None for clip in clips)
    voice = find_voices(keys.pop())[0] if known and next(iter(keys)).startswith("flite:") else None
    return judge(units, [(waveform_of(clip), clip.meta["text"]) for clip in clips], voice)


def _some(dataset: ShardedDataset, config: Config) -> list[Tensor]:
    """Clips in an order drawn from the seed, until there are enough minutes."""
    picked, samples = [], 0
    for index in np.random.default_rng(config.seed).permutation(len(dataset)):
        picked.append(waveform_of(dataset[int(index)]))
        samples += len(picked[-1])
        if samples >= config.fit_minutes * 60 * SAMPLE_RATE:
            break
    return picked
