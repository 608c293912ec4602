"""Which writing a voice can read aloud: its language, and the scripts that it has sounds for."""

from __future__ import annotations

import re
import unicodedata

from .engine import Language, SynthesisError

# Scripts that espeak-ng reads beside Latin letters, by language; of the Japanese ones it reads no kanji.
_SCRIPTS = {
    "ETHIOPIC": ("am", "ti"), "ARABIC": ("ar", "fa", "ku", "sd", "ug", "ur"), "BENGALI": ("as", "bn", "bpy"),
    "CYRILLIC": ("ba", "be", "bg", "cv", "kk", "ky", "mk", "mn", "nog", "ru", "sr", "tt", "uk", "uz"),
    "GREEK": ("el", "grc"), "GUJARATI": ("gu",), "DEVANAGARI": ("hi", "kok", "mr", "ne"), "HEBREW": ("he",),
    "ARMENIAN": ("hy", "hyw"), "GEORGIAN": ("ka",), "KANNADA": ("kn",), "HANGUL": ("ko",), "MALAYALAM": ("ml",),
    "MYANMAR": ("my", "shn"), "ORIYA": ("or",), "GURMUKHI": ("pa",), "SINHALA": ("si",), "TAMIL": ("ta",),
    "TELUGU": ("te",), "THAI": ("th",), "CHEROKEE": ("chr",), "CJK": ("cmn", "hak", "yue"),
    "IDEOGRAPHIC": ("cmn", "hak", "yue"), "BOPOMOFO": ("cmn", "yue"), "HIRAGANA": ("ja",), "KATAKANA": ("ja",),
}  # fmt: skip
# Pictures, with what joins, colours or varies them: nobody says them.
_PICTURE = "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff]"
_EMOJI = re.compile(f"{_PICTURE}[\ufe0e\ufe0f\u200d\u20e3\U000e0020-\U000e007f]*|[\ufe0e\ufe0f\u20e3]")
_STRAIGHT = str.maketrans({**dict.fromkeys("‘’ʼ‚", "'"), **dict.fromkeys("“”„«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-"),
                           "…": "..."})  # fmt: skip


ENGLISH_LETTERS = Language(code="en", scripts=frozenset({"ASCII"}))  # of voices that have sounds for English alone


def language_of(code: str) -> Language:
    """That of an espeak-ng voice, "cmn" or "en-gb-x-rp": Latin letters, and the scripts of its language."""
    short = code.partition("-")[0]
    more = {script for script, languages in _SCRIPTS.items() if short in languages}
    return Language(code=short, scripts=frozenset({"ASCII", "LATIN", *more}))


def sayable(text: str, language: Language, voice: str) -> str:
    """What a voice is given of a text: all but emoji; with straight quotes and dashes where it knows ASCII alone.

    Raises SynthesisError where nothing in it can be said, and for a letter that the voice has no sound for.
    """
    said = _EMOJI.sub(" ", text).replace("[[", "[ [")  # which espeak-ng would take for phonemes
    if not any(unicodedata.category(character)[0] in "LN" for character in said):
        raise SynthesisError(f"nothing in {text[:60]!r} can be said")
    if ascii_alone := "LATIN" not in language.scripts:
        said = unicodedata.normalize("NFC", said).translate(_STRAIGHT)
    for character in said:
        if _script(character, ascii_alone) not in language.scripts:
            speaks = "a to z alone" if ascii_alone else f"the language {language.code}"
            raise SynthesisError(
                f"{voice} cannot say {character!r}: it speaks {speaks}; give voices=espeak:LANGUAGE, such as espeak:de"
            )
    if ascii_alone:
        said = "".join(character if character.isascii() else " " for character in said)  # what is left is silent
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in said).strip()


def _script(character: str, ascii_alone: bool) -> str:
    """That of a letter, by its name: "LATIN", "CYRILLIC", "CJK"; "ASCII" for what is no letter, or is silent."""
    plain = unicodedata.normalize("NFKC", character)[:1]
    kind = unicodedata.category(plain)
    if character.isascii() or (kind[0] != "L" and (not ascii_alone or kind[0] in "ZCP" or kind in ("Sk", "Mn"))):
        return "ASCII"
    return re.split("[ -]", unicodedata.name(plain if kind[0] == "L" else character, "unknown"))[0]
