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

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.state_io import load_state, save_state
from ...data_prep.audio import mono
from ...model.dialogue_state import DialogueState
from ...model.duplex.monitor import TURN_STATES, TurnState, together
from ...model.errors import DuologueError
from ...model.streaming import Streaming
from ..assistant.assistant import Assistant
from ..assistant.text_stream import ids_of
from ..front_end.echo import EchoGuard
from ..front_end.loudness import Loudness
from ..front_end.speech_gate import SpeechGate
from ..front_end.speech_segments import MARGIN_MS, PAUSE_MS, SHORTEST_MS, SOUND_DB
from . import long_turn
from .answer import Answer
from .events import Event, EventKind, Tick
from .memory import Memory
from .policy import FRAME_MS, DuplexPolicy, Mode, TurnInput
from .state import SessionConfig, SessionState

_AT_ONCE = 10**6  # ms: longer than any wait
_MISTAKEN_MS = 320  # of an echo may have been taken for speech, until it is known
_FADE_MS = 10  # so that falling silent at once is not a click


@dataclass(frozen=True)
class _Saved:
    """A session on disk: of which model, how it behaves, what it remembers."""

    model: str  # its fingerprint
    config: SessionConfig
    state: SessionState


class Session:
    """One conversation in full duplex.

    Args:
        assistant: whose weights are used; any number of sessions may share it.
        vad: the voice activity detector; silero's, unless another is given.
        seed: for sampling.
    """

    def __init__(
        self, assistant: Assistant, config: SessionConfig | None = None, vad: Streaming | None = None, seed: int = 0
    ) -> None:
        model = assistant.model
        config = config or SessionConfig()
        if not model.streams:
            raise DuologueError("this model hears whole clips only: a session needs one whose ear streams")
        if not model.speaks:
            raise DuologueError("this model has no voice: a session needs a vocoder")
        if vad is None:
            from ...checkpoints.importers.silero_vad import load_vad

            vad = load_vad()
        self.assistant, self.model, self.config, self.vad = assistant, model, config, vad
        self.input_rate: int = assistant.input_rate  # Hz
        self.output_rate: int = assistant.output_rate  # Hz
        self.frame = FRAME_MS * self.input_rate // 1000  # samples in
        self._frame_out = FRAME_MS * self.output_rate // 1000
        self.state = SessionState(
            dialogue=model.init_state(seed),
            before=None,
            over=None,
            answer=None,
            vad=vad.init_state(),
            gate=SpeechGate(config.gate),
            loudness=Loudness.begin(config.loudness),
            policy=DuplexPolicy(config.duplex),
            echo=EchoGuard.begin(self.frame, config.echo_ms * self.input_rate // 1000),
            recent=[],
            memory=Memory(),
        )

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
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.state = self.state.clone()
        return other

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
        self.state.pressed = down

    def hands_free(self) -> None:
        """Back to listening for speech."""
        self.state.pressed = None

    def configure(self, config: SessionConfig) -> None:
        """Behave so from the next frame on."""
        self.config, self.state.gate.config, self.state.policy.config = config, config.gate, config.duplex

    def respond(self) -> None:
        """Answer the turn that waits for it (see ``on_request``)."""
        self.state.held = False

    def about(self, text: str) -> None:
        """A written question about the turn that is being heard, or comes: it counts as its last words.

        Raises:
            DuologueError: no words, or more than fit.
        """
        ids, _ = ids_of(self.assistant.tokenizer, self.model.layout, text)
        self.model.must_fit(len(ids), self.state.dialogue)
        self.state.about = ids

    def discard(self) -> None:
        """Forget the turn that is being heard, or that waits for its answer."""
        s = self.state
        s.about = []
        if s.before is not None and (s.policy.mode is Mode.LISTENING or s.held):
            s.dialogue, s.before, s.answer, s.held = s.before, None, None, False
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
        s, layout = self.state, self.model.layout
        if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED):
            raise DuologueError("the past cannot be changed while an answer is under way: truncate it first")

        def words(text: str) -> list[int]:
            try:
                ids = ids_of(self.assistant.tokenizer, layout, text)[0] if text.strip() else []
            except DuologueError:  # no words, or too many to be remembered: not a reason to end the session
                return []
            return [id_ for id_ in ids if layout.is_text(id_)]

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
        if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED):
            assert s.answer is not None
            s.answer.cut(s.answer.dialogue)
            self._end_answer(s.answer.heard)
        elif s.before is not None:
            s.dialogue, s.before, s.answer = s.before, None, None
        s.dialogue = s.memory.forget_at_once(self.model, s.dialogue, self._history)
        self.model.read_text(ids, s.dialogue)
        s.answer = Answer.begin(s.dialogue)
        s.answer.transcript, s.answer.told = ids, (len(ids), 0)
        s.policy = DuplexPolicy(self.config.duplex, mode=Mode.ANSWERING)

    @property
    def _history(self) -> int:
        return self.model.history if self.config.history is None else self.config.history

    # One frame.

    def _one_frame(self, pcm: Tensor, events: list[Event]) -> Tensor:
        s = self.state
        s.now_ms += FRAME_MS
        pcm, echo, found = s.echo.hear(pcm, self.config.echo)
        mistaken = found and echo and s.pressed is None and s.gate.open and s.gate.speech_ms <= _MISTAKEN_MS
        if mistaken:
            s.loudness.new_turn()
        self._gate(pcm, echo, events)
        s.recent.append(pcm)
        answer = s.answer if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED) else None
        audible = answer is not None and not s.held and (answer.played > 0 or s.before is None)
        # Until a sample of the answer has been played, the turn may turn out not to have ended.
        if s.policy.mode is Mode.LISTENING or (s.policy.mode is Mode.ANSWERING and not audible and not s.held):
            self._hear(pcm, s.dialogue)
        if s.over is not None:
            self._hear(pcm, s.over)
        speech, speech_ms, silence_ms = s.gate.open, s.gate.speech_ms, s.gate.silence_ms
        if s.pressed is not None:
            speech, speech_ms, silence_ms = s.pressed, _AT_ONCE * s.pressed, _AT_ONCE * (not s.pressed)
        if audible and not self.config.interruptible:
            speech, speech_ms = False, 0
        heard = TurnInput(
            speech=speech,
            speech_ms=speech_ms,
            silence_ms=silence_ms,
            speaking=answer is not None and (s.held or not answer.over),
            audible=audible,
            turn_state=self._turn_state(),
            unread=self._unread(),
            withheld=bool(s.pressed),
            mistaken=mistaken,
        )
        was_speaking = s.policy.mode is Mode.ANSWERING
        for action in s.policy.step(heard):
            getattr(self, f"_{action.value}")(events)
        keep = self.config.duplex.before_ms // FRAME_MS
        s.recent = s.recent[len(s.recent) - keep :] if keep < len(s.recent) else s.recent
        if s.policy.mode is Mode.IDLE:
            s.dialogue = s.memory.forget_a_little(self.model, s.dialogue, self._history)
        played = self._speak(events, was_speaking)
        s.echo.play(
            played if self.input_rate == self.output_rate else _resampled(played, self.output_rate, self.input_rate)
        )
        return played

    def _gate(self, pcm: Tensor, echo: bool, events: list[Event]) -> None:
        gate = self.state.gate
        for probability in self.vad.step(pcm[None], self.state.vad)[0].tolist():
            was_open = gate.open
            gate.push(0.0 if echo else probability)
            if gate.open != was_open:
                kind = EventKind.SPEECH_STARTED if gate.open else EventKind.SPEECH_STOPPED
                events.append(Event(kind, gate.now_ms - (gate.speech_ms if gate.open else gate.silence_ms)))
        if gate.open:
            self.state.loudness.hear(pcm)

    # What the policy may ask for.

    def _listen(self, events: list[Event]) -> None:
        s = self.state
        s.dialogue = s.memory.forget_at_once(self.model, s.dialogue, self._history)
        s.before, s.answer = s.dialogue.clone(), None
        s.loudness.new_turn()
        self._begin_turn(s.dialogue)

    def _speculate(self, events: list[Event]) -> None:
        s = self.state
        if s.pressed is not None and s.said_ms < SHORTEST_MS and not s.about:  # a button was pressed, no more
            assert s.before is not None
            s.answer = Answer.none(s.before)
            return
        if s.written is not None:
            self._read_written()
            return
        ended = s.dialogue.clone()
        self.model.ask_about(s.about, ended)
        self.model.end_turn(ended)
        s.answer = Answer.begin(ended)

    def _drop(self, events: list[Event]) -> None:
        self.state.answer = None

    def _answer(self, events: list[Event]) -> None:
        if self.state.answer is None:
            self._speculate(events)
        self.state.held = self.config.on_request
        self.state.loudness.answered()
        events.append(Event(EventKind.ANSWER_STARTED, self.state.now_ms))

    def _ignore(self, events: list[Event]) -> None:
        s = self.state
        assert s.before is not None
        s.dialogue, s.before, s.answer, s.about = s.before, None, None, []
        s.memory.ignored(self.model)
        s.loudness.ignored()
        events.append(Event(EventKind.TURN_IGNORED, s.now_ms))

    def _continue(self, events: list[Event]) -> None:
        self.state.answer, self.state.held = None, False

    def _duck(self, events: list[Event]) -> None:
        s = self.state
        assert s.answer is not None
        s.over = s.answer.dialogue.clone()
        s.answer.cut(s.over)
        s.loudness.new_turn()
        self._begin_turn(s.over)
        events.append(Event(EventKind.DUCKED, s.now_ms))

    def _resume(self, events: list[Event]) -> None:
        self.state.over = None
        events.append(Event(EventKind.RESUMED, self.state.now_ms))

    def _interrupt(self, events: list[Event]) -> None:
        s = self.state
        assert s.answer is not None and s.over is not None
        over = s.over
        s.answer.cut(s.answer.dialogue)
        words = self._end_answer(s.answer.heard)
        events.append(Event(EventKind.INTERRUPTED, s.now_ms, self._text(words)))
        s.before, s.dialogue, s.over = s.dialogue, over, None

    def _finish(self, events: list[Event]) -> None:
        assert self.state.answer is not None
        events.append(Event(EventKind.ANSWER_FINISHED, self.state.now_ms))
        self._end_answer(len(self.state.answer.words))

    # Parts of the above.

    def _begin_turn(self, dialogue: DialogueState) -> None:
        """The user's turn began a little before now."""
        s = self.state
        self.model.begin_turn(dialogue)
        s.turn, s.quiet, s.said_ms, s.written = [], [], 0, None
        *before, now = s.recent
        if s.pressed:
            s.quiet = before
            self._hear(now, dialogue)
        else:
            s.said_ms = FRAME_MS * s.gate.open
            self._listen_to(s.recent, dialogue)

    def _hear(self, pcm: Tensor, dialogue: DialogueState) -> None:
        """A frame of the user's turn. While a button is down silence is not heard, but for short pauses and what stands
        just before and behind a sound, as in a recording (speech_segments.py)."""
        s = self.state
        s.said_ms += FRAME_MS * s.gate.open
        if s.pressed is None:
            self._listen_to([pcm], dialogue)
            return
        margin, pause = MARGIN_MS // FRAME_MS, PAUSE_MS // FRAME_MS
        s.quiet.append(pcm)
        if s.pressed and not (s.gate.open or self._sounds(pcm)):
            if len(s.quiet) > pause:
                del s.quiet[pause // 2]
        elif s.pressed:
            self._listen_to(s.quiet if s.turn else s.quiet[-1 - margin :], dialogue)
            s.quiet = []
        elif s.turn:
            self._listen_to(s.quiet[:margin], dialogue)
            s.quiet = []

    def _listen_to(self, frames: list[Tensor], dialogue: DialogueState) -> None:
        s = self.state
        if not frames:
            return
        s.turn += frames
        if s.written is None and s.pressed is not None and long_turn.begins(self.model, s.turn, s.gate.open):
            s.written = ""  # from now on the dialogue hears no more of it
        if s.written is None:
            self.model.listen(torch.cat(frames)[None], dialogue)
        else:
            s.written, s.turn = long_turn.write_some(self.assistant, self.vad, s.written, s.turn)

    def _read_written(self) -> None:
        """A long turn is over: write down the rest of it, and read all as a question in writing."""
        s, layout = self.state, self.model.layout
        assert s.written is not None and s.before is not None
        s.written, s.turn = long_turn.write_rest(self.assistant, self.vad, s.written, s.turn)
        ids = [*(ids_of(self.assistant.tokenizer, layout, s.written)[0] if s.written else []), *s.about]
        if not ids:
            s.answer = Answer.none(s.before)
            return
        read = s.before.clone()
        self.model.read_text(ids, read)
        s.answer = Answer.begin(read)
        s.answer.transcript = ids

    def _sounds(self, pcm: Tensor) -> bool:
        """Whether a frame is about as loud as the user."""
        level = 10 * torch.log10(pcm.double().square().mean() + 1e-12)
        return float(level) > self.state.loudness.usual_dbfs - SOUND_DB

    def _go_on_behind(self, before: DialogueState) -> None:
        """Go on behind ``before``: if a turn is under way, hear it again from its beginning."""
        s = self.state
        if s.before is None:
            s.dialogue = before
            return
        s.before, s.dialogue, s.answer, s.policy.prepared = before, before.clone(), None, False
        self.model.begin_turn(s.dialogue)
        if s.turn and s.written is None:
            self.model.listen(torch.cat(s.turn)[None], s.dialogue)

    def _turn_state(self) -> TurnState | None:
        """What the monitor makes of what is being said, if there is one and it is certain; noise if it is too faint."""
        s = self.state
        if not self.config.monitor or s.pressed is not None:
            return None
        if s.loudness.far and s.policy.mode in (Mode.LISTENING, Mode.DUCKED):
            return TurnState.NOISE
        dialogue = {Mode.LISTENING: s.dialogue, Mode.DUCKED: s.over}.get(s.policy.mode)
        if dialogue is None or dialogue.turn_state is None:
            return None
        listening = s.policy.mode is Mode.LISTENING
        prepared = s.answer if listening and self.config.word_monitor else None
        read = None if prepared is None else prepared.dialogue.word_turn_state
        probability, index = together(dialogue.turn_state, read).max(dim=0)
        enough = self.config.certain if listening else self.config.certain_over
        return TURN_STATES[int(index)] if float(probability) >= enough[int(index)] else None

    def _unread(self) -> bool:
        """Whether the word monitor has yet to read what is being said."""
        s = self.state
        config = self.config
        if not self.model.reads_turn_state or not (config.monitor and config.word_monitor) or s.pressed is not None:
            return False
        return s.answer is None or (s.answer.dialogue.word_turn_state is None and not s.answer.written)

    def _end_answer(self, heard: int) -> list[int]:
        """The conversation goes on behind the answer, of which so many words were heard: these."""
        s = self.state
        assert s.answer is not None
        words = [] if s.answer.empty else s.memory.keep(s.answer, heard)
        s.dialogue, s.before, s.over, s.answer, s.about, s.held = s.answer.dialogue, None, None, None, [], False
        s.written = None
        return words

    def _speak(self, events: list[Event], was_speaking: bool) -> Tensor:
        """The frame to play, (frame_out,)."""
        s, count = self.state, self._frame_out
        out, answer, mode = torch.zeros(count), s.answer, s.policy.mode
        if answer is None:
            return out
        enough = self.config.ahead_ms * self.output_rate // 1000
        if mode is not Mode.DUCKED and not answer.ended and len(answer.waiting) < enough:
            begun = answer.dialogue.generated > 0  # otherwise the end of the turn, just read, counts as a token
            tokens = max(1, self.config.tokens_a_frame - (not begun))
            answer.advance(self.model, self.config.sampling, tokens, self.config.units_a_frame)
        if s.held:
            self._tell(answer, events)
            return out
        if mode is Mode.DUCKED and was_speaking:  # the next few samples die away, and are played again on resuming
            fade = min(self.output_rate * _FADE_MS // 1000, len(answer.waiting))
            out[:fade] = answer.waiting[:fade] * torch.linspace(1, 0, fade)
        if mode is not Mode.ANSWERING:
            return out
        self._tell(answer, events)
        first = not answer.played
        now = answer.play(count)
        out[: len(now)] = now
        if len(now) and first:
            events.append(Event(EventKind.ANSWER_AUDIBLE, s.now_ms))
        if len(now) and not was_speaking:
            fade = min(self.output_rate * _FADE_MS // 1000, count)
            out[:fade] *= torch.linspace(0, 1, fade)
        return out

    def _tell(self, answer: Answer, events: list[Event]) -> None:
        """Events of the text that has come since the last ones."""
        heard, said = answer.tell(reply=not self.state.held)
        for kind, ids in ((EventKind.USER_TEXT, heard), (EventKind.ANSWER_TEXT, said)):
            if ids:
                events.append(Event(kind, self.state.now_ms, self._text(ids)))

    def _text(self, ids: list[int]) -> str:
        return str(self.assistant.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""


def _resampled(pcm: Tensor, rate: int, wanted: int) -> Tensor:
    import soxr

    return torch.from_numpy(soxr.resample(pcm.numpy(), rate, wanted).astype(np.float32))
