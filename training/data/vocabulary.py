"""Which tokens of a language model's vocabulary a CTC adaptor hears.

They are chosen from what is said in the data: the characters, so that everything can be spelt, and the most frequent
tokens.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ...model.decoding.labels import Pieces, plain_words
from ...model.errors import DuologueError

_LETTERS = string.ascii_lowercase + "'"


def words_of(meta: Mapping[str, Any]) -> str:
    """What is said in a clip, lower-case words with a space between; empty where nothing is."""
    return plain_words(str(meta.get("spoken", meta.get("text", ""))))


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
