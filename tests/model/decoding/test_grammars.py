"""Grammars: what JSGF says, and the best path through its graph against all texts, all alignments and the beam."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from test_ctc_beam import VOCAB, WHOLE, T, posteriors, probabilities

from duologue.model.decoding.ctc_beam import search
from duologue.model.decoding.grammars.jsgf import Choice, Expansion, Grammar, Repeated, Said, parse
from duologue.model.errors import DuologueError

pytest.importorskip("kaldifst")
from duologue.model.decoding.grammars.tlg import TLG

Text = tuple[int, ...]
GRAMMARS = (
    "<x> = a | b c;",
    "<x> = [a] (b | c)+;",
    "<x> = a* b a*;",
    "<x> = (a | /* both */ a a) [<y>]; <y> = c | ab;",
    "<x> = /3/ a b | /1/ b a | /0.5/ <NULL>;",
    "<x> = /1/ a <y>+ | /1/ <y>; <y> = /5/ b | /1/ c;",
    "public <x> = <y> <y>; public <z> = c; <y> = a | b;",
)


def spelt(word: str) -> Text:
    return tuple("abc".index(letter) for letter in word)


def texts(part: Expansion, most: int = T) -> dict[Text, float]:
    """Of every text that is allowed, up to a length: the cheapest way's weight."""
    found: dict[Text, float] = {}

    def put(text: Text, weight: float) -> None:
        if len(text) <= most:
            found[text] = max(found.get(text, -np.inf), weight)

    if isinstance(part, Said):
        put(tuple(label for word in part.text.split() for label in spelt(word)), 0.0)
    elif isinstance(part, Choice):
        for each, cost in zip(part.parts, part.costs, strict=True):
            for text, weight in texts(each, most).items():
                put(text, weight - cost)
    elif isinstance(part, Repeated):
        once = texts(part.part, most)
        new = dict(once)
        while new:
            before = dict(found)
            for text, weight in new.items():
                put(text, weight)
            grown = {(*text, *more): weight + other for text, weight in new.items() for more, other in once.items()}
            new = {text: weight for text, weight in grown.items()
                   if len(text) <= most and found.get(text, -np.inf) < weight} if before != found else {}  # fmt: skip
    else:
        found[()] = 0.0
        for each in part.parts:
            whole, found = found, {}
            for text, weight in whole.items():
                for more, other in texts(each, most).items():
                    put((*text, *more), weight + other)
    return found


