"""One turn of a conversation: the question goes in as it would arrive, the reply comes out chunk by chunk, timed.

Speech is fed in chunks of 160 ms, each encoded and put into the language model's cache at once, so that at the end of
the question only the last chunk is left to hear. Time is measured here, by whoever drives the model, never inside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ...model.audio_encoder.manner import NO_HEAD
from ...model.decoding.reply import reply, transcript
from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ...model.language_model.chat_template import Message
from ...model.language_model.tool_calls import read_calls
from ...model.tokens import TokenKind
from ..front_end.speech_segments import NO_WORDS, Recording
from .text_stream import ReplyText, TextStream, ids_of, samples_of

CHUNK_MS = 160


@dataclass(frozen=True)
class Messages:
    """What a turn reads instead of a question: messages as a chat template takes them."""

    messages: Sequence[Message]


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What one turn cost. Milliseconds of wall clock spent computing; what a consumer does between chunks is not in it.

    compute_delay_ms: from handing over the question's last samples (or its text) to the first samples of the reply
        ready; None when the reply has no speech.
    first_word_ms: the same, to the first piece of text that the model writes (its transcript, if it writes one).
    total_ms: the whole turn, listening included.
    real_time_factor: total time over the duration of question and reply; below 1 the model keeps up.
    """

    audio_s: float
    reply_s: float
    listen_ms: float
    compute_delay_ms: float | None
    first_word_ms: float | None
    total_ms: float
    real_time_factor: float


