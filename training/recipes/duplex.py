"""The monitor learns when to answer, and the language model to know it. Learns monitor, adaptor and LLM.

Each row is heard as a conversation would hear it: silence, somebody speaks, perhaps pauses, silence. While a question
is being asked, and in its pauses, the answer is "wait"; once it is over, "query". After what needs no answer (a
statement, "uh huh", a noise, somebody far off) it is "noise". The places just before and after an end count for
nothing, for nobody can tell yet. The same rows go on with transcript and answer, as in stage speech_to_text, so that a
language model which learns to tell a whole question from half of one forgets nothing.

With ``llm=``, ``encoder=`` and ``adaptor=`` the monitor of a joined model learns, and nothing else unless ``learn=``
says so: what is to be written is then left out. An encoder that sees whole clips is heard through the window that it
has in use (model/audio_encoder/windowed.py): given the whole clip, it would tell from the silence to come that a
question is over. An adaptor that hears words lets the model read what it hears: then ``texts=`` are rows as well, read
as if they had been heard, which cost neither speech nor an encoder. Behind each word but the last "wait" is due.

Source: VITA (arXiv 2408.05211), section 3.3; a head on the states of the language model is Freeze-Omni's (arXiv
2411.00774), section 2.5. With ``learn=monitor`` the rest stays frozen, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checkpoints.source import resolve
from ...checkpoints.store import load_tokenizer
from ...data_prep.datasets.conversations import read_conversations
from ...data_prep.datasets.question_sets import history_of
from ...data_prep.datasets.recordings import trimmed
from ...data_prep.datasets.shards import Clip
from ...data_prep.sounds.noise import draw_noise
from ...model.adaptor.adaptor import HeardClips
from ...model.audio_encoder.windowed import WindowConfig, WindowedEncoder
from ...model.decoding.labels import Pieces, plain_words
from ...model.duplex.monitor import CERTAIN, TURN_STATES, Monitor, MonitorConfig, TurnState
from ...model.errors import DuologueError
from ..augment.augment import AugmentConfig, another_voice, augment
from ..data.corpus import Corpus, Plan, dev_sets, to_float
from ..data.turns import Row
from ..loop.task import Batch
from ..loop.throughput import StepCost
from ..loop.trainer import to_device
from ..presets import preset
from .speech_to_text import SpeechToText, SpeechToTextRecipe

_QUERY, _NOISE, _WAIT = (
    TURN_STATES.index(turn_state) for turn_state in (TurnState.QUERY, TurnState.NOISE, TurnState.WAIT)
)
UNKNOWN = -100  # cross_entropy leaves these out
_PLACE_FRAMES = 4  # encoder frames, 80 ms
_TEXTS = 64  # a batch


@dataclass(frozen=True, kw_only=True)
class DuplexRecipe(SpeechToTextRecipe):
    """Data and sizes of the stage.

    data: questions (clips with an answer), asides (clips with a turn state) and drills (words that need no answer).
    noises: recordings of noise; made noise where there are none.
    """

    monitor: MonitorConfig
    turn_state_weight: float = 1.0  # of the turn states' loss beside that of the words
    pause_fraction: float = 0.5  # of the questions have a pause inside: where a breath is taken in them, or anywhere
    noise_fraction: float = 0.12  # of the rows are noise alone
    far_fraction: float = 0.08  # of the rows are a question that somebody else asks, far off
    # So many scenes are heard, each once, and the states of the frozen model kept: later steps cost next to nothing.
    # 0: new scenes at every step.
    scenes: int = 0
    window: WindowConfig = field(default_factory=WindowConfig)  # of an encoder that sees whole clips
    wait_weight: float = 0.3  # of a place where "wait" is due, which most are, beside another
    # Files of conversations, of which each turn's words are read as if they had been heard (adaptors of words): one
    # with "respond": false is noise, another one a query. With scenes=N, beside them.
    texts: tuple[str, ...] = ()
    instructions: str | None = None  # the system prompt of turns that have none: that which the model will have in use
    # Of the questions of dev_data, the fraction that may be taken for noise: a calibrated monitor (monitor.calibrated)
    # counts "noise" from the least probability on that keeps to it.
    missed_questions: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_fractions("pause_fraction", "noise_fraction", "far_fraction", "missed_questions")

    @property
    def teaches_words(self) -> bool:
        """Whether anything learns besides the monitor, so that what is written counts."""
        return any(prefix.partition(".")[0] != "monitor" for prefix in self.learn)

    def fitted(self) -> DuplexRecipe:
        fitted = super().fitted()
        assert isinstance(fitted, DuplexRecipe)
        monitor = replace(self.monitor, in_dim=fitted.adaptor.out_dim)
        if self.tokenizer is None:
            return replace(fitted, monitor=monitor)
        return replace(fitted, monitor=monitor, learn=("monitor",))

    def completed(self) -> Self:
        """With held-out data the monitor of a joined model is calibrated."""
        if self.tokenizer is None or not self.dev_data:
            return self
        return replace(self, monitor=replace(self.monitor, calibrated=True))

    def build(self) -> Duplex:
        """The task of this recipe.

        Raises:
            DuologueError: a joined model whose adaptor neither comes from a run nor learns, or ``scenes`` where more
                than the monitor learns.
        """
        if self.scenes and self.teaches_words:
            raise DuologueError(
                f"scenes is {self.scenes}, but {','.join(self.learn)} learns, so that states change; it must be 0"
            )
        if self.texts and not self.scenes:
            raise DuologueError("texts are read once, beside scenes that are kept: give scenes=N, at least one batch")
        names = {entry.partition("=")[0].partition(".")[0] for entry in (*self.start, *self.learn)}
        if self.tokenizer is not None and "adaptor" not in names:
            raise DuologueError("a monitor learns behind a trained adaptor: give adaptor=RUN, of stage speech_to_text")
        return Duplex(self)


def recipe(name: str = "nano") -> DuplexRecipe:
    """The stage's recipe, by the name of a preset."""
    return DuplexRecipe(stage="duplex", out="runs/duplex", **preset(name, "duplex"))


