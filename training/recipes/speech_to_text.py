"""Join the encoder to the LLM. Learns the adaptor and the LLM, and the encoder if ``learn`` names it.

The model hears a question, writes down what it heard, and answers: cross-entropy on both, and CTC of the words at the
places of speech, which teaches the LLM early where in the speech each word is. Some rows are text alone, so
that what text_sft taught is not lost.

With ``llm=FOLDER`` and ``encoder=FOLDER`` it joins a Whisper and a language model from elsewhere, which answers at once
in its own tokens: cross-entropy on the answers alone, as in LLaMA-Omni, but clips are not padded to 30 s. A clip stands
behind the earlier turns of its conversation, heard or read, and before the instruction that it has. With ``loss=kl``
the targets are not the answers' tokens but what the frozen LLM says behind the same question in writing.

Source: LLaMA-Omni (arXiv 2409.06666), section 2.6, stage 1 (preset ``llama-omni``); the transcript before the answer is
SpeechGPT's chain-of-modality (arXiv 2305.11000), section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.source import resolve
from ...checkpoints.store import load_tokenizer
from ...data_prep.datasets.question_sets import history_of
from ...data_prep.text.plain_text import spoken_words
from ...data_prep.text.spoken import contains_slot
from ...model.adaptor.adaptor import HeardClips
from ...model.decoding.reply import reply
from ...model.errors import DuologueError
from ...model.speech_lm import DialogueState, Sampling, SpeechLM, TokenKind
from ...model.speech_lm_config import AdaptorConfig
from ..augment.augment import augment
from ..augment.spec import spec_augment
from ..data.chat_tokens import joined_config, shape_of, turn_tokens
from ..data.corpus import Corpus, Plan, dev_sets, pad, to_float
from ..data.marked_turns import marked_config
from ..data.speech import SpeechRecipe, SpeechTask, random_offsets
from ..data.turns import (
    HISTORY,
    Earlier,
    Hearing,
    Row,
    TurnsRecipe,
    check_categories,
    counted,
    embed_rows,
    pack,
    questions_of,
    spoken_words_loss,
    spread,
    train_plainly,
    weighted_loss,
    weighted_mean,
)
from ..data.written import text_rows
from ..loop.lora import LoraTask, merged, without_lora
from ..loop.task import Batch
from ..loop.trainer import to_device
from ..losses.distillation import divergence, in_writing
from ..losses.error_rate import error_rate
from ..presets import preset
from ..recipe import CrossEntropyRecipe


@dataclass(frozen=True, kw_only=True)
class SpeechToTextRecipe(SpeechRecipe, TurnsRecipe, CrossEntropyRecipe):
    """Data and sizes of the stage."""

    adaptor: AdaptorConfig
    loss: Literal["words", "kl"] = "words"  # of an answer: its tokens', or to the frozen LLM's own to the written words
    temperature: float = 2.0  # of both distributions, with loss=kl
    ctc_weight: float = 0.3  # of the words that are said, at the places of speech
    history_speech: float = 0.5  # fraction of the earlier turns that are heard, where the data has them as clips
    lora: int = 0  # rank of the LLM's low-rank updates, which learn in its weights' place; 0: the weights themselves
    row_tokens: int = 256  # conversations are packed into rows of so many positions; 1: each has its own row
    text_fraction: float = 0.25  # rows of text alone, as a fraction of the rows of speech
    text_only: tuple[str, ...] = ()  # categories of questions in them; none named: all
    practice: float = 0.25  # of the questions in them, the fraction in wordings for practice

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories("text_only", self.text_only, self.questions)
        self.check_fractions("practice", "history_speech")
        self.check_least(1, "row_tokens")
        if self.temperature <= 0:
            raise DuologueError(f"temperature is {self.temperature}; it must be above 0")

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm", "encoder", "adaptor")

    def fitted(self) -> SpeechToTextRecipe:
        adaptor = replace(self.adaptor, in_dim=self.encoder.width, out_dim=shape_of(self.llm)[0])
        if self.tokenizer is None:
            return replace(self, adaptor=adaptor)
        return replace(self, adaptor=adaptor, questions=None, ctc_weight=0.0, text_fraction=0.0)

    def build(self) -> SpeechToText:
        """The task of this recipe.

        Raises:
            DuologueError: loss=kl without a frozen language model of one's own.
        """
        if self.loss == "kl":
            if self.tokenizer is None:
                raise DuologueError("loss=kl learns from a language model that answers at once: give llm=FOLDER")
            if not self.lora and any(prefix.partition(".")[0] == "llm" for prefix in self.learn):
                raise DuologueError("loss=kl wants a frozen llm, but it learns: give lora=RANK or learn=adaptor")
        return SpeechToText(self)


def recipe(name: str = "nano") -> SpeechToTextRecipe:
    """The stage's recipe, by the name of a preset."""
    return SpeechToTextRecipe(stage="speech_to_text", out="runs/speech_to_text", **preset(name, "speech_to_text"))


