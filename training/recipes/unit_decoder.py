"""Teach the unit decoder to write speech units from the LLM's states. Learns it alone; CTC.

A reply is read by the frozen LLM behind its question, written down, as in a conversation; the states that predicted the
reply's words, and the words' embeddings, are what the decoder sees. That is the convention of generation (the first
state is the last of the prompt, and <eos> is not spoken), not LLaMA-Omni's own training, which was one position late.

A decoder that reads spelling (unit_decoder.kind=spelling_decoder) is kept from leaning on the states by
``state_dropout``: in that fraction of the replies it sees none, and the LLM does not run.

Source: LLaMA-Omni (arXiv 2409.06666), sections 2.4 and 2.6, stage 2.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data_prep.datasets.question_sets import history_of
from ...data_prep.datasets.splits import Split
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_decoder.spelling_decoder import SpellingDecoder
from ...model.speech_decoder.spoken_form import read_aloud
from ...model.speech_decoder.unit_decoder import CTCCollapse
from ...model.speech_lm_config import AnyUnitDecoder, AnyUnitDecoderConfig
from ..data.chat_tokens import shape_of, turn_tokens
from ..data.corpus import Plan
from ..data.turns import HISTORY, Row, TurnsRecipe, questions_of, stack
from ..data.units import UNITS_FILE, UnitCorpus
from ..data.written import text_rows
from ..loop.task import Batch, Task
from ..losses.ctc_units import IGNORE, ctc_unit_frames, ctc_unit_loss
from ..losses.error_rate import error_rate
from ..presets import preset


@dataclass(frozen=True, kw_only=True)
class UnitDecoderRecipe(TurnsRecipe):
    """Data and sizes of the stage."""

    data: tuple[str, ...]  # sets of replies with their units (`duologue prepare units`)
    dev_data: tuple[str, ...] = ()
    unit_decoder: AnyUnitDecoderConfig
    hop: int  # samples a frame of the units
    units_file: str = UNITS_FILE  # of each data set
    # Of the replies without earlier turns of their own, the fraction that stands behind another question and answer.
    history: float = 0.3
    # The fraction of the replies that are learnt from without the LLM's states; 1: the LLM does not run at all.
    state_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fractions("history", "state_dropout")
        self.check_least(1, "hop")

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm",)

    def fitted(self) -> UnitDecoderRecipe:
        decoder = replace(self.unit_decoder, in_dim=shape_of(self.llm)[0])
        return replace(self, unit_decoder=decoder, questions=None if self.tokenizer else self.questions)

    def build(self) -> UnitDecoderTask:
        """The task of this recipe."""
        return UnitDecoderTask(self)


def recipe(name: str = "nano") -> UnitDecoderRecipe:
    """The stage's recipe, by the name of a preset."""
    return UnitDecoderRecipe(stage="unit_decoder", out="runs/unit_decoder", **preset(name, "unit_decoder"))


