"""The decoding graph of a grammar, T ∘ L ∘ G, and the best path of CTC's posteriors through it.

    G, the grammar: words -> words, with costs      L, the lexicon: labels -> words
    T, the token topology: frames -> labels, of which blanks and repetitions are none

kaldifst composes them; the graph reads one symbol a frame. All of it is searched (Viterbi), nothing is cut off: what a
grammar allows may be unlikely frame by frame, and is found as long as it is likelier than everything else it allows.

Source: Miao et al., "EESEN: End-to-End Speech Recognition using Deep RNN Models and WFST-based Decoding" (ASRU 2015),
section III; the exact topology is the "correct CTC" of Laptev et al. (arXiv 2110.03098).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ...errors import DuologueError
from ..beam import Found
from .jsgf import Choice, Expansion, Grammar, Repeated, Said, Sequence

_NEVER = -np.inf


class TLG:
    """The graph of a grammar over V labels and the blank; symbols of it are labels, the blank is V.

    Args:
        spelt: a word in labels; () if they cannot spell it.

    Raises:
        DuologueError: kaldifst is not installed, a word cannot be spelt, or nothing can be said.
    """

    def __init__(self, grammar: Grammar, spelt: Callable[[str], tuple[int, ...]], blank: int) -> None:
        try:
            import kaldifst
        except ImportError:
            raise DuologueError("grammars need kaldifst: pip install 'duologue[grammar]'") from None
        words = dict.fromkeys(_words(grammar.said))
        lexicon = {word: spelt(word) for word in words}
        for word, row in lexicon.items():
            if not row:
                raise DuologueError(f"{grammar.name}: the word {word!r} cannot be spelt with the tokens that this "
                                    "model hears")  # fmt: skip
        ids = {word: at for at, word in enumerate(words, 1)}
        lg = kaldifst.compose(_compiled(kaldifst, _lexicon(lexicon, ids), "olabel"),
                              _compiled(kaldifst, _grammar(grammar.said, ids), "ilabel"))  # fmt: skip
        kaldifst.rmepsilon(lg)
        kaldifst.arcsort(lg, sort_type="ilabel")
        used = sorted({label for row in lexicon.values() for label in row})
        graph = kaldifst.compose(_compiled(kaldifst, _topology(used, blank), "olabel"), lg)
        if graph.num_states == 0:
            raise DuologueError(f"{grammar.name} allows nothing to be said")
        self.blank = blank
        self._take(kaldifst, graph)

    def _take(self, kaldifst: Any, graph: Any) -> None:
        """Its arcs as arrays, those that lead to the same state side by side."""
        rows = [(arc.nextstate, state, arc.ilabel - 1, arc.weight.value)
                for state in range(graph.num_states) for arc in kaldifst.ArcIterator(graph, state)]  # fmt: skip
        table = np.array(sorted(rows), np.float64).reshape(-1, 4)
        self.start, self.states = graph.start, graph.num_states
        self.final = -np.array([graph.final(state).value for state in range(graph.num_states)])  # -inf: not final
        self.targets, self.sources, self.symbols = table[:, :3].astype(np.int64).T
        self.scores = -table[:, 3]
        self._first = np.flatnonzero(np.diff(self.targets, prepend=-1))

    def __call__(self, log_probs: np.ndarray) -> list[Found]:
        """The likeliest text of (T, V + 1), the blank last; of too few frames for any text, one without labels.

        Its score is that of CTC, all alignments of it added, and of the grammar's weights.
        """
        best = np.full((len(log_probs) + 1, self.states), _NEVER)
        best[0, self.start] = 0.0
        reached = self.targets[self._first]
        for at, frame in enumerate(log_probs.astype(np.float64)):
            arrived = best[at, self.sources] + frame[self.symbols] + self.scores
            best[at + 1, reached] = np.maximum.reduceat(arrived, self._first) if len(arrived) else _NEVER
        ends = best[-1] + self.final
        state = int(ends.argmax())
        if ends[state] == _NEVER:
            return [Found(labels=(), score=_NEVER, ctc=_NEVER)]
        path, weight = [], float(self.final[state])
        for at in range(len(log_probs) - 1, -1, -1):
            arcs = slice(*np.searchsorted(self.targets, [state, state + 1]))
            arrived = best[at, self.sources[arcs]] + log_probs[at, self.symbols[arcs]] + self.scores[arcs]
            arc = arcs.start + int(arrived.argmax())
            path.append(int(self.symbols[arc]))
            weight += float(self.scores[arc])
            state = int(self.sources[arc])
        labels = tuple(label for label, _ in groupby(reversed(path)) if label != self.blank)
        ctc = _log_probability(log_probs, labels)
        return [Found(labels=labels, score=ctc + weight, ctc=ctc)]


def _log_probability(log_probs: np.ndarray, labels: tuple[int, ...]) -> float:
    """Of all alignments of a text."""
    rows, blank = torch.from_numpy(log_probs.astype(np.float64))[:, None], log_probs.shape[1] - 1
    lengths = torch.tensor([len(log_probs)]), torch.tensor([len(labels)])
    return -float(F.ctc_loss(rows, torch.tensor([labels], dtype=torch.long), *lengths, blank, reduction="none"))


def _words(said: Expansion) -> Iterator[str]:
    if isinstance(said, Said):
        yield from said.text.split()
    else:
        for part in (said.part,) if isinstance(said, Repeated) else said.parts:
            yield from _words(part)


# Graphs in OpenFst's text format: "from to in out cost" an arc, "state" a final state; 0 is epsilon. The first line's
# state is the start. Labels are one more than ours.


def _compiled(kaldifst: Any, lines: list[str], order: str) -> Any:
    found = kaldifst.compile("\n".join(lines), acceptor=False)
    kaldifst.arcsort(found, sort_type=order)
    return found


def _lexicon(lexicon: dict[str, tuple[int, ...]], ids: dict[str, int]) -> list[str]:
    lines, states = ["0"], 1
    for word, row in lexicon.items():
        path = [0, *range(states, states + len(row) - 1), 0]
        states += len(row) - 1
        outs = [ids[word], *(0 for _ in row[1:])]
        lines += [f"{a} {b} {label + 1} {out}" for (a, b), label, out in zip(pairwise(path), row, outs, strict=True)]
    return lines


def _topology(labels: list[int], blank: int) -> list[str]:
    """State 0 behind a blank or at the beginning, one state behind each label."""
    state = {label: at for at, label in enumerate(labels, 1)}
    lines = ["0", *(str(at) for at in state.values()), f"0 0 {blank + 1} 0"]
    for label, at in state.items():
        lines += [f"0 {at} {label + 1} {label + 1}", f"{at} {at} {label + 1} 0", f"{at} 0 {blank + 1} 0"]
        lines += [f"{at} {to} {other + 1} {other + 1}" for other, to in state.items() if other != label]
    return lines


def _grammar(said: Expansion, ids: dict[str, int]) -> list[str]:
    lines, states = ["1"], 2  # 0 is the start, 1 the end

    def new() -> int:
        nonlocal states
        states += 1
        return states - 1

    def write(part: Expansion, begin: int, end: int) -> None:
        if isinstance(part, Said):
            path = [begin, *(new() for _ in part.text.split()[1:]), end]
            for (a, b), word in zip(pairwise(path), part.text.split(), strict=True):
                lines.append(f"{a} {b} {ids[word]} {ids[word]}")
        elif isinstance(part, Sequence):
            path = [begin, *(new() for _ in part.parts), end]
            for (a, b), each in zip(pairwise(path), part.parts, strict=False):
                write(each, a, b)
            lines.append(f"{path[-2]} {end} 0 0")
        elif isinstance(part, Choice):
            for each, cost in zip(part.parts, part.costs, strict=True):
                inner = new()
                lines.append(f"{begin} {inner} 0 0 {cost}")
                write(each, inner, end)
        else:
            inner, behind = new(), new()
            lines.extend([f"{begin} {inner} 0 0", f"{behind} {inner} 0 0", f"{behind} {end} 0 0"])
            write(part.part, inner, behind)

    write(said, 0, 1)
    return ["0 0 0 0", *lines] if not lines[1:] else [*lines[1:], lines[0]]
