"""How a reply is to be spoken, written in its text: pauses, emphasis and speaking rate, in a subset of SSML.

    <break time="500ms"/>   <break strength="strong"/>   <emphasis level="strong">word</emphasis>
    <prosody rate="slow">words</prosody>   <prosody rate="120%">words</prosody>   <speak>the whole</speak>

A reply is text that a language model writes, not a document, so nothing is an error. A tag of these four names that
says something else (another attribute, a value that does not exist) has no effect and is not spoken; a closing tag
closes the last element of its name, or nothing; what is not closed lasts to the end. All else that looks like markup,
"<b>" or "x < y", is text. Rates within rates multiply.

Source: W3C, "Speech Synthesis Markup Language (SSML) Version 1.1" (2010), sections 3.2.2 to 3.2.4. The values of
names are those of espeak-ng, measured (docs/ssml.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..errors import DuologueError
from ..streaming import State

RATES = {"x-slow": 0.65, "slow": 0.8, "medium": 1.0, "default": 1.0, "fast": 1.2, "x-fast": 1.4}
SLOWEST, FASTEST = 0.5, 1.5  # beyond, a rate is the nearest of these
STRENGTHS = {"none": 0.0, "x-weak": 0.08, "weak": 0.1, "medium": 0.25, "strong": 0.4, "x-strong": 0.7}  # s
LONGEST_BREAK = 10.0  # s
LEVELS = {"strong": 1.0, "moderate": 0.5, "none": 0.0, "reduced": 0.0}
_LONGEST_TAG = 120  # characters

_NAMES = ("break", "emphasis", "prosody", "speak")
_TAG = re.compile(rf"<(/?)({'|'.join(_NAMES)})((?:\s[^<>]*|/)?)>")
_BEGUN = re.compile(r"</?([a-z]*)((?:\s[^<>]*|/)?)")  # all that a tag may be so far
_ATTRIBUTE = re.compile(r"""([\w:-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_TIME = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(ms|s)")
_PERCENT = re.compile(r"(\d+(?:\.\d*)?)%")


@dataclass(frozen=True)
class Manner:
    """How something is spoken.

    rate: durations are divided by it. emphasis: 0 (none) to 1 (strong). pause: seconds of silence before it.
    """

    rate: float = 1.0
    emphasis: float = 0.0
    pause: float = 0.0


PLAIN = Manner()


class Run(NamedTuple):
    """A stretch of a text. manner: how it is spoken; None: it is a tag."""

    text: str
    manner: Manner | None

    def manners(self) -> list[Manner]:
        """Of each of its characters; of a tag none. The pause is before the first."""
        if self.manner is None:
            return []
        return [self.manner] + [replace(self.manner, pause=0.0) if self.manner.pause else self.manner] * (
            len(self.text) - 1
        )


@dataclass
class SSMLReader(State):
    """Reads a text that comes in pieces of any length.

    held: its end, which may become a tag. open: elements that are open: name and manner. pause: of breaks behind which
    nothing has come yet.
    """

    held: str = ""
    open: list[tuple[str, Manner]] = field(default_factory=list)
    pause: float = 0.0

    def push(self, text: str) -> list[Run]:
        """The text as far as it can be told from tags, tags included: together all that has come, but for ``held``."""
        return self._read(self.held + text, last=False)

    def end(self) -> list[Run]:
        """What was held. What follows is another text, but for ``pause``."""
        return self._read(self.held, last=True)

    def _read(self, text: str, last: bool) -> list[Run]:
        runs, at = list[Run](), 0
        for tag in _TAG.finditer(text):
            runs += self._spoken(text[at : tag.start()])
            self._take(tag[1] == "/", tag[2], tag[3])
            runs.append(Run(tag[0], None))
            at = tag.end()
        end = len(text) if last else at + settled(text[at:])
        runs += self._spoken(text[at:end])
        self.held = text[end:]
        return runs

    def _spoken(self, text: str) -> list[Run]:
        if not text:
            return []
        manner = self.open[-1][1] if self.open else PLAIN
        pause, self.pause = self.pause, 0.0
        return [Run(text, replace(manner, pause=pause) if pause else manner)]

    def _take(self, closes: bool, name: str, rest: str) -> None:
        given = {key: double or single for key, double, single in _ATTRIBUTE.findall(rest)}
        if name == "break":
            self.pause = min(LONGEST_BREAK, self.pause + (0.0 if closes else pause_of(given)))
        elif closes:
            names = [each for each, _ in self.open]
            if name in names:
                del self.open[len(names) - 1 - names[::-1].index(name) :]
        elif not rest.endswith("/"):
            outer = self.open[-1][1] if self.open else PLAIN
            self.open.append((name, _inside(outer, name, given)))


def pause_of(given: dict[str, str]) -> float:
    """Seconds of a break with these attributes; one that says nothing is of medium strength."""
    if found := _TIME.fullmatch(given.get("time", "").strip()):
        return min(LONGEST_BREAK, float(found[1]) / (1000 if found[2] == "ms" else 1))
    return STRENGTHS.get(given.get("strength", ""), STRENGTHS["medium"])


def _inside(outer: Manner, name: str, given: dict[str, str]) -> Manner:
    if name == "emphasis":
        return replace(outer, emphasis=LEVELS.get(given.get("level", ""), LEVELS["moderate"]))
    if name == "prosody":
        said = given.get("rate", "").strip()
        percent = _PERCENT.fullmatch(said)
        rate = float(percent[1]) / 100 if percent else RATES.get(said, 1.0)
        return replace(outer, rate=min(FASTEST, max(SLOWEST, outer.rate * rate)))
    return outer


def settled(text: str) -> int:
    """How much of a text without tags cannot become part of one."""
    start = text.rfind("<")
    begun = _BEGUN.fullmatch(text, start) if start >= 0 else None
    if begun is None or len(text) - start > _LONGEST_TAG:
        return len(text)
    may_be = begun[1] in _NAMES if begun[2] else any(name.startswith(begun[1]) for name in _NAMES)
    return start if may_be else len(text)


@dataclass
class ShownText(State):
    """Takes the tags out of a text that comes in pieces, and one of two spaces that a tag stood between.

    space: the text so far ends in one. tag: nothing has come behind a tag. begun: something is shown.
    """

    reader: SSMLReader = field(default_factory=SSMLReader)
    space: bool = True
    tag: bool = False
    begun: bool = False

    def push(self, text: str, last: bool = False) -> str:
        """The next of what is shown. ``last``: all that is left of it."""
        shown = ""
        for run in self.reader.push(text) + (self.reader.end() if last else []):
            if run.manner is None:
                self.tag = True
                continue
            words = run.text[1:] if self.tag and self.space and run.text[0] == " " else run.text
            if words:
                self.space, self.tag, self.begun = words[-1].isspace(), False, True
            shown += words
        return shown


def without_tags(text: str) -> str:
    """What is shown of a whole text."""
    return ShownText().push(text, last=True)


class Marked(NamedTuple):
    """A word or more of a text, with the space before them, and the tags before that."""

    tags: str
    text: str


def parsed(text: str) -> list[Marked]:
    """A whole text that a person wrote, as what is spoken and the tags between; the last may have no text.

    Raises:
        DuologueError: markup that is not rendered: another element, attribute or value, or an element that is not
            closed.
    """
    _check(text)
    reader, found, tags, space = SSMLReader(), list[Marked](), "", ""
    for run in reader.push(text) + reader.end():
        if run.manner is None:
            tags += run.text
            continue
        words = _unescaped(run.text)
        words = space + words.lstrip() if space else words
        body = words.rstrip()
        space = " " if len(body) < len(words) else ""  # a word has the space before it, not the one behind it
        if body:
            found.append(Marked(tags, body))
            tags = ""
    return [*found, Marked(tags, "")] if tags else found


def _unescaped(text: str) -> str:
    for name, sign in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("apos", "'"), ("amp", "&")):
        text = text.replace(f"&{name};", sign)
    return text


_KNOWN = {"break": ("time", "strength"), "emphasis": ("level",), "prosody": ("rate",), "speak": ()}


def _check(text: str) -> None:
    open_ = list[str]()
    for found in re.finditer(r"<(/?)([A-Za-z!?][\w:.-]*)([^<>]*)>", text):
        closes, name, rest = found[1] == "/", found[2], found[3]
        if name not in _KNOWN:
            raise DuologueError(f"SSML: {found[0][:40]!r} is not rendered; there are {', '.join(_KNOWN)}")
        for key, double, single in _ATTRIBUTE.findall(rest):
            value = (double or single).strip()
            if name == "speak":
                continue  # version, xmlns, xml:lang
            if key not in _KNOWN[name]:
                raise DuologueError(f"SSML: {name} has no {key!r} here; it has {', '.join(_KNOWN[name])}")
            _check_value(key, value)
        if closes and (not open_ or open_.pop() != name):
            raise DuologueError(f"SSML: {found[0]!r} closes what is not open")
        if not closes and not rest.endswith("/"):
            open_.append(name)
    if open_:
        raise DuologueError(f"SSML: <{open_[-1]}> is not closed")


def _check_value(key: str, value: str) -> None:
    if key == "time":
        time = _TIME.fullmatch(value)
        if not time or float(time[1]) / (1000 if time[2] == "ms" else 1) > LONGEST_BREAK:
            raise DuologueError(f"SSML: time is {value!r}; it must be '500ms' or '0.5s', {LONGEST_BREAK:g} s at most")
    elif key == "rate" and (percent := _PERCENT.fullmatch(value)):
        if not SLOWEST <= float(percent[1]) / 100 <= FASTEST:
            raise DuologueError(f"SSML: rate is {value!r}; it must be {SLOWEST:.0%} to {FASTEST:.0%}")
    else:
        names = {"rate": RATES, "strength": STRENGTHS, "level": LEVELS}[key]
        if value not in names:
            more = " or a percentage" if key == "rate" else ""
            raise DuologueError(f"SSML: {key} is {value!r}; it must be {', '.join(names)}{more}")