class Allowed:
    """What a beam is told of a grammar: a text that no allowed one begins with is impossible."""

    def __init__(self, grammar: Grammar) -> None:
        self.allowed = texts(grammar.said)
        beginnings = {text[:end] for text in self.allowed for end in range(len(text) + 1)}
        self.numbers = {text: at for at, text in enumerate(sorted(beginnings))}
        self.texts = sorted(beginnings)

    def begin(self) -> np.ndarray:
        return np.array([self.numbers[()]])

    def scores(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.array([[0.0 if (*self.texts[state], label) in self.numbers else -np.inf for label in labels]
                         for state in states])  # fmt: skip

    def follow(self, states: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return np.array([self.numbers[(*self.texts[state], label)]
                         for state, label in zip(states, labels, strict=True)])  # fmt: skip

    def pause(self, states: np.ndarray) -> np.ndarray:
        raise AssertionError("it is searched as a whole")

    def finish(self, states: np.ndarray) -> np.ndarray:
        return np.array([self.allowed.get(self.texts[state], -np.inf) for state in states])


def best_alignments(log_probs: np.ndarray) -> dict[Text, float]:
    """Of every text, the log-probability of its best alignment."""
    found: dict[Text, float] = {}
    for path in itertools.product(range(VOCAB + 1), repeat=T):
        text = tuple(label for label, _ in itertools.groupby(path) if label < VOCAB)
        found[text] = max(found.get(text, -np.inf), log_probs[range(T), path].sum())
    return found


@pytest.mark.parametrize("rules", GRAMMARS)
def test_the_graph_finds_the_best_path_and_the_beam_the_same_text(rules: str) -> None:
    grammar = parse(rules, "toy")
    graph, same = TLG(grammar, spelt, VOCAB), 0
    for seed in range(12):
        log_probs = posteriors(seed, sharp=4.0)
        allowed, paths, sums = texts(grammar.said), best_alignments(log_probs), probabilities(log_probs)
        wanted = max(allowed, key=lambda text: allowed[text] + paths.get(text, -np.inf))
        (found,) = graph(log_probs)
        assert found.labels == wanted
        beam = search(log_probs, WHOLE, [Allowed(grammar)])
        same += beam[0].labels == wanted
        (again,) = [each for each in beam if each.labels == wanted]
        assert (found.score, found.ctc) == pytest.approx((again.score, again.ctc), abs=1e-6)
        if beam[0].labels != wanted:  # the sum over alignments prefers another text than the best alignment does
            assert sums[beam[0].labels] - sums[wanted] + allowed[beam[0].labels] - allowed[wanted] >= 0
    assert same >= 10


def test_frames_that_are_too_few_say_nothing() -> None:
    graph = TLG(parse("<x> = a a;", "toy"), spelt, VOCAB)
    assert [each.labels for each in graph(posteriors(0, 2))] == [()], "the same label twice needs a blank between"
    assert graph(posteriors(0, 3))[0].labels == (0, 0)
    assert graph(np.zeros((0, VOCAB + 1)))[0].score == -np.inf


def test_what_a_file_says() -> None:
    found = parse(
        """#JSGF V1.0 UTF-8 en;
        grammar orders; // comments
        <count> = one {1} | two {2} | "a dozen" ;
        /* public too */ public <order> = [please] <count> (tea | coffee)+;
        """,
        "orders",
    )
    assert found == parse('<y> = [please] (one | two | "a dozen") (tea | coffee)+;', "other")
    for weighed, costs in (("/1/ yes | /3/ no", (0.25, 0.75)), ("yes | no", (1, 1))):
        choice = parse(f"<x> = {weighed};", "x").said
        assert isinstance(choice, Choice) and choice.costs == pytest.approx(tuple(-np.log(costs)))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("", "g has no rule: write one as <order> = coffee | tea;"),
        ("<x> = a;\n<y> = (b | c;", r"g, line 2: the \( is not closed"),
        ("<x> = a", "line 1: what begins with '<x>' has no ; behind it"),
        ("<x> = a <x>;", "line 1: <x> refers to itself: say what is repeated by"),
        ("<x> = a;\n<x> = b;", "line 2: there is a rule <x> already"),
        ("<x> = a | ;", "line 1: an alternative has no words: write <NULL>"),
        ("<x> = <y>;", "line 1: there is no rule <y>"),
        ("<x> = /1/ a | b;", "either all alternatives have a weight or none has"),
        ("<x> = /0/ a | /1/ b;", "the weight /0/ must be above 0"),
        ("import <other.*>;\n<x> = a;", "line 1: a rule is written as <name> = …;"),
        ("<x> = a ) b;", r"line 1: '\)' has no place here"),
        ('<x> = a;\n<y> = "b;', "line 2: '\"b;' is not closed"),
    ],
)
def test_what_is_no_grammar(rules: str, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        parse(rules, "g")


def test_what_cannot_be_said() -> None:
    with pytest.raises(DuologueError, match="toy allows nothing to be said"):
        TLG(parse("<x> = a <VOID>;", "toy"), spelt, VOCAB)
    with pytest.raises(DuologueError, match="toy: the word 'Zoë' cannot be spelt"):
        TLG(parse("<x> = a | Zoë;", "toy"), lambda word: spelt(word) if word == "a" else (), VOCAB)
    huge = "<x0> = a a;" + "".join(f"<x{at}> = <x{at - 1}> <x{at - 1}>;" for at in range(1, 20))
    with pytest.raises(DuologueError, match="has more than 100,000 words"):
        parse("public <z> = <x19>;" + huge, "toy")