@dataclass(frozen=True, kw_only=True)
class ReplyChunk:
    """What one step added: text of the reply, text of what was heard, speech (n,) float32 and how many units of it.

    at_ms: computing time since the question's last samples were handed over.
    """

    text_delta: str
    transcript_delta: str
    pcm: np.ndarray
    units: int = 0
    at_ms: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One turn's outcome.

    text: the reply; transcript: the question as the model understood it ("" for a model that does not write it down).
    waveform: (n,) float32 in [-1, 1] at sample_rate, empty for a model without a voice.
    units: the speech units it was made from.
    calls: functions that it calls: the name of each, and its arguments as JSON. What stands there is not said.
    manner: the probability of each manner in which the question was spoken, where that was asked for.
    warning: what may explain a poor reply (words that the model does not know, a reply cut short), which is still the
        model's own; or why there is none (nobody speaks in the recording).
    """

    text: str
    transcript: str
    waveform: np.ndarray
    sample_rate: int
    units: list[int]
    timings: Timings
    warning: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    manner: dict[str, float] | None = None


@dataclass
class _Clock:
    """A stopwatch of computing time: it runs while the model works and stands while a consumer has the chunk."""

    spent: float = 0.0  # s
    started: float | None = None

    def start(self) -> None:
        self.started = time.perf_counter()

    def stop(self) -> None:
        self.spent, self.started = self.now, None

    @property
    def now(self) -> float:
        return self.spent + (0.0 if self.started is None else time.perf_counter() - self.started)


class Turn(Iterator[ReplyChunk]):
    """A turn under way: iterate over its chunks; :meth:`reply` collects what has come so far.

    Args:
        model, tokenizer: whose turn it is; ``state`` is advanced in place.
        question: what is heard of a recording, samples (n,) float32 at the model's rate; the ids of a typed text; or
            messages. A
            recording too long to be heard at once is written down part by part, and then read; one of which nothing is
            heard gets no reply.
        about: ids of what is asked in writing about the recording.
        warnings: what is known to be wrong with the question already.
        on_end: called once the reply is whole.
        manner: tell the manner of speaking in the reply.

    Raises:
        DuologueError: the manner is asked for, and the model has no head for it.
    """

    def __init__(
        self,
        model: DialogueModel,
        tokenizer: Any,
        state: DialogueState,
        sampling: Sampling,
        question: Recording | list[int] | Messages,
        *,
        about: list[int] | None = None,
        warnings: tuple[str, ...] = (),
        on_end: Callable[[], None] | None = None,
        manner: bool = False,
    ) -> None:
        if manner:
            require_manners(model)
        self._model, self._state, self._sampling, self._question = model, state, sampling, question
        self._tokenizer = tokenizer
        self._about, self._on_end = about or [], on_end
        self._warnings = list(warnings)
        self._tell_manner = manner
        self._manner: dict[str, float] | None = None
        self._clock = _Clock()
        self._text = ReplyText(tokenizer, state.ssml)
        self._dictated = ""  # what was written down part by part
        self._pcm: list[np.ndarray] = []
        self._units: list[int] = []
        self._counted = 0  # units that chunks have counted
        # Readings of the clock: the last samples handed over, the first text, the first speech.
        self._heard: float | None = None
        self._first_word: float | None = None
        self._first_pcm: float | None = None
        self._chunks = self._run()

    def __next__(self) -> ReplyChunk:
        return next(self._chunks)

    @property
    def compute_delay_ms(self) -> float | None:
        """See :class:`Timings`; None until the first speech is ready."""
        return self._since_heard(self._first_pcm)

    def reply(self) -> Reply:
        """Everything so far; complete once the iteration has ended."""
        waveform = np.concatenate([np.zeros(0, np.float32), *self._pcm])
        audio_s = self._question.seconds if isinstance(self._question, Recording) else 0.0
        reply_s = len(waveform) / self._model.output_rate
        total = self._clock.now
        return Reply(
            text=self._text.reply.text.strip(),
            transcript=(self._dictated + self._text.transcript.text).strip(),
            waveform=waveform,
            sample_rate=self._model.output_rate,
            units=list(self._units),
            timings=Timings(
                audio_s=audio_s,
                reply_s=reply_s,
                listen_ms=1e3 * (self._heard or 0.0),
                compute_delay_ms=self.compute_delay_ms,
                first_word_ms=self._since_heard(self._first_word),
                total_ms=1e3 * total,
                real_time_factor=total / max(audio_s + reply_s, 1e-3),
            ),
            warning="; ".join(self._warnings) or None,
            manner=self._manner,
            calls=() if self._model.calls is None else tuple(read_calls(self._model.calls, self._text.calls.text)),
        )

    def _since_heard(self, moment: float | None) -> float | None:
        return None if moment is None or self._heard is None else 1e3 * (moment - self._heard)

    @torch.inference_mode()
    def _run(self) -> Generator[ReplyChunk]:
        model, state, question = self._model, self._state, self._question
        self._clock.start()
        if isinstance(question, Recording) and (len(question.parts) == 1 or question.together):
            sampling = self._room(sum(map(len, question.parts)), len(self._about))
            self._hear(question.parts)
            if self._tell_manner:
                self._manner = model.manner_of(state)
            if state.empty:
                self._clock.stop()
                self._warnings.append(NO_WORDS)
                return
        elif isinstance(question, Messages):
            self._heard = self._clock.now
            model.read_messages(question.messages, state)
            sampling = self._room(None, 0)
        else:
            if self._tell_manner:
                self._warnings.append("the manner is not told: there is no speech, or more than is heard at once")
            ids = question if isinstance(question, list) else (yield from self._write_down(question.parts))
            self._heard = self._heard or self._clock.now
            if not ids:  # nobody has asked anything
                self._clock.stop()
                return
            sampling = self._room(None, len(ids))
            model.read_text(ids, state)
        for step in reply(model, state, sampling):
            if step.kind is TokenKind.END and state.generated >= sampling.max_tokens:
                self._warnings.append(f"the reply was cut short after {sampling.max_tokens} tokens")
            self._units += step.units.flatten().tolist()
            yield from self._hand_out(*self._text.push(step), samples_of(step.pcm))
        self._clock.stop()
        if self._on_end is not None:
            self._on_end()

    def _hear(self, parts: list[np.ndarray]) -> None:
        """Listen to recordings (n,) as they would arrive, and note when the last samples are handed over."""
        model, state = self._model, self._state
        size = model.input_rate * CHUNK_MS // 1_000
        model.begin_turn(state)
        for at, part in enumerate(parts):
            if at:
                model.another_recording(state)
            *before, last = torch.from_numpy(part)[None].split(size, dim=1)  # each (1, up to size)
            for chunk in before:
                model.listen(chunk, state)
            self._heard = self._clock.now
            model.listen(last, state)
        if self._about:
            model.ask_about(self._about, state)
        model.end_turn(state)

    def _write_down(self, parts: list[np.ndarray]) -> Generator[ReplyChunk, None, list[int]]:
        """The ids of the words in parts of speech (n,), each heard by itself."""
        for part in parts:
            before = " " if self._dictated else ""
            self._heard = self._clock.now
            for delta in written_down(self._model, self._tokenizer, part):
                self._dictated += before + delta
                yield from self._hand_out("", before + delta, np.zeros(0, np.float32))
                before = ""
        if not self._dictated.strip():
            return self._about
        return [*ids_of(self._tokenizer, self._model.layout, self._dictated)[0], *self._about]

    def _hand_out(self, text_delta: str, transcript_delta: str, samples: np.ndarray) -> Iterator[ReplyChunk]:
        if self._first_word is None and (text_delta or transcript_delta):
            self._first_word = self._clock.now
        if len(samples):
            if self._first_pcm is None:
                self._first_pcm = self._clock.now
            self._pcm.append(samples)
        if text_delta or transcript_delta or len(samples):
            self._clock.stop()
            at_ms = self._since_heard(self._clock.now)
            assert at_ms is not None
            yield ReplyChunk(
                text_delta=text_delta,
                transcript_delta=transcript_delta,
                pcm=samples,
                units=len(self._units) - self._counted,
                at_ms=at_ms,
            )
            self._counted = len(self._units)
            self._clock.start()

    def _room(self, samples: int | None, tokens: int) -> Sampling:
        """As many tokens at most as the language model has positions left behind the question."""
        room, sampling = self._model.room(samples, tokens, self._state), self._sampling
        return sampling if room is None else replace(sampling, max_tokens=min(sampling.max_tokens, room))


def require_manners(model: DialogueModel) -> None:
    """Raises DuologueError for a model that does not tell the manner of speaking."""
    if not model.manners:
        raise DuologueError(NO_HEAD)


@torch.inference_mode()
def written_down(model: DialogueModel, tokenizer: Any, part: np.ndarray) -> Iterator[str]:
    """The transcript of (n,) samples, which are heard by themselves, as it is written."""
    model = model.without_replies()
    state, text = model.init_state(), TextStream(tokenizer)
    model.begin_turn(state)
    model.listen(torch.from_numpy(part)[None], state)
    model.end_turn(state)
    for step in transcript(model, state, Sampling()):
        if step.kind is TokenKind.TRANSCRIPT and (delta := text.push(step.token)):
            yield delta if len(text.text) > len(delta) else delta.lstrip()  # an adaptor's first word has a space before
    if delta := text.end():
        yield delta
