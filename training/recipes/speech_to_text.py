"""Join the ear to the LLM. Learns the adaptor and the LLM, and the encoder if ``learn`` names it.

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
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data_prep.nano.dialogues import Category, generate
from ...data_prep.text.spoken import contains_slot
from ...model.adaptor.stack import StackConfig
from ...model.audio_encoder.mel import LogMelConfig
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLMOutput
from ...model.speech_lm import DialogueState, Sampling, SpeechLM, TokenKind
from ...model.speech_lm_config import AdaptorConfig, EncoderConfig
from ..augment.augment import augment
from ..augment.spec import spec_augment
from ..data.chat_tokens import chat_tokens, joined_config, shape_of
from ..data.corpus import Corpus, Plan, pad, to_float
from ..data.turns import Row, embed_rows, nano_tokens, pack, spoken_words_loss, train_plainly, weighted_loss
from ..loop.lora import add_lora, is_lora, merged
from ..loop.task import Batch, Task
from ..loop.throughput import StepCost, speech_load
from ..losses.error_rate import error_rate
from ..presets.nano import NANO_ADAPTOR, NANO_ENCODER, NANO_MEL, augmentation_of, nano_llm, tiny_llm, without_voice
from ..recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class SpeechToTextRecipe(Recipe):
    """Data and sizes of the stage."""

    data: tuple[str, ...]
    dev_data: tuple[str, ...] = ()
    noises: str | None = None
    mel: LogMelConfig = NANO_MEL
    encoder: EncoderConfig = NANO_ENCODER
    adaptor: AdaptorConfig = NANO_ADAPTOR
    llm: dict[str, Any] = field(default_factory=nano_llm)
    tokenizer: str | None = None  # folder whose tokens and chat template the turns are written in; None: nano's words
    ctc_weight: float = 0.3  # of the words that are said, at the places of speech
    lora: int = 0  # rank of the LLM's low-rank updates, which learn in its weights' place; 0: the weights themselves
    row_tokens: int = 256  # conversations are packed into rows of so many positions; 1: each has its own row
    text_fraction: float = 0.25  # rows of text alone, as a share of the rows of speech
    text_only: tuple[str, ...] = ()  # categories of questions in them, such as arithmetic; none named: all
    practice: float = 0.25  # of the questions in them, the share in wordings for practice (data_prep/nano/practice.py)
    augment: str = "light"  # none | light | voices | full: how clips are disguised on the fly

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.text_only) - set(Category):
            raise DuologueError(f"text_only is {','.join(sorted(unknown))}; it must be some of {', '.join(Category)}")
        self.check_fractions("practice")
        self.check_least(1, "row_tokens")
        augmentation_of(self.augment)
        if self.tokenizer is not None and (self.ctc_weight or self.text_fraction):
            raise DuologueError(
                f"ctc_weight is {self.ctc_weight} and text_fraction {self.text_fraction}, which need "
                f"nano's words; with the "
                f"tokens of {self.tokenizer} both must be 0"
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


PRESETS = ("llama-omni",)


def recipe(preset: str = "nano") -> SpeechToTextRecipe:
    """The stage's recipe: ``nano``, ``llama-omni`` with its sizes and schedule, or ``tiny`` for a test on a CPU."""
    base = SpeechToTextRecipe(
        stage="speech_to_text",
        out="runs/speech_to_text",
        start=("encoder=runs/asr_pretrain", "llm=runs/text_sft"),
        learn=("adaptor", "llm"),
        data=("work/questions",),
        dev_data=("work/dev_questions",),
        steps=5000,
        batch_size=32,
        lr=1e-3,
        warmup=150,
        optimiser="muon",
        precision="bf16",
    )
    if preset == "llama-omni":  # three epochs of its 200,000 questions; with llm= and encoder=
        return replace(
            base, start=(), adaptor=StackConfig(in_dim=192, hidden_dim=2048, out_dim=256, stack=5), ctc_weight=0.0,
            text_fraction=0.0, augment="none", dev_data=(), steps=18750, lr=2e-5, warmup=560, optimiser="adamw",
            betas=(0.9, 0.999), weight_decay=0.0,
        )  # fmt: skip
    if preset == "tiny":
        return replace(
            base,
            start=(),
            encoder=replace(NANO_ENCODER, n_audio_state=64, n_audio_head=2, n_audio_layer=2),
            adaptor=StackConfig(in_dim=64, hidden_dim=128, out_dim=64, stack=4),
            llm=tiny_llm(),
            dev_data=(), text_fraction=0.0, augment="none", steps=200, batch_size=8, warmup=10, lr=3e-3,
            optimiser="adamw",
            precision="no",
            workers=0, save_every=200,
        )  # fmt: skip
    return base


