"""English text as it is spoken: numbers, money, times, signs and abbreviations in words, all else letter by letter.

A text is read in chunks, mostly a word and the space before it. A chunk is read once what follows cannot change it, so
that a text which arrives in pieces is read as the whole would be. At most LONGEST characters are held back.

Symbols are a to z, the apostrophe, the space, the pauses . , ? ! and A to Z, which are names of letters ("F B I").
What a person would not read (emoji, quotes, marks of Markdown) is silent; other scripts are transliterated to Latin
letters (anyascii).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator

SYMBOLS = string.ascii_lowercase + "' .,?!" + string.ascii_uppercase
LONGEST = 40  # characters of a chunk: a longer one is cut

_ABBREVIATIONS = {
    "Dr": "doctor", "Mr": "mister", "Mrs": "missus", "Ms": "miz", "St": "saint", "Prof": "professor", "Sr": "senior",
    "Jr": "junior", "vs": "versus", "etc": "et cetera", "approx": "approximately",
}  # fmt: skip
_DOTTED = {"e.g.": "for example", "i.e.": "that is"}
_WORDS = {
    "OK": "okay", "II": "two", "III": "three", "IV": "four", "VI": "six", "VII": "seven", "VIII": "eight", "IX": "nine",
    "vs": "versus", "pm": "P M", "km": "kilometers", "cm": "centimeters", "kg": "kilograms", "lbs": "pounds",
    "mph": "miles per hour",
}  # fmt: skip
# Capitals without a vowel are read letter by letter, and so are these.
_LETTERS = frozenset({
    "AI", "API", "ATM", "CEO", "CIA", "CPU", "DIY", "DNA", "EU", "FAQ", "FBI", "GPU", "HIV", "IBM", "IQ", "NBA", "RNA",
    "SOS", "UFO", "UI", "UK", "UN", "URL", "US", "USA", "UV",
})  # fmt: skip
_UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "kg": "kilogram", "g": "gram",
    "mg": "milligram", "l": "liter", "ml": "milliliter", "lb": "pound", "lbs": "pound", "oz": "ounce", "ft": "foot",
    "mi": "mile", "min": "minute", "h": "hour", "hr": "hour", "hrs": "hour", "s": "second", "ms": "millisecond",
    "gb": "gigabyte", "mb": "megabyte", "kb": "kilobyte", "hz": "hertz", "khz": "kilohertz",
}  # fmt: skip
_PLURAL = {"foot": "feet", "hertz": "hertz", "kilohertz": "kilohertz"}
_SIGNS = {
    "&": "and", "+": "plus", "=": "equals", "%": "percent", "@": "at", "°": "degrees", "×": "times", "÷": "divided by",
    "$": "dollars", "£": "pounds", "€": "euros", "½": "one half", "¼": "one quarter", "¾": "three quarters",
    "²": "squared", "³": "cubed",
}  # fmt: skip
_PAUSES = {
    **{pause: pause for pause in ".,?!"}, **dict.fromkeys(";:—–()，", ","), **dict.fromkeys("…。", "."), "？": "?",
    "！": "!",
}  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_SCALES = ("thousand", "million", "billion", "trillion")
_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip

_NUMBER = re.compile(r"[$£€]?\.?\d\S*")
_SIGN_SO_FAR = re.compile(r"[-−]?[$£€]?\.?")  # of a number, or the point of "example.com"
_MINUS = re.compile(r"[-−](?=[$£€]?\.?\d)")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_DOTS = re.compile(r"(?:[A-Za-z]\.){1,8}")
_DOTS_SO_FAR = re.compile(r"(?:[A-Za-z]\.){1,8}[A-Za-z]?")
_SCALE = re.compile(r"\s([a-z]*)")
_DAY = re.compile(r"(?:[1-9]|[12]\d|3[01])(?![\w%°]|[.:/-]\d)")


def reading(text: str, before: str = "", last: bool = True) -> Iterator[tuple[int, int, str]]:
    """The chunks of a text that can be read, in order: (start, end, the symbols that they are read as).

    before: what was said before the text, or its last word at least. last: nothing follows the text; otherwise what is
        behind the last chunk is to be read again with what follows.
    """
    at = 0
    while at < len(text):
        ahead = text[at : at + 2 * LONGEST]
        end = at + chunk_end(ahead, last and at + len(ahead) == len(text))
        if end == at:
            return
        said = spoken_form(text[at:end], before, text[end : end + 1])
        yield at, end, said
        before, at = (before + said)[-LONGEST:], end


def read_aloud(text: str) -> str:
    """A whole text in symbols. Words in lower case, with single spaces, stay as they are."""
    return "".join(said for _, _, said in reading(text))


def chunk_end(text: str, last: bool) -> int:
    """The length of the first chunk of a text; 0: how it is read is up to what follows. ``last``: nothing does.

    It does not depend on how much of the text is there, once it is not 0.
    """
    end = _first_chunk(text, last)
    return min(end or len(text), LONGEST) if end or len(text) >= LONGEST else 0


def _first_chunk(text: str, last: bool) -> int:
    start = len(text) - len(text.lstrip())
    if start == len(text):
        return start if last else 0
    if start and (sign := _MINUS.match(text, start)):  # not the hyphen of "covid-19"
        start = sign.end()
    if number := _NUMBER.match(text, start):
        return _closed(text, _with_scale(text, start, number.end(), last), last)
    if not last and (_DOTS_SO_FAR.fullmatch(text, start) or _SIGN_SO_FAR.fullmatch(text, start)):
        return 0
    if (dots := _DOTS.match(text, start)) and len(dots[0]) > 2:
        return dots.end()
    if word := _WORD.match(text, start):
        end = word.end()
        if text[end : end + 1] == "." and word[0] in _ABBREVIATIONS:
            return end + 1
        return _closed(text, end + (text[end:] in ("'", "’")), last)
    return start + 1


def _closed(text: str, end: int, last: bool) -> int:
    return end if last or end < len(text) else 0


def _with_scale(text: str, start: int, end: int, last: bool) -> int:
    """Where "$3.5 million" ends, whose "$3.5" does at ``end``; the end of the text where it may go on."""
    if text[start] not in _MONEY or end - start > LONGEST // 2 or not (scale := _SCALE.match(text, end)):
        return end
    may_go_on = not last and scale.end() == len(text) and any(name.startswith(scale[1]) for name in _SCALES)
    return scale.end() if may_go_on or scale[1] in _SCALES else end


def spoken_form(chunk: str, before: str = "", after: str = "") -> str:
    """A chunk as symbols, perhaps none.

    before: what was said so far, or its last word at least. after: the character behind the chunk, if there is one.
    """
    body = chunk.lstrip()
    lead = chunk[: len(chunk) - len(body)]
    pause = "." if "\n" in lead and before and before[-1] not in ".,?!" else ""
    gap = " " if before else ""
    if lead and (sign := _MINUS.match(body)):
        body, gap = body[sign.end() :], f"{gap}minus "
    if _NUMBER.match(body):
        return pause + gap + _read_number(body, before)
    if len(body) > 2 and _DOTS.fullmatch(body):
        return pause + gap + (_DOTTED.get(body.lower()) or " ".join(body.upper().replace(".", "")))
    if _WORD.match(body):
        words = _read_word(body)
        return pause + gap + words if words else pause
    return pause + _read_sign(body, before + pause, "" if lead else after)


def _read_word(word: str) -> str:
    if word.endswith("."):
        return _ABBREVIATIONS[word[:-1]]
    if word in _WORDS:
        return _WORDS[word]
    capitals = word.isascii() and word.isupper() and len(word) > 1
    if capitals and (word in _LETTERS or not set(word) & set("AEIOUY'")):
        return " ".join(word)
    if len(word) == 1 and word in string.ascii_uppercase and word not in "AI":
        return word
    return _latin(word)


def _latin(word: str) -> str:
    """Letters as a to z, apostrophes between them."""
    word = word.replace("’", "'")
    if not word.isascii():
        from anyascii import anyascii

        word = anyascii(word)
    return "".join(letter for letter in word.lower() if letter in SYMBOLS)


def _read_sign(sign: str, before: str, after: str) -> str:
    """A character, or none, that is neither letter nor number."""
    if sign in _SIGNS:
        return f"{' ' if before else ''}{_SIGNS[sign]}"
    if sign == "." and after.isalnum() and before[-1:].isalnum():
        return " dot"
    return _PAUSES.get(sign, "") if before and before[-1] not in ".,?!" else ""


# Numbers: the first rule that matches at a place reads what it has matched, and so on behind it.


def _read_number(run: str, before: str) -> str:
    said, at = "", 0
    if (day := _DAY.match(run)) and before.rpartition(" ")[2] in _MONTHS:  # March 5
        said, at = _in_words(day[0], "ordinal"), day.end()
    while at < len(run):
        for pattern, read in _RULES:
            if found := pattern.match(run, at):
                said, at = f"{said}{' ' if said else ''}{read(found)}", found.end()
                break
        else:
            said, at = said + _read_sign(run[at], said, run[at + 1 : at + 2]), at + 1
    return said


def _in_words(number: str, to: str = "cardinal") -> str:
    """A whole number or a decimal fraction in words, without "and", commas and hyphens."""
    from num2words import num2words

    number = number.replace(",", "")
    whole, _, decimals = number.partition(".")
    if len(whole) > 15 or (len(whole) > 1 and whole.startswith("0")):  # a telephone number, "007"
        words = " ".join(num2words(int(digit)) for digit in whole)
    else:
        words = num2words(int(whole or 0), to=to)
    words = re.sub(" and |,? ", " ", words).replace("-", " ")
    if decimals:
        words += " point " + " ".join(num2words(int(digit)) for digit in decimals)
    return str(words)


def _plural(one: str) -> str:
    return _PLURAL.get(one, "pence" if one == "penny" else f"{one}s")


def _counted(number: str, one: str) -> str:
    return f"{_in_words(number)} {one if number == '1' else _plural(one)}"


def _read_money(found: re.Match[str]) -> str:
    one, hundredth = _MONEY[found[1]]
    whole, cents, scale = found[2], found[3], found[4]
    if scale:
        return f"{_in_words(whole + (f'.{cents}' if cents else ''))} {scale} {_plural(one)}"
    if cents is None or len(cents) != 2:
        return _counted(whole + (f".{cents}" if cents else ""), one)
    parts = [_counted(whole, one)] if int(whole.replace(",", "") or 0) else []
    parts += [_counted(str(int(cents)), hundredth)] if int(cents) else []
    return " and ".join(parts) or _counted("0", one)


def _read_time(found: re.Match[str]) -> str:
    hour, minute, half = _in_words(str(int(found[1]))), found[2], found[3]
    if minute == "00":
        words = hour if half else f"{hour} o'clock"
    else:
        words = f"{hour} {'oh ' if minute[0] == '0' else ''}{_in_words(str(int(minute)))}"
    return words + (f" {half[0].upper()} M" if half else "")


def _read_year(found: re.Match[str]) -> str:
    words = _in_words(found[1], "year")
    if not found[2]:
        return words
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"  # 1990s


def _read_quantity(found: re.Match[str]) -> str:
    return _counted(found[1], _UNITS[found[2].lower()])


def _read_fraction(found: re.Match[str]) -> str:
    named = {"1/2": "one half", "1/3": "one third", "2/3": "two thirds", "1/4": "one quarter", "3/4": "three quarters"}
    return named.get(found[0]) or f"{_in_words(found[1])} over {_in_words(found[2])}"


_D = r"(?:\d{1,3}(?:,\d{3})+|\d+)"  # 1,234 or 1234
_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(rf"([$£€])({_D}|(?=\.))(?:\.(\d+))?(?:\s+({'|'.join(_SCALES)}))?"), _read_money),
    (re.compile(r"(\d{1,2}):([0-5]\d)(?!\d)(?:\s?([ap])\.?m\b)?", re.IGNORECASE), _read_time),
    (re.compile(r"(\d{1,2})([ap])\.?m\b", re.IGNORECASE), lambda it: f"{_in_words(it[1])} {it[2].upper()} M"),
    (re.compile(rf"({_D})(?:st|nd|rd|th)\b"), lambda found: _in_words(found[1], "ordinal")),
    (re.compile(r"((?:1[1-9]|20)\d\d)(?![\d,.]*\d)(?:'?(s)\b)?(?![a-zA-Z%°])"), _read_year),
    (re.compile(rf"({_D}(?:\.\d+)?)({'|'.join(_UNITS)})\b", re.IGNORECASE), _read_quantity),
    (re.compile(r"(\d+)/(\d+)(?![\d/])"), _read_fraction),
    (re.compile(rf"({_D}(?:\.\d+)?)°\s?([CF])\b"),
     lambda found: f"{_in_words(found[1])} degrees {'celsius' if found[2] == 'C' else 'fahrenheit'}"),
    (re.compile(r"(?<=\d)[-–](?=\d)"), lambda found: "to"),
    (re.compile(rf"{_D}(?:\.\d+)?|\.\d+"), lambda found: _in_words(found[0])),
    (_WORD, lambda found: _read_word(found[0])),
)  # fmt: skip
