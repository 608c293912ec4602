"""Join the encoder to the LLM. Learns the adaptor and the LLM, and the encoder if ``learn`` names it.

The model hears a question, writes down what it heard, and answers: cross-entropy on both, and CTC of the words at the
places of speech, which teaches the LLM early where in the speech each word is. Some rows are text alone, so
that what text_sft taught is not lost.

With ``llm=FOLDER`` and ``encoder=FOLDER`` it joins a Whisper and a language model from elsewhere, which answers at once
in its own tokens: cross-entropy on the answer alone, as in LLaMA-Omni, but clips are not padded to 30 s.

Source: LLaMA-Omni (arXiv 2409.06666), section 2.6, stage 1 (preset ``llama-omni``); the transcript before the answer is
SpeechGPT's chain-of-modality (arXiv 2305.11000), section 3.2.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoints.source import resolve
from ...checkpoints.store import load_tokenizer
from ...data_prep.datasets.question_sets import before_of, question_set
from ...data_prep.text.plain_text import spoken_words
from ...data_prep.text.spoken import contains_slot
from ...model.decoding.reply import reply
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLMOutput
from ...model.speech_lm import DialogueState, Sampling, SpeechLM, TokenKind
from ...model.speech_lm_config import AdaptorConfig
from ..augment.augment import augment
from ..augment.spec import spec_augment
from ..data.chat_tokens import joined_config, shape_of, turn_tokens
from ..data.corpus import Plan, dev_sets, pad, to_float
from ..data.speech import SpeechRecipe, SpeechTask, random_offsets
from ..data.turns import (
    Row,
    TurnsRecipe,
    check_categories,
    embed_rows,
    marked_config,
    pack,
    spoken_words_loss,
    train_plainly,
    weighted_loss,
)
from ..loop.lora import add_lora, is_lora, merged
from ..loop.task import Batch
from ..losses.error_rate import error_rate
from ..presets import preset


@dataclass(frozen=True, kw_only=True)
class SpeechToTextRecipe(SpeechRecipe, TurnsRecipe):
    """Data and sizes of the stage."""

    adaptor: AdaptorConfig
    ctc_weight: float = 0.3  # of the words that are said, at the places of speech
    lora: int = 0  # rank of the LLM's low-rank updates, which learn in its weights' place; 0: the weights themselves
    row_tokens: int = 256  # conversations are packed into rows of so many positions; 1: each has its own row
    text_fraction: float = 0.25  # rows of text alone, as a fraction of the rows of speech
    text_only: tuple[str, ...] = ()  # categories of questions in them; none named: all
    practice: float = 0.25  # of the questions in them, the fraction in wordings for practice

    def __post_init__(self) -> None:
        super().__post_init__()
        check_categories("text_only", self.text_only, self.questions)
        self.check_fractions("practice")
        self.check_least(1, "row_tokens")
        if self.tokenizer is not None and (self.ctc_weight or self.text_fraction):
            raise DuologueError(
                f"ctc_weight is {self.ctc_weight} and text_fraction {self.text_fraction}, which need the words of a "
                f"question set; with the tokens of {self.tokenizer} both must be 0"
            )

    @property
    def joins(self) -> tuple[str, ...]:
        return ("llm", "encoder")

    def fitted(self) -> SpeechToTextRecipe:
        adaptor = replace(self.adaptor, in_dim=self.encoder.width, out_dim=shape_of(self.llm)[0])
        return replace(self, adaptor=adaptor)

    def build(self) -> SpeechToText:
        """The task of this recipe."""
        return SpeechToText(self)


def recipe(name: str = "nano") -> SpeechToTextRecipe:
    """The stage's recipe, by the name of a preset."""
    return SpeechToTextRecipe(stage="speech_to_text", out="runs/speech_to_text", **preset(name, "speech_to_text"))


