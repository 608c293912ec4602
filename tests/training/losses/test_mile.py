"""MiLe loss: tokens of which a model is unsure count more, and the loss's size stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from duologue.model.errors import DuologueError
from duologue.training.losses.mile import cross_entropy, entropy_weights
from duologue.training.recipes import asr_pretrain, speech_to_text, ssl, text_sft


def test_a_weight_is_a_power_of_one_and_the_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 7)
    p = logits.softmax(-1)
    wanted = (1 - (p * p.log()).sum(-1)) ** 1.5
    assert torch.allclose(entropy_weights(logits, 1.5), wanted)
    certain = torch.tensor([[-1e4, 0.0, -1e4]])
    assert entropy_weights(certain, 2.0).item() == 1.0 and entropy_weights(torch.zeros(1, 3), 1.0).item() > 2


def test_the_loss_is_the_mean_by_these_weights() -> None:
    """Without them torch's own; with them no gradient passes through the weights."""
    torch.manual_seed(0)
    logits, wanted, weights = torch.randn(6, 4, requires_grad=True), torch.randint(0, 4, (6,)), torch.rand(6)
    each = F.cross_entropy(logits, wanted, reduction="none")
    assert torch.allclose(cross_entropy(logits, wanted, weights), (each * weights).sum() / weights.sum())
    smooth = cross_entropy(logits, wanted, torch.ones(6), label_smoothing=0.1)
    assert torch.allclose(smooth, F.cross_entropy(logits, wanted, label_smoothing=0.1))
    heavier = weights * entropy_weights(logits, 2.0)
    found = cross_entropy(logits, wanted, weights, 2.0)
    (gradient,) = torch.autograd.grad(found, logits)
    (same,) = torch.autograd.grad((each * (heavier / heavier.sum())).sum(), logits)
    assert torch.allclose(gradient, same, atol=1e-7)
    uniform = torch.zeros(3, 4)
    assert torch.allclose(cross_entropy(uniform, wanted[:3], torch.ones(3), 3.0), F.cross_entropy(uniform, wanted[:3]))


@pytest.mark.parametrize("stage", [text_sft, speech_to_text, asr_pretrain, ssl])
def test_every_stage_of_cross_entropy_takes_it(stage: ModuleType, questions: Path) -> None:
    """In training alone: what is measured stays what it was."""
    recipe = stage.recipe("tiny")
    changes: dict[str, Any] = {"batch_size": 2} | ({} if stage is text_sft else {"data": (str(questions),)})
    learnt, measured = list[float](), list[float]()
    for mile in (0.0, 2.0):
        task = replace(recipe, mile=mile, **changes).build()
        with torch.no_grad():  # a model of random weights is equally unsure of all
            for parameter in task.parameters():
                parameter.mul_(4 if parameter.ndim > 1 else 1)
        for found, training in ((learnt, True), (measured, False)):
            torch.manual_seed(0)
            found.append(float(task.train(training)(task.batch(0))[0]))
    assert abs(learnt[0] - learnt[1]) > 1e-4
    assert measured[0] == measured[1] or stage in (speech_to_text, asr_pretrain), "whose evaluation is not this loss"
    with pytest.raises(DuologueError, match=r"mile is -1\.0; it must be at least 0"):
        replace(recipe, mile=-1.0)
