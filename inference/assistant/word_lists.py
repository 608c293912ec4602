"""Hot words, n-gram models and grammars as they are named on a command line, in a request or in a prompt.

A list is a file, a phrase a line, or phrases with commas between. "Evanescence:4" gives a phrase a weight of its own;
what stands behind a # in a file says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from ...checkpoints.files import expanded, read_text
from ...data_prep.text.ngram_files import load
from ...model.decoding.beam import BeamConfig
from ...model.decoding.decoder import OWN, WEIGHT, DecoderConfig, HotWord
from ...model.decoding.fusions import WordLM
from ...model.decoding.grammars import jsgf
from ...model.decoding.labels import plain_words
from ...model.errors import DuologueError

MOST = 1000  # phrases of one list of a request
_LONGEST = 4  # words of a phrase that a prompt lists
_WEIGHED = re.compile(r"(.*):\s*([-+]?\d+(?:\.\d+)?)")


def hot_words(phrases: Iterable[str], weight: float = WEIGHT) -> tuple[HotWord, ...]:
    """Phrases, each perhaps with a weight of its own behind a colon; every one once.

    Raises:
        DuologueError: one has no letters.
    """
    found = {}
    for phrase in phrases:
        text, own = (each.groups() if (each := _WEIGHED.fullmatch(phrase.strip())) else (phrase, weight))
        word = HotWord(text.strip(), float(own))
        found[plain_words(word.text)] = word
    return tuple(found.values())


def phrases_in(given: str) -> list[str]:
    """The phrases of a list: of the file of that name, a line each, or with commas between."""
    path = expanded(Path(given))
    if "\n" not in given and path.is_file():
        return [text for line in read_text(path).splitlines() if (text := line.partition("#")[0].strip())]
    if "/" in given or given.endswith(".txt"):
        raise DuologueError(f"no such file: {given}")
    return [text for part in given.split(",") if (text := part.strip())]


def phrases_of(prompt: str) -> list[str]:
    """The phrases that a prompt puts into a listener's mind: of a list each item; of sentences the names and whatever
    else is not written in small letters, but for a sentence's first word."""
    items = [item.strip(" \t.\"'") for item in re.split(r"[,;\n]", prompt)]
    if all(len(item.split()) <= _LONGEST for item in items):
        return [item for item in items if plain_words(item)]
    names = re.findall(r"(?<![.!?]\s)(?<!^)\b[\w'’-]*[A-Z0-9][\w'’-]*(?:\s+[\w'’-]*[A-Z0-9][\w'’-]*)*", prompt)
    return [name for name in names if plain_words(name)]


def expected(prompt: str, keywords: Iterable[str], spells: Callable[[str], bool]) -> list[str]:
    """The phrases of a request: its keywords, and those that its prompt puts into mind and that can be spelt.

    Raises:
        DuologueError: a keyword that the model cannot spell, or more than MOST phrases.
    """
    phrases = [word.strip() for word in keywords if word.strip()]
    for word in phrases:
        if not spells(word):
            raise DuologueError(f"the keyword {word[:40]!r} cannot be spelt with the tokens that this model hears")
    found = list(dict.fromkeys([*phrases, *filter(spells, phrases_of(prompt))]))
    if len(found) > MOST:
        raise DuologueError(f"there are {len(found)} keywords; at most {MOST} are looked for")
    return found


def fused(lm: Path) -> WordLM | str:
    """The language model of a name, see :func:`decoder_of`."""
    if str(lm) == OWN:
        return OWN
    if not expanded(lm).is_dir():
        return load(lm)
    from ...checkpoints.store import dtype_of, load_tokenizer
    from ...model.language_model.word_scores import LLMWords
    from .cascade_file import language_model

    folder, llm = language_model(str(lm), "cpu", dtype_of("auto"))
    return LLMWords(llm, load_tokenizer(folder))


def decoder_of(
    beam: int = 0,
    lm: Path | None = None,
    hotwords: str = "",
    grammar: Path | None = None,
    *,
    lm_weight: float | None = None,
    lm_bonus: float | None = None,
    hot_weight: float = WEIGHT,
) -> DecoderConfig | None:
    """How words are to be looked for; None where nothing is asked for.

    Args:
        beam: its width; 0: the usual one, if there is anything to look for.
        lm: an n-gram model's file, a language model's folder, or OWN: the language model of the model itself.
        hotwords: see :func:`phrases_in`. grammar: a JSGF file, of all that may be said.

    Raises:
        DuologueError: a file that cannot be read, a list without words, a width or a weight that cannot be.
    """
    words = hot_words(phrases_in(hotwords), hot_weight) if hotwords else ()
    if hotwords and not words:
        raise DuologueError(f"{hotwords}: there are no words in it")
    if beam <= 1 and lm is None and grammar is None and not words:
        return None
    config = DecoderConfig(
        hot_words=words, lm=None if lm is None else fused(lm), lm_bonus=lm_bonus,
        grammar=None if grammar is None else jsgf.parse(read_text(grammar), str(grammar)),
        beam=BeamConfig(width=beam) if beam else BeamConfig(),
    )  # fmt: skip
    return config if lm_weight is None else replace(config, lm_weight=lm_weight)


def beside_its_own(asked: DecoderConfig | None, own: DecoderConfig | None, beam: int = 0) -> DecoderConfig | None:
    """The decoder of a model that has one: its n-gram model stays, unless another one or a grammar is asked for.

    Args:
        asked: see :func:`decoder_of`. own: the model's.
        beam: as it was asked for; 0: the usual one; 1, and nothing else asked for: no decoder at all.
    """
    if asked is None:
        return None if beam == 1 else own
    if own is None or asked.lm is not None or asked.grammar is not None:
        return asked
    width = asked.beam if beam > 1 else own.beam
    return replace(asked, lm=own.lm, lm_weight=own.lm_weight, lm_bonus=own.lm_bonus, beam=width)