class SpeechToText(SpeechTask):
    """Mel, encoder, adaptor and LLM, under their SpeechLM names, and their rows of spoken dialogue."""

    def __init__(self, recipe: SpeechToTextRecipe) -> None:
        super().__init__(recipe)
        self.recipe = recipe
        self.questions, self.tokens = question_set(recipe.questions), turn_tokens(recipe.tokenizer, recipe.questions)
        parts = {"mel": recipe.mel, "encoder": recipe.encoder, "adaptor": recipe.adaptor, "llm": recipe.llm}
        joined = recipe.tokenizer
        model = SpeechLM(joined_config(joined, **parts) if joined else marked_config(recipe.questions, **parts))
        if joined:
            model.read_by(load_tokenizer(resolve(joined)))
        self.mel, self.encoder, self.adaptor, self.llm = model.mel, model.encoder, model.adaptor, model.llm
        train_plainly(self.llm)
        self._model = (model,)  # in a tuple, which does not register: the parts are registered under their own names
        self.items = np.arange(len(self.corpus))
        if self.tokens.reply is None:  # an answer is all there is to learn
            self.items = np.array([i for i, meta in enumerate(self.corpus.metas) if "answer" in meta], int)
        if not len(self.items):
            raise DuologueError(f"no clip in {', '.join(recipe.data)} has an answer to learn")
        self.plan = Plan(self.corpus.lengths[self.items], recipe.batch_size, recipe.seed, recipe.accumulate)

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "adaptor": self.adaptor, "llm": merged(self.llm)}

    def adapt(self) -> None:
        if self.recipe.lora:
            add_lora(self.llm, self.recipe.lora)

    def stays(self, name: str) -> bool:
        return bool(self.recipe.lora) and name.startswith("llm.") and not is_lora(name)

    def frames(self, samples: int) -> int:
        """Adaptor frames that a clip of so many samples becomes."""
        mel = samples // self.recipe.mel.hop
        return (mel + 1) // 2 // self.recipe.adaptor.stack

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
            wave = to_float(clip.pcm)
            if self.augmentation is not None:
                wave = augment(
                    wave, np.random.default_rng((r.seed, epoch, int(item))), self.augmentation.sound, self.noises
                )
            waves.append(wave)
            row = rows[-1] if place and pairs[place] and "answer" in clip.meta and len(rows[-1].ids) < 160 else None
            row = row or Row(self.tokens)
            if not row.ids:
                rows.append(row)
            answer = clip.meta.get("answer")
            if before_of(clip.meta):  # the turn that it goes on from, in writing
                answer = row.add_before(clip.meta, rng, self.questions)
            row.add_turn(clip.meta["text"], answer, self.frames(len(wave)))
            row.clips.append(place)
            if "answer" not in clip.meta:
                pairs[place + 1 : place + 2] = False  # nothing follows a turn that was not answered
        rows += self.written_rows(number, len(rows))
        return self.packed(rows, waves, rng)[0]

    def written_rows(self, number: int, beside: int) -> list[Row]:
        """Rows of text alone, so many as go beside ``beside`` rows of speech."""
        r, rows = self.recipe, []
        for place in range(int(r.text_fraction * beside)):
            row, rng = Row(self.tokens), np.random.default_rng((r.seed, number, place, 2))
            numbers = itertools.count((number * r.batch_size + place) * 64)
            dialogues = (self.questions.dialogue(r.seed + 1, drawn, practice=r.practice) for drawn in numbers)
            wanted = (d for d in dialogues if not r.text_only or d.category in r.text_only)
            for dialogue in itertools.islice(wanted, 4):
                row.add_dialogue(dialogue, 0.0, rng, self.questions)
            rows.append(row)
        return rows

    def packed(self, rows: list[Row], waves: list[np.ndarray], rng: np.random.Generator) -> tuple[Batch, list[int]]:
        """The batch of these rows and of the clips that they speak of, and in which order it has the clips."""
        r = self.recipe
        batch, rows = pack(rows, r.row_tokens)
        order = [clip for row in rows for clip in row.clips]
        samples, lengths = pad([waves[clip] for clip in order])
        longest = samples.shape[1] // (2 * r.mel.hop)
        offsets = random_offsets(r.encoder, longest, len(waves), rng)
        if r.encoder.chunk is None:  # one that sees whole clips has them begin at 0
            offsets.zero_()
        return batch | {
            "spoken": [row.spoken for row in rows],
            "frames": [row.speech for row in rows],
            "samples": samples,
            "lengths": lengths,
            "offsets": offsets[order],
            "mask_seed": int(rng.integers(2**31)),
        }, order

    def hear(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Speech embeddings (N, T, D_llm) and (N,) how many of each clip are real."""
        with torch.no_grad():
            mel = self.mel(batch["samples"])  # (N, M, T)
        lengths = batch["lengths"] // self.recipe.mel.hop
        if self.training and self.augmentation is not None:
            mel = spec_augment(mel, lengths, torch.Generator().manual_seed(batch["mask_seed"]), self.augmentation.masks)
        frames = self.encoder(mel, lengths=lengths, offsets=batch["offsets"])  # (N, T', D); no graph while it is frozen
        return self.adaptor(frames), (lengths + 1) // 2 // self.recipe.adaptor.stack

    def read(self, batch: Batch) -> LLMOutput:
        """What the LLM makes of the rows, speech in its places."""
        speech, lengths = self.hear(batch)
        embeds = embed_rows(self.llm, batch["ids"], self.tokens, speech, lengths)
        return self.llm(embeds, segments=batch["segments"])

    def words_loss(self, logits: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what is to be written, from logits (B, L, V), and its parts."""
        words = weighted_loss(logits, batch["ids"], batch["weights"])
        if not self.recipe.ctc_weight:
            return words, {"words": words.detach()}
        ctc = spoken_words_loss(logits, batch["ids"], self.tokens, batch["spoken"], batch["frames"])
        return words + self.recipe.ctc_weight * ctc, {"words": words.detach(), "ctc": ctc.detach()}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.words_loss(self.read(batch).logits, batch)

    def heard(self, wave: np.ndarray, before: tuple[str, str] | None = None) -> DialogueState:
        """A conversation in which a whole clip (n,) has just been heard, as in use, behind the turn ``before``."""
        model = self._model[0]
        state = model.init_state()
        if before:
            model.recall(self.tokens.encode(before[0]), self.tokens.encode(before[1]), state)
        model.begin_turn(state)
        model.listen(torch.from_numpy(wave)[None], state)
        model.end_turn(state)
        return state

    def converse(self, wave: np.ndarray, before: tuple[str, str] | None = None) -> tuple[str, str]:
        """The (transcript, answer) of a whole clip, as the model gives them in use, behind the turn ``before``."""
        model, state = self._model[0], self.heard(wave, before)
        steps = list(reply(model, state, Sampling(max_tokens=64)))
        transcript, answer = (
            self.tokens.decode([step.token for step in steps if step.kind is kind])
            for kind in (TokenKind.TRANSCRIPT, TokenKind.REPLY)
        )
        return transcript, answer

    def evaluate(self) -> dict[str, float]:
        """Transcript word error rate and the fraction of right answers on each held-out set."""
        metrics = {}
        for name, dev in dev_sets(self.recipe.dev_data):
            chosen = [i for i in range(0, len(dev), max(1, len(dev) // 128)) if "slot" in dev.metas[i]]
            if not chosen:
                continue
            metas = [dev.metas[i] for i in chosen]
            said = [
                self.converse(to_float(dev[i].pcm), before_of(meta)) for i, meta in zip(chosen, metas, strict=True)
            ]
            if self.tokens.reply is not None:
                wanted = [spoken_words(meta).split() for meta in metas]
                metrics[f"wer_{name}"] = error_rate([t.split() for t, _ in said], wanted)
            right = [contains_slot(answer, m["slot"]) for (_, answer), m in zip(said, metas, strict=True)]
            metrics[f"right_{name}"] = sum(right) / max(1, len(right))
        return metrics
