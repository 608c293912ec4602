"""Token ids: which number means what. Written into every checkpoint, checked on loading and on use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum

from .errors import DuologueError


class TokenKind(Enum):
    """What a generated token is part of."""

    TRANSCRIPT = "transcript"  # the words that the model heard
    REPLY = "reply"  # the words that it says
    CALL = "call"  # part of a call of a function, which is not said
    CONTROL = "control"  # a marker, not a word
    END = "end"  # the reply is over


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """Ids of the markers, the range of the words, the number of speech units.

    A marker that a model does not use is ``None``. A model without ``transcript`` and ``reply`` (LLaMA-Omni) answers
    at once: everything that it generates is reply.
    """

    bos: int
    eos: int
    pad: int
    user: int | None = None  # a turn of the user begins
    speech: int | None = None  # stands where speech embeddings go, in token sequences on disk
    transcript: int | None = None  # the words that were heard follow
    reply: int | None = None  # the words of the answer follow
    query: int | None = None  # states of the duplex monitor: answer, ignore, wait
    noise: int | None = None
    wait: int | None = None
    text: tuple[int, int]  # words: first id, and the id after the last
    units: int = 0  # size of the speech unit vocabulary (its ids are its own); 0: no speech output

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for name, id_ in self.markers().items():
            if id_ < 0:
                raise DuologueError(f"token {name} has id {id_}; it must be 0 or more")
            if id_ in seen:
                raise DuologueError(f"tokens {seen[id_]} and {name} both have id {id_}; each needs its own")
            seen[id_] = name
        first, after = self.text
        if not 0 <= first < after:
            raise DuologueError(f"text ids are {first} to {after - 1}; the range must hold ids of 0 or more")
        for id_, name in seen.items():
            if first <= id_ < after:
                raise DuologueError(f"token {name} has id {id_}, which is among the text ids, {first} to {after - 1}")
        if (self.transcript is None) != (self.reply is None):
            raise DuologueError("a token layout has both transcript and reply, or neither")
        if self.units < 0:
            raise DuologueError(f"the layout has {self.units} units; it must be 0 or more")

    def markers(self) -> dict[str, int]:
        """The markers in use, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("text", "units")}
        return {name: id_ for name, id_ in named.items() if id_ is not None}

    def is_text(self, id_: int) -> bool:
        """Whether an id is a word."""
        return self.text[0] <= id_ < self.text[1]


def check_ids(ids: Iterable[int], vocab_size: int, what: str) -> None:
    """Raise a DuologueError unless all ids are in a vocabulary of that size."""
    for id_ in ids:
        if not 0 <= id_ < vocab_size:
            raise DuologueError(f"{what} has token id {id_}; the language model's ids are 0 to {vocab_size - 1}")
