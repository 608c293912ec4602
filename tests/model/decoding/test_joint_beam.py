"""Joint beam search: against all texts of a toy whose two distributions are known, pruned and not."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from duologue.model.decoding.joint_beam import JointConfig, joint_search
from duologue.model.errors import DuologueError
from duologue.model.tokens import TokenKind

VOCAB, END, MOST = 4, 0, 3
WIDE = VOCAB ** (MOST + 1)


@dataclass
class State:
    """What a model was told, and what it has written."""

    context: str
    written: list[int] = field(default_factory=list)

    def clone(self) -> State:
        return copy.deepcopy(self)


class Model:
    """Its logits are drawn for each beginning of a text, with and without the context."""

    def next_logits(self, state: Any) -> torch.Tensor:
        rng = np.random.default_rng([len(state.context), *state.written])
        return torch.from_numpy(2 * rng.standard_normal(VOCAB))

    def reply_step(self, state: Any, sampling: Any, aloud: bool = True, forced: int | None = None) -> Any:
        assert forced is not None and not aloud
        state.written.append(forced)
        return SimpleNamespace(kind=TokenKind.END if forced == END else TokenKind.REPLY)


def every(alpha: float, margin: float) -> dict[tuple[int, ...], tuple[float, float]]:
    """All texts that may be written: (score, log-probability without the context)."""
    model, found = Model(), {}
    for length in range(MOST + 1):
        for text in itertools.product(range(1, VOCAB), repeat=length):
            score, alone, possible = 0.0, 0.0, True
            for at, token in enumerate((*text, END)):
                free, given = (model.next_logits(State(context, [*text[:at]])).log_softmax(-1) for context in ("", "c"))
                possible &= bool(free[token] >= free.max() - margin)
                alone += float(free[token])
                score += float(free[token] + alpha * given[token]) / (1 + alpha)
            if possible:
                found[text] = score, alone
    return found


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("margin", [math.inf, 2.0])
def test_at_full_width_it_is_exhaustive(alpha: float, margin: float) -> None:
    wanted = every(alpha, margin)
    assert len(wanted) == 40 if margin == math.inf else 1 < len(wanted) < 40
    free, given = State(""), State("c")
    found = joint_search(Model(), free, given, JointConfig(width=WIDE, alpha=alpha, margin=margin), MOST)  # type: ignore
    assert [each.tokens for each in found] == sorted(wanted, key=lambda text: -wanted[text][0])
    assert [each.score for each in found] == pytest.approx([wanted[each.tokens][0] for each in found])
    assert [each.free for each in found] == pytest.approx([wanted[each.tokens][1] for each in found])
    assert free == State("") and given == State("c")


def test_without_weight_the_context_says_nothing() -> None:
    searched = [joint_search(Model(), State(""), State(context), JointConfig(width=2, alpha=0.0), MOST)  # type: ignore
                for context in ("c", "cc")]  # fmt: skip
    assert searched[0] == searched[1] and len(searched[0]) == 2


def test_what_the_speech_makes_unlikely_the_context_cannot_bring_in() -> None:
    class Misled(Model):
        """The speech says 1; the context makes 2 certain."""

        def next_logits(self, state: Any) -> torch.Tensor:
            said = [END, 9.0, 3.0, 0.0] if not state.written else [9.0, 0.0, 0.0, 0.0]
            told = [0.0, 0.0, 20.0, 0.0] if not state.written else said
            return torch.tensor(told if state.context else said, dtype=torch.float64)

    def written(margin: float) -> tuple[int, ...]:
        return joint_search(Misled(), State(""), State("c"), JointConfig(alpha=1.0, margin=margin), MOST)[0].tokens  # type: ignore

    assert written(math.inf) == (2,) and written(5.0) == (1,)


def test_texts_that_do_not_end_are_cut() -> None:
    class Endless(Model):
        def next_logits(self, state: Any) -> torch.Tensor:
            return torch.tensor([-99.0, 1.0, 0.0, 0.0])

    found = joint_search(Endless(), State(""), State("c"), JointConfig(width=2, margin=3.0), MOST)  # type: ignore
    assert found[0].tokens == (1,) * MOST


@pytest.mark.parametrize(("settings", "message"), [({"width": 0}, "width is 0"), ({"alpha": -1.0}, "alpha is -1.0"),
                                                   ({"margin": 0.0}, "margin is 0.0")])  # fmt: skip
def test_mistakes_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        JointConfig(**settings)
