"""Between words and token ids: a text that a person typed, and a model's tokens and samples as they come out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ...checkpoints.files import broken
from ...checkpoints.recognisers.recogniser import TimedWord
from ...data_prep.text.spoken import normalise
from ...model.adaptor.adaptor import HeardToken
from ...model.dialogue_state import ReplyStep
from ...model.errors import DuologueError
from ...model.speech_decoder.spoken_form import read_aloud
from ...model.speech_decoder.ssml import ShownText, parsed
from ...model.tokens import TokenKind, TokenLayout

TOKENS = 4096  # of one text
_NAMED = 5  # words that the model does not know


def ids_of(tokenizer: Any, layout: TokenLayout, text: str) -> tuple[list[int], list[str]]:
    """A typed text as token ids, and the first words that the model does not know, five at most.

    A text that is not all words is read once more in its spoken form, "What is 3 plus 4?" as "what is three plus four";
    so markers in it ("<reply>") are words like any other.

    Raises:
        DuologueError: no words, or more tokens than TOKENS.
    """

    def encode(words: str) -> list[int]:
        return list(tokenizer.encode(words, add_special_tokens=False, split_special_tokens=True))

    def strange(ids: list[int]) -> bool:
        return not all(layout.is_text(id_) for id_ in ids)

    if not isinstance(text, str):
        raise DuologueError(f"a text is a str, not {type(text).__name__}")
    if broken(text):
        raise DuologueError(f"the text {text[:40]!r} has half a surrogate pair, which is no character")
    ids = encode(text)
    if strange(ids) and (spoken := normalise(text)):
        text, ids = spoken, encode(spoken)
    if not ids or not text.strip():
        raise DuologueError(f"the question {text[:80]!r} has no words")
    if len(ids) > TOKENS:
        raise DuologueError(f"the text has {len(ids)} tokens; at most {TOKENS} are read")
    if not strange(ids):
        return ids, []
    unknown = (word for word in dict.fromkeys(text.split()) if strange(encode(word)))
    return ids, list(itertools.islice(unknown, _NAMED))


def said_ids(tokenizer: Any, layout: TokenLayout, text: str) -> list[int]:
    """The ids that a text is spoken by, word by word.

    A model of any words has it as it is written. One of a closed vocabulary has it as it is read aloud, numbers, money,
    signs and abbreviations in words (spoken_form.py), in lower case and without marks.

    Raises:
        DuologueError: no words, more tokens than TOKENS, or words that the model does not know, which are named.
    """
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    if not all(layout.is_text(id_) for id_ in ids):
        text = " ".join(re.sub("[.,?!]", " ", read_aloud(text)).lower().split())
    ids, unknown = ids_of(tokenizer, layout, text)
    if unknown:
        raise DuologueError(f"this model's vocabulary is closed, and it has no {', '.join(map(repr, unknown))}")
    return ids


@dataclass(frozen=True)
class Dictation:
    """Tokens that are to be said, and of a text in SSML the tags before each, and behind the last."""

    ids: list[int]
    tags: list[str] = field(default_factory=list)


def dictation(tokenizer: Any, layout: TokenLayout, text: str, ssml: bool = False) -> Dictation:
    """A text that is to be said word by word.

    Raises:
        DuologueError: as :func:`said_ids` and :func:`parsed`.
    """
    if not ssml:
        return Dictation(said_ids(tokenizer, layout, text))
    found, tags = Dictation([]), ""
    for before, words in parsed(text):
        tags += before
        ids: list[int] = tokenizer.encode(words, add_special_tokens=False, split_special_tokens=True)
        if not all(layout.is_text(id_) for id_ in ids):
            ids = said_ids(tokenizer, layout, words) if read_aloud(words).strip(" .,?!") else []
        if ids:
            found.tags.extend([tags, *[""] * (len(ids) - 1)])
            found.ids.extend(ids)
            tags = ""
    found.tags.append(tags)
    if not found.ids:
        raise DuologueError(f"the text {text[:80]!r} has no words")
    return found


def words_of(tokenizer: Any, layout: TokenLayout, text: str) -> list[int]:
    """The ids of a text's known words; none of a blank one.

    Raises:
        DuologueError: as :func:`ids_of`.
    """
    ids = ids_of(tokenizer, layout, text)[0] if text.strip() else []
    return [id_ for id_ in ids if layout.is_text(id_)]


def samples_of(pcm: Tensor) -> np.ndarray:
    """Samples (1, n) of a model as float32 (n,) in [-1, 1]."""
    samples: np.ndarray = pcm.flatten().float().clamp(-1, 1).cpu().numpy()
    return samples


def next_text(tokenizer: Any, ids: Sequence[int], done: int, *, final: bool, special: bool = False) -> str:
    """The text of ids behind the first ``done``; none while the last of them ends inside a character.

    ids: of the tokens under way and a few before them, for the space before a word depends on its neighbour.
    final: there are no more. special: special tokens are part of the text.
    """

    def decode(some: Sequence[int]) -> str:
        return str(tokenizer.decode(list(some), skip_special_tokens=not special, clean_up_tokenization_spaces=False))

    if done == len(ids):
        return ""
    before, after = decode(ids[:done]), decode(ids)
    if len(after) <= len(before) or (after.endswith("\ufffd") and not final):
        return ""
    return after[len(before) :]


@dataclass
class TextStream:
    """Tokens to text as they come: a token that ends inside a character waits for the rest of it."""

    tokenizer: Any
    special: bool = False  # special tokens are part of the text
    shown: ShownText | None = None  # of a text in SSML: what takes its tags out
    text: str = ""
    _ids: list[int] = field(default_factory=list)
    _start: int = 0  # decoding begins here
    _done: int = 0  # tokens whose text has been given out

    def push(self, token: int) -> str:
        """The text that ``token`` adds."""
        self._ids.append(token)
        return self._advance(final=False)

    def end(self) -> str:
        """What was held back."""
        return self._advance(final=True)

    def _advance(self, *, final: bool) -> str:
        ids, done = self._ids[self._start :], self._done - self._start
        delta = next_text(self.tokenizer, ids, done, final=final, special=self.special)
        if delta:
            self._start, self._done = self._done, len(self._ids)
        if self.shown is not None:
            delta = self.shown.push(delta, last=final)
        self.text += delta
        return delta


class ReplyText:
    """The words of transcript and reply, from the steps of a reply; and its calls, as the model writes them.

    ssml: the reply is in SSML, whose tags are no words.
    """

    def __init__(self, tokenizer: Any, ssml: bool = False) -> None:
        self.reply = TextStream(tokenizer, shown=ShownText() if ssml else None)
        self.transcript = TextStream(tokenizer)
        self.calls = TextStream(tokenizer, special=True)

    def push(self, step: ReplyStep) -> tuple[str, str]:
        """What a step adds: text of the reply, text of the transcript."""
        if step.kind is TokenKind.END:
            self.calls.end()
            return self.reply.end(), self.transcript.end()
        if step.kind is TokenKind.CALL:
            self.calls.push(step.token)
            return "", ""
        reply = self.reply.push(step.token) if step.kind is TokenKind.REPLY else ""
        return reply, self.transcript.push(step.token) if step.kind is TokenKind.TRANSCRIPT else ""


def timed_words(tokenizer: Any, heard: Sequence[HeardToken]) -> list[TimedWord]:
    """Tokens as words: one begins at each space, and lasts from its first token's beginning to its last one's end."""
    stream, words, apart = TextStream(tokenizer), list[TimedWord](), True  # apart: behind a space
    begun: float | None = None  # of tokens that end inside a character
    for at, token in enumerate(heard):
        begun = token.start if begun is None else begun
        text = stream.push(token.token) + (stream.end() if at == len(heard) - 1 else "")
        if text.strip() and not (apart or text[0].isspace()):
            before = words.pop()
            words.append(TimedWord(before.text + text.rstrip(), before.start_s, token.end))
        elif text.strip():
            words.append(TimedWord(text.strip(), begun, token.end))
        if text:
            begun, apart = None, text[-1].isspace()
    return words
