"""What of simulated conversations is kept: long enough, in the language, without repetition, and each of them once."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...data_prep.datasets.question_sets import Exchange
from ...model.errors import DuologueError
from .rewards import repeated, words_in

# Words that nearly every sentence has one of; languages of other scripts are told by their letters.
_COMMON = {
    "en": "the a an and of to in is are was it i you that this for with on not my your we do can have be what how",
    "de": "der die das und ist ein eine ich du sie wir nicht zu mit auf es in den von was wie für hat haben sind",
    "fr": "le la les un une et est je tu vous nous il elle de des du que qui ne pas à en pour dans sur ce ça quoi",
    "es": "el la los las un una y es yo tú usted de del que no en por para con se lo qué cómo está mi su muy",
    "it": "il lo la gli le un una e è io tu di del che non in per con si mi ti sono cosa come ma della ha",
    "nl": "de het een en is ik je u we niet van in op met te dat dit voor wat hoe er zijn heb hebt maar",
    "pt": "o a os as um uma e é eu tu você de do da que não em por para com se me como está mas no na",
}
_SCRIPTS = {"zh": ("CJK",), "ja": ("HIRAGANA", "KATAKANA", "CJK"), "ko": ("HANGUL",), "ru": ("CYRILLIC",),
            "uk": ("CYRILLIC",), "el": ("GREEK",), "ar": ("ARABIC",), "he": ("HEBREW",), "hi": ("DEVANAGARI",),
            "th": ("THAI",)}  # fmt: skip
LANGUAGES = (*_COMMON, *_SCRIPTS)


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """
    language: what both speak, ISO 639; none: any
    min_turns: turns that a conversation must have; it ends before the first that is not fit
    min_words, max_words: of each thing that is said
    repetition: the fraction of a text's runs of three words that may be there twice
    same: how alike two conversations may be: the fraction of their runs of three words that both have
    """

    language: str | None = "en"
    min_turns: int = 2
    min_words: int = 1
    max_words: int = 60
    repetition: float = 0.2
    same: float = 0.7

    def __post_init__(self) -> None:
        if self.language is not None and self.language not in LANGUAGES:
            raise DuologueError(f"language is {self.language!r}; it must be {', '.join(LANGUAGES)}, or none")
        if self.min_turns < 1 or not 0 <= self.min_words <= self.max_words:
            raise DuologueError(
                f"min_turns is {self.min_turns}, min_words {self.min_words}, max_words {self.max_words}; there must be "
                "a turn, and no fewer words at most than at least"
            )
        for name in ("repetition", "same"):
            if not 0 <= getattr(self, name) <= 1:
                raise DuologueError(f"{name} is {getattr(self, name)}; a fraction lies between 0 and 1")


def speaks(text: str, language: str) -> bool:
    """Whether a text is in a language: by its letters, and in Latin letters, from five words on, by common words."""
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return True  # a number is in any
    wanted = _SCRIPTS.get(language, ("LATIN",))
    own = sum(unicodedata.name(letter, "").startswith(wanted) for letter in letters)
    if own < 0.8 * len(letters):
        return False
    words = text.lower().replace("'", " ").split()
    if language not in _COMMON or len(words) < 5:
        return True
    counts = {name: sum(word.strip(".,?!;:") in set(common.split()) for word in words)
              for name, common in _COMMON.items()}  # fmt: skip
    return counts[language] > 0 and counts[language] == max(counts.values())


@dataclass
class Filter:
    """Looks at conversations one after the other, and remembers those that it has kept."""

    config: FilterConfig
    _kept: list[frozenset[tuple[str, ...]]] = field(default_factory=list)

    def __call__(self, turns: Sequence[Exchange]) -> tuple[list[Exchange], str | None]:
        """The turns that are kept, and why no more are; without any the conversation is left out."""
        fit: list[Exchange] = []
        reason: str | None = None
        for turn in turns:
            reason = next(self._faults(turn, fit), None)
            if reason is not None:
                break
            fit.append(turn)
        if len(fit) < self.config.min_turns:
            return [], reason or f"it has {len(fit)} turns of min_turns={self.config.min_turns}"
        words = [word for turn in fit for text in turn for word in words_in(text)]
        runs = frozenset(tuple(words[at : at + 3]) for at in range(len(words) - 2))
        for other in self._kept:
            if len(runs & other) > self.config.same * max(1, len(runs | other)) or runs == other:
                return [], "it is as good as the same as one before"
        self._kept.append(runs)
        return fit, reason

    def _faults(self, turn: Exchange, before: Sequence[Exchange]) -> Iterator[str]:
        config = self.config
        for who, text in zip(("the user", "the model"), turn, strict=True):
            words = words_in(text)
            if not config.min_words <= len(words) <= config.max_words:
                yield f"{who} says {len(words)} words: {' '.join(words)[:60]!r}"
            if repeated(words) > config.repetition:
                yield f"{who} repeats itself: {' '.join(words)[:60]!r}"
            if config.language is not None and not speaks(text, config.language):
                yield f"{who} speaks no {config.language}: {text[:60]!r}"
        said = {" ".join(words_in(text)) for earlier in before for text in earlier}
        for who, text in zip(("the user", "the model"), turn, strict=True):
            if len(words_in(text)) > 3 and " ".join(words_in(text)) in said:
                yield f"{who} says it again: {text[:60]!r}"
