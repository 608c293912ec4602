"""Words as tokens of a language model's own vocabulary, of which only some are used.

A CTC adaptor hears V tokens. They are chosen from what is said in the data: the characters, so that everything can be
spelt, and the most frequent tokens. A word as the language model's tokenizer writes it has a space before it; where a
token of it is not among the V, the word is written with those that are: other tokens, the same text.
"""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...model.errors import DuologueError

_LETTERS = string.ascii_lowercase + "'"


def words_of(meta: Mapping[str, Any]) -> str:
    """What is said in a clip, lower-case words with a space between; empty where nothing is."""
    text = str(meta.get("spoken", meta.get("text", ""))).lower().replace("’", "'")
    words = (word.strip("'") for word in re.sub(r"[^\w']|_", " ", text).split())
    return " ".join(word for word in words if word)


class Pieces:
    """A tokenizer's tokens as strings: joined, they spell a text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        special = {id_ for id_, token in tokenizer.added_tokens_decoder.items()}
        self.ids = {piece: id_ for piece, id_ in tokenizer.get_vocab().items() if id_ not in special}
        self.pieces = {id_: piece for piece, id_ in self.ids.items()}
        first = tokenizer.convert_ids_to_tokens(self._encoded("a"))[0]
        self._before = "" if str(first).startswith("▁") else " "  # SentencePiece puts a space before by itself
        self.word = functools.lru_cache(None)(self._word)

    def _encoded(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _word(self, word: str) -> tuple[int, ...]:
        """The tokens of a word, with a space before it."""
        return tuple(self._encoded(f"{self._before}{word}"))

    def spelt(self, ids: Sequence[int]) -> str:
        """What tokens spell, in the tokenizer's own writing of spaces and bytes; an unknown token spells nothing."""
        return "".join(self.pieces.get(id_, "") for id_ in ids)


def choose_tokens(tokenizer: Any, texts: Iterable[str], size: int, rare: int) -> list[int]:
    """The ``size`` tokens that texts are best written in.

    First the characters of the texts and of English; then the tokens that stand in them at least ``rare`` times, the
    most frequent first; then other lower-case tokens, in the tokenizer's order.

    Raises:
        DuologueError: there are not so many, or the characters alone are more.
    """
    pieces = Pieces(tokenizer)
    words = Counter(word for text in texts for word in text.split())
    counts: Counter[int] = Counter()
    for word, times in words.items():
        for id_ in pieces.word(word):
            counts[id_] += times
    characters = {*_LETTERS, *(pieces.spelt(pieces.word("a"))[:-1])}
    characters |= {character for id_ in counts for character in pieces.pieces.get(id_, "")}
    bytes_ = {piece for id_ in counts if re.fullmatch("<0x..>", piece := pieces.pieces.get(id_, ""))}
    chosen = {pieces.ids[piece]: None for piece in sorted(characters | bytes_) if piece in pieces.ids}
    if len(chosen) > size:
        raise DuologueError(f"adaptor.vocab is {size}; the characters of the data alone are {len(chosen)}")
    frequent = (id_ for id_, times in counts.most_common() if times >= rare and id_ in pieces.pieces)
    others = (id_ for id_, piece in sorted(pieces.pieces.items()) if piece[1:].isalpha() and piece[1:].islower())
    for source in (frequent, others):
        for id_ in source:
            if len(chosen) < size:
                chosen.setdefault(id_)
    if len(chosen) < size:
        raise DuologueError(f"adaptor.vocab is {size}, but the tokenizer has {len(chosen)} tokens in lower case")
    return list(chosen)


class Labels:
    """Texts as labels: indices into a vocabulary of a tokenizer's tokens."""

    def __init__(self, tokenizer: Any, tokens: Sequence[int]) -> None:
        self.tokenizer, self.tokens = tokenizer, list(tokens)
        self._pieces = Pieces(tokenizer)
        self._index = {id_: at for at, id_ in enumerate(self.tokens)}
        self._of = {self._pieces.pieces[id_]: at for id_, at in self._index.items()}
        self._longest = max(map(len, self._of))
        self._word = functools.lru_cache(None)(self._labels)

    def encode(self, text: str) -> list[int] | None:
        """The labels of words; None where they cannot be spelt."""
        labels: list[int] = []
        for word in text.split():
            if (found := self._word(word)) is None:
                return None
            labels += found
        return labels

    def decode(self, labels: Iterable[int]) -> str:
        """The words that labels spell."""
        text = self.tokenizer.decode([self.tokens[at] for at in labels], skip_special_tokens=True)
        return " ".join(text.lower().split())

    def _labels(self, word: str) -> tuple[int, ...] | None:
        own = self._pieces.word(word)
        if all(id_ in self._index for id_ in own):
            return tuple(self._index[id_] for id_ in own)
        text = self._pieces.spelt(own)
        if not text or any(id_ not in self._pieces.pieces for id_ in own):
            return None
        # The fewest pieces that spell it: ways[n] are those of its first n characters.
        ways: list[tuple[int, ...] | None] = [()]
        for end in range(1, len(text) + 1):
            best: tuple[int, ...] | None = None
            for start in range(max(0, end - self._longest), end):
                before, at = ways[start], self._of.get(text[start:end])
                if before is not None and at is not None and (best is None or len(before) + 1 < len(best)):
                    best = (*before, at)
            ways.append(best)
        labels = ways[-1]
        if labels is None or self.decode(labels) != " ".join(self.tokenizer.decode(list(own)).split()):
            return None  # a tokenizer of whole words puts spaces between
        return labels
