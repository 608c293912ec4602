"""What can be read off each layer of an encoder. Learns one small CTC head a layer; nothing else moves.

``source`` is the run or the checkpoint whose encoder is asked. Beside its layers stand the log-mel itself and the same
encoder with random weights, each with heads of their own, trained on the same batches. Held-out clips are written down
greedily, character by character; ``probe.json`` in the run's folder keeps every clip's errors for every head, of which
``duologue evaluate probe --data RUN`` makes the curve.

Source: how LUISE picks the layer of its second iteration, Seed-ASR (arXiv 2407.04675), section 3.2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoints.files import expanded, write_text
from ...data_prep.text.plain_text import spoken_words
from ...model.audio_encoder.encoder import layer_outputs
from ..data.characters import LABELS, ctc_batch, ctc_loss, greedy
from ..data.corpus import Corpus, Plan, dev_sets, pad, to_float
from ..data.speech import SpeechRecipe, SpeechTask, encoder_of
from ..loop.task import Batch
from ..losses.error_rate import edit_distance
from ..presets import preset

FILE = "probe.json"
STANDARD_CLIPS = 64  # from which means and deviations are taken
STACK = 2  # mel frames for each of the encoder's


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe(SpeechRecipe):
    """Whose encoder, and how large a head. ``mel`` and ``encoder`` are for what has no source."""

    source: str  # a run of ssl or asr_pretrain, or a model; empty: random weights of ``encoder``'s sizes
    hidden: int = 0  # width of a head's layer between; 0: it is linear
    reach: int = 4  # frames to either side that such a layer hears
    dev_clips: int = 200  # of each held-out set

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_least(1, "dev_clips")

    def build(self) -> Probe:
        """The task of this recipe."""
        return Probe(self)


def recipe(name: str = "nano") -> ProbeRecipe:
    """The stage's recipe, by the name of a preset."""
    return ProbeRecipe(stage="probe", out="runs/probe", **preset(name, "probe"))


