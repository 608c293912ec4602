"""Stage duplex: the monitor learns when to answer. Learns the monitor; all else is frozen.

Each row is heard as a conversation would hear it: silence, somebody speaks, perhaps pauses, silence. While a question
is being asked, and in its pauses, the answer is "wait"; once it is over, "query". After what needs no answer (a
statement, "uh huh", a noise, somebody far off) it is "noise". The places just before and after an end count for
nothing, for nobody can tell yet.

Source: VITA (arXiv 2408.05211), section 3.3; a head on the states of a frozen language model is Freeze-Omni's
(arXiv 2411.00774), section 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...data_prep.dialogues import generate
from ...data_prep.recordings import trimmed
from ...data_prep.vocabulary import token_ids
from ...model.adaptor import AdaptorConfig
from ...model.encoder import WhisperEncoderConfig
from ...model.errors import DuologueError
from ...model.mel import LogMelConfig
from ...model.monitor import VERDICTS, Monitor, MonitorConfig, Verdict
from ..augment import AugmentConfig, another_voice, augment
from ..augment_noise import draw_noise
from ..data import Corpus, Plan, pad, to_float
from ..recipe import Recipe
from ..task import Batch, Task
from ..throughput import Load, speech_load
from ..turns import Row, place_speech, stack, train_plainly
from .nano import (
    NANO_ADAPTOR,
    NANO_ENCODER,
    NANO_MEL,
    NANO_MONITOR,
    disguise_of,
    nano_llm,
    tiny_llm,
    without_voice,
)

_QUERY, _NOISE, _WAIT = (VERDICTS.index(verdict) for verdict in (Verdict.QUERY, Verdict.NOISE, Verdict.WAIT))
_UNKNOWN = -100  # cross_entropy leaves these out


@dataclass(frozen=True, kw_only=True)
class DuplexRecipe(Recipe):
    """Data and sizes of the stage.

    data: questions (clips with an answer) and asides (clips with a verdict).
    noises: recordings of noise; made noise where there are none.
    """

    data: tuple[str, ...]
    dev_data: tuple[str, ...] = ()
    noises: str | None = None
    mel: LogMelConfig = NANO_MEL
    encoder: WhisperEncoderConfig = NANO_ENCODER
    adaptor: AdaptorConfig = NANO_ADAPTOR
    llm: dict[str, Any] = field(default_factory=nano_llm)
    monitor: MonitorConfig = NANO_MONITOR
    pause_share: float = 0.5  # of the questions have a pause inside
    noise_share: float = 0.12  # of the rows are noise alone
    far_share: float = 0.08  # of the rows are a question that somebody else asks, far off
    wait_weight: float = 0.3  # of a place where "wait" is due, which most are, beside another
    augment: str = "light"  # none | light | voices | full: how clips are disguised on the fly

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pause_share", "noise_share", "far_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise DuologueError(f"{name} is {getattr(self, name)}; a share lies between 0 and 1")

    def build(self) -> Duplex:
        """The task of this recipe."""
        return Duplex(self)


def recipe(preset: str = "nano") -> DuplexRecipe:
    """The stage's recipe: ``nano``, or ``tiny`` for a test on a CPU."""
    base = DuplexRecipe(
        stage="duplex",
        out="runs/duplex",
        start=("encoder=runs/asr_pretrain", "adaptor=runs/speech_to_text", "llm=runs/speech_to_text"),
        learn=("monitor",),
        data=("work/questions", "work/asides"),
        dev_data=("work/dev_questions", "work/dev_asides"),
        steps=1500,
        batch_size=32,
        lr=2e-3,
        warmup=50,
        precision="bf16",
    )
    if preset == "tiny":
        return replace(
            base,
            start=(),
            learn=("monitor", "adaptor", "llm", "encoder"),  # random frozen parts would tell it nothing
            encoder=replace(NANO_ENCODER, n_audio_state=64, n_audio_head=2, n_audio_layer=2),
            adaptor=AdaptorConfig(in_dim=64, hidden_dim=128, out_dim=64, stack=4),
            llm=tiny_llm(),
            monitor=MonitorConfig(in_dim=64, hidden_dim=64),
            dev_data=(), augment="none", noise_share=0.0, far_share=0.0, pause_share=0.0, steps=120, batch_size=8,
            warmup=10, lr=2e-3, precision="no", workers=0, save_every=120,
        )  # fmt: skip
    return base


