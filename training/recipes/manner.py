"""A head tells the manner of speaking from a frozen encoder's frames and the sound. Learns the head; nothing else.

``source`` is the run, the part or the model whose encoder is heard. Clips say their manner in the field ``manner``
(`duologue prepare manner`); each is heard ``views`` times, in another room, noise and loudness, and the frames are
kept, so that later steps cost next to nothing. Voices stay as they are: another pitch were another manner. The loss is
that of the opinion in the second half of a clip, so that the head knows before the turn is over.

Source: attentive statistics pooling over frames, Okabe et al. (arXiv 1803.10963); over a frozen encoder's, as in
SUPERB's utterance-level tasks, Yang et al. (arXiv 2105.01051), section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.parts import read_sizes
from ...model.audio_encoder.manner import MannerConfig, MannerHead
from ...model.errors import DuologueError
from ..augment.augment import augment
from ..data.corpus import Corpus, dev_sets, to_float
from ..data.speech import SpeechRecipe, SpeechTask, encoder_of
from ..loop.task import Batch
from ..presets import preset

_IGNORED = -100  # cross_entropy leaves these out
Heard = tuple[Tensor, Tensor | None]  # frames (T, D) of the encoder and features (T, F) of the sound, or None


@dataclass(frozen=True, kw_only=True)
class MannerRecipe(SpeechRecipe):
    """Whose encoder, and what is told apart. ``mel`` and ``encoder`` are the source's where there is one."""

    source: str  # a run that trained an encoder, a part encoder, or a model; empty: random weights of encoder's sizes
    manner: MannerConfig
    views: int = 1  # of each clip: with augmentation they differ

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(1, "views")

    def completed(self) -> Self:
        """In the sizes of the source."""
        sizes: dict[str, Any] = {"mel": self.mel, "encoder": self.encoder}
        if self.source:
            sizes = read_sizes(self.source, "encoder")
        if len(sizes) < 2:
            raise DuologueError(f"source={self.source} has no encoder: expected a run, a part encoder or a model")
        return replace(self, **sizes, manner=replace(self.manner, in_dim=sizes["encoder"].width))

    def build(self) -> Manner:
        """The task of this recipe."""
        return Manner(self)


def recipe(name: str = "nano") -> MannerRecipe:
    """The stage's recipe, by the name of a preset."""
    return MannerRecipe(stage="manner", out="runs/manner", **preset(name, "manner"))


