"""An answer under way in a session: generated a little ahead of what is played, emitted as it is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from ...model.decoding.reply import reply
from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState, Sampling
from ...model.speech_decoder.ssml import ShownText
from ...model.streaming import State
from ...model.tokens import TokenKind
from ..assistant.text_stream import next_text


@dataclass
class Answer(State):
    """An answer, whether it is spoken already or only prepared.

    dialogue: the conversation that it is generated in. units: (1, U) of which no sound has been made yet.
    waiting: samples (n,) made and not played.
    words: of each token of the reply: its id, its position, and how many units there were with it.
    rendered: of each of them that has been made to sound: how many samples had been made by then.
    written, ended: there are no more tokens; there is no more sound.
    calls: tokens that call functions. goes_on: it is the rest of the last answer, which called a function.
    """

    dialogue: DialogueState
    units: Tensor
    waiting: Tensor
    played: int = 0
    made: int = 0
    voiced: int = 0  # units made to sound
    written: bool = False
    ended: bool = False
    transcript: list[int] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    goes_on: bool = False
    transcribed: bool = False  # the events have told that there is no more transcript
    words: list[tuple[int, int, int]] = field(default_factory=list)
    rendered: list[int] = field(default_factory=list)
    empty: bool = False  # there was nothing to answer
    held: int = 0  # how many of the last words have speech to come
    emitted: tuple[int, int] = (0, 0)  # how many tokens of transcript and reply the events have emitted
    before: tuple[int, int] = (0, 0)  # where the text begins that the events emitted last
    called: tuple[int, int] = (0, 0)  # the same of calls: how many tokens, and where the last text begins
    shown: ShownText = field(default_factory=ShownText)  # of what is said in SSML

    @classmethod
    def begin(cls, dialogue: DialogueState) -> Self:
        """One of which nothing has been written, behind a question that is over."""
        return cls(dialogue, torch.zeros(1, 0, dtype=torch.long), torch.zeros(0))

    @classmethod
    def none(cls, before: DialogueState) -> Self:
        """One without words, to a turn in which nothing was said; the dialogue goes on as it was before that turn."""
        answer = cls.begin(before.clone())
        answer.written = answer.ended = answer.empty = True
        return answer

    @property
    def heard(self) -> int:
        """How many words of it have been played."""
        return sum(made <= self.played for made in self.rendered)

    @property
    def played_out(self) -> bool:
        """Whether all of it has been played."""
        return self.ended and not len(self.waiting)

    @property
    def begins(self) -> tuple[bool, bool]:
        """Whether the next text of the transcript, and of the reply, is the first of it."""
        return self.emitted[0] == 0, not self.shown.begun if self.dialogue.ssml else self.emitted[1] == 0

    def cut(self, dialogue: DialogueState) -> None:
        """Forget, in ``dialogue``, the words of it that were not heard."""
        if self.heard < len(self.words):
            dialogue.truncate(self.words[self.heard][1])

    def advance(self, model: DialogueModel, sampling: Sampling, tokens: int, most: int) -> None:
        """Write up to ``tokens`` more of it, while there are fewer units than ``most``; make sound of up to as many.

        What was foreseen costs next to nothing, and does not count.
        """
        steps = reply(model, self.dialogue, sampling, aloud=False)
        while tokens > 0 and not self.written and self.units.shape[1] < most:
            step = next(steps)
            tokens -= not step.foreseen
            self.units = torch.cat([self.units, step.units], dim=1)
            self.written = step.kind is TokenKind.END
            if step.kind is TokenKind.REPLY:
                self.words.append((step.token, step.position, 0))
                self.held += 1
            if step.kind in (TokenKind.REPLY, TokenKind.END):
                for at in range(len(self.words) - self.held, len(self.words)):  # they have come now, or will later
                    self.words[at] = (*self.words[at][:2], self.voiced + self.units.shape[1])
                self.held = step.held
            elif step.kind is TokenKind.TRANSCRIPT:
                self.transcript.append(step.token)
            elif step.kind is TokenKind.CALL:
                self.calls.append(step.token)
        now, self.units = self.units[:, :most], self.units[:, most:]
        pcm = model.sound(now, self.dialogue)
        self.voiced += now.shape[1]
        if self.written and not self.units.shape[1]:
            self.ended = True
            pcm = torch.cat([pcm, model.reply_flush(self.dialogue)], dim=1)
        self.made += pcm.shape[1]
        self.waiting = torch.cat([self.waiting, pcm[0].float().clamp(-1, 1).cpu()])
        behind = self.words[len(self.rendered) : len(self.words) - self.held]
        self.rendered += [self.made for _, _, units in behind if units <= self.voiced]

    def play(self, count: int) -> Tensor:
        """The next samples (n,), at most ``count``: fewer at its end, and none while there are too few."""
        if not self.ended and len(self.waiting) < count:
            return torch.zeros(0)  # half a frame would be a gap in a word: wait for a whole one
        now, self.waiting = self.waiting[:count], self.waiting[count:].clone()
        self.played += len(now)
        return now

    def emit(self, tokenizer: Any, reply: bool) -> tuple[str, str]:
        """The text of the transcript and, if ``reply``, of the reply that has come since the last time."""
        heard = next_text(
            tokenizer, self.transcript[self.before[0] :], self.emitted[0] - self.before[0],
            final=self.written or bool(self.words),
        )  # fmt: skip
        if heard:
            self.before, self.emitted = (self.emitted[0], self.before[1]), (len(self.transcript), self.emitted[1])
        if not reply:
            return heard, ""
        words = [word for word, _, _ in self.words[self.before[1] :]]
        said = next_text(tokenizer, words, self.emitted[1] - self.before[1], final=self.written)
        if said:
            self.before, self.emitted = (self.before[0], self.emitted[1]), (self.emitted[0], len(self.words))
        if self.dialogue.ssml:
            said = self.shown.push(said, last=self.written)
        return heard, said

    def emit_calls(self, tokenizer: Any) -> str:
        """The text of the calls that has come since the last time, as the model writes them."""
        done, start = self.called
        text = next_text(tokenizer, self.calls[start:], done - start, final=self.written, special=True)
        if text:
            self.called = (len(self.calls), done)
        return text