class Duplex(Task):
    """The frozen ear and language model, the monitor, and rows of what a microphone hears with a verdict a place."""

    def __init__(self, recipe: DuplexRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.recipe = recipe
        model = without_voice(recipe.mel, recipe.encoder, recipe.adaptor, recipe.llm, recipe.monitor)
        assert model.monitor is not None
        self.mel, self.encoder, self.adaptor, self.llm = model.mel, model.encoder, model.adaptor, model.llm
        self.monitor: Monitor = model.monitor
        train_plainly(self.llm)
        self.corpus = Corpus(recipe.data)
        self.plan = Plan(self.corpus.lengths, recipe.batch_size, recipe.seed, recipe.accumulate)
        disguise = disguise_of(recipe.augment)
        self.disguise = None if disguise is None else replace(disguise.sound, silence_chance=0.0)
        noise = None if recipe.noises is None else Corpus((recipe.noises,))
        self.noises = [] if noise is None else [to_float(noise[i].pcm) for i in range(len(noise))]
        self.place = recipe.mel.hop * 2 * recipe.adaptor.stack  # samples a place of speech, 80 ms

    def parts(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "adaptor": self.adaptor, "llm": self.llm, "monitor": self.monitor}

    def load_of(self, batch: Batch) -> Load:
        return speech_load(batch["lengths"], batch["samples"], self.recipe.mel.sample_rate)

    def batch(self, number: int) -> Batch:
        epoch, items = self.plan(number)
        waves, labels, rows = [], [], []
        table = token_ids()
        for item in items:
            rng = np.random.default_rng((self.recipe.seed, epoch, int(item), 5))
            wave, verdicts = self.scene(int(item), rng, self.disguise)
            waves.append(wave)
            labels.append(verdicts)
            row = Row()
            if rng.random() < 0.5:  # not the first turn
                before = generate(self.recipe.seed + 1, int(rng.integers(2**31)), "train")
                row.add_turn(before.question, before.answer, question_weight=0.0)
            else:
                row.add([table["<bos>"]], 0)
            row.add([table["<user>"]] + [table["<speech>"]] * len(verdicts), 0)
            rows.append(row)
        samples, lengths = pad(waves)
        longest = max(len(row.ids) for row in rows)
        targets = torch.full((len(rows), longest), _UNKNOWN)
        for at, (row, verdicts) in enumerate(zip(rows, labels, strict=True)):
            targets[at, len(row.ids) - len(verdicts) : len(row.ids)] = torch.tensor(verdicts)
        stacked = stack(rows)
        return {
            "ids": stacked["ids"],
            "mask": stacked["mask"],
            "targets": targets,
            "samples": samples,
            "lengths": lengths,
        }

    def scene(
        self, item: int, rng: np.random.Generator, disguise: AugmentConfig | None
    ) -> tuple[np.ndarray, list[int]]:
        """What is heard around a clip (n,), and the verdict that is due at each place of it (or _UNKNOWN)."""
        recipe, clip = self.recipe, self.corpus[item]
        rate = recipe.mel.sample_rate
        choice = rng.random()

        def silence(low: float, high: float) -> np.ndarray:
            return np.zeros(round(rng.uniform(low, high) * rate), np.float32)

        if choice < recipe.noise_share:
            sound = draw_noise(int(rng.uniform(0.3, 2.5) * rate), rng, rate, self.noises, recorded=0.7)
            parts = [silence(0, 0.3), sound * rng.uniform(0.1, 1.0) / max(1e-4, np.abs(sound).max()), silence(0.4, 1.2)]
            due, ends = _NOISE, []
        else:
            wave = trimmed(to_float(clip.pcm))
            if disguise is not None:
                wave = another_voice(wave, rng, disguise)
            asked = "answer" in clip.meta  # otherwise an aside, or a drill
            due = _QUERY if asked or clip.meta.get("verdict") == "query" else _NOISE
            parts = [silence(0, 0.3), wave, silence(0.4, 1.2)]
            ends = [1]
            if asked:
                if rng.random() < recipe.far_share / (1 - recipe.noise_share):
                    parts[1], due = _far(wave, rate, rng), _NOISE
                elif rng.random() < recipe.pause_share and len(wave) > rate:
                    cut = _quiet_place(wave, rng)
                    parts[1:2] = [wave[:cut], silence(0.25, 1.0), wave[cut:]]
                    ends = [1, 3]
        sound = np.concatenate(parts)
        places = len(sound) // self.place
        verdicts = [_UNKNOWN] * places
        edges = np.cumsum([0, *map(len, parts)])
        if not ends:  # noise from where it is heard on
            for place in range(int(edges[1]) // self.place + 3, places):
                verdicts[place] = _NOISE
        else:
            for place in range(places):
                end = (place + 1) * self.place
                last = edges[ends[-1] + 1]
                if end <= last - self.place:
                    verdicts[place] = _WAIT if due == _QUERY or len(ends) > 1 else _UNKNOWN
                elif end >= last + self.place:
                    verdicts[place] = due
        if disguise is not None:
            still = replace(disguise, speed_chance=0.0, pitch_chance=0.0, tempo_chance=0.0, formants_chance=0.0)
            sound = augment(sound, rng, still, self.noises)[: len(sound)]
        return sound.astype(np.float32), verdicts

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, targets = self.judge(batch), batch["targets"]
        known = targets != _UNKNOWN
        loss = F.cross_entropy(logits[known].float(), targets[known], reduction="none")
        weights = torch.where(targets[known] == _WAIT, self.recipe.wait_weight, 1.0)
        right = (logits[known].argmax(-1) == targets[known]).float()
        return (loss * weights).sum() / weights.sum(), {"right": right.mean().detach()}

    def judge(self, batch: Batch) -> Tensor:
        """The monitor's logits (B, L, 3) at every position of the rows."""
        frozen = not any(parameter.requires_grad for parameter in self.llm.parameters())
        with torch.set_grad_enabled(not frozen and torch.is_grad_enabled()):
            lengths = batch["lengths"] // self.recipe.mel.hop
            frames = self.encoder(self.mel(batch["samples"]), lengths=lengths)  # (B, T', D)
            counts = (lengths + 1) // 2 // self.recipe.adaptor.stack
            embeds = place_speech(self.llm.embed(batch["ids"]), batch["ids"], self.adaptor(frames), counts)
            hidden = self.llm(embeds, batch["mask"]).hidden  # (B, L, D)
        return self.monitor(hidden.float())

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """On each held-out set: how often a place's likeliest verdict is the one that is due, by verdict."""
        figures: dict[str, float] = {}
        for folder in self.recipe.dev_data:
            held_out = object.__new__(type(self))
            held_out.__dict__.update(self.__dict__)
            held_out.corpus = Corpus((folder,))
            held_out.plan = Plan(held_out.corpus.lengths, 32, 0)
            hits: dict[int, list[bool]] = {_QUERY: [], _NOISE: [], _WAIT: []}
            for number in range(min(6, held_out.plan.batches_per_epoch)):
                device = next(self.monitor.parameters()).device
                batch = {key: value.to(device) for key, value in held_out.batch(number).items()}
                said, due = self.judge(batch).argmax(-1).flatten().tolist(), batch["targets"].flatten().tolist()
                for a, b in zip(said, due, strict=True):
                    if b != _UNKNOWN:
                        hits[b].append(a == b)
            name = folder.rstrip("/").split("/")[-1]
            for index, right in hits.items():
                if right:
                    figures[f"{VERDICTS[index].value}_{name}"] = sum(right) / len(right)
        return figures


def _quiet_place(wave: np.ndarray, rng: np.random.Generator) -> int:
    """A sample to cut at, in the middle half of the clip, where it is quietest within 200 ms of a random place."""
    at, reach, step = int(rng.uniform(0.25, 0.75) * len(wave)), 1600, 160
    near = range(max(step, at - reach), min(len(wave) - step, at + reach), step)
    return min(near, key=lambda i: float(np.abs(wave[i - step : i + step]).mean()), default=at)


def _far(wave: np.ndarray, rate: int, rng: np.random.Generator) -> np.ndarray:
    """From across a room: mostly reverberation, a tenth to a third as loud."""
    length = int(rng.uniform(0.25, 0.7) * rate)
    room = rng.standard_normal(length) * np.exp(-6.9 * np.arange(length) / length)
    size = 1 << (len(wave) + length).bit_length()
    far = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(room, size), size)[: len(wave)]
    return (far * rng.uniform(0.1, 0.33) * np.abs(wave).max() / max(1e-6, np.abs(far).max())).astype(np.float32)