class SpeechToText(Task):
    """Mel, encoder, adaptor and LLM, under their SpeechLM names, and their rows of spoken dialogue."""

    def __init__(self, recipe: SpeechToTextRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        self.tokens = nano_tokens() if recipe.tokenizer is None else chat_tokens(recipe.tokenizer)
        model = self._untrained()
        self.mel, self.encoder, self.adaptor, self.llm = model.mel, model.encoder, model.adaptor, model.llm
        train_plainly(self.llm)
        self._model = (model,)  # in a tuple, which does not register: the parts are registered under their own names
        self.corpus = Corpus(recipe.data)
        self.items = np.arange(len(self.corpus))
        if self.tokens.reply is None:  # an answer is all there is to learn
            self.items = np.array([i for i, meta in enumerate(self.corpus.metas) if "answer" in meta], int)
        if not len(self.items):
            raise DuologueError(f"no clip in {', '.join(recipe.data)} has an answer to learn")
        self.plan = Plan(self.corpus.lengths[self.items], recipe.batch_size, recipe.seed, recipe.accumulate)
        self.augmentation = augmentation_of(recipe.augment)
        noise = None if recipe.noises is None else Corpus((recipe.noises,))
        self.noises = [] if noise is None else [to_float(noise[i].pcm) for i in range(len(noise))]

    def _untrained(self) -> SpeechLM:
        """The model without a voice, in nano's words or in another language model's."""
        r = self.recipe
        if r.tokenizer is None:
            return without_voice(r.mel, r.encoder, r.adaptor, r.llm)
        return SpeechLM(joined_config(r.tokenizer, mel=r.mel, encoder=r.encoder, adaptor=r.adaptor, llm=r.llm))

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

    def load_of(self, batch: Batch) -> StepCost | None:
        return speech_load(batch["lengths"], batch["samples"], self.recipe.mel.sample_rate)

    def batch(self, step: int) -> Batch:
        r = self.recipe
        epoch, places = self.plan(step)
        items = self.items[places]
        rng = np.random.default_rng((r.seed, step, 1))
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
            row = row or Row(tokens=self.tokens)
            if not row.ids:
                rows.append(row)
            answer = clip.meta.get("answer")
            if clip.meta.get("before"):  # the turn that it goes on from, in writing
                answer = row.add_before(clip.meta, rng)
            row.add_turn(clip.meta["text"], answer, self.frames(len(wave)))
            row.clips.append(place)
            if "answer" not in clip.meta:
                pairs[place + 1 : place + 2] = False  # nothing follows a turn that was not answered
        rows += self.written_rows(step, len(rows))
        return self.packed(rows, waves, rng)[0]

    def written_rows(self, step: int, beside: int) -> list[Row]:
        """Rows of text alone, so many as go beside ``beside`` rows of speech."""
        r, rows = self.recipe, []
        for place in range(int(r.text_fraction * beside)):
            row, rng = Row(), np.random.default_rng((r.seed, step, place, 2))
            numbers = itertools.count((step * r.batch_size + place) * 64)
            dialogues = (generate(r.seed + 1, number, "train", practice=r.practice) for number in numbers)
            wanted = (d for d in dialogues if not r.text_only or d.category in r.text_only)
            for dialogue in itertools.islice(wanted, 4):
                answer: str | None = dialogue.answer
                if dialogue.before is not None:
                    answer = row.add_before(vars(dialogue), rng)
                row.add_turn(dialogue.question, answer, question_weight=0.0)
            rows.append(row)
        return rows

    def packed(self, rows: list[Row], waves: list[np.ndarray], rng: np.random.Generator) -> tuple[Batch, list[int]]:
        """The batch of these rows and of the clips that they speak of, and in which order it has the clips."""
        r = self.recipe
        batch, rows = pack(rows, r.row_tokens)
        order = [clip for row in rows for clip in row.clips]
        samples, lengths = pad([waves[clip] for clip in order])
        longest = samples.shape[1] // (2 * r.mel.hop)
        offsets = torch.from_numpy(rng.integers(0, max(1, r.encoder.positions - longest), len(waves)))
        if not r.encoder.streams:  # one that sees whole clips has them begin at 0
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
        ctc = spoken_words_loss(logits, batch["ids"], batch["spoken"], batch["frames"])
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
        steps = [model.reply_step(state, Sampling(max_tokens=64))]
        while steps[-1].kind is not TokenKind.END:
            steps.append(model.reply_step(state, Sampling(max_tokens=64)))
        transcript, answer = (
            self.tokens.decode([step.token for step in steps if step.kind is kind])
            for kind in (TokenKind.TRANSCRIPT, TokenKind.REPLY)
        )
        return transcript, answer

    def evaluate(self) -> dict[str, float]:
        """Transcript word error rate and the share of right answers on each held-out set."""
        metrics = {}
        for folder in self.recipe.dev_data:
            dev = Corpus((folder,))
            chosen = [i for i in range(0, len(dev), max(1, len(dev) // 128)) if "slot" in dev.metas[i]]
            if not chosen:
                continue
            metas = [dev.metas[i] for i in chosen]
            said = [
                self.converse(to_float(dev[i].pcm), meta.get("before")) for i, meta in zip(chosen, metas, strict=True)
            ]
            name = folder.rstrip("/").split("/")[-1]
            if self.tokens.reply is not None:
                metrics[f"wer_{name}"] = error_rate([t.split() for t, _ in said], [m["text"].split() for m in metas])
            right = [contains_slot(answer, m["slot"]) for (_, answer), m in zip(said, metas, strict=True)]
            metrics[f"right_{name}"] = sum(right) / max(1, len(right))
        return metrics
