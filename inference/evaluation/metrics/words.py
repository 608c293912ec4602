"""Words against words: normalisers, word and character errors with their alignment.

Error rates are jiwer's over texts that a normaliser has made comparable:

    english    Whisper's for English: contractions and numbers, British spelling
    basic      Whisper's for other languages: lower case, no punctuation
    letters    the same without spaces, for languages that put none between words: characters are counted alone
    plain      lower case, digits in English words, nothing but letters

Source: Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision" (arXiv 2212.04356), appendix C.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ....checkpoints.recognisers.recogniser import ENGLISH
from ....data_prep.text.spoken import normalise
from ....model.errors import DuologueError

LETTERS = "letters"
NORMALISERS = ("english", "basic", LETTERS, "plain")
UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "my", "km"})  # languages without spaces between words


@functools.cache
def normaliser(name: str) -> Callable[[str], str]:
    """Raises DuologueError for another name than those of NORMALISERS."""
    if name == "plain":
        return normalise
    if name == "english":
        from whisper_normalizer.english import EnglishTextNormalizer as Normaliser
    elif name in ("basic", LETTERS):
        from whisper_normalizer.basic import BasicTextNormalizer as Normaliser
    else:
        raise DuologueError(f"unknown normaliser {name!r}: the normalisers are {', '.join(NORMALISERS)}")
    whisper = Normaliser()
    space = "" if name == LETTERS else " "
    return lambda text: space.join(whisper(_seen(text)).split())


def usual_normaliser(language: str, english: str) -> str:
    """The normaliser for a language (ISO 639): of English that of this name."""
    if language == ENGLISH:
        return english
    return LETTERS if language in UNSPACED else "basic"


# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


def separate(text: str) -> str:
    """``text`` with spaces around each letter of a script that puts none between words."""
    return _UNSPACED.sub(r" \1 ", text)


def _seen(text: str) -> str:
    """Without what is not seen (zero-width spaces, byte-order marks, directions), which Whisper's normalisers keep."""
    return "".join(letter for letter in text if unicodedata.category(letter) != "Cf")


@dataclass(frozen=True, kw_only=True)
class WordErrors:
    """Substitutions, insertions and deletions over all pairs, and the reference's words."""

    errors: int
    words: int

    @property
    def rate(self) -> float | None:
        """Word error rate; None without words."""
        return self.errors / self.words if self.words else None


def word_errors(
    hypotheses: Sequence[str], references: Sequence[str], how: str = "plain", *, letters: bool = False
) -> WordErrors:
    """Errors of ``hypotheses`` against ``references``, pair by pair, both normalised.

    letters: of characters instead of words; a space counts as one, as jiwer has it.
    """
    import jiwer

    if not references:
        return WordErrors(errors=0, words=0)
    clean, measure = normaliser(how), jiwer.process_characters if letters else jiwer.process_words
    out = measure([clean(text) for text in references], [clean(text) for text in hypotheses])
    missed = out.substitutions + out.deletions
    return WordErrors(errors=missed + out.insertions, words=missed + out.hits)


def error_measures(hypothesis: str, reference: str, how: str, prefix: str = "") -> dict[str, list[float]]:
    """Measures of one pair: wer (where there are spaces between words) and cer as [errors, length]. A reference without
    words adds its insertions alone."""
    kinds = {"cer": True} if how == LETTERS else {"wer": False, "cer": True}
    found = {kind: word_errors([hypothesis], [reference], how, letters=letters) for kind, letters in kinds.items()}
    return {f"{prefix}{kind}": [errors.errors, errors.words] for kind, errors in found.items()}


@dataclass(frozen=True)
class Aligned:
    """One step of an alignment: what was said, what was understood; kind is equal, substitute, insert or delete."""

    kind: str
    said: str
    understood: str


def alignment(hypothesis: str, reference: str, how: str = "plain") -> list[Aligned]:
    """How jiwer lays the two word by word beside each other; letter by letter where there are no spaces."""
    import jiwer

    clean, apart = normaliser(how), " ".join if how == LETTERS else str
    out = jiwer.process_words(apart(clean(reference)), apart(clean(hypothesis)))
    said, understood = out.references[0], out.hypotheses[0]
    return [
        Aligned(
            chunk.type,
            " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(understood[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in out.alignments[0]
    ]
