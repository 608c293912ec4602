"""JSGF, the Java Speech Grammar Format: what may be said, as rules.

    #JSGF V1.0;
    grammar orders;
    public <order> = [please] (order | bring) <count> <drink>+;
    <count> = one | two | /0.1/ twelve;

Understood are words, "quoted words", sequences, alternatives ``|`` with their weights ``/w/``, groups ``( )``,
optional ``[ ]``, ``*``, ``+``, references to rules, ``<NULL>``, ``<VOID>`` and comments. A tag ``{…}`` says nothing
about words and is passed over. Imports and rules that refer to themselves are errors.

Source: JSpeech Grammar Format (W3C Note, 5 June 2000), sections 3 and 4.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import DuologueError

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/) | (?P<header>\#JSGF[^;\n]*;) | (?P<tag>\{(?:\\.|[^{}\\])*\})
    | (?P<rule><[^<>\s]+>) | (?P<weight>/\s*[0-9.]+\s*/) | "(?P<quoted>(?:\\.|[^"\\\n])*)" | (?P<sign>[;=|()\[\]*+])
    | (?P<word>[^\s;=|()\[\]*+<>{}/"]+)""",
    re.VERBOSE | re.DOTALL,
)
_NULL, _VOID = "<NULL>", "<VOID>"
_MOST = 100_000  # words of a grammar whose rules are written out


@dataclass(frozen=True)
class Said:
    """One word or several."""

    text: str


