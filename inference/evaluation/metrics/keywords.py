"""How words that matter are understood: names, products, rare words, given as a list.

    keyword_recall, keyword_precision, keyword_f1    of the listed phrases that were said, and that were understood
    keyword_false    utterances in which a listed phrase was understood that was not said
    b_wer, u_wer     word error rates of the words in listed phrases (biased), and of all others (unbiased)

An inserted word counts as biased where it is one of a listed phrase.

Source: Le et al., "Contextualized Streaming End-to-End Speech Recognition with Trie-Based Deep Biasing and Shallow
Fusion" (arXiv 2104.02194), for U-WER and B-WER.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .statistics import Better, Metric
from .words import normaliser

NAMES = {
    "keyword_recall": ("Keyword recall", Better.HIGHER), "keyword_precision": ("Keyword precision", Better.HIGHER),
    "keyword_f1": ("Keyword F1", Better.HIGHER),
    "keyword_false": ("Utterances with a keyword that was not said", Better.LOWER),
    "b_wer": ("Word error rate of keywords (B-WER)", Better.LOWER),
    "u_wer": ("Word error rate of other words (U-WER)", Better.LOWER),
}  # fmt: skip


class Keywords:
    """A list of phrases.

    Args:
        how: the normaliser of words, theirs too.
    """

    def __init__(self, phrases: Iterable[str], how: str) -> None:
        self._clean = normaliser(how)
        self.phrases = sorted({tuple(words) for phrase in phrases if (words := self._clean(phrase).split())})
        self._words = {word for phrase in self.phrases for word in phrase}
        self._first: dict[str, list[tuple[str, ...]]] = {}
        for phrase in self.phrases:
            self._first.setdefault(phrase[0], []).append(phrase)

    def measures(self, hypothesis: str, reference: str, prefix: str = "") -> dict[str, list[float]]:
        """Measures of one pair, see above, as [amount, weight]; those whose weight is 0 are left out."""
        said, heard = self._clean(reference).split(), self._clean(hypothesis).split()
        wanted, found = self._places(said), self._places(heard)
        spoken, counted = _counts(wanted), _counts(found)
        right = sum(min(times, spoken.get(phrase, 0)) for phrase, times in counted.items())
        false = any(times > spoken.get(phrase, 0) for phrase, times in counted.items())
        biased = {place for start, phrase in wanted for place in range(start, start + len(phrase))}
        wrong = self._wrong(heard, said, biased)
        measures: dict[str, list[float]] = {
            "keyword_recall": [right, len(wanted)], "keyword_precision": [right, len(found)],
            "keyword_f1": [2 * right, len(wanted) + len(found)], "keyword_false": [float(false), 1],
            "b_wer": [wrong[1], len(biased)], "u_wer": [wrong[0], len(said) - len(biased)],
        }  # fmt: skip
        return {prefix + key: each for key, each in measures.items() if any(each)}

    def metrics(self, prefix: str = "", suffix: str = "") -> tuple[Metric, ...]:
        """The metrics of these measures."""
        return tuple(Metric(key=prefix + key, name=name + suffix, unit="%", better=better)
                     for key, (name, better) in NAMES.items())  # fmt: skip

    def _places(self, words: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
        """Where phrases stand in words, overlapping ones too."""
        return [
            (at, phrase) for at, word in enumerate(words) for phrase in self._first.get(word, ())
            if tuple(words[at : at + len(phrase)]) == phrase
        ]  # fmt: skip

    def _wrong(self, heard: list[str], said: list[str], biased: set[int]) -> tuple[int, int]:
        """Errors in other words, and in those of listed phrases."""
        import jiwer

        if not said:
            return sum(word not in self._words for word in heard), sum(word in self._words for word in heard)
        errors = [0, 0]
        for chunk in jiwer.process_words(" ".join(said), " ".join(heard)).alignments[0]:
            if chunk.type == "insert":
                for word in heard[chunk.hyp_start_idx : chunk.hyp_end_idx]:
                    errors[word in self._words] += 1
            elif chunk.type != "equal":
                for place in range(chunk.ref_start_idx, chunk.ref_end_idx):
                    errors[place in biased] += 1
        return errors[0], errors[1]


def _counts(places: Sequence[tuple[int, tuple[str, ...]]]) -> dict[tuple[str, ...], int]:
    counts: dict[tuple[str, ...], int] = {}
    for _, phrase in places:
        counts[phrase] = counts.get(phrase, 0) + 1
    return counts
