"""A full-duplex conversation: microphone in, loudspeaker out, frame by frame, both of the same duration.

    session = Session(duologue.load("nano"))
    while True:
        tick = session.tick(microphone.read(1280))      # 80 ms, or any multiple of it
        loudspeaker.write(tick.pcm)

The microphone is the clock: there are no threads, no sockets and no wall clock in here, and how many tokens may be
generated in a frame is a number in the config. So a conversation is a pure function of what the microphone heard. It is
worked through in frames of 80 ms whatever the size of a tick, hence the same for any size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from ...checkpoints.state_io import load_state, save_state
from ...data_prep.audio import mono
from ...model.errors import DuologueError
from ...model.language_model.messages import Message
from ...model.streaming import Streaming
from ..assistant.assistant import Assistant
from ..assistant.opening import speak_first
from ..assistant.text_stream import ids_of, words_of
from ..assistant.turn import require_manners
from ..assistant.voices import check_voice
from .answer import Answer
from .events import Event, Tick
from .policy import DuplexPolicy, Mode
from .state import SessionConfig, SessionState, Standing
from .turn_taking import TurnTaking


@dataclass(frozen=True)
class _Saved:
    """A session on disk: of which model, how it behaves, what it remembers."""

    model: str  # its fingerprint
    config: SessionConfig
    state: SessionState


class Session(TurnTaking):
    """One conversation in full duplex.

    Args:
        assistant: whose weights are used; any number of sessions may share it.
        vad: the voice activity detector; silero's, unless another is given.
        seed: for sampling.
    """

    def save(self, path: str | Path) -> None:
        """Write all that the session remembers; :meth:`load` goes on from there, to the bit."""
        save_state(path, _Saved(self.model.fingerprint, self.config, self.state))

    @classmethod
    def load(cls, path: str | Path, assistant: Assistant, vad: Streaming | None = None) -> Self:
        """A session as :meth:`save` left it.

        Raises:
            DuologueError: no such file, one that is not whole, or one of another model.
        """
        saved = load_state(path)
        if not isinstance(saved, _Saved):
            raise DuologueError(f"{path} is not a saved session")
        if saved.model != assistant.model.fingerprint:
            raise DuologueError(f"{path} was saved by another model: a session goes on with the one it began with")
        session = cls(assistant, saved.config, vad)
        session.state = saved.state
        return session

    def clone(self) -> Self:
        """A session of its own that has heard and said the same so far."""
        other = copy.copy(self)
        other.state = self.state.clone()
        return other

    @property
    def standing(self) -> Standing:
        """Where it stands after the last frame."""
        s, played, full = self.state, None, False
        if s.answer is not None:
            played, full = s.answer.played, s.answer.dialogue.generated >= self.config.sampling.max_tokens
        return Standing(s.policy.mode, played, full, writing=s.turn.written is not None and not played)

    @torch.inference_mode()
    def tick(self, pcm: np.ndarray) -> Tick:
        """Hear (n,) samples, n a multiple of 80 ms; return what is to be played meanwhile.

        Args:
            pcm: of numpy or torch: floats in [-1, 1], or integers of 8, 16 or 32 bits at full scale.

        Raises:
            DuologueError: another number of samples, or samples that are no finite numbers.
        """
        pcm = mono(pcm)
        if pcm.ndim != 1 or len(pcm) == 0 or len(pcm) % self.frame:
            raise DuologueError(f"a tick has {pcm.shape} samples; it must have a multiple of {self.frame} (80 ms)")
        if not np.isfinite(pcm).all():
            raise DuologueError("a tick has samples that are not finite numbers")
        frames = torch.from_numpy(np.ascontiguousarray(pcm)).split(self.frame)
        events: list[Event] = []
        played = [self._one_frame(frame, events) for frame in frames]
        return Tick(torch.cat(played).numpy(), events)

    def press(self, down: bool = True) -> None:
        """Push-to-talk: the user has the turn from ``press()`` to ``press(False)``, however long they are silent.

        A turn in which nobody speaks, and about which nothing is asked in writing, gets an answer without words. Speech
        too long to be heard at once is written down part by part meanwhile, and read as a question in writing.
        """
        self.state.turn.pressed = down

    def hands_free(self) -> None:
        """Back to listening for speech."""
        self.state.turn.pressed = None

    @torch.inference_mode()
    def configure(self, config: SessionConfig) -> None:
        """Behave so from the next frame on. Other instructions or tools reach the model before the next turn; what was
        said before is then told in words.

        Raises:
            DuologueError: a voice that the model has not, SSML that it does not render, instructions, tools or keywords
                that it cannot be told of, or manners that it does not tell; nothing has changed then.
        """
        check_voice(self.model, config.voice)
        if config.ssml:
            self.assistant.check_ssml()
        if config.manner:
            require_manners(self.model)
        changed = (config.instructions, config.tools) != (self.config.instructions, self.config.tools)
        if changed:
            self.model.init_state(0, config.instructions, config.tools)
        if config.keywords != self.config.keywords:
            self.assistant = self._unaided.expecting(config.keywords)
            self.model = self.assistant.model
        self.config, self.state.gate.config, self.state.policy.config = config, config.gate, config.duplex
        self.state.loudness.config = config.loudness
        for dialogue in (self.state.dialogue, self.state.before, self.state.barge_in):
            if dialogue is not None:
                dialogue.speed, dialogue.voice, dialogue.ssml = config.speed, config.voice, config.ssml
        if changed and (self.model.follows_instructions or self.model.takes_tools):
            self.state.instruct_later = True
            if self.state.policy.mode not in (Mode.ANSWERING, Mode.DUCKED):
                self._go_on_behind(self._instructed(self.state.dialogue))

    def respond(self) -> None:
        """Answer the turn that waits for it (see ``on_request``)."""
        self.state.awaiting_response = False

    def about(self, text: str) -> None:
        """A written question about the turn that is being heard, or comes: it counts as its last words.

        Raises:
            DuologueError: no words, or more than fit.
        """
        ids, _ = ids_of(self.assistant.tokenizer, self.model.layout, text)
        self.model.must_fit(len(ids), self.state.dialogue)
        self.state.turn.text_question = ids

    def discard(self) -> None:
        """Forget the turn that is being heard, or that waits for its answer."""
        s = self.state
        s.turn.text_question = []
        if s.before is not None and (s.policy.mode is Mode.LISTENING or s.awaiting_response):
            s.dialogue, s.before, s.answer, s.awaiting_response = s.before, None, None, False
            s.policy = DuplexPolicy(self.config.duplex)

    @torch.inference_mode()
    def truncate(self, samples: int | None = None) -> str:
        """The user has heard no more of the last answer than ``samples`` of it (None: than was played).

        If it is under way, it is over. What is being said since is heard again behind what is left of it.

        Returns:
            The words that were heard.
        """
        s = self.state
        if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED):
            assert s.answer is not None
            s.answer.played = s.answer.played if samples is None else min(samples, s.answer.played)
            s.answer.cut(s.answer.dialogue)
            words = self._end_answer(s.answer.heard)
            s.policy = DuplexPolicy(self.config.duplex)
            return self._text(words)
        before = s.memory.cut(samples, self.model, s.dialogue if s.before is None else s.before)
        if before is not None:
            self._go_on_behind(before)
        return self._text([word for word, _, _ in s.memory.spoken])

    @torch.inference_mode()
    def remember(self, past: list[tuple[str, str]]) -> None:
        """Let these questions and answers be all that was said before the turn under way; only the newest of them, as
        many as a conversation may remember.

        Raises:
            DuologueError: an answer is under way.
        """
        s = self.state
        if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED):
            raise DuologueError("the past cannot be changed while an answer is under way: truncate it first")

        def words(text: str) -> list[int]:
            try:
                return words_of(self.assistant.tokenizer, self.model.layout, text)
            except DuologueError:  # no words, or too many to be remembered: not a reason to end the session
                return []

        newest = ((words(question), words(answer)) for question, answer in reversed(past))
        s.memory.replace(newest, self.model, self._history)
        self._go_on_behind(s.memory.in_words(self.model, s.dialogue if s.before is None else s.before))

    @torch.inference_mode()
    def type(self, text: str) -> None:
        """A turn in writing; an answer under way, or what is being said, is cut off by it.

        Raises:
            DuologueError: no words, or more than fit; nothing has changed then.
        """
        s = self.state
        ids, _ = ids_of(self.assistant.tokenizer, self.model.layout, text)
        self.model.must_fit(len(ids), s.dialogue if s.before is None else s.before)
        self._take_turn(lambda: self.model.read_text(ids, s.dialogue))
        assert s.answer is not None
        s.answer.transcript, s.answer.emitted, s.answer.before = ids, (len(ids), 0), (len(ids), 0)

    @torch.inference_mode()
    def speak_first(self) -> None:
        """Let the assistant speak although nobody has asked anything."""
        self._take_turn(lambda: speak_first(self.model, self.assistant.tokenizer, self.state.dialogue))

    @torch.inference_mode()
    def results(self, calls: Message, messages: Sequence[Message]) -> None:
        """What functions returned that the last answer has called, as messages of role "tool", and whatever the user
        has written since: the answer goes on.

        Args:
            calls: the message of the assistant that called them, for a conversation that is remembered in words.

        Raises:
            DuologueError: a model without a chat template, or more than fits into its context.
        """
        memory = self.state.memory

        def read() -> None:
            self.model.read_messages([*([] if memory.called else [calls]), *messages], self.state.dialogue)

        self._take_turn(read)
        assert self.state.answer is not None
        self.state.answer.goes_on = True

    def _take_turn(self, read: Callable[[], None]) -> None:
        """The turn is the assistant's, behind what ``read`` reads; whatever was going on is over."""
        s = self.state
        if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED):
            assert s.answer is not None
            s.answer.cut(s.answer.dialogue)
            self._end_answer(s.answer.heard)
        elif s.before is not None:
            s.dialogue, s.before, s.answer = s.before, None, None
        s.dialogue = s.memory.forget_at_once(self.model, self._instructed(s.dialogue), self._history)
        read()
        s.answer = Answer.begin(s.dialogue)
        s.policy = DuplexPolicy(self.config.duplex, mode=Mode.ANSWERING)
