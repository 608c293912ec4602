"""From the words that the model writes down, is there anything to answer? Learns that alone.

Scenes as in stage duplex are listened to as in use, behind another turn in half of them: the model hears, and writes
down what it makes of it, mistakes and all. The state behind that is what the word monitor learns to read. The rest of
the model is finished and stays as it is, so a scene is listened to once, and the state is kept: from the second epoch
on steps cost next to nothing.

It must learn from what it will read: behind true transcripts it learns to trust words that in use are mistaken (nano's
card has the figures).

Source: a head on a frozen language model is Freeze-Omni's (arXiv 2411.00774), section 2.5; see model/duplex/monitor.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data_prep.datasets.question_sets import history_of
from ...model.decoding.reply import transcript
from ...model.duplex.monitor import TURN_STATES, Monitor, MonitorConfig
from ...model.errors import DuologueError
from ...model.speech_lm import Sampling
from ..data.corpus import Corpus
from ..loop.task import Batch
from ..presets import preset
from .duplex import UNKNOWN, Duplex, DuplexRecipe

_MOST = Sampling(max_tokens=64)
_HELD_OUT = 200  # scenes of each held-out set


@dataclass(frozen=True, kw_only=True)
class WordMonitorRecipe(DuplexRecipe):
    """Data and sizes of the stage.

    scenes: so many are made of the clips, as many as there are clips where that is less.
    blur: what is added to the states, as a fraction of their own spread, so that they are not learnt by heart.
    """

    word_monitor: MonitorConfig
    scenes: int = 8000
    blur: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fractions("blur")
        if self.scenes < 1:
            raise DuologueError(f"scenes is {self.scenes}; it must be at least 1")
        if self.tokenizer is not None:
            raise DuologueError(
                f"a word monitor reads the transcript, and the language model of {self.tokenizer} writes none: its "
                "monitor is that of stage duplex"
            )

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm", "encoder", "adaptor")

    def fitted(self) -> WordMonitorRecipe:
        fitted = super().fitted()
        assert isinstance(fitted, WordMonitorRecipe)
        return replace(fitted, word_monitor=replace(self.word_monitor, in_dim=fitted.adaptor.out_dim))

    def build(self) -> WordMonitor:
        """The task of this recipe."""
        return WordMonitor(self)


def recipe(name: str = "nano") -> WordMonitorRecipe:
    """The stage's recipe, by the name of a preset."""
    return WordMonitorRecipe(stage="word_monitor", out="runs/word_monitor", **preset(name, "word_monitor"))


class WordMonitor(Duplex):
    """Stage duplex's scenes, and what the model makes of them: one state each, and the turn state that is due."""

    def __init__(self, recipe: WordMonitorRecipe) -> None:
        super().__init__(recipe)
        self.words = recipe
        self.word_monitor = Monitor(recipe.word_monitor)
        self.of_corpus = np.random.default_rng((recipe.seed, 7)).permutation(len(self.corpus))[: recipe.scenes]
        self.held_out: dict[str, list[tuple[Tensor, int]]] = {}
        self.known: dict[int, tuple[Tensor, int]] = {}  # of each scene: the state (D,) and the turn state

    def parts(self) -> dict[str, nn.Module]:
        return {"word_monitor": self.word_monitor}

    def batch(self, number: int) -> Batch:
        """Which scenes: each once an epoch, in an order of its own."""
        size = min(self.recipe.batch_size, len(self.of_corpus))
        epoch, at = divmod(number, len(self.of_corpus) // size)
        order = np.random.default_rng((self.recipe.seed, epoch, 8)).permutation(len(self.of_corpus))
        return {"scenes": torch.from_numpy(order[at * size : (at + 1) * size]), "blur_seed": number}

    def load_of(self, batch: Batch) -> None:
        return None

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        states, due = self.read_behind(batch["scenes"].tolist())
        rng = torch.Generator().manual_seed(batch["blur_seed"])
        blur = self.words.blur * states.std() * torch.randn(states.shape, generator=rng).to(states)
        logits = self.word_monitor(states + blur)
        known = due != UNKNOWN
        loss = F.cross_entropy(logits[known], due[known])
        right = (logits[known].argmax(-1) == due[known]).float().mean()
        return loss, {"right": right, "heard": torch.tensor(float(len(self.known)))}

    def read_behind(self, scenes: list[int]) -> tuple[Tensor, Tensor]:
        """The states (N, D) behind what is written down of these scenes, and the turn states that are due (N,)."""
        for scene in scenes:
            if scene not in self.known:
                self.known[scene] = self.listen(self.corpus, int(self.of_corpus[scene]), scene)
        device = next(self.word_monitor.parameters()).device
        states = torch.stack([self.known[scene][0] for scene in scenes])
        return states.to(device), torch.tensor([self.known[scene][1] for scene in scenes], device=device)

    @torch.no_grad()
    def listen(self, corpus: Corpus, item: int, number: int) -> tuple[Tensor, int]:
        """The state (D,) in which the model has written down scene ``number``, of a clip; and the turn state due."""
        rng = np.random.default_rng((self.recipe.seed, number, 9))
        clip = corpus[item]
        quiet = None if self.augmentation is None else replace(self.augmentation.sound, silence_chance=0.0)
        wave, due, _ = self.scene(clip, rng, quiet)
        history = history_of(clip.meta)
        if not history and rng.random() < 0.5:  # not the first turn
            history = [self.text.turn(int(rng.integers(2**31)))]
        model, state = self._model[0], self.heard(wave, {"history": history})
        for _ in transcript(model, state, _MOST):
            pass
        if not state.speaking:  # it lost itself in the words
            return torch.zeros(self.words.word_monitor.in_dim), UNKNOWN
        model.next_logits(state)
        assert state.hidden is not None
        return state.hidden[0, -1].float().cpu(), due[-1]

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On each held-out set, how often the likeliest turn state is the one that is due."""
        metrics = {}
        for folder in self.recipe.dev_data:
            if folder not in self.held_out:
                corpus = Corpus((folder,))
                items = range(0, len(corpus), max(1, len(corpus) // _HELD_OUT))
                self.held_out[folder] = [self.listen(corpus, item, item) for item in items]
            states, due = zip(*self.held_out[folder], strict=True)
            device = next(self.word_monitor.parameters()).device
            said = self.word_monitor(torch.stack(states).to(device)).argmax(-1).tolist()
            name = folder.rstrip("/").split("/")[-1]
            for index, turn_state in enumerate(TURN_STATES):
                right = [one == index for one, wanted in zip(said, due, strict=True) if wanted == index]
                if right:
                    metrics[f"{turn_state.value}_{name}"] = sum(right) / len(right)
        return metrics
