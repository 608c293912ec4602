"""The language model fed in pieces: equal to one whole pass, for several families; its cache cloned and cut."""

import pytest
import torch

from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM

SMALL = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0}  # fmt: skip
FAMILIES = {
    "llama": {"model_type": "llama"},
    "llama-untied-heads": {"model_type": "llama", "head_dim": 16, "num_key_value_heads": 4},
    "llama3": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
                            "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
    },
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "qwen2-sliding": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    "mistral": {"model_type": "mistral", "sliding_window": 6},
    "phi3": {"model_type": "phi3"},
    "gpt2": {"model_type": "gpt2"},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 4},
    "granite": {"model_type": "granite", "logits_scaling": 6.0},
    "gemma2-capped": {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": 0.1},
}  # fmt: skip
each_family = pytest.mark.parametrize("family", FAMILIES)


def build(family="llama"):
    torch.manual_seed(0)
    llm = LLM({**SMALL, **FAMILIES[family]}).eval()
    return llm.requires_grad_(False)


def inputs(length, batch=1):
    return torch.randn(batch, length, 32)


def feed(llm, x, state, sizes):
    """Logits of x fed in pieces of these sizes, over and over."""
    outputs, at, turn = [], 0, 0
    while at < x.shape[1]:
        size = sizes[turn % len(sizes)]
        outputs.append(llm.step(x[:, at : at + size], state).logits)
        at, turn = at + size, turn + 1
    return torch.cat(outputs, dim=1)


def assert_close(a, b):
    assert a.shape == b.shape
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@each_family
@pytest.mark.parametrize("sizes", [[1], [3, 1, 0, 8, 2], [13], [30]], ids=str)
def test_pieces_equal_the_whole(family, sizes):
    """Also: a piece of several tokens behind a cache is masked causally."""
    llm, x = build(family), inputs(30, batch=2)
    whole = llm(x)
    state = llm.init_state(2)
    assert_close(feed(llm, x, state, sizes), whole.logits)
    assert state.length == 30
    assert_close(llm.head(whole.hidden), whole.logits)


@each_family
def test_padding_changes_nothing(family):
    llm, x = build(family), inputs(12, batch=2)
    mask = torch.ones(2, 12, dtype=torch.long)
    mask[1, 7:] = 0
    padded = llm(x, mask).logits
    assert_close(padded[:1], llm(x[:1]).logits)
    assert_close(padded[1:, :7], llm(x[1:, :7]).logits)


def test_agrees_with_generation_by_transformers():
    """Our cache and theirs choose the same tokens."""
    llm = build()
    ids = torch.randint(1, 50, (1, 9))
    theirs = llm.lm.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 9:]
    state = llm.init_state()
    token, ours = llm.step(llm.embed(ids), state).logits[:, -1].argmax(-1), []
    for _ in range(20):
        ours.append(int(token))
        token = llm.step(llm.embed(token[None]), state).logits[:, -1].argmax(-1)
    assert ours == theirs.tolist()


@each_family
def test_clone_then_step_both(family):
    llm = build(family)
    past, one, other = inputs(20), inputs(15), inputs(15)
    state = llm.init_state()
    llm.step(past, state)
    clone = state.clone()
    a, b = [], []
    for i in range(15):  # in turns, so that each could trample on the other
        a.append(llm.step(one[:, i : i + 1], state).logits)
        b.append(llm.step(other[:, i : i + 1], clone).logits)
    assert_close(torch.cat(a, dim=1), llm(torch.cat([past, one], dim=1)).logits[:, 20:])
    assert_close(torch.cat(b, dim=1), llm(torch.cat([past, other], dim=1)).logits[:, 20:])


@each_family
def test_truncating_is_as_if_it_had_never_gone_on(family):
    llm = build(family)
    past, regretted, instead = inputs(18), inputs(9), inputs(11)
    state = llm.init_state()
    llm.step(past, state)
    listener = state.clone()
    llm.step(regretted, state)
    state.truncate(14)
    assert state.length == 14
    again = feed(llm, instead, state, [4])
    assert_close(again, llm(torch.cat([past[:, :14], instead], dim=1)).logits[:, 14:])
    assert_close(llm.step(instead, listener).logits, llm(torch.cat([past, instead], dim=1)).logits[:, 18:])


def test_a_clone_of_a_long_cache_copies_nothing():
    llm = build()
    state = llm.init_state()
    with torch.no_grad():
        for layer in state.layers:
            layer.append(torch.randn(1, 2, 4096, 8), torch.randn(1, 2, 4096, 8))
    clone = state.clone()
    for mine, theirs in zip(state.layers, clone.layers, strict=True):
        assert mine.keys.data_ptr() == theirs.keys.data_ptr()
        assert mine.values.data_ptr() == theirs.values.data_ptr()
    before = [layer.keys.data_ptr() for layer in state.layers]
    llm.step(inputs(1), state)
    state.truncate(100)
    assert [layer.keys.data_ptr() for layer in state.layers] == before
    assert clone.length == 4096


def test_a_state_moves_as_a_copy():
    llm, x = build(), inputs(10)
    state = llm.init_state()
    llm.step(x[:, :6], state)
    moved = state.to("cpu")
    llm.step(inputs(4), state)
    assert_close(llm.step(x[:, 6:], moved).logits, llm(x).logits[:, 6:])


def test_training_reaches_the_embeddings():
    llm = build().requires_grad_(True)
    x = inputs(6).requires_grad_()
    llm(x).logits.square().sum().backward()
    assert x.grad is not None and all(p.grad is not None for p in llm.lm.base_model.layers.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model_type None"),
        ({"model_type": "lama"}, "'lama' is not accepted"),
        ({"model_type": "llama", "num_attention_heads": 5, "hidden_size": 32}, "not accepted"),
    ],
    ids=["none", "unknown", "misfit"],
)  # fmt: skip
def test_a_config_that_cannot_be_used_is_one_clear_line(config, message):
    with pytest.raises(DuologueError, match=message) as caught:
        LLM(config)
    assert "\n" not in str(caught.value)


def test_it_may_compute_in_another_dtype_than_its_neighbours() -> None:
    torch.manual_seed(0)
    llm = LLM({**SMALL, **FAMILIES["llama"]}).eval()
    ids = torch.arange(9)[None]
    wanted = llm.step(llm.embed(ids), llm.init_state())
    whole = llm.states(llm.embed(ids))
    llm.compute_in(torch.bfloat16)
    assert {parameter.dtype for parameter in llm.parameters()} == {torch.bfloat16}
    state = llm.init_state()
    parts = [llm.step(piece, state) for piece in llm.embed(ids).split(4, dim=1)]
    for found, right in (
        (torch.cat([part.hidden for part in parts], dim=1), wanted.hidden),
        (torch.cat([part.logits for part in parts], dim=1), wanted.logits),
        (llm.states(llm.embed(ids)), whole),
        (llm.states(llm.embed(ids), segments=torch.zeros(1, 9, dtype=torch.long)), whole),
    ):
        assert found.dtype is torch.float32 and not torch.equal(found, right)
        assert (found - right).norm() < 0.02 * right.norm()