def decode(llm: LLM, decoder: AnyUnitDecoder, upsample: int, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits (B, F, units + 1) of each reply, and (B,) how many of its frames are real; the LLM is frozen."""
    place, lengths = batch["place"], batch["lengths"]
    ids = batch["ids"].gather(1, place)  # (B, T)
    frames = reply_frames(decoder, upsample, batch)
    with torch.no_grad():
        states = _states(llm, batch["ids"], batch["seen"])
        before = (place - 1)[..., None].expand(-1, -1, states.shape[2])
        predicted = states.gather(1, before)  # (B, T, D)
        beside = decoder.beside(ids, llm.embed)
    return decoder(predicted, beside, lengths, frames), frames


def reply_frames(decoder: AnyUnitDecoder, upsample: int, batch: Batch) -> Tensor:
    """(B,) frames of each reply of a batch."""
    lengths, ids = batch["lengths"], batch["ids"].gather(1, batch["place"])  # (B, T)
    rows = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
    return ctc_unit_frames(lengths.new_tensor(decoder.positions(rows)), batch["units"], upsample)


def _states(llm: LLM, ids: Tensor, seen: Tensor) -> Tensor:
    """The LLM's states (B, L, D) of rows of ids (B, L); zeros for those that are not seen."""
    if bool(seen.all()):
        return llm(llm.embed(ids)).hidden  # padding is on the right: causal is enough
    embeds = llm.embed(ids[seen])
    states = embeds.new_zeros(*ids.shape, llm.hidden_size)
    if len(embeds):
        states[seen] = llm(embeds).hidden.to(states.dtype)
    return states


class UnitDecoderTask(Task):
    """The frozen LLM, the unit decoder, and replies with their units."""

    def __init__(self, recipe: UnitDecoderRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.questions, self.tokens = questions_of(recipe.questions), turn_tokens(recipe.tokenizer, recipe.questions)
        self.llm = LLM(recipe.llm)
        self.unit_decoder = recipe.unit_decoder.build()
        if isinstance(self.unit_decoder, SpellingDecoder):
            self.unit_decoder.read_by(self.tokens.decode)
        self.collapse = CTCCollapse(recipe.unit_decoder.units)
        self.corpus, self.items = self._open(recipe.data)
        asked = [meta | {"text": meta.get("question"), "answer": meta["text"]} for meta in self.corpus.corpus.metas]
        questions = None if recipe.questions is None else self.questions
        self.text = text_rows(asked, questions, recipe.seed)
        lengths = np.array([len(self.corpus.spoken[int(item)].units) for item in self.items])
        self.plan = Plan(lengths, recipe.batch_size, recipe.seed, recipe.accumulate)

    def _open(self, folders: tuple[str, ...]) -> tuple[UnitCorpus, np.ndarray]:
        """The replies, and the numbers of those whose units fit into the frames that their tokens or characters have.

        A drill of one long word does not, and is left out. Answers that do not are more than nothing to leave out.
        """
        c = self.recipe.unit_decoder
        corpus = UnitCorpus(folders, c.units, self.recipe.hop, self.recipe.units_file)
        metas = corpus.corpus.metas
        words = np.array(self.unit_decoder.positions([self.tokens.encode(meta["text"]) for meta in metas]))
        # CTC writes a repeat with a blank before it.
        units = np.array([len(clip.units) + int((np.diff(clip.units) == 0).sum()) for clip in corpus.spoken])
        answers = np.array(["question" in meta for meta in metas])
        fits = (units <= words * c.upsample) & (words > 0)
        checked = answers if answers.any() else np.ones(len(metas), bool)
        if fits[checked].mean() < 0.99:
            what = "a character" if isinstance(self.unit_decoder, SpellingDecoder) else "a word"
            needed = int(np.ceil(np.quantile(units[checked] / np.maximum(words[checked], 1), 0.999)))
            raise DuologueError(
                f"{1 - fits[checked].mean():.0%} of the replies have more units than {c.upsample} {what}; "
                f"unit_decoder.upsample must be about {needed}"
            )
        return corpus, np.flatnonzero(fits)

    def parts(self) -> dict[str, nn.Module]:
        return {"unit_decoder": self.unit_decoder}

    def batch(self, number: int) -> Batch:
        _, places = self.plan(number)
        return self._batch(self.corpus, self.items[places], number)

    def _batch(self, corpus: UnitCorpus, items: np.ndarray, key: int) -> Batch:
        """Rows of tokens, where each reply stands in its row, and its units."""
        rng = np.random.default_rng((self.recipe.seed, key, 2))
        metas = [corpus.corpus.metas[int(item)] for item in items]
        rows = [self._row(meta, rng) for meta in metas]
        lengths = torch.tensor([len(self.tokens.encode(meta["text"])) for meta in metas])  # (B,) words
        ends = torch.tensor([row.said.stop for row in rows])  # (B,) where the end stands
        place = (ends - lengths)[:, None] + torch.arange(int(lengths.max()))  # (B, T) where each word stands
        seen = torch.from_numpy(rng.random(len(rows)) >= self.recipe.state_dropout)
        spoken = [torch.from_numpy(corpus.spoken[int(item)].units) for item in items]
        return {
            "ids": stack(rows)["ids"],  # (B, L)
            "place": torch.minimum(place, ends[:, None]),
            "lengths": lengths,
            "seen": seen,  # (B,) whether its states are
            "units": nn.utils.rnn.pad_sequence(spoken, batch_first=True, padding_value=IGNORE),  # (B, U)
        }

    def _row(self, meta: dict[str, Any], rng: np.random.Generator) -> Row:
        """The conversation that the reply ends, as text; a drill answers the request to say it."""
        row = self.tokens.row(meta.get("system"))
        history = history_of(meta)[-HISTORY:]
        if not history and rng.random() < self.recipe.history:
            history = [self.text.turn(int(rng.integers(2**31)))]
        for earlier in history:
            row.add_turn(*earlier)
        question = meta.get("question")
        if question is None:
            wordings = self.questions.repeat_requests(Split.TRAIN)
            question = wordings[int(rng.integers(len(wordings)))].format(w=meta["text"])
        row.add_turn(question, meta["text"], instruction=meta.get("instruction"))
        return row

    def decode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits (B, F, units + 1) of each reply, and (B,) how many of its frames are real."""
        return decode(self.llm, self.unit_decoder, self.recipe.unit_decoder.upsample, batch)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(*self.decode(batch), batch)

    def loss(self, logits: Tensor, frames: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of logits (B, F, units + 1), of which (B,) frames are real, and what is shown of it."""
        loss = ctc_unit_loss(logits, frames, batch["units"])
        real = torch.arange(logits.shape[1], device=logits.device) < frames[:, None]  # (B, F)
        blanks = logits.detach().argmax(-1)[real] == self.unit_decoder.blank
        return loss, {"blanks": blanks.float().mean()}

    @torch.no_grad()
    def write(self, batch: Batch) -> list[list[int]]:
        """The units of each reply, as a listener would get them."""
        # With its states, if they were learnt from, and no more frames than λ a position.
        seen = torch.full_like(batch["seen"], self.recipe.state_dropout < 1)
        logits, frames = self.decode(batch | {"units": batch["units"][:, :0], "seen": seen})
        beyond = torch.arange(logits.shape[1], device=logits.device) >= frames[:, None]
        logits[..., self.unit_decoder.blank].masked_fill_(beyond, float("inf"))
        return [[unit for unit in row if unit >= 0] for row in self.collapse(logits).tolist()]

    def measure(self, folders: tuple[str, ...], most: int = 128, unseen: bool = False) -> dict[str, float]:
        """Unit error rate and rate of blanks over about so many replies, evenly picked.

        unseen: of the replies with a word that no reply of the training data has; {} where there is none.
        """
        device = next(self.unit_decoder.parameters()).device
        corpus, items = self._open(folders)
        if unseen:
            items = np.array([i for i in items if _words(corpus.corpus.metas[i]) - self.known], int)
            if not len(items):
                return {}
        chosen = items[:: max(1, len(items) // most)]
        written: list[list[int]] = []
        blanks = []
        for begin in range(0, len(chosen), 32):
            batch = {k: v.to(device) for k, v in self._batch(corpus, chosen[begin : begin + 32], begin).items()}
            written += self.write(batch)
            with torch.no_grad():
                blanks.append(float(self(batch)[1]["blanks"]))
        wanted = [corpus.spoken[int(item)].units.tolist() for item in chosen]
        return {"unit_error_rate": error_rate(written, wanted), "blanks": float(np.mean(blanks))}

    @functools.cached_property
    def known(self) -> set[str]:
        """The words of the training data."""
        return set().union(*(_words(self.corpus.corpus.metas[int(item)]) for item in self.items))

    def evaluate(self) -> dict[str, float]:
        """The same on each held-out set, and on those of its replies that have a word which was not trained on."""
        metrics: dict[str, float] = {}
        for folder in self.recipe.dev_data:
            name = folder.rstrip("/").split("/")[-1]
            metrics |= {f"{key}_{name}": value for key, value in self.measure((folder,)).items()}
            metrics |= {f"{key}_{name}_unseen": value for key, value in self.measure((folder,), unseen=True).items()}
        return metrics


def _words(meta: dict[str, Any]) -> set[str]:
    """The words of a reply, as they are spoken."""
    return {word.strip(".,?!'") for word in read_aloud(meta["text"]).split()}
