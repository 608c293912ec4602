"""Words as labels: how a text is written in the tokens that CTC predicts, and what each of them spells.

A CTC adaptor hears V tokens of a language model's vocabulary. A word as the language model's tokenizer writes it has a
space before it; where a token of it is not among the V, the word is written with those that are: other tokens, the same
text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def plain_words(text: str) -> str:
    """Lower-case words with a space between, an apostrophe within one kept: what CTC is taught to write."""
    text = text.lower().replace("’", "'")
    words = (word.strip("'") for word in re.sub(r"[^\w']|_", " ", text).split())
    return " ".join(word for word in words if word)


class Pieces:
    """A tokenizer's tokens as strings: joined, they spell a text."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        special = {id_ for id_, token in tokenizer.added_tokens_decoder.items()}
        self.ids = {piece: id_ for piece, id_ in tokenizer.get_vocab().items() if id_ not in special}
        self.pieces = {id_: piece for piece, id_ in self.ids.items()}
        first = tokenizer.convert_ids_to_tokens(self.encoded("a"))[0]
        self._before = "" if str(first).startswith("▁") else " "  # SentencePiece puts a space before by itself
        self.word = functools.lru_cache(None)(self._word)

    def encoded(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _word(self, word: str) -> tuple[int, ...]:
        """The tokens of a word, with a space before it."""
        return tuple(self.encoded(f"{self._before}{word}"))

    def spelt(self, ids: Sequence[int]) -> str:
        """What tokens spell, in the tokenizer's own writing of spaces and bytes; an unknown token spells nothing."""
        return "".join(self.pieces.get(id_, "") for id_ in ids)


class Labels:
    """Texts as labels: indices into a vocabulary of a tokenizer's tokens."""

    def __init__(self, tokenizer: Any, tokens: Sequence[int]) -> None:
        self.tokenizer, self.tokens = tokenizer, list(tokens)
        self._pieces = Pieces(tokenizer)
        self._index = {id_: at for at, id_ in enumerate(self.tokens)}
        self._of = {piece: at for id_, at in self._index.items() if (piece := self._pieces.pieces.get(id_))}
        self._longest = max(map(len, self._of))
        self._word = functools.lru_cache(None)(self._labels)
        self.own = functools.lru_cache(4096)(self._own)

    @functools.cached_property
    def texts(self) -> tuple[str, ...]:
        """What each label adds to a text: with a space before it where it begins a word."""
        first = self._pieces.word("a")[:1]

        def decoded(ids: Sequence[int]) -> str:
            return str(self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

        return tuple(decoded([*first, id_])[len(decoded(first)) :] for id_ in self.tokens)

    @functools.cached_property
    def goes_on(self) -> np.ndarray:
        """(V,) bool: which labels go on with the word before them."""
        return np.array([not text[:1].isspace() for text in self.texts])

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
        if self.tokenizer.unk_token_id in own:
            return None
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

    def _own(self, labels: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens in which the tokenizer itself writes the word, or the piece of one, that labels spell."""
        ids = tuple(self.tokens[at] for at in labels)
        text = "".join(self.texts[at] for at in labels)
        word = text.strip()
        own = self._pieces.word(word) if text[:1].isspace() else tuple(self._pieces.encoded(word))
        return own if word and self._pieces.spelt(own) == self._pieces.spelt(ids) else ids