@dataclass(frozen=True)
class Sequence:
    """One part behind the other; of no parts: nothing is said."""

    parts: tuple[Expansion, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of several; of none: this cannot be said. costs: of each, in nats."""

    parts: tuple[Expansion, ...] = ()
    costs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Repeated:
    """Once or more often."""

    part: Expansion


Expansion = Said | Sequence | Choice | Repeated


@dataclass(frozen=True)
class Grammar:
    """A grammar, its rules written out."""

    said: Expansion
    name: str = field(default="grammar", compare=False)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    line: int


def parse(text: str, name: str) -> Grammar:
    """The grammar of a file's text: one of its public rules, or of all its rules where none is public.

    Raises:
        DuologueError: ``name``, the line, and what is wrong there.
    """
    return _Parser(list(_tokens(text, name)), name).grammar()


def _tokens(text: str, name: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        line = text.count("\n", 0, at) + 1
        if not (found := _TOKEN.match(text, at)):
            raise DuologueError(f"{name}, line {line}: {text[at : at + 20].splitlines()[0]!r} is not closed, or stands "
                                "where JSGF has no place for it")  # fmt: skip
        at = found.end()
        assert found.lastgroup is not None
        if found.lastgroup not in ("space", "tag"):
            yield _Token(found.lastgroup, found[found.lastgroup], line)


class _Parser:
    """Recursive descent."""

    def __init__(self, tokens: list[_Token], name: str) -> None:
        self.tokens, self.name, self.at = tokens, name, 0
        self.rules: dict[str, tuple[int, list[_Token]]] = {}  # {name: (line, tokens of its expansion)}
        self.open: list[str] = []  # rules that are being written out
        self.known: dict[str, tuple[Expansion, int]] = {}  # {name: (its expansion, words in it)}
        self.words = 0

    def grammar(self) -> Grammar:
        public = self._read_rules()
        if not self.rules:
            raise DuologueError(f"{self.name} has no rule: write one as <order> = coffee | tea;")
        parts = tuple(self._rule(rule, self.rules[rule][0]) for rule in public or self.rules)
        return Grammar(parts[0] if len(parts) == 1 else Choice(parts, (0.0,) * len(parts)), self.name)

    def _read_rules(self) -> list[str]:
        """Split the text at its semicolons; the public rules' names."""
        public, begin = list[str](), 0
        if self.tokens and self.tokens[0].kind == "header":
            begin = 1
        for end in [at for at, token in enumerate(self.tokens) if token.text == ";" and token.kind == "sign"]:
            row, begin = self.tokens[begin:end], end + 1
            if not row or (row[0].text == "grammar" and len(row) == 2):
                continue
            shown = row[0].text == "public"
            row = row[shown:]
            if len(row) < 2 or row[0].kind != "rule" or row[1].text != "=":
                line = row[0].line if row else self.tokens[end].line
                raise self._wrong(line, "a rule is written as <name> = …;")
            if row[0].text in self.rules or row[0].text in (_NULL, _VOID):
                raise self._wrong(row[0].line, f"there is a rule {row[0].text} already")
            self.rules[row[0].text] = row[0].line, row[2:]
            public += [row[0].text] * shown
        if begin < len(self.tokens):
            first = self.tokens[begin]
            raise self._wrong(first.line, f"what begins with {first.text!r} has no ; behind it")
        return public

    def _rule(self, rule: str, line: int) -> Expansion:
        if rule in (_NULL, _VOID):
            return Sequence() if rule == _NULL else Choice()
        if rule not in self.rules:
            raise self._wrong(line, f"there is no rule {rule}")
        if rule in self.open:
            raise self._wrong(line, f"{rule} refers to itself: say what is repeated by * or +")
        if rule in self.known:
            found, words = self.known[rule]
            self._count(words, line)
            return found
        before, words = (self.tokens, self.at), self.words
        self.open.append(rule)
        (first, self.tokens), self.at = self.rules[rule], 0
        found = self._choice(first)
        if self.at < len(self.tokens):
            raise self._wrong(self.tokens[self.at].line, f"{self.tokens[self.at].text!r} has no place here")
        self.open.pop()
        self.tokens, self.at = before
        self.known[rule] = found, self.words - words
        return found

    def _choice(self, line: int) -> Expansion:
        parts, weights = list[Expansion](), list[float | None]()
        while True:
            token = self._peek("weight")
            weights.append(None if token is None else self._weight(token))
            parts.append(self._sequence(line))
            if not self._take("|"):
                break
        if None not in weights:
            total = sum(weight or 0.0 for weight in weights)
            return Choice(tuple(parts), tuple(-math.log((weight or 0.0) / total) for weight in weights))
        if any(weight is not None for weight in weights):
            raise self._wrong(line, "either all alternatives have a weight or none has")
        return parts[0] if len(parts) == 1 else Choice(tuple(parts), (0.0,) * len(parts))

    def _weight(self, token: _Token) -> float:
        self.at += 1
        try:
            weight = float(token.text.strip("/ \t"))
        except ValueError:
            weight = 0.0
        if not weight > 0:
            raise self._wrong(token.line, f"the weight {token.text} must be above 0")
        return weight

    def _sequence(self, line: int) -> Expansion:
        parts = list[Expansion]()
        while (part := self._item()) is not None:
            while sign := (self._take("*") or self._take("+")):
                part = _optional(Repeated(part)) if sign == "*" else Repeated(part)
            parts.append(part)
        if not parts:
            line = self.tokens[min(self.at, len(self.tokens) - 1)].line if self.tokens else line
            raise self._wrong(line, "an alternative has no words: write <NULL> where nothing is said")
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _item(self) -> Expansion | None:
        if self.at == len(self.tokens):
            return None
        token = self.tokens[self.at]
        if token.kind in ("word", "quoted"):
            self.at += 1
            self._count(1, token.line)
            return Said(token.text)
        if token.kind == "rule":
            self.at += 1
            return self._rule(token.text, token.line)
        if token.text in ("(", "["):
            self.at += 1
            inner = self._choice(token.line)
            if not self._take(")" if token.text == "(" else "]"):
                raise self._wrong(token.line, f"the {token.text} is not closed")
            return inner if token.text == "(" else _optional(inner)
        return None

    def _count(self, words: int, line: int) -> None:
        self.words += words
        if self.words > _MOST:
            raise self._wrong(line, f"with its rules written out the grammar has more than {_MOST:,} words")

    def _peek(self, kind: str) -> _Token | None:
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        return token if token is not None and token.kind == kind else None

    def _take(self, sign: str) -> str:
        token = self._peek("sign")
        if token is None or token.text != sign:
            return ""
        self.at += 1
        return sign

    def _wrong(self, line: int, what: str) -> DuologueError:
        return DuologueError(f"{self.name}, line {line}: {what}")


def _optional(part: Expansion) -> Expansion:
    return Choice((part, Sequence()), (0.0, 0.0))
