"""How things are said: numbers in words, letters by their names; any text as lower-case words, one space between."""

from __future__ import annotations

import re
import string
import unicodedata

from ...model.errors import DuologueError

ALPHABET = frozenset(string.ascii_lowercase + " ")
LETTERS = tuple(string.ascii_lowercase)
UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen",
    "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
NUMBER_WORDS = (*UNITS, *TENS[2:], "hundred", "thousand")


def number_in_words(n: int) -> str:
    """0 to 9999 as American English says it: 144 is "one hundred forty four". Raises DuologueError outside."""
    if not 0 <= n <= 9999:
        raise DuologueError(f"{n} cannot be said: expected 0 to 9999")
    parts = []
    if n >= 1000:
        parts += [UNITS[n // 1000], "thousand"]
    if n % 1000 >= 100:
        parts += [UNITS[n % 1000 // 100], "hundred"]
    rest = n % 100
    if rest >= 20:
        parts.append(TENS[rest // 10])
        rest %= 10
    if rest or not parts:
        parts.append(UNITS[rest])
    return " ".join(parts)


_BETWEEN_WORDS = "[-‐-―−/_…]"  # hyphens, dashes: "yes—it is" is three words
_SIGNS = {"+": "plus", "-": "minus", "*": "times", "×": "times"}
WRITTEN_SIGNS = {"%": "percent", "&": "and", "=": "equals"}
_LATIN = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ł": "l", "ı": "i", "ʼ": "'"})


def folded(text: str) -> str:
    """Lower case, Latin letters without their marks ("Café": "cafe"), any space a plain one; all else as it is."""
    if text.isascii():
        return re.sub(r"\s", " ", text.lower())
    kept, latin = [], False
    for letter in unicodedata.normalize("NFC", text):
        whole = unicodedata.category(letter)[0] not in "LM" and not letter.isdecimal()  # "²" is another word than "2"
        for part in (letter if whole else unicodedata.normalize("NFKD", letter)).lower().translate(_LATIN):
            if unicodedata.combining(part):
                if latin:
                    continue  # on other letters (й, が) a mark makes another letter
            else:
                latin = part in LETTERS
            if unicodedata.category(part) != "Cf":  # what is not seen: soft hyphens, byte-order marks
                kept.append(part)
    return re.sub(r"\s", " ", unicodedata.normalize("NFC", "".join(kept)))


def normalise(text: str) -> str:
    """Any text as words: lower case, digits and signs between them in English words, without what is not said.

    No letter is dropped: those of other scripts, and numbers above 9999, stay as they are.
    """
    text = thousands_joined(folded(text))
    text = re.sub(r"(?<=\d)\s*([+*×]|\s-\s)\s*(?=\d)", lambda match: f" {_SIGNS[match[1].strip()]} ", text)
    text = re.sub(r"\d+", lambda match: f" {number_in_words(int(match[0])) if len(match[0]) < 5 else match[0]} ", text)
    for sign, word in WRITTEN_SIGNS.items():
        text = text.replace(sign, f" {word} ")
    text = re.sub(_BETWEEN_WORDS, " ", text)
    return " ".join("".join(letter for letter in text if letter == " " or is_letter(letter)).split())


def thousands_joined(text: str) -> str:
    """ "1,000" -> "1000"; "1, 000" and "1,00" stay."""
    return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)


def is_letter(character: str) -> bool:
    """Whether something is lost where it is left out: letters, marks, numbers, what stands for a letter not known."""
    kind = unicodedata.category(character)
    return kind[0] in "LMN" or kind in ("Cs", "Co")


def slots_of(slot: str) -> list[str]:
    """What may each make a reply right: "Paris|in France" names two."""
    return [each for each in slot.split("|") if each.strip()]


def contains_slot(reply: str, slot: str) -> bool:
    """Whether the words of `slot`, or of one of several (see `slots_of`), stand in `reply` in a row, and no further
    number word touches a number at their ends.

    So "four" is not found in "seventy four", nor "eighty two" in "one hundred eighty two". What is asked for comes
    after the last "is" or "are" of such a reply, so a number is not found before it.
    """
    return any(_contains(reply, each) for each in slots_of(slot))


def _contains(reply: str, slot: str) -> bool:
    said, wanted = normalise(reply).split(), normalise(slot).split()
    if not wanted:
        return False
    if wanted[0] in NUMBER_WORDS:
        verbs = [at for at, word in enumerate(said) if word in ("is", "are")]
        said = said[verbs[-1] + 1 :] if verbs and "is" not in wanted else said
    for start in range(len(said) - len(wanted) + 1):
        end = start + len(wanted)
        if said[start:end] != wanted:
            continue
        before = start > 0 and wanted[0] in NUMBER_WORDS and said[start - 1] in NUMBER_WORDS
        after = end < len(said) and wanted[-1] in NUMBER_WORDS and said[end] in NUMBER_WORDS
        if not before and not after:
            return True
    return False


def spelt(word: str) -> str:
    """The letters of a word, "c a t"."""
    return " ".join(word)


def letters_marked(text: str, letter_a: str) -> str:
    """`text` with each "a" that is a letter's name replaced by `letter_a`; an article stays.

    It is a letter beside another single letter ("c a t"), or after the word "letter" or "letters". The pronoun "i" and
    the article itself are single letters too and do not count: "am i a robot".
    """
    words = text.split()
    single = [len(word) == 1 and word not in ("a", "i") for word in words]

    def is_letter(at: int) -> bool:
        beside = any(single[near] for near in (at - 1, at + 1) if 0 <= near < len(words))
        return beside or (at > 0 and words[at - 1] in ("letter", "letters"))

    return " ".join(letter_a if word == "a" and is_letter(at) else word for at, word in enumerate(words))
