"""N-gram models made of text files, and their ARPA files.

A corpus is UTF-8, a sentence a line; it is read line by line, so it may be larger than memory. What a word is:

    plain      lower-case, without punctuation: "What's two plus two?" -> what's two plus two
    words      as written, between spaces
    tokens     ids of a tokenizer, so that a model can score what a CTC adaptor hears token by token
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import appearing, expanded
from ...model.decoding.ngrams import arpa
from ...model.decoding.ngrams.backoff import END, MARKS, UNITS, NGramLM
from ...model.decoding.ngrams.combining import held_out_weights, interpolated
from ...model.decoding.ngrams.counts import count, vocabulary
from ...model.decoding.ngrams.smoothing import SmoothingConfig, estimate
from ...model.errors import DuologueError
from ..datasets.conversations import read_conversations

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What `duologue lm train` takes."""

    order: int = 3
    smoothing: str = "kneser_ney"  # or absolute, katz, add_k
    k: float = 0.1  # of add_k
    discounts: tuple[float, ...] | None = None  # of counts 1, 2 …; None: from the counts
    units: str = "plain"  # or words
    tokens: str = ""  # a folder with a tokenizer: over its tokens
    min_count: int = 1  # words that are seen less often are <unk>
    held_out: Path | None = None  # text: each corpus is a model of its own, interpolated by weights that suit it best

    def __post_init__(self) -> None:
        if self.order < 1:
            raise DuologueError(f"order is {self.order}; it must be at least 1")
        if self.min_count < 1:
            raise DuologueError(f"min_count is {self.min_count}; it must be at least 1")
        if self.units not in UNITS[:2]:
            raise DuologueError(f"units are {self.units!r}; it must be plain or words, or give tokens=FOLDER")
        self.smoothed()

    def smoothed(self) -> SmoothingConfig:
        """How counts become probabilities."""
        return SmoothingConfig(smoothing=self.smoothing, k=self.k, discounts=self.discounts)


def splitter(units: str, tokens: str = "") -> Callable[[str], list[str]]:
    """What makes words of a line.

    Raises:
        DuologueError: units are tokens, and there is no tokenizer, or the other way round.
    """
    if (units == "tokens") != bool(tokens):
        raise DuologueError("this model is over a tokenizer's tokens: give tokens=FOLDER" if not tokens else
                            f"tokens={tokens}: this model is over {units}, which need no tokenizer")  # fmt: skip
    if tokens:
        tokenizer = _tokenizer(tokens)
        return lambda line: [str(i) for i in tokenizer.encode(line, add_special_tokens=False)]
    return plain if units == "plain" else str.split


def _tokenizer(name: str) -> Any:
    from ...checkpoints.source import resolve  # torch, which models over words do without
    from ...checkpoints.store import load_tokenizer

    return load_tokenizer(resolve(name))


def plain(text: str) -> list[str]:
    """Lower-case words without punctuation; an apostrophe within one stays."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def sentences(path: Path, split: Callable[[str], list[str]]) -> Iterator[list[str]]:
    """The lines of a file that have words, one after the other; of a .jsonl, what is said in its conversations.

    Raises:
        DuologueError: no such file, a line that is no UTF-8, or no conversation.
    """
    if path.suffix == ".jsonl":
        for conversation in read_conversations(str(path)):
            yield from filter(None, (split(turn.text or "") for turn in conversation.turns))
        return
    try:
        with expanded(path).open(encoding="utf-8-sig") as file:
            for line in file:
                if words := split(line.strip()):
                    yield words
    except FileNotFoundError:
        raise DuologueError(f"no such file: {path}") from None
    except UnicodeDecodeError as error:
        raise DuologueError(f"{path} is not UTF-8: {error.reason}; save it as UTF-8") from None
    except OSError as error:
        raise DuologueError(f"cannot read {path}: {error.strerror or error}") from None


def train(corpora: Sequence[Path], config: TrainConfig, say: Say) -> NGramLM:
    """One model of all corpora, or with ``held_out`` of each one, interpolated."""
    units = "tokens" if config.tokens else config.units
    split = splitter(units, config.tokens)

    def model_of(paths: Sequence[Path]) -> NGramLM:
        def found() -> Iterator[list[str]]:
            return (words for path in paths for words in sentences(path, split))

        words = vocabulary(found(), config.min_count)
        say(f"{', '.join(map(str, paths))}: {len(words) - len(MARKS):,} different words")
        return estimate(count(found, words, config.order, say=say), config.smoothed(), units=units, say=say)

    if config.held_out is None:
        return model_of(corpora)
    models = [model_of([path]) for path in corpora]
    weights = held_out_weights(models, list(sentences(config.held_out, split)))
    say("weights: " + ", ".join(f"{path} {weight:.3f}" for path, weight in zip(corpora, weights, strict=True)))
    return interpolated(models, weights.tolist())


def save(model: NGramLM, path: Path) -> None:
    """Write an ARPA file, whole or not at all."""
    with appearing(path) as file:
        for line in arpa.written(model):
            file.write(line.encode("utf-8"))


def load(path: Path) -> NGramLM:
    """The model of an ARPA file. Raises DuologueError: what is wrong with it, and where."""
    try:
        with expanded(path).open(encoding="utf-8-sig", newline="\n") as file:
            return arpa.read(file, str(path))
    except FileNotFoundError:
        raise DuologueError(f"no such file: {path}") from None
    except UnicodeDecodeError:
        raise DuologueError(f"{path} is not UTF-8") from None
    except OSError as error:
        raise DuologueError(f"cannot read {path}: {error.strerror or error}") from None


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Of a text. words: sentence ends included. unknown: of them not in the vocabulary. known: perplexity without
    these."""

    sentences: int
    words: int
    unknown: int
    perplexity: float
    known: float


def perplexity(model: NGramLM, paths: Sequence[Path], tokens: str = "") -> Perplexity:
    """The model's perplexity on text files.

    Raises:
        DuologueError: they have no words.
    """
    split = splitter(model.units, tokens)
    found = [words for path in paths for words in sentences(path, split)]
    if not found:
        raise DuologueError(f"{', '.join(map(str, paths))}: there are no words")
    scores, ids = model.score(found)
    known = scores[ids > 0]
    return Perplexity(
        sentences=int((ids == MARKS.index(END)).sum()), words=len(ids), unknown=int((ids == 0).sum()),
        perplexity=float(np.exp(-scores.mean())), known=float(np.exp(-known.mean())),
    )  # fmt: skip


def samples(model: NGramLM, n: int, seed: int, tokens: str = "") -> Iterator[str]:
    """Sentences drawn from the model, as text."""
    splitter(model.units, tokens)
    tokenizer = _tokenizer(tokens) if tokens else None
    rng = np.random.default_rng(seed)
    for _ in range(n):
        words = model.sample(rng)
        yield " ".join(words) if tokenizer is None else tokenizer.decode([int(w) for w in words if w != MARKS[0]])
