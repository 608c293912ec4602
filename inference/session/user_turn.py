"""The user's turn: which frames of the microphone are heard of it, and what is written down of a long one.

Hands-free every frame is heard. While a button is down silence is not, but for short pauses and what stands just before
and behind a sound, as in a recording (speech_segments.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState
from ...model.streaming import State, Streaming
from ..assistant.assistant import Assistant
from ..assistant.text_stream import ids_of
from ..front_end.speech_segments import MARGIN_MS, PAUSE_MS, SHORTEST_MS
from . import long_turn
from .policy import FRAME_MS

_MARGIN, _PAUSE = MARGIN_MS // FRAME_MS, PAUSE_MS // FRAME_MS  # frames


@dataclass
class UserTurn(State):
    """The turn that is being heard, or the last one.

    pressed: the button of push-to-talk; ``None``: hands-free.
    text_question: ids of what was asked in writing about the turn, or about the one that comes.
    heard: samples (n,) each that were heard of it, and are not written down.
    quiet: frames while the button is down that are not heard, or not yet.
    said_ms: of speech in it.
    written: what is written down of a turn too long to be heard at once; ``None``: it is not so long.
    """

    pressed: bool | None = None
    text_question: list[int] = field(default_factory=list)
    heard: list[Tensor] = field(default_factory=list)
    quiet: list[Tensor] = field(default_factory=list)
    said_ms: int = 0
    written: str | None = None

    @property
    def empty(self) -> bool:
        """Whether a button was pressed, no more."""
        return self.pressed is not None and self.said_ms < SHORTEST_MS and not self.text_question

    def begin(self, frames: list[Tensor], speech: bool, loud: bool) -> list[Tensor]:
        """It began in one of the last frames: those that are to be heard. See :meth:`hear`."""
        self.heard, self.quiet, self.said_ms, self.written = [], [], 0, None
        if self.pressed:
            self.quiet = frames[:-1]
            return self.hear(frames[-1], speech, loud)
        self.said_ms = FRAME_MS * speech
        return frames

    def hear(self, frame: Tensor, speech: bool, loud: bool) -> list[Tensor]:
        """One more frame: those that are to be heard now.

        speech: somebody speaks. loud: it is about as loud as the user.
        """
        self.said_ms += FRAME_MS * speech
        if self.pressed is None:
            return [frame]
        self.quiet.append(frame)
        if self.pressed and not (speech or loud):
            if len(self.quiet) > _PAUSE:
                del self.quiet[_PAUSE // 2]
            return []
        if not self.pressed and not self.heard:
            return []
        frames, self.quiet = self.quiet, []
        if not self.pressed:
            return frames[:_MARGIN]
        return frames if self.heard else frames[-1 - _MARGIN :]

    def listen(
        self, frames: list[Tensor], speech: bool, dialogue: DialogueState, assistant: Assistant, vad: Streaming
    ) -> None:
        """Let the model hear frames, in ``dialogue``; from where the turn becomes too long, write it down."""
        if not frames:
            return
        self.heard += frames
        if self.written is None and self.pressed is not None and long_turn.begins(assistant.model, self.heard, speech):
            self.written = ""  # from now on the dialogue hears no more of it
        if self.written is None:
            assistant.model.listen(torch.cat(frames)[None], dialogue)
        else:
            self.written, self.heard = long_turn.write_some(assistant, vad, self.written, self.heard)

    def listen_again(self, dialogue: DialogueState, model: DialogueModel) -> None:
        """Hear it from its beginning, in another dialogue."""
        model.begin_turn(dialogue)
        if self.heard and self.written is None:
            model.listen(torch.cat(self.heard)[None], dialogue)

    def write_rest(self, assistant: Assistant, vad: Streaming) -> list[int]:
        """A long turn is over: write down the rest of it. The ids of all that was said and asked in writing."""
        assert self.written is not None
        self.written, self.heard = long_turn.write_rest(assistant, vad, self.written, self.heard)
        said = ids_of(assistant.tokenizer, assistant.model.layout, self.written)[0] if self.written else []
        return [*said, *self.text_question]
