"""A step by a model's own layers gives what transformers' model gives, alone and in company."""

from __future__ import annotations

import pytest
import torch

from duologue.model.language_model import llama_step
from duologue.model.language_model.causal_lm import LLM
from duologue.model.layers.batching import together

SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip


def llm(kind: str, **more: object) -> LLM:
    torch.manual_seed(0)
    model = LLM({"model_type": kind, **SIZES, **more}).eval()
    for parameter in model.parameters():  # norms and biases too
        parameter.data = torch.randn_like(parameter) / 3
    return model


@pytest.mark.parametrize(
    ("kind", "more"),
    [("llama", {}), ("llama", {"rope_parameters": LLAMA3}), ("llama", {"attention_bias": True}), ("qwen2", {}),
     ("llama", {"head_dim": 16})],
)  # fmt: skip
def test_a_step_is_as_transformers_makes_it(
    kind: str, more: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = llm(kind, **more)
    pieces = [torch.randn(1, length, 32) for length in (5, 1, 3, 1)]
    assert llama_step.takes(model.lm.base_model, pieces[0])

    def fed() -> torch.Tensor:
        state = model.init_state()
        return torch.cat([model.extend(piece, state) for piece in pieces], dim=1)

    def shared() -> torch.Tensor:
        states = [model.init_state() for _ in range(3)]
        for length, state in zip((2, 7, 4), states, strict=True):
            model.extend(pieces[0].repeat(1, 2, 1)[:, :length], state)
        first = together(model.extend, [(pieces[2], state) for state in states])
        return torch.cat([*first, *together(model.extend, [(pieces[1], state) for state in states])], dim=1)

    found = fed(), shared()
    monkeypatch.setattr(llama_step, "takes", lambda *_: False)
    for mine, theirs in zip(found, (fed(), shared()), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_other_families_are_left_to_transformers() -> None:
    x = torch.randn(1, 1, 32)
    sliding = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    for model in (llm("gpt_neox"), llm("qwen2", **sliding), llm("llama").bfloat16()):
        embeds = x.to(next(model.parameters()).dtype)
        assert not llama_step.takes(model.lm.base_model, embeds)
        assert model.extend(embeds, model.init_state()).shape == x.shape
    spread = llm("llama").lm.base_model
    spread.layers[1].register_forward_pre_hook(lambda module, given: given)
    assert not llama_step.takes(spread, x)
