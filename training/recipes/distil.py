"""Teach a part by one or several teachers: to say what they say. Learns the LLM, an encoder or a unit decoder; KL.

    train distil teachers=nano,runs/other llm.num_hidden_layers=3 …            a language model (part=llm)
    train distil part=encoder teachers=runs/asr_pretrain data=data/mine …      an encoder, by its CTC head
    train distil part=unit_decoder teachers=nano data=data/mine_replies …      a unit decoder

The student learns from the data of the stage that makes its part (text_sft, asr_pretrain, unit_decoder), whose settings
all hold: the loss is ``label_weight`` times that stage's own, and for the rest the divergence of the student's
distributions from those of the teachers, both softened by ``temperature``. Teachers have the student's vocabulary, and
sizes of their own. With ``cache=FOLDER`` what they said is kept, the ``top_k`` likeliest classes or all.

Source: Hinton et al. (arXiv 1503.02531), section 2; of encoders and their CTC heads, Kurata and Audhkhasi (Interspeech
2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...model.errors import DuologueError
from ..data.turns import counted
from ..loop.task import Batch
from ..losses.mile import cross_entropy
from ..presets import preset
from ..teaching.taught import Predicted, RowOfBatch, Taught, TaughtRecipe, key_of, rows_of
from ..teaching.teachers import (
    EncoderTeacher,
    LLMTeacher,
    UnitDecoderTeacher,
    check_vocabulary,
    real_frames,
    vocabulary_of,
)
from .asr_pretrain import AsrPretrain, AsrPretrainRecipe
from .text_sft import ConversationSft, QuestionSft, TextSft, TextSftRecipe
from .unit_decoder import UnitDecoderRecipe, UnitDecoderTask, reply_frames


@dataclass(frozen=True, kw_only=True)
class DistilLLMRecipe(TaughtRecipe, TextSftRecipe):
    """A language model, by text_sft's data."""

    def build(self) -> TextSft:
        """The task of this recipe. Raises DuologueError where no teacher is named, or one does not fit."""
        return TaughtConversations(self) if self.data else TaughtQuestions(self)


@dataclass(frozen=True, kw_only=True)
class DistilEncoderRecipe(TaughtRecipe, AsrPretrainRecipe):
    """An encoder, by asr_pretrain's data."""

    def build(self) -> AsrPretrain:
        """The task of this recipe. Raises as :meth:`DistilLLMRecipe.build`."""
        return TaughtEncoder(self)


@dataclass(frozen=True, kw_only=True)
class DistilUnitDecoderRecipe(TaughtRecipe, UnitDecoderRecipe):
    """A unit decoder, by unit_decoder's data."""

    def build(self) -> UnitDecoderTask:
        """The task of this recipe. Raises as :meth:`DistilLLMRecipe.build`."""
        return TaughtUnitDecoder(self)


_STAGES = {
    "llm": (DistilLLMRecipe, "text_sft"),
    "encoder": (DistilEncoderRecipe, "asr_pretrain"),
    "unit_decoder": (DistilUnitDecoderRecipe, "unit_decoder"),
}


def recipe(name: str = "nano", part: str = "llm") -> TaughtRecipe:
    """The recipe for a part, with the settings that a preset has for the stage which makes it."""
    if part not in _STAGES:
        raise DuologueError(f"part is {part!r}; it must be {' or '.join(_STAGES)}")
    kind, stage = _STAGES[part]
    made: TaughtRecipe = kind(stage="distil", out="runs/distil", part=part, **preset(name, stage))
    return made


class TaughtLLM(Taught, TextSft):
    """A language model, and language models that teach it."""

    def predicted(self, batch: Batch) -> Predicted:
        hidden = self.llm.states(self.llm.embed(batch["ids"]), segments=batch.get("segments"))
        logits, wanted, weights = counted(self.llm, hidden, batch["ids"], batch["weights"])
        mile = self.recipe.mile if self.training else 0.0
        return Predicted(logits, weights, cross_entropy(logits.float(), wanted, weights, mile), {})

    def taught_rows(self, batch: Batch) -> list[RowOfBatch]:
        ids, counts, real = batch["ids"].cpu(), batch["weights"].cpu() > 0, batch["mask"].cpu() > 0
        alone = torch.where(real, torch.arange(len(ids))[:, None], -1)
        segments = batch["segments"].cpu() if "segments" in batch else alone
        found = []
        for number in range(int(segments.max()) + 1):
            here = segments == number
            # A position predicts the next one; the first of a packed row is predicted by whoever stands before it.
            counted_here = counts & here
            counted_here[:, 0] = False
            found.append((key_of(ids[here], counts[here]), int(counted_here.sum())))
        return rows_of(found)

    def teacher(self, name: str) -> nn.Module:
        check_vocabulary(name, vocabulary_of(self.recipe.tokenizer, self.recipe.questions))
        return LLMTeacher(name)


class TaughtQuestions(TaughtLLM, QuestionSft):
    """By dialogues of a question set."""

    def __init__(self, recipe: DistilLLMRecipe) -> None:
        super().__init__(recipe)
        self.enrol(recipe)


class TaughtConversations(TaughtLLM, ConversationSft):
    """By conversations in files."""

    def __init__(self, recipe: DistilLLMRecipe) -> None:
        super().__init__(recipe)
        self.enrol(recipe)


class TaughtEncoder(Taught, AsrPretrain):
    """An encoder with its CTC head, and others that teach it."""

    def __init__(self, recipe: DistilEncoderRecipe) -> None:
        super().__init__(recipe)
        self.enrol(recipe)

    def predicted(self, batch: Batch) -> Predicted:
        logits, _, loss, shown = self.heads(batch)
        logits = logits[real_frames(batch, logits.shape[1], self.recipe.mel.hop)]
        return Predicted(logits, logits.new_ones(len(logits)), loss, shown)

    def taught_rows(self, batch: Batch) -> list[RowOfBatch]:
        counts = (batch["lengths"] // self.recipe.mel.hop // 2).tolist()
        clips = zip(batch["samples"].cpu(), batch["lengths"].tolist(), strict=True)
        return rows_of(zip((key_of(clip[:length]) for clip, length in clips), counts, strict=True))

    def teacher(self, name: str) -> nn.Module:
        return EncoderTeacher(name, self.recipe.mel)


class TaughtUnitDecoder(Taught, UnitDecoderTask):
    """A unit decoder, and others that teach it, each behind its own language model."""

    def __init__(self, recipe: DistilUnitDecoderRecipe) -> None:
        super().__init__(recipe)
        self.enrol(recipe)

    def predicted(self, batch: Batch) -> Predicted:
        logits, frames = self.decode(batch)
        loss, shown = self.loss(logits, frames, batch)
        logits = logits[torch.arange(logits.shape[1], device=logits.device) < frames[:, None]]
        return Predicted(logits, logits.new_ones(len(logits)), loss, shown)

    def taught_rows(self, batch: Batch) -> list[RowOfBatch]:
        frames = reply_frames(self.unit_decoder, self.recipe.unit_decoder.upsample, batch)
        found = []
        for at, (length, count) in enumerate(zip(batch["lengths"].tolist(), frames.tolist(), strict=True)):
            place = batch["place"][at, :length]
            found.append((key_of(batch["ids"][at, : place[-1] + 1], place, batch["seen"][at], frames[at]), count))
        return rows_of(found)

    def teacher(self, name: str) -> nn.Module:
        made = UnitDecoderTeacher(name, self.recipe.unit_decoder, self.tokens)
        check_vocabulary(made.reads, vocabulary_of(self.recipe.tokenizer, self.recipe.questions))
        return made
