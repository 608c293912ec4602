"""What is grown does at first what it did."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM
from duologue.model.speech_decoder.source_filter import SourceFilterConfig
from duologue.model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.training.grow import Config, grown_llm, grown_unit_decoder, narrowed_vocoder
from duologue.training.presets.tiny import llm as tiny_llm


def test_an_llm_of_more_layers_says_what_it_said():
    torch.manual_seed(0)
    was = tiny_llm()
    old = LLM(was)
    with torch.no_grad():  # a column that does nothing, and is therefore the one to go
        for layer in (0, 1):
            old.get_parameter(f"lm.model.layers.{layer}.mlp.down_proj.weight")[:, 7] = 0
    new = grown_llm(old, was, was | {"num_hidden_layers": 5, "intermediate_size": 127})
    x = old.embed(torch.randint(3, 60, (2, 9)))
    assert torch.allclose(new(x).logits, old(x).logits, atol=1e-5)
    assert new.get_parameter("lm.model.layers.4.mlp.gate_proj.weight").shape == (127, 64)
    new(x).logits.square().mean().backward()
    silent = [new.get_parameter(f"lm.model.layers.{i}.mlp.down_proj.weight") for i in range(5)]
    assert sum(not weight.any() for weight in silent) == 3
    assert all(weight.grad is not None and weight.grad.any() for weight in silent)  # and yet they learn


@pytest.mark.parametrize("change", [{"num_hidden_layers": 1}, {"intermediate_size": 129}, {"hidden_size": 128}])
def test_an_llm_does_not_shrink(change):
    was = tiny_llm()
    with pytest.raises(DuologueError, match="cannot become"):
        grown_llm(LLM(was), was, was | change)


SIZES = UnitDecoderConfig(
    in_dim=16, dim=32, layers=2, heads=2, ffn_dim=48, units=20, upsample=4, band=3, fuse_token=True, sub_position=True
)


def test_a_decoder_of_tokens_keeps_its_layers_and_knows_which_tokens_are_alike():
    torch.manual_seed(0)
    old = UnitDecoder(SIZES)
    entries = torch.randn(50, 8)
    entries[1] = entries[0] + 0.01
    new = grown_unit_decoder(old, replace(SIZES, units=50, upsample=10), entries)
    kept, there = old.layers[1].state_dict(), new.layers[1].state_dict()
    assert kept.keys() == there.keys() and all(torch.equal(tensor, there[name]) for name, tensor in kept.items())
    assert torch.equal(new.sub_position[[0, -1]], old.sub_position[[0, -1]]) and new.sub_position.shape == (10, 32)
    logits = new(torch.randn(1, 5, 16), torch.randn(1, 5, 16))[0]  # (50, 51)
    assert logits.shape == (50, 51)
    apart = (logits[:, :50] - logits[:, :1]).abs().mean(0)
    assert apart[1] < 0.1 * apart[2:].min()


def test_what_does_not_fit_is_refused(tmp_path):
    old = UnitDecoder(SIZES)
    with pytest.raises(DuologueError, match=r"entries are \(50, 8\)"):
        grown_unit_decoder(old, SIZES, torch.randn(50, 8))
    with pytest.raises(DuologueError, match="cannot become"):
        grown_unit_decoder(old, replace(SIZES, layers=3), torch.randn(20, 8))
    with pytest.raises(DuologueError, match="what is to grow"):
        Config(unit_decoder="nano")


def test_a_narrower_vocoder_keeps_the_channels_that_do_most():
    sizes = UnitVocoderConfig(units=9, embedding_dim=8, duration_hidden=8, source_filter=SourceFilterConfig(
        dim=16, ffn_dim=12, layers=2, cepstrum=20, noise_cepstrum=10))  # fmt: skip
    torch.manual_seed(0)
    old = UnitVocoder(sizes).eval()
    idle = [1, 4, 5, 11]  # channels that nothing is made of
    with torch.no_grad():
        for block in old.generator.blocks:
            block.pwconv2.weight[:, idle] = 0
    becomes = replace(sizes, source_filter=replace(sizes.source_filter, ffn_dim=8))
    new = narrowed_vocoder(old, becomes).eval()
    units = torch.arange(9)[None]
    torch.testing.assert_close(new.predict_durations(units), old.predict_durations(units))
    given, wanted = (each.generator.controls(each.embed(units)) for each in (new, old))
    torch.testing.assert_close(given.pulses, wanted.pulses)
    with pytest.raises(DuologueError, match="cannot become one of"):
        narrowed_vocoder(old, replace(becomes, units=10))
    with pytest.raises(DuologueError, match="cannot become one of"):
        narrowed_vocoder(new, sizes)