class Head(nn.Module):
    """Frames (B, T, D) -> logits (B, T, LABELS)."""

    def __init__(self, dim: int, hidden: int, reach: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        layers: list[nn.Module] = [nn.Conv1d(dim, LABELS, 1)]
        if hidden:
            layers = [nn.Conv1d(dim, hidden, 2 * reach + 1, padding=reach), nn.ReLU(), nn.Conv1d(hidden, LABELS, 1)]
        self.layers = nn.Sequential(*layers)

    def look_at(self, frames: Tensor) -> None:
        """Take each dimension's mean and deviation from frames (N, D), so that no layer is at a disadvantage."""
        wide = frames.double()
        self.mean.copy_(wide.mean(0))
        # A dimension that float32 cannot tell from a constant is one.
        self.scale.copy_(torch.maximum(wide.std(0), 1e-5 + 1e-6 * wide.mean(0).abs()))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(((x.float() - self.mean) / self.scale).transpose(1, 2)).transpose(1, 2)


class Probe(SpeechTask):
    """Two frozen encoders and their heads. Layers are counted in blocks: 0 is what the convolutions give."""

    def __init__(self, recipe: ProbeRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.mel, self.encoder = encoder_of(recipe, recipe.source)
        self.random = self.encoder.config.build()
        layers = range(len(self.encoder.blocks) + 1)
        self.names = ["mel", *(f"{kind}_{layer}" for kind in ("random", "trained") for layer in layers)]
        widths = [STACK * self.mel.config.n_mels] + [self.encoder.config.width] * (len(self.names) - 1)
        self.heads = nn.ModuleDict(
            {name: Head(dim, recipe.hidden, recipe.reach) for name, dim in zip(self.names, widths, strict=True)}
        )
        self.plan = Plan(self.corpus.lengths, recipe.batch_size, recipe.seed, recipe.accumulate)
        seen: dict[str, list[Tensor]] = {name: [] for name in self.names}
        for item in np.random.default_rng(recipe.seed).permutation(len(self.corpus))[:STANDARD_CLIPS]:
            wave = torch.from_numpy(to_float(self.corpus[int(item)].pcm))
            for name, frames in self.read(wave[None]).items():
                seen[name].append(frames[0])
        for name, rows in seen.items():
            self.heads[name].look_at(torch.cat(rows))  # type: ignore[operator]

    def parts(self) -> dict[str, nn.Module]:
        return {"heads": self.heads}

    def batch(self, number: int) -> Batch:
        sound = None if self.augmentation is None else self.augmentation.sound
        return ctc_batch(self.corpus, self.plan, number, self.recipe.seed, sound, self.noises)[0]

    @torch.no_grad()
    def read(self, samples: Tensor) -> dict[str, Tensor]:
        """Samples (B, n) -> frames (B, T, D) at 50 Hz, of every layer by name."""
        mel = self.mel(samples)  # (B, M, T)
        mel = mel[..., : mel.shape[2] // STACK * STACK]
        found = {"mel": mel.transpose(1, 2).reshape(mel.shape[0], -1, STACK * mel.shape[1])}
        for kind, encoder in (("random", self.random), ("trained", self.encoder)):
            frames = layer_outputs(encoder.eval(), mel)
            found |= {f"{kind}_{layer}": x for layer, x in enumerate(frames)}
        return found

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        frames = batch["lengths"] // (STACK * self.mel.config.hop)
        losses = {
            name: ctc_loss(self.heads[name](x), frames, batch["labels"], batch["label_lengths"])
            for name, x in self.read(batch["samples"]).items()
        }
        trained = [loss.detach() for name, loss in losses.items() if name.startswith("trained")]
        return torch.stack(list(losses.values())).sum(), {"mel": losses["mel"].detach(), "best": min(trained)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """The best layer and word error rates of each held-out set; every clip's errors go into probe.json."""
        metrics: dict[str, float] = {}
        sets: dict[str, list[dict[str, Any]]] = {}
        for name, corpus in dev_sets(self.recipe.dev_data):
            rows = sets[name] = self._rows(corpus)
            rate = {head: _rate(rows, f"wer_{head}") for head in self.names}
            trained = {head: value for head, value in rate.items() if head.startswith("trained")}
            metrics |= {f"best_layer_{name}": float(min(trained, key=trained.__getitem__).rpartition("_")[2]),
                        f"wer_{name}": min(trained.values()), f"wer_mel_{name}": rate["mel"],
                        f"wer_random_{name}": min(value for head, value in rate.items() if "random" in head),
                        }  # fmt: skip
        layers, source = len(self.encoder.blocks), self.recipe.source
        kept = {"source": source, "layers": layers, "hidden": self.recipe.hidden, "reach": self.recipe.reach}
        text = json.dumps(kept | {"sets": sets}, indent=1)
        write_text(expanded(self.recipe.out) / FILE, text + "\n")
        return metrics

    def _rows(self, corpus: Corpus) -> list[dict[str, Any]]:
        """Of some clips: [errors, words] and [errors, characters] of every head."""
        rows = []
        chosen = range(0, len(corpus), max(1, len(corpus) // self.recipe.dev_clips))
        for begin in range(0, len(chosen), 16):
            clips = [corpus[item] for item in chosen[begin : begin + 16]]
            samples, lengths = pad([to_float(clip.pcm) for clip in clips])
            frames = lengths // (STACK * self.mel.config.hop)
            layers = self.read(samples.to(next(self.encoder.parameters()).device))
            texts = {name: greedy(self.heads[name](x), frames) for name, x in layers.items()}
            for at, clip in enumerate(clips):
                wanted, measures = spoken_words(clip.meta), {}
                for name in self.names:
                    heard = texts[name][at]
                    measures[f"wer_{name}"] = [edit_distance(heard.split(), wanted.split()), len(wanted.split())]
                    measures[f"cer_{name}"] = [edit_distance(heard, wanted), len(wanted)]
                rows.append({"id": clip.meta["id"], "voice": clip.meta.get("voice"), "measures": measures})
        return rows


def _rate(rows: list[dict[str, Any]], key: str) -> float:
    return sum(row["measures"][key][0] for row in rows) / max(1, sum(row["measures"][key][1] for row in rows))
