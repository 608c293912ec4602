"""IFEval's instructions that a program can check: does a reply keep what was asked for, strictly and loosely?

An instruction is known by its id ("length_constraints:number_words") and its arguments. Loosely, a reply also counts if
it keeps the instruction without its first or last line, or without asterisks, as people's habits of writing have it.

Sentences are told apart by their marks, words by white space; the original uses NLTK for both, so that counts near a
bound may differ. The language of a reply is not checked: no library for it is bundled, and such an instruction is left
out of the figures and named in its row.

Source: Zhou et al., "Instruction-Following Evaluation for Large Language Models" (arXiv 2311.07911), table 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]

_CONSTRAINED = ("my answer is yes.", "my answer is no.", "my answer is maybe.")


def follows(reply: str, instruction: str, arguments: Arguments) -> bool | None:
    """Strictly. None: an instruction that is not checked here. An empty reply follows nothing."""
    check = CHECKS.get(instruction)
    if check is None:
        return None
    return bool(reply.strip()) and check(reply, {key: value for key, value in arguments.items() if value is not None})


def follows_loosely(reply: str, instruction: str, arguments: Arguments) -> bool | None:
    """Whether the reply or any of its looser readings does."""
    if instruction not in CHECKS:
        return None
    lines = reply.split("\n")
    forms = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    forms += [form.replace("*", "") for form in forms]
    return any(follows(form, instruction, arguments) for form in forms)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+", text.strip()) if part]


def _compared(count: float, arguments: Arguments, bound: float, relation: str = "relation") -> bool:
    """ "less than" means below; "at least" (or nothing said) means not below."""
    return count < bound if arguments.get(relation) == "less than" else count >= bound


def _times(pattern: str, text: str, flags: int = re.IGNORECASE) -> int:
    return len(re.findall(pattern, text, flags))


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]


def _paragraph_count(text: str, a: Arguments) -> bool:
    parts = _paragraphs(text)
    inner = parts[1:-1] if len(parts) > 2 else []
    return all(inner) and sum(map(bool, parts)) == a["num_paragraphs"]


def _first_word(text: str, a: Arguments) -> bool:
    parts = [part for part in re.split(r"\n\n", text) if part.strip()]
    if len(parts) != a["num_paragraphs"] or not 1 <= a["nth_paragraph"] <= len(parts):
        return False
    words = parts[a["nth_paragraph"] - 1].split()
    return bool(words) and words[0].strip("\"'.,?!").lower() == str(a["first_word"]).lower()


def _postscript(text: str, a: Arguments) -> bool:
    marker = str(a.get("postscript_marker", "P.S.")).lower()
    letters = {"p.s.": r"p\.\s?s\.", "p.p.s": r"p\.\s?p\.\s?s"}.get(marker, re.escape(marker))
    return _times(r"\s*" + letters + r".*$", text, re.IGNORECASE | re.MULTILINE) > 0


def _sections(text: str, a: Arguments) -> bool:
    splitter = re.escape(str(a["section_spliter"]))  # spelled so in the data
    return len(re.split(r"\s?" + splitter + r"\s?\d+\s?", text)) - 1 >= a["num_sections"]


def _highlights(text: str, a: Arguments) -> bool:
    found = [part for part in re.findall(r"\*[^\n*]*\*", text) if part.strip("*").strip()]
    found += [part for part in re.findall(r"\*\*[^\n*]*\*\*", text) if part.strip("*").strip()]
    return len(found) >= a["num_highlights"]


def _bullets(text: str, a: Arguments) -> bool:
    return _times(r"^\s*\*[^*].*$|^\s*-.*$", text, re.MULTILINE) == a["num_bullets"]


def _is_json(text: str, _: Arguments) -> bool:
    try:
        json.loads(re.sub(r"^```(json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip())
    except ValueError:
        return False
    return True


def _two_answers(text: str, _: Arguments) -> bool:
    parts = text.split("******")
    said = [part.strip() for at, part in enumerate(parts) if part.strip() or 0 < at < len(parts) - 1]
    return len(said) == 2 and all(said) and said[0] != said[1]


def _capitals(text: str, a: Arguments) -> bool:
    count = sum(word.isupper() for word in re.findall(r"[\w']+", text))
    return _compared(count, a, a["capital_frequency"], "capital_relation")


def _all_of(words: Sequence[str], text: str) -> bool:
    return all(_times(re.escape(word), text) for word in words)


def _ends(text: str, a: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(str(a["end_phrase"]).strip().lower())


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, a: _all_of(a["keywords"], text),
    "keywords:frequency": lambda text, a: _compared(_times(re.escape(a["keyword"]), text), a, a["frequency"]),
    "keywords:forbidden_words": lambda text, a: (
        not any(_times(r"\b" + re.escape(word) + r"\b", text) for word in a["forbidden_words"])
    ),
    "keywords:letter_frequency": lambda text, a: _compared(
        text.lower().count(str(a["letter"]).lower()), a, a["let_frequency"], "let_relation"
    ),
    "length_constraints:number_sentences": lambda text, a: _compared(len(_sentences(text)), a, a["num_sentences"]),
    "length_constraints:number_words": lambda text, a: _compared(len(_words(text)), a, a["num_words"]),
    "length_constraints:number_paragraphs": _paragraph_count,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, a: (
        len(re.findall(r"\[.*?\]", text)) >= a["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, _: any(
        answer in text.strip().lower() for answer in _CONSTRAINED
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _is_json,
    "detectable_format:title": lambda text, _: any(
        found.strip("<>").strip() for found in re.findall(r"<<[^\n]+>>", text)
    ),
    "combination:two_responses": _two_answers,
    "combination:repeat_prompt": lambda text, a: (
        text.strip().lower().startswith(str(a["prompt_to_repeat"]).strip().lower())
    ),
    "startend:end_checker": _ends,
    "startend:quotation": lambda text, _: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": _capitals,
    "change_case:english_capital": lambda text, _: text.isupper(),
    "change_case:english_lowercase": lambda text, _: text.islower(),
    "punctuation:no_comma": lambda text, _: "," not in text,
}