class Manner(SpeechTask):
    """A frozen encoder and the head that learns. A scene is a clip as it is heard: number ``view * clips + clip``."""

    def __init__(self, recipe: MannerRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.mel, self.encoder = encoder_of(recipe, recipe.source)
        self.manner = MannerHead(recipe.manner)
        self.labels = labels_of(self.corpus, recipe.manner.classes, ",".join(recipe.data))
        if missing := set(range(len(recipe.manner.classes))) - set(self.labels):
            raise DuologueError(f"data has no clip of the manner {recipe.manner.classes[min(missing)]!r}")
        sound = None if self.augmentation is None else self.augmentation.sound
        self.sound = sound and replace(
            sound, speed_chance=0.0, pitch_chance=0.0, tempo_chance=0.0, formants_chance=0.0, source_chance=0.0
        )
        self.kept: dict[int, Heard] = {}  # of each scene
        self.held_out: dict[str, list[tuple[Heard, int]]] = {}

    def parts(self) -> dict[str, nn.Module]:
        return {"manner": self.manner}

    def batch(self, number: int) -> Batch:
        """Which scenes: each once an epoch, in an order of its own."""
        scenes = self.recipe.views * len(self.corpus)
        size = min(self.recipe.batch_size, scenes)
        epoch, at = divmod(number, scenes // size)
        order = np.random.default_rng((self.recipe.seed, epoch, 8)).permutation(scenes)
        return {"scenes": torch.from_numpy(order[at * size : (at + 1) * size])}

    def load_of(self, batch: Batch) -> None:
        return None

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        scenes = batch["scenes"].tolist()
        device = self.manner.classify.weight.device
        heard = [self.scene(scene) for scene in scenes]
        labels = torch.tensor([self.labels[scene % len(self.corpus)] for scene in scenes], device=device)
        lengths = torch.tensor([len(frames) for frames, _ in heard], device=device)
        logits = self.manner(*(padded(each, device) for each in zip(*heard, strict=True)))  # (B, T, C)
        at = torch.arange(logits.shape[1], device=device)
        late = (at >= lengths[:, None] // 2) & (at < lengths[:, None])  # (B, T)
        due = torch.where(late, labels[:, None], _IGNORED)
        each = F.cross_entropy(logits.float().transpose(1, 2), due, reduction="none", ignore_index=_IGNORED)  # (B, T)
        loss = (each.sum(1) / late.sum(1)).mean()
        right = logits[torch.arange(len(scenes)), lengths - 1].argmax(-1) == labels
        return loss, {"right": right.float().mean(), "heard": torch.tensor(float(len(self.kept)))}

    def scene(self, number: int) -> Heard:
        """What is heard of a scene, which is kept in bfloat16."""
        if number not in self.kept:
            wave = to_float(self.corpus[number % len(self.corpus)].pcm)
            if self.sound is not None:
                wave = augment(wave, np.random.default_rng((self.recipe.seed, number, 9)), self.sound, self.noises)
            frames, features = self.hear(wave)
            self.kept[number] = frames.bfloat16(), None if features is None else features.bfloat16()
        return self.kept[number]

    @torch.no_grad()
    def hear(self, wave: np.ndarray) -> Heard:
        """Of samples (n,), on the CPU."""
        samples = torch.from_numpy(wave)[None].to(next(self.encoder.parameters()).device)
        frames = self.encoder.eval()(self.mel(samples))
        features = self.manner.features(samples, frames.shape[1])
        return frames[0].cpu(), None if features is None else features[0].cpu()

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On each held-out set how often the likeliest manner is right, of all clips and of those of each manner."""
        metrics: dict[str, float] = {}
        classes = self.recipe.manner.classes
        for name, corpus in dev_sets(self.recipe.dev_data):
            if name not in self.held_out:
                labels = labels_of(corpus, classes, name)
                self.held_out[name] = [(self.hear(to_float(corpus[at].pcm)), label) for at, label in enumerate(labels)]
            self.manner.eval()
            device = self.manner.classify.weight.device
            right: dict[int, list[bool]] = {}
            for heard, label in self.held_out[name]:
                said = int(self.manner(*(padded((each,), device) for each in heard))[0, -1].argmax())
                right.setdefault(label, []).append(said == label)
            every = [one for each in right.values() for one in each]
            metrics[f"right_{name}"] = sum(every) / max(1, len(every))
            metrics |= {f"{classes[label]}_{name}": sum(each) / len(each) for label, each in sorted(right.items())}
        return metrics


def padded(rows: Sequence[Tensor | None], device: torch.device) -> Tensor | None:
    """Rows (T, D) of any length -> (B, T, D) float32; None: without these features."""
    known = [row for row in rows if row is not None]
    return nn.utils.rnn.pad_sequence(known, batch_first=True).to(device).float() if known else None


def labels_of(corpus: Corpus, classes: tuple[str, ...], where: str) -> list[int]:
    """The class of each clip. Raises DuologueError for a clip without a manner, or with one that is no class."""
    labels = []
    for meta in corpus.metas:
        manner = meta.get("manner")
        if manner not in classes:
            what = "no field 'manner' (duologue prepare manner)" if manner is None else f"the manner {manner!r}"
            raise DuologueError(f"{where}: clip {meta['id']} has {what}; expected one of {', '.join(classes)}")
        labels.append(classes.index(manner))
    return labels
