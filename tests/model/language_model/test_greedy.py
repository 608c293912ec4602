"""Many prompts continued at once say what each says alone."""

from __future__ import annotations

import pytest
import torch
from any_model import tiny_llm

from duologue.checkpoints.parts import load_llm
from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM
from duologue.model.language_model.greedy import continue_all

PROMPTS = [[5, 6, 7, 8, 9, 1, 2, 3], [5, 6, 7, 4], [5, 6, 7, 8, 9, 1, 2, 30, 31, 32, 33], [5, 6, 7, 40, 41]]


@pytest.fixture(scope="module", params=["llama", "mistral"])
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LLM:
    sizes = {"sliding_window": 6} if request.param == "mistral" else {}
    model, _ = load_llm(tiny_llm(tmp_path_factory.mktemp("llm"), request.param, **sizes))
    with torch.no_grad():  # a random model of two layers repeats its last token otherwise
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def alone(llm: LLM, prompt: list[int], most: int) -> list[int]:
    state, ids, said = llm.init_state(), prompt, []
    for _ in range(most):
        ids = [int(llm.step(llm.embed(torch.tensor([ids])), state).logits[0, -1].argmax())]
        said += ids
    return said


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1], PROMPTS[1:2] * 2, [[7], *PROMPTS]])
def test_each_as_if_alone(llm: LLM, prompts: list[list[int]]) -> None:
    """With a common beginning, without one, and where all of a prompt is common."""
    wanted = [alone(llm, prompt, 12) for prompt in prompts]
    assert len({tuple(ids) for ids in wanted}) == len({tuple(prompt) for prompt in prompts})
    found = continue_all(llm, prompts, (), 12)
    assert [one.ids for one in found] == wanted and not any(one.ended for one in found)


def test_each_ends_by_itself(llm: LLM) -> None:
    wanted = [alone(llm, prompt, 12) for prompt in PROMPTS]
    ends = {wanted[0][3], wanted[1][6]}
    found = continue_all(llm, PROMPTS, ends, 12)
    for one, whole in zip(found, wanted, strict=True):
        stop = next((at for at, token in enumerate(whole) if token in ends), None)
        assert (one.ids, one.ended) == (whole[:stop], stop is not None)
    found = continue_all(llm, PROMPTS, (), 12, enough=lambda ids: len(ids) == 2 or ids[-1] == wanted[2][0])
    assert [len(one.ids) for one in found] == [1 if whole[0] == wanted[2][0] else 2 for whole in wanted]
    assert all(one.ended for one in found)


def test_nothing_to_continue(llm: LLM) -> None:
    assert continue_all(llm, [], (), 3) == []
    with pytest.raises(DuologueError, match="a prompt is empty"):
        continue_all(llm, [[1], []], (), 3)