class Duplex(SpeechToText):
    """The parts of speech_to_text and the monitor, and rows of what a microphone hears with a turn state a position."""

    def __init__(self, recipe: DuplexRecipe) -> None:
        super().__init__(recipe)
        self.scenes = recipe
        self.monitor = Monitor(recipe.monitor)
        self.teaches_words = recipe.teaches_words
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}  # of a batch: states (N, D) and the turn states due (N,)
        self.drawn_from: tuple[Tensor, Tensor] | None = None  # all of them, once no batch is missing
        self.written = [turn for file in recipe.texts for turn in _written(file)]
        if self.written and self.adaptor.vocabulary() is None:
            raise DuologueError("texts are for an adaptor that hears words, of kind ctc; the states of another differ")
        self.batches = max(1, recipe.scenes // recipe.batch_size)  # of scenes; behind them come those of texts
        self.all_batches = self.batches + -(-len(self.written) // _TEXTS)
        self.spelt = None if recipe.tokenizer is None else Pieces(load_tokenizer(resolve(recipe.tokenizer))).word
        self.windowed = None if recipe.encoder.chunk else WindowedEncoder(self.mel, self.encoder, recipe.window)
        self.measured: dict[str, list[tuple[Tensor, Tensor]]] = {}  # the same of held-out sets
        # Samples a place, 80 ms: of speech, or where embeddings are fewer, of time.
        self.place = recipe.mel.hop * 2 * (self.adaptor.most.denominator if self.adaptor.even else _PLACE_FRAMES)

    def parts(self) -> dict[str, nn.Module]:
        return (super().parts() if self.teaches_words else {}) | {"monitor": self.monitor}

    def teaches(self, meta: Mapping[str, Any]) -> bool:
        return super().teaches(meta) or "verdict" in meta

    def batch(self, number: int) -> Batch:
        if self.scenes.scenes and number >= self.batches:
            if number >= self.all_batches:
                return {"number": number}
            return self._text_batch(number) | {"number": number}
        epoch, places = self.plan(number)
        return self._batch(self.corpus, epoch, self.items[places], number) | {"number": number}

    def load_of(self, batch: Batch) -> StepCost | None:
        return super().load_of(batch) if "lengths" in batch else None

    def _text_batch(self, number: int) -> Batch:
        """Rows of texts, in an order that is drawn: the tokens of each, and the turn state due behind each token."""
        order = np.random.default_rng((self.recipe.seed, 10)).permutation(len(self.written))
        at = (number - self.batches) * _TEXTS
        rows: list[Row] = []
        tokens: list[list[int]] = []
        due: list[list[int]] = []
        for text, asked in (self.written[item] for item in order[at : at + _TEXTS]):
            row = self.tokens.row(self.scenes.instructions)
            row.hear(1)
            row.clips.append(len(rows))
            assert self.spelt is not None
            words = [self.spelt(word) for word in text.split()]
            rows.append(row)
            tokens.append([id_ for word in words for id_ in word])
            due.append([state for word in words for state in (*[UNKNOWN] * (len(word) - 1), _WAIT)])
            due[-1][-1:] = [_QUERY if asked else _NOISE]
        batch, clips = self.packed(rows, [np.zeros(self.place, np.float32)] * len(rows), np.random.default_rng(number))
        return batch | {
            "tokens": [torch.tensor(tokens[clip]) for clip in clips],
            "turn_states": torch.tensor([state for clip in clips for state in due[clip]]),
        }

    def _batch(self, corpus: Corpus, epoch: int, items: np.ndarray, number: int) -> Batch:
        rng = np.random.default_rng((self.recipe.seed, number, 1))
        waves: list[np.ndarray] = []
        rows: list[Row] = []
        turn_states: list[list[int]] = []
        quiet = None if self.augmentation is None else replace(self.augmentation.sound, silence_chance=0.0)
        for item in items:
            draw = np.random.default_rng((self.recipe.seed, epoch, int(item), 5))
            clip = corpus[int(item)]
            row = self.tokens.row(clip.meta.get("system") or self.scenes.instructions)
            wave, due, near = self.scene(clip, draw, quiet)
            meta, answer = clip.meta, clip.meta.get("answer", "")  # "stop" is obeyed in silence
            if history_of(meta):
                answer = row.add_before(meta, draw, self.questions, self.hearing(corpus, int(item), waves, epoch))
            elif draw.random() < 0.5:  # not the first turn
                row.add_turn(*self.text.turn(int(draw.integers(2**31))), question_weight=0.0)
            if near and self.teaches_words:
                reply, instruction = answer if _QUERY in due else None, meta.get("instruction")
                row.add_turn(meta["text"], reply, len(due) if self.adaptor.even else 1, instruction=instruction)
            else:
                row.hear(len(due) if self.adaptor.even else 1)
            for earlier in waves[len(turn_states) :]:  # in which nothing is due
                turn_states.append([UNKNOWN] * self.frames(len(earlier)))
            row.clips.append(len(waves))
            waves.append(wave[: len(due) * self.place])
            rows.append(row)
            turn_states.append(due)
        rows += self.written_rows(number, len(rows))
        batch, order = self.packed(rows, waves, rng)
        return batch | {
            "turn_states": torch.tensor([turn_state for clip in order for turn_state in turn_states[clip]]),
            "places": [len(turn_states[clip]) for clip in order],
        }

    def scene(
        self, clip: Clip, rng: np.random.Generator, augmentation: AugmentConfig | None
    ) -> tuple[np.ndarray, list[int], bool]:
        """What is heard around a clip (n,), the turn state due at each position of it (or UNKNOWN), and whether the
        clip's words are heard, and near: then they are written down, also where they need no answer."""
        recipe = self.scenes
        rate = recipe.mel.sample_rate
        choice, near = rng.random(), True

        def silence(low: float, high: float) -> np.ndarray:
            return np.zeros(round(rng.uniform(low, high) * rate), np.float32)

        if choice < recipe.noise_fraction:
            sound = draw_noise(int(rng.uniform(0.3, 2.5) * rate), rng, rate, self.noises, recorded=0.7)
            parts = [silence(0, 0.3), sound * rng.uniform(0.1, 1.0) / max(1e-4, np.abs(sound).max()), silence(0.4, 1.2)]
            due, ends, near = _NOISE, [], False
        else:
            meta = clip.meta
            wave = trimmed(to_float(clip.pcm))
            if augmentation is not None:
                wave = another_voice(wave, rng, augmentation)
            asked = "answer" in meta  # otherwise an aside, or a drill: words alone, behind which nothing is due
            known = {"query": _QUERY, "noise": _NOISE, None: _QUERY if asked else UNKNOWN}
            due = known[meta.get("verdict")]  # the field of prepared sets for a turn state
            parts = [silence(0, 0.3), wave, silence(0.4, 1.2)]
            ends = [1]
            if asked:
                if rng.random() < recipe.far_fraction / (1 - recipe.noise_fraction):
                    parts[1], due, near = _far(wave, rate, rng), _NOISE, False
                elif rng.random() < recipe.pause_fraction and len(wave) > rate:
                    breath = meta.get("pause")
                    cut = round(len(wave) * breath / len(clip.pcm)) if breath else _quiet_place(wave, rng)
                    parts[1:2] = [wave[:cut], silence(0.25, 1.5), wave[cut:]]  # or a long one were an end
                    ends = [1, 3]
        sound = np.concatenate(parts)
        places = len(sound) // self.place
        turn_states = [UNKNOWN] * places
        edges = np.cumsum([0, *map(len, parts)])
        if not ends:  # noise from where it is heard on
            for place in range(int(edges[1]) // self.place + 3, places):
                turn_states[place] = _NOISE
        else:
            for place in range(places):
                end = (place + 1) * self.place
                last = edges[ends[-1] + 1]
                if end <= last - self.place:
                    turn_states[place] = _WAIT if due == _QUERY or len(ends) > 1 else UNKNOWN
                elif end >= last + self.place:
                    turn_states[place] = due
        if augmentation is not None:
            still = replace(augmentation, speed_chance=0.0, pitch_chance=0.0, tempo_chance=0.0, formants_chance=0.0)
            sound = augment(sound, rng, still, self.noises)[: len(sound)]
        return sound.astype(np.float32), turn_states, near

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.teaches_words:
            hidden, batch = self.read(batch)
            loss, metrics = self.words_loss(hidden, batch)
            heard, due = self.heard_states(hidden, batch)
        else:
            loss, metrics = torch.zeros((), device=self.monitor.linear1.weight.device), {}
            heard, due = self.frozen_states(batch)
        logits = self.monitor(heard)
        each = F.cross_entropy(logits.float(), due, reduction="none")
        weights = torch.where(due == _WAIT, self.scenes.wait_weight, 1.0)
        turn_states = (each * weights).sum() / weights.sum()
        right = (logits.argmax(-1) == due).float().mean()
        return loss + self.scenes.turn_state_weight * turn_states, metrics | {
            "turn_states": turn_states.detach(),
            "right": right.detach(),
        }

    def laid_out(self, batch: Batch, heard: HeardClips) -> Batch:
        """Where there is not an embedding for each place: of an embedding that is due at the last place before the next
        one is given out, for the monitor's opinion stays until then."""
        batch = super().laid_out(batch, heard)
        if self.adaptor.even or "tokens" in batch:
            return batch
        due: list[Tensor] = []
        clips = batch["turn_states"].split(batch["places"])
        for places, given, count in zip(clips, heard.given, heard.counts, strict=True):
            last = (given[1:count] // _PLACE_FRAMES - 1).clamp(max=len(places) - 1)
            due += [places[last], places[-1:].expand(min(1, int(count)))]
        return batch | {"turn_states": torch.cat(due)}

    def hear(self, batch: Batch) -> HeardClips:
        if "tokens" in batch:
            counts = torch.tensor([len(row) for row in batch["tokens"]])
            padded = nn.utils.rnn.pad_sequence(batch["tokens"], batch_first=True)
            embeddings = self.llm.embed(padded)
            return HeardClips(embeddings, counts.to(embeddings.device), torch.zeros_like(padded))
        if self.windowed is None:
            return super().hear(batch)
        samples, state = batch["samples"], self.windowed.init_state(len(batch["samples"]))
        step = self.scenes.window.chunk_ms * self.recipe.mel.sample_rate // 1000
        frames = [self.windowed.step(piece, state) for piece in samples.split(step, dim=1)]
        lengths = (batch["lengths"] // self.recipe.mel.hop + 1) // 2
        return self.adaptor.clips(torch.cat([*frames, self.windowed.flush(state)], dim=1), lengths)

    def heard_states(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The states (N, D) at the positions where a turn state is known, and the turn states (N,)."""
        heard = hidden[batch["ids"] == self.tokens.speech]  # (places, D)
        known = batch["turn_states"] != UNKNOWN
        return heard[known].float(), batch["turn_states"][known]

    @torch.no_grad()
    def frozen_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same, of a model that does not learn. Where scenes come again, their states are kept: first those of each
        batch in turn, and once all are there, as many as in a batch, drawn."""
        number, count = batch["number"], self.all_batches
        if not self.scenes.scenes:
            return self.heard_states(*self.read(batch))
        for each in range(min(number + 1, count)):  # a run that goes on has none
            if each not in self.kept:
                found = batch if each == number else self._missed(each)
                states, due = self.heard_states(*self.read(found))
                self.kept[each] = states.to(torch.bfloat16), due
        if number < count:
            states, due = self.kept[number]
            return states.float(), due
        if self.drawn_from is None:
            every_state, every_due = zip(*self.kept.values(), strict=True)
            self.drawn_from = torch.cat(every_state), torch.cat(every_due)
        states, due = self.drawn_from
        rng = np.random.default_rng((self.recipe.seed, number, 11))
        drawn = torch.from_numpy(rng.integers(0, len(due), max(1, len(due) // count))).to(due.device)
        return states[drawn].float(), due[drawn]

    def _missed(self, number: int) -> Batch:
        found: Batch = to_device(self.batch(number), self.monitor.linear1.weight.device)
        return found

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Those of speech_to_text, and on each held-out set how often a position's likeliest turn state is right. A
        calibrated monitor takes its threshold of noise from all sets; ``ignored_questions`` and ``ignored_others`` are
        then the fractions of scenes that it ignores, of those with a question and of those without."""
        metrics = super().evaluate() if self.teaches_words else {}
        noisiest: dict[int, list[float]] = {_QUERY: [], _NOISE: []}
        for name, corpus in dev_sets(self.recipe.dev_data):
            hits: dict[int, list[bool]] = {_QUERY: [], _NOISE: [], _WAIT: []}
            if name not in self.measured:
                plan = Plan(corpus.lengths, 32, 0)
                self.measured[name] = [
                    self._held_out(corpus, *plan(number), number) for number in range(min(6, plan.batches_per_epoch))
                ]
            for heard, due in self.measured[name]:
                probabilities = self.monitor(heard).float().softmax(-1)
                for said, wanted in zip(probabilities.argmax(-1).tolist(), due.tolist(), strict=True):
                    hits[wanted].append(said == wanted)
                for turn_state, scenes in noisiest.items():
                    scenes += peaks(probabilities[:, _NOISE], due, turn_state)
            if self.teaches_words:  # the states change
                del self.measured[name]
            for index, right in hits.items():
                if right:
                    metrics[f"{TURN_STATES[index].value}_{name}"] = sum(right) / len(right)
        if self.monitor.config.calibrated and noisiest[_QUERY]:
            enough = self.calibrate(noisiest[_QUERY])
            for kind, scenes in (("questions", noisiest[_QUERY]), ("others", noisiest[_NOISE])):
                metrics[f"ignored_{kind}"] = sum(peak >= enough for peak in scenes) / max(1, len(scenes))
        return metrics

    def calibrate(self, questions: list[float]) -> float:
        """From which probability on noise counts, so that few enough questions are taken for it; the monitor keeps it.

        questions: the largest probability of noise behind the end of each, at least one.
        """
        missed = min(int(self.scenes.missed_questions * len(questions)), len(questions) - 1)
        enough = sorted(questions, reverse=True)[missed] + 1e-3
        self.monitor.certain[_NOISE] = min(max(enough, CERTAIN[_NOISE]), 1.0)
        return float(self.monitor.certain[_NOISE])

    def _held_out(self, corpus: Corpus, epoch: int, items: np.ndarray, number: int) -> tuple[Tensor, Tensor]:
        batch = to_device(self._batch(corpus, epoch, items, number), self.monitor.linear1.weight.device)
        return self.heard_states(*self.read(batch))


def _written(file: str) -> list[tuple[str, bool]]:
    """The words of each turn of a file of conversations, and whether they are to be answered."""
    turns = [turn for conversation in read_conversations(file) for turn in conversation.turns]
    found = [(plain_words(turn.text or ""), turn.respond) for turn in turns]
    if not any(words for words, _ in found):
        raise DuologueError(f"texts: {file} has no words")
    return [(words, asked) for words, asked in found if words]


def peaks(probabilities: Tensor, due: Tensor, turn_state: int) -> list[float]:
    """The largest of the probabilities (N,) of each scene's positions (N,) at which ``turn_state`` is due: positions
    that follow each other belong to one scene."""
    at = (due == turn_state).nonzero()[:, 0]
    if not len(at):
        return []
    ends = ((at[1:] - at[:-1]) > 1).nonzero()[:, 0] + 1
    return [float(scene.max()) for scene in probabilities[at].tensor_split(ends.cpu())]


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
