"""Turn-taking, a frame of 80 ms at a time: hear, decide whose turn it is, act on it, speak.

    microphone -> echo guard -> VAD, speech gate -> DuplexPolicy -> actions -> loudspeaker

What is decided is up to :mod:`.policy`; here it is done. :class:`~.session.Session` is what others use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...model.dialogue_state import DialogueState
from ...model.duplex.monitor import TURN_STATES, TurnState, fuse
from ...model.speech_decoder.ssml import without_tags
from ...model.streaming import Streaming
from ..assistant.assistant import Assistant
from ..assistant.turn import require_manners
from ..assistant.voices import check_voice
from .answer import Answer
from .events import Event, EventKind
from .policy import FRAME_MS, Action, Mode, TurnInput
from .state import SessionConfig, SessionState

_AT_ONCE = 10**6  # ms: longer than any wait
_ECHO_MS = 320  # of an echo may have been taken for speech, until it is known
_FADE_MS = 10  # so that falling silent at once is not a click


class TurnTaking:
    """One conversation's turns. The arguments are :class:`~.session.Session`'s."""

    def __init__(
        self, assistant: Assistant, config: SessionConfig | None = None, vad: Streaming | None = None, seed: int = 0
    ) -> None:
        config = config or SessionConfig()
        if config.ssml:
            assistant.check_ssml()
        self._unaided = assistant.while_speaking()
        assistant = self._unaided.expecting(config.keywords)
        model = assistant.model
        if config.manner:
            require_manners(model)
        if vad is None:
            from ...checkpoints.importers.silero_vad import load_vad

            vad = load_vad()
        self.assistant, self.model, self.config, self.vad = assistant, model, config, vad
        self.input_rate: int = assistant.input_rate  # Hz
        self.output_rate: int = assistant.output_rate  # Hz
        self.frame = FRAME_MS * self.input_rate // 1000  # samples in
        self._frame_out = FRAME_MS * self.output_rate // 1000
        dialogue = model.init_state(seed, config.instructions, config.tools)
        check_voice(model, config.voice)
        dialogue.speed, dialogue.voice, dialogue.ssml = config.speed, config.voice, config.ssml
        self.state = SessionState.begin(dialogue, vad.init_state(), config, self.frame)

    @property
    def _history(self) -> int:
        return self.model.history if self.config.history is None else self.config.history

    def _one_frame(self, pcm: Tensor, events: list[Event]) -> Tensor:
        s = self.state
        s.now_ms += FRAME_MS
        pcm, echo, found = s.echo.hear(pcm, self.config.echo)
        was_echo = found and echo and s.turn.pressed is None and s.gate.open and s.gate.speech_ms <= _ECHO_MS
        if was_echo:
            s.loudness.new_turn()
        self._gate(pcm, echo, events)
        s.recent.append(pcm)
        answer = s.answer if s.policy.mode in (Mode.ANSWERING, Mode.DUCKED) else None
        audible = answer is not None and not s.awaiting_response and (self._noticed(answer) or s.before is None)
        # Until a sample of the answer has been played (without a voice, a word written), the turn may not have ended.
        unheard = s.policy.mode is Mode.ANSWERING and not audible and not s.awaiting_response
        if s.policy.mode is Mode.LISTENING or unheard:
            self._hear(pcm, s.dialogue)
        if s.barge_in is not None:
            self._hear(pcm, s.barge_in)
        speech, speech_ms, silence_ms = s.gate.open, s.gate.speech_ms, s.gate.silence_ms
        if s.turn.pressed is not None:
            speech, speech_ms, silence_ms = s.turn.pressed, _AT_ONCE * s.turn.pressed, _AT_ONCE * (not s.turn.pressed)
        if audible and not self.config.interruptible:
            speech, speech_ms = False, 0
        frame = TurnInput(
            speech=speech,
            speech_ms=speech_ms,
            silence_ms=silence_ms,
            speaking=answer is not None and (s.awaiting_response or not answer.played_out),
            audible=audible,
            turn_state=self._turn_state(),
            word_monitor_pending=self._word_monitor_pending(),
            button_down=bool(s.turn.pressed),
            was_echo=was_echo,
        )
        was_speaking = s.policy.mode is Mode.ANSWERING
        for action in s.policy.step(frame):
            self._ACTIONS[action](self, events)
        keep = self.config.duplex.before_ms // FRAME_MS
        s.recent = s.recent[len(s.recent) - keep :] if keep < len(s.recent) else s.recent
        if s.policy.mode is Mode.IDLE:
            s.dialogue = s.memory.forget_a_little(self.model, self._instructed(s.dialogue), self._history)
        played = self._speak(events, was_speaking)
        s.echo.play(
            played if self.input_rate == self.output_rate else _resampled(played, self.output_rate, self.input_rate)
        )
        return played

    def _noticed(self, answer: Answer) -> bool:
        return answer.played > 0 or bool(answer.calls) or (not self.model.speaks and bool(answer.words))

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
        s.dialogue = s.memory.forget_at_once(self.model, self._instructed(s.dialogue), self._history)
        s.before, s.answer = s.dialogue.clone(), None
        s.loudness.new_turn()
        self._begin_turn(s.dialogue)

    def _speculate(self, events: list[Event]) -> None:
        s = self.state
        if s.turn.empty:
            assert s.before is not None
            s.answer = Answer.none(s.before)
            return
        if s.turn.written is not None:
            self._read_written()
            return
        ended = s.dialogue.clone()
        self.model.ask_about(s.turn.text_question, ended)
        self.model.end_turn(ended)
        s.answer = Answer.none(s.before) if ended.empty and s.before is not None else Answer.begin(ended)

    def _answer(self, events: list[Event]) -> None:
        if self.state.answer is None:
            self._speculate(events)
        self.state.awaiting_response = self.config.on_request
        self.state.loudness.answered()
        if self.config.manner:
            self._tell_manner(events)
        events.append(Event(EventKind.ANSWER_STARTED, self.state.now_ms))

    def _tell_manner(self, events: list[Event]) -> None:
        answer = self.state.answer
        if answer is None or answer.empty or (found := self.model.manner_of(answer.dialogue)) is None:
            return
        event = Event(EventKind.MANNER, self.state.now_ms, max(found, key=found.__getitem__))
        events.append(replace(event, probabilities=tuple(found.items())))

    def _ignore(self, events: list[Event]) -> None:
        s = self.state
        assert s.before is not None
        s.dialogue, s.before, s.answer, s.turn.text_question = s.before, None, None, []
        s.memory.ignored(self.model, s.dialogue)
        s.loudness.ignored()
        events.append(Event(EventKind.TURN_IGNORED, s.now_ms))

    def _listen_on(self, events: list[Event]) -> None:
        s = self.state
        s.answer, s.awaiting_response = None, False
        self._instruct_this_turn()

    def _duck(self, events: list[Event]) -> None:
        s = self.state
        assert s.answer is not None
        s.barge_in = s.answer.dialogue.clone()
        s.answer.cut(s.barge_in)
        s.loudness.new_turn()
        self._begin_turn(s.barge_in)
        events.append(Event(EventKind.DUCKED, s.now_ms))

    def _resume(self, events: list[Event]) -> None:
        self.state.barge_in = None
        events.append(Event(EventKind.RESUMED, self.state.now_ms))

    def _interrupt(self, events: list[Event]) -> None:
        s = self.state
        assert s.answer is not None and s.barge_in is not None
        barge_in = s.barge_in
        s.answer.cut(s.answer.dialogue)
        words = self._end_answer(s.answer.heard)
        events.append(Event(EventKind.INTERRUPTED, s.now_ms, self._text(words)))
        s.before, s.dialogue, s.barge_in = s.dialogue, barge_in, None
        self._instruct_this_turn()

    def _finish(self, events: list[Event]) -> None:
        assert self.state.answer is not None
        events.append(Event(EventKind.ANSWER_FINISHED, self.state.now_ms))
        self._end_answer(len(self.state.answer.words))

    _ACTIONS: ClassVar[dict[Action, Callable[[TurnTaking, list[Event]], None]]] = {
        Action.LISTEN: _listen,
        Action.SPECULATE: _speculate,
        Action.DROP: _listen_on,
        Action.ANSWER: _answer,
        Action.IGNORE: _ignore,
        Action.CONTINUE: _listen_on,
        Action.DUCK: _duck,
        Action.RESUME: _resume,
        Action.INTERRUPT: _interrupt,
        Action.FINISH: _finish,
    }

    # Parts of the above.

    def _begin_turn(self, dialogue: DialogueState) -> None:
        """The user's turn began a little before now."""
        s = self.state
        self.model.begin_turn(dialogue)
        self._listen_to(s.turn.begin(s.recent, s.gate.open, s.loudness.sounds(s.recent[-1])), dialogue)

    def _hear(self, pcm: Tensor, dialogue: DialogueState) -> None:
        """A frame of the user's turn."""
        s = self.state
        self._listen_to(s.turn.hear(pcm, s.gate.open, s.loudness.sounds(pcm)), dialogue)

    def _listen_to(self, frames: list[Tensor], dialogue: DialogueState) -> None:
        self.state.turn.listen(frames, self.state.gate.open, dialogue, self.assistant, self.vad)

    def _read_written(self) -> None:
        """A long turn is over: write down the rest of it, and read all as a question in writing."""
        s = self.state
        assert s.before is not None
        ids = s.turn.write_rest(self.assistant, self.vad)
        if not ids:
            s.answer = Answer.none(s.before)
            return
        read = s.before.clone()
        self.model.read_text(ids, read)
        s.answer = Answer.begin(read)
        s.answer.transcript = ids

    def _instructed(self, dialogue: DialogueState) -> DialogueState:
        """The conversation with the config's instructions and tools, where they have changed: then with all of its past
        in words."""
        s = self.state
        if not s.instruct_later:
            return dialogue
        fresh = self.model.init_state(0, self.config.instructions, self.config.tools)
        fresh.rng, s.instruct_later, s.memory.recalled = dialogue.rng, False, None
        fresh.speak_as(dialogue)
        return s.memory.in_words(self.model, fresh)

    def _instruct_this_turn(self) -> None:
        """The turn under way, which goes on behind other instructions where they have changed meanwhile."""
        if self.state.instruct_later and self.state.before is not None:
            self._go_on_behind(self._instructed(self.state.before))

    def _go_on_behind(self, before: DialogueState) -> None:
        """Go on behind ``before``: if a turn is under way, hear it again from its beginning."""
        s = self.state
        if s.before is None:
            s.dialogue = before
            return
        s.before, s.dialogue, s.answer, s.policy.speculating = before, before.clone(), None, False
        s.turn.listen_again(s.dialogue, self.model)

    def _turn_state(self) -> TurnState | None:
        """What the monitor makes of what is being said, if there is one and it is certain; noise if it is too faint."""
        s = self.state
        if s.turn.pressed is not None:
            return None
        listening = s.policy.mode is Mode.LISTENING
        if listening and s.answer is not None and s.answer.empty:  # somebody made a sound, and said nothing
            return TurnState.NOISE
        if not self.config.monitor:
            return None
        if s.loudness.far and s.policy.mode in (Mode.LISTENING, Mode.DUCKED):
            return TurnState.NOISE
        dialogue = {Mode.LISTENING: s.dialogue, Mode.DUCKED: s.barge_in}.get(s.policy.mode)
        if listening and s.answer is not None and self.model.hears_words:  # it has the last words
            dialogue = s.answer.dialogue
        if dialogue is None or dialogue.turn_state is None:
            return None
        prepared = s.answer if listening and self.config.word_monitor else None
        read = None if prepared is None else prepared.dialogue.word_turn_state
        probability, index = fuse(dialogue.turn_state, read).max(dim=0)
        enough = self.config.certain_over if not listening else self.config.certain or self.model.certain
        return TURN_STATES[int(index)] if float(probability) >= enough[int(index)] else None

    def _word_monitor_pending(self) -> bool:
        """Whether the word monitor has yet to read what is being said."""
        s = self.state
        judged = self.model.reads_turn_state and self.config.monitor and self.config.word_monitor
        if not judged or s.turn.pressed is not None:
            return False
        return s.answer is None or (s.answer.dialogue.word_turn_state is None and not s.answer.written)

    def _end_answer(self, heard: int) -> list[int]:
        """The conversation goes on behind the answer, of which so many words were heard: these."""
        s = self.state
        assert s.answer is not None
        words = [] if s.answer.empty else s.memory.keep(s.answer, heard)
        s.dialogue, s.before, s.barge_in, s.answer = s.answer.dialogue, None, None, None
        s.turn.text_question, s.awaiting_response = [], False
        s.turn.written = None
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
        if s.awaiting_response:
            self._emit(answer, events)
            return out
        if mode is Mode.DUCKED and was_speaking:  # the next few samples die away, and are played again on resuming
            fade = min(self.output_rate * _FADE_MS // 1000, len(answer.waiting))
            out[:fade] = answer.waiting[:fade] * torch.linspace(1, 0, fade)
        if mode is not Mode.ANSWERING:
            return out
        self._emit(answer, events)
        first = not answer.played
        now = answer.play(count)
        out[: len(now)] = now
        if len(now) and first:
            events.append(Event(EventKind.ANSWER_AUDIBLE, s.now_ms))
        if len(now) and not was_speaking:
            fade = min(self.output_rate * _FADE_MS // 1000, count)
            out[:fade] *= torch.linspace(0, 1, fade)
        return out

    def _emit(self, answer: Answer, events: list[Event]) -> None:
        """Events of the text that has come since the last ones."""
        first = answer.begins
        found = answer.emit(self.assistant.tokenizer, reply=not self.state.awaiting_response)
        for kind, text, begins in zip((EventKind.USER_TEXT, EventKind.ANSWER_TEXT), found, first, strict=True):
            if text:  # the first piece has no space before it, or (an adaptor's tokens) one
                text = f" {text.lstrip()}" if begins else text
                events.append(Event.piece(kind, self.state.now_ms, text))
        if not answer.transcribed and (answer.words or answer.calls or answer.written):
            answer.transcribed = True
            events.append(Event(EventKind.TRANSCRIBED, self.state.now_ms))
        if not self.state.awaiting_response and (text := answer.emit_calls(self.assistant.tokenizer)):
            events.append(Event(EventKind.ANSWER_CALL, self.state.now_ms, text, glued=True))

    def _text(self, ids: list[int]) -> str:
        text = str(self.assistant.tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""
        return without_tags(text) if self.config.ssml else text


def _resampled(pcm: Tensor, rate: int, wanted: int) -> Tensor:
    import soxr

    return torch.from_numpy(soxr.resample(pcm.numpy(), rate, wanted).astype(np.float32))
