"""One answer of a chat completion as it is made: its text up to a stop string, its speech, the functions that it calls;
and what it took."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from .....model.dialogue_state import Sampling
from .....model.language_model.tool_calls import CallFormat, CallPiece, CallReader
from ...requests.questioner import Questioner

_NOTHING = np.zeros(0, np.float32)


class StopText:
    """A text as it comes, up to the first of several strings, wherever its pieces are cut.

    What may be the beginning of one is held back until it is known.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops, self._held = stops, ""
        self.reached = False

    def push(self, text: str, last: bool = False) -> str:
        """The text that more of it brings; ``last``: there is no more."""
        held = self._held + text
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self.reached, self._held = True, ""
            return held[: min(found)]
        longest = 0 if last else max((_begun(held, stop) for stop in self._stops), default=0)
        cut = len(held) - longest
        self._held = held[cut:]
        return held[:cut]


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a string."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


@dataclass(frozen=True)
class Piece:
    """What a step brought: text, samples (n,), more of calls."""

    text: str = ""
    pcm: np.ndarray = field(default_factory=lambda: _NOTHING)
    calls: list[CallPiece] = field(default_factory=list)


@dataclass
class Call:
    """A function that is called, its arguments as JSON, as far as they were written."""

    name: str
    arguments: str = ""


@dataclass
class Choice:
    """One answer.

    asker: has read or heard the question, and has kept it (``keep``) where the answer has both stops and speech.
    calls_as: how the model writes calls; None: it may call nothing. one_call: the answer ends with its first call.
    text, calls, tokens, samples: of what was made so far. full: whether it ended because it had as many tokens as it
        may have.
    """

    asker: Questioner
    sampling: Sampling
    stops: Sequence[str]
    spoken: bool
    calls_as: CallFormat | None = None
    one_call: bool = False
    text: str = ""
    calls: list[Call] = field(default_factory=list)
    tokens: int = 0
    samples: int = 0
    full: bool = False
    _reader: CallReader | None = None

    async def pieces(self) -> AsyncIterator[Piece]:
        """All of it, as it is made."""
        self._reader = None if self.calls_as is None else CallReader(self.calls_as)
        async for piece in self._said_up_to_stop() if self.spoken and self.stops else self._written():
            text = piece.text if self.text else piece.text.lstrip()
            self.text, self.samples = self.text + text, self.samples + len(piece.pcm)
            for call in piece.calls:
                if call.name:
                    self.calls.append(Call(call.name))
                self.calls[call.number].arguments += call.arguments
            if text or len(piece.pcm) or piece.calls:
                yield Piece(text, piece.pcm, piece.calls)

    def _read(self, text: str) -> tuple[list[CallPiece], bool]:
        """What more of the calls' text brings, and whether that is all there is to be."""
        found = list[CallPiece]() if self._reader is None or not text else self._reader.push(text)
        if self.one_call and any(call.ended for call in found):
            return [call for call in found if call.number == 0], True
        return found, False

    async def _written(self) -> AsyncIterator[Piece]:
        stop = StopText(self.stops)
        async for step in self.asker.steps(self.sampling, aloud=self.spoken):
            self.tokens, self.full = self.tokens + step.said, step.full
            calls, enough = self._read(step.call)
            yield Piece(stop.push(step.text, step.ended), step.pcm, calls)
            if stop.reached or enough:
                self.full = False
                return

    async def _said_up_to_stop(self) -> AsyncIterator[Piece]:
        """Written first, for speech cannot be taken back; then what stands before the stop is said."""
        stop, tokens, text, whole = StopText(self.stops), list[int](), "", ""
        ends, calls, enough = list[int](), list[CallPiece](), False  # ends: of the text behind each token
        async for step in self.asker.steps(self.sampling, tokens=1, aloud=False):
            self.tokens, self.full = self.tokens + step.said, step.full
            text, whole = text + stop.push(step.text, step.ended), whole + step.text
            tokens += step.tokens
            ends += [len(whole)] * len(step.tokens)
            more, enough = self._read(step.call)
            calls += more
            if stop.reached or enough:
                self.full = False
                break
        kept = [token for token, end in zip(tokens, ends, strict=True) if end <= len(text)]
        await self.asker.ask("again", kept)
        said = 0
        if kept:
            async for step in self.asker.steps(self.sampling):
                piece = step.text[: len(text) - said]
                said += len(piece)
                yield Piece(piece, step.pcm)
        yield Piece(text[said:], calls=calls)