class SpeechToText(SpeechTask, LoraTask):
    """Mel, encoder, adaptor and LLM, under their SpeechLM names, and their rows of spoken dialogue."""

    taught = "an answer to learn"  # what a clip must have

    def __init__(self, recipe: SpeechToTextRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.questions, self.tokens = questions_of(recipe.questions), turn_tokens(recipe.tokenizer, recipe.questions)
        parts = {"mel": recipe.mel, "encoder": recipe.encoder, "adaptor": recipe.adaptor, "llm": recipe.llm}
        joined, questions = recipe.tokenizer, None if recipe.questions is None else self.questions
        model = SpeechLM(joined_config(joined, **parts) if joined else marked_config(str(recipe.questions), **parts))
        if joined:
            model.read_by(load_tokenizer(resolve(joined)))
        self.mel, self.encoder, self.adaptor, self.llm = model.mel, model.encoder, model.adaptor, model.llm
        train_plainly(self.llm)
        self._model = (model,)  # in a tuple, which does not register: the parts are registered under their own names
        self.text = text_rows(self.corpus.metas, questions, recipe.seed + 1, categories=recipe.text_only,
                              practice=recipe.practice)  # fmt: skip
        self.items = np.array([at for at, meta in enumerate(self.corpus.metas) if self.teaches(meta)], int)
        if not len(self.items):
            raise DuologueError(f"no clip in {', '.join(recipe.data)} has {self.taught}")
        self.plan = Plan(self.corpus.lengths[self.items], recipe.batch_size, recipe.seed, recipe.accumulate)

    def teaches(self, meta: Mapping[str, Any]) -> bool:
        """Whether there is anything to learn from a clip: its words, where they are written down, or its answer."""
        return self.tokens.transcribes or "answer" in meta

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "adaptor": self.adaptor, "llm": merged(self.llm)}

    @property
    def lora(self) -> int:
        return self.recipe.lora

    def frames(self, samples: int) -> int:
        """Positions that a row has for a clip of so many samples: one for each embedding, or where their number is
        known only once the clip is heard, one (see :meth:`laid_out`)."""
        if not self.adaptor.even:
            return 1
        mel = samples // self.recipe.mel.hop
        return (mel + 1) // 2 // self.adaptor.most.denominator

    def batch(self, number: int) -> Batch:
        r = self.recipe
        epoch, places = self.plan(number)
        items = self.items[places]
        rng = np.random.default_rng((r.seed, number, 1))
        waves: list[np.ndarray] = []
        rows: list[Row] = []
        # Two clips of similar length in a row now and then: the second question of a conversation.
        pairs = rng.random(len(items)) < 0.3
        for place, item in enumerate(items):
            clip = self.corpus[int(item)]
            meta, answer = clip.meta, clip.meta.get("answer")
            joins = place and pairs[place] and answer is not None and len(rows[-1].ids) < 160
            if not (joins and rows[-1].takes(meta)):
                rows.append(self.tokens.row(meta.get("system")))
            row = rows[-1]
            if history_of(meta):  # the turns that it goes on from
                answer = row.add_before(meta, rng, self.questions, self.hearing(self.corpus, int(item), waves, epoch))
            wave = self.heard_wave(self.corpus, int(item), epoch)
            row.add_turn(meta["text"], answer, self.frames(len(wave)), instruction=meta.get("instruction"))
            row.clips.append(len(waves))
            waves.append(wave)
            if answer is None:
                pairs[place + 1 : place + 2] = False  # nothing follows a turn that was not answered
        rows += self.written_rows(number, len(rows))
        return self.packed(rows, waves, rng)[0]

    def heard_wave(self, corpus: Corpus, item: int, epoch: int) -> np.ndarray:
        """A clip (n,) as it is heard in an epoch."""
        wave = to_float(corpus[item].pcm)
        if self.augmentation is None:
            return wave
        rng = np.random.default_rng((self.recipe.seed, epoch, item))
        return augment(wave, rng, self.augmentation.sound, self.noises)

    def hearing(self, corpus: Corpus, item: int, waves: list[np.ndarray], epoch: int) -> Hearing:
        """How earlier turns of a clip are heard, if they are: their waves join those of the batch."""
        rng = np.random.default_rng((self.recipe.seed, epoch, item, 3))

        def hear(question: str, answer: str) -> Earlier | None:
            found = corpus.earlier(item, question, answer, rng)
            if found is None:
                return None
            instruction = corpus.metas[found].get("instruction")
            if question and rng.random() >= self.recipe.history_speech:
                return Earlier(0, -1, instruction)
            waves.append(self.heard_wave(corpus, found, epoch))
            return Earlier(self.frames(len(waves[-1])), len(waves) - 1, instruction)

        return hear

    def written_rows(self, number: int, beside: int) -> list[Row]:
        """Rows of text alone, so many as go beside ``beside`` rows of speech."""
        r = self.recipe
        return [
            self.text.row(self.tokens, number * r.batch_size + place, np.random.default_rng((r.seed, number, place, 2)))
            for place in range(int(r.text_fraction * beside))
        ]

    def packed(self, rows: list[Row], waves: list[np.ndarray], rng: np.random.Generator) -> tuple[Batch, list[int]]:
        """The batch of these rows and of the clips that they speak of, and in which order it has the clips."""
        r = self.recipe
        batch, rows = pack(rows, r.row_tokens)
        if r.loss == "kl":
            batch |= in_writing(rows, r.row_tokens)
        order = [clip for row in rows for clip in row.clips]
        samples, lengths = pad([waves[clip] for clip in order])
        longest = samples.shape[1] // (2 * r.mel.hop)
        offsets = random_offsets(r.encoder, longest, len(waves), rng)
        return batch | {
            "spoken": [row.spoken for row in rows],
            "frames": [row.speech for row in rows],
            "samples": samples,
            "lengths": lengths,
            "offsets": offsets[order],
            "mask_seed": int(rng.integers(2**31)),
        }, order

    def hear(self, batch: Batch) -> HeardClips:
        """The N clips as embeddings."""
        with torch.no_grad():
            mel = self.mel(batch["samples"])  # (N, M, T)
        lengths = batch["lengths"] // self.recipe.mel.hop
        if self.training and self.augmentation is not None:
            mel = spec_augment(mel, lengths, torch.Generator().manual_seed(batch["mask_seed"]), self.augmentation.masks)
        frames = self.encoder(mel, lengths=lengths, offsets=batch["offsets"])  # (N, T', D); no graph while it is frozen
        return self.adaptor.clips(frames, (lengths + 1) // 2)

    def laid_out(self, batch: Batch, heard: HeardClips) -> Batch:
        """The batch with a position for each embedding."""
        return batch if self.adaptor.even else spread(batch, heard.counts, self.tokens)

    def read(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The LLM's states (B, L, D) of the rows, speech in its places; and the batch, as it is laid out then."""
        heard = self.hear(batch)
        batch = self.laid_out(batch, heard)
        embeds = embed_rows(self.llm, batch["ids"], self.tokens, heard.embeddings, heard.counts)
        return self.llm.states(embeds, segments=batch["segments"]), batch

    def words_loss(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what is to be written, from states (B, L, D), and its parts."""
        if self.recipe.loss == "kl":
            return self.taught_loss(hidden, batch)
        words = weighted_loss(self.llm, hidden, batch["ids"], batch["weights"], self.recipe.mile)
        if not self.recipe.ctc_weight:
            return words, {"words": words.detach()}
        logits = self.llm.head(hidden[batch["ids"] == self.tokens.speech])  # (places, V)
        ctc = spoken_words_loss(logits, batch["spoken"], batch["frames"], self._model[0].config.layout.pad)
        return words + self.recipe.ctc_weight * ctc, {"words": words.detach(), "ctc": ctc.detach()}

    def taught_loss(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The divergence of the answers from the frozen LLM's own to the same words in writing; where a clip has no
        words, the loss of its answer's tokens."""
        with torch.no_grad(), without_lora(self.llm):
            ids = batch["written_ids"]
            states = self.llm.states(self.llm.embed(ids), segments=batch["written_segments"])
            teacher = counted(self.llm, states, ids, batch["written_weights"])[0][batch["pairs"]]  # (N, V)
        student, wanted, weights = counted(self.llm, hidden, batch["ids"], batch["weights"])
        kl = divergence(student, teacher, self.recipe.temperature)
        words = F.cross_entropy(student.float(), wanted, reduction="none")
        loss = weighted_mean(torch.where(batch["worded"], kl, words), weights)
        taught = weighted_mean(kl, weights * batch["worded"])
        return loss, {"kl": taught.detach(), "words": weighted_mean(words, weights).detach()}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.words_loss(*self.read(batch))

    def heard(self, wave: np.ndarray, turn: Mapping[str, Any]) -> DialogueState:
        """A conversation in which a whole clip (n,) has just been heard, as in use, behind the earlier turns that its
        metadata say, which were read."""
        model = self._model[0]
        state = model.init_state(instructions=turn.get("system") or "")
        for question, answer in history_of(turn)[-HISTORY:]:
            model.recall(self.tokens.encode(question), self.tokens.encode(answer), state)
        model.begin_turn(state)
        model.listen(torch.from_numpy(wave)[None], state)
        if turn.get("instruction"):
            model.ask_about(self.tokens.encode(turn["instruction"]), state)
        model.end_turn(state)
        return state

    def converse(self, wave: np.ndarray, turn: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """The (transcript, answer) of a whole clip, as the model gives them in use; ``turn``: its metadata."""
        model, state = self._model[0], self.heard(wave, turn or {})
        steps = list(reply(model, state, Sampling(max_tokens=64)))
        transcript, answer = (
            self.tokens.decode([step.token for step in steps if step.kind is kind])
            for kind in (TokenKind.TRANSCRIPT, TokenKind.REPLY)
        )
        return transcript, answer

    def evaluate(self) -> dict[str, float]:
        """On each held-out set the transcript's word error rate, where there are transcripts, and otherwise the loss of
        the answers; and the fraction of answers that are right, where the data say what a right one contains."""
        metrics: dict[str, float] = {}
        for name, dev in dev_sets(self.recipe.dev_data):
            if not self.tokens.transcribes:
                metrics |= {f"loss_{name}": loss for loss in self.answer_losses(dev)}
            chosen = [i for i in range(0, len(dev), max(1, len(dev) // 128)) if self.has_slot(dev.metas[i])]
            if not chosen:
                continue
            metas = [dev.metas[i] for i in chosen]
            said = [self.converse(to_float(dev[i].pcm), meta) for i, meta in zip(chosen, metas, strict=True)]
            if self.tokens.transcribes:
                wanted = [spoken_words(meta).split() for meta in metas]
                metrics[f"wer_{name}"] = error_rate([t.split() for t, _ in said], wanted)
            right = [contains_slot(answer, m["slot"]) for (_, answer), m in zip(said, metas, strict=True)]
            metrics[f"right_{name}"] = sum(right) / max(1, len(right))
        return metrics

    def has_slot(self, meta: Mapping[str, Any]) -> bool:
        """Whether a clip says what a right answer contains; a whole sentence is no figure for free answers."""
        return "slot" in meta and (self.tokens.transcribes or meta["slot"] != meta.get("answer"))

    @torch.no_grad()
    def answer_losses(self, corpus: Corpus, most: int = 128) -> list[float]:
        """The mean loss of the answers of about so many clips, as they are heard; nothing where there are none."""
        answered = [at for at, meta in enumerate(corpus.metas) if meta.get("answer")]
        losses, rng = [], np.random.default_rng(0)
        for item in answered[:: max(1, len(answered) // most)]:
            meta, wave = corpus.metas[item], to_float(corpus[item].pcm)
            row = self.tokens.row(meta.get("system"))
            answer = row.add_before(meta, rng, self.questions)
            row.add_turn(meta["text"], answer, self.frames(len(wave)), 0.0, instruction=meta.get("instruction"))
            row.clips.append(0)
            batch = to_device(self.packed([row], [wave], rng)[0], next(self.llm.parameters()).device)
            hidden, batch = self.read(batch)
            losses.append(float(weighted_loss(self.llm, hidden, batch["ids"], batch["weights"])))
        return [sum(losses) / len(losses)] if losses else []
