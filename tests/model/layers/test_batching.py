"""Conversations stepped as one batch: each hears and says what it would alone, whatever lengths the others have."""

import random

import pytest
import torch
from test_llm import FAMILIES, build

from duologue.model.adaptor.stack import StackAdaptor, StackConfig
from duologue.model.audio_encoder.mel import LogMel, LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from duologue.model.duplex.vad import VAD
from duologue.model.language_model.causal_lm import LLMState
from duologue.model.layers.batching import kind_of, together
from duologue.model.layers.kv_cache import KVBuffer
from duologue.model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from duologue.model.streaming import Chain, State

CONVERSATIONS = 5


def audio_encoder():
    encoder = WhisperEncoderConfig(
        n_mels=16, n_audio_ctx=64, n_audio_state=24, n_audio_head=2, n_audio_layer=2, chunk=8, left_context=16,
        causal_conv=True,
    )  # fmt: skip
    adaptor = StackConfig(in_dim=24, hidden_dim=16, out_dim=8, stack=4)
    return Chain(LogMel(LogMelConfig(n_mels=16)), WhisperEncoder(encoder), StackAdaptor(adaptor))


def unit_decoder(band, kv_heads=None):
    return UnitDecoder(
        UnitDecoderConfig(
            in_dim=32, dim=32, layers=2, heads=4, kv_heads=kv_heads, ffn_dim=48, units=20, upsample=5, band=band,
            fuse_token=True, sub_position=True,
        )
    )  # fmt: skip


def sound():
    return (torch.randn(1, random.choice((1280, 1280, 1280, 2560, 100))),)


def states():
    return (torch.randn(1, random.choice((1, 1, 1, 2)), 32),)


def states_and_words():
    hidden = torch.randn(1, random.choice((1, 1, 1, 4)), 32)
    return hidden, torch.randn_like(hidden)


STAGES = {
    "vad": (VAD, "step", sound),
    "encoder": (audio_encoder, "step", sound),
    "units": (lambda: unit_decoder(None), "step", states_and_words),
    "units-banded": (lambda: unit_decoder(3, kv_heads=2), "step", states_and_words),
    **{family: (lambda family=family: build(family), "extend", states) for family in FAMILIES},
}


def leaves(value):
    """All that a state remembers, buffers as what they show."""
    if isinstance(value, KVBuffer):
        return [value.length, value.keys, value.values]
    if isinstance(value, State):
        return [leaf for each in vars(value).values() for leaf in leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    return [value]


def assert_close(found, wanted):
    assert found.shape == wanted.shape
    assert found.numel() == 0 or (found - wanted).abs().max() <= 1e-5 * wanted.abs().max().clamp(min=1)


def assert_alike(found, wanted):
    for one, other in zip(leaves(found), leaves(wanted), strict=True):
        if isinstance(other, torch.Tensor):
            assert_close(one, other)
        else:
            assert one == other


def call_of(given, state):
    return (given[0], state, *given[1:])


@torch.inference_mode()
@pytest.mark.parametrize("name", STAGES)
def test_together_is_as_alone(name):
    """Conversations come and go, are cloned, cut and resumed from before, as sessions do it."""
    torch.manual_seed(0)
    random.seed(0)
    make, method, draw = STAGES[name]
    stage = make().eval()
    step = getattr(stage, method)
    shared, alone = ([stage.init_state(1) for _ in range(CONVERSATIONS)] for _ in range(2))
    kept: dict[int, tuple] = {}
    sizes = []
    for turn in range(40):
        groups: dict = {}
        for i in range(CONVERSATIONS):
            if random.random() < 0.8:
                call = call_of(given := draw(), shared[i])
                groups.setdefault(kind_of(call), []).append((i, call, step(*call_of(given, alone[i]))))
        for group in groups.values():
            outputs = together(step, [call for _, call, _ in group])
            for (_, _, wanted), found in zip(group, outputs, strict=True):
                assert_close(found, wanted)
            lengths = {tuple(leaf for leaf in leaves(shared[i]) if isinstance(leaf, int)) for i, _, _ in group}
            sizes.append((len(group), len(lengths)))
        i = turn % CONVERSATIONS
        if turn % 7 == 3:  # prepare an answer, and forget it later
            kept[i] = shared[i].clone(), alone[i].clone()
        elif turn % 7 == 5 and i in kept:
            shared[i], alone[i] = kept.pop(i)
        elif turn % 7 == 6 and isinstance(shared[i], LLMState):
            for state in (shared[i], alone[i]):
                state.truncate(state.length // 2)
        elif turn % 11 == 10:  # somebody new
            shared[i], alone[i] = stage.init_state(1), stage.init_state(1)
    for found, wanted in zip(shared, alone, strict=True):
        assert_alike(found, wanted)
    for found, wanted in kept.values():  # what was kept did not change when its conversation went on
        assert_alike(found, wanted)
        given = draw()
        assert_close(step(*call_of(given, found)), step(*call_of(given, wanted)))
    assert max(size for size, _ in sizes) >= 3
    if name != "vad":  # it has no past but an LSTM's
        assert max(lengths for _, lengths in sizes) >= 2, "rows of one batch were to differ in length"


def test_kinds():
    llm, decoder = build(), unit_decoder(3)
    x = torch.zeros(1, 1, 32)
    grown = llm.init_state()
    llm.extend(torch.zeros(1, 5, 32), grown)
    assert kind_of((x, grown)) == kind_of((x, llm.init_state()))
    assert kind_of((x, grown)) != kind_of((torch.zeros(1, 2, 32), grown))
    assert kind_of((x, decoder.init_state())) != kind_of((x, unit_decoder(4).init_state()))
    assert kind_of((x, None)) != kind_of((x, x)) and kind_of(1) != kind_of(True) and kind_of(1) != kind_of(2)
    generator = torch.Generator()
    assert kind_of(generator) != kind_of(generator), "what is not known to be a value is not shared"
    encoder_of = audio_encoder()
    early, late = encoder_of.init_state(), encoder_of.init_state()
    encoder_of.step(torch.zeros(1, 1280), late)
    assert kind_of((early,)) != kind_of((late,)), "half a chunk waits in one of them"


@torch.inference_mode()
def test_a_step_that_fails_changes_nothing():
    decoder, torch_x = unit_decoder(3), torch.randn(1, 1, 32)
    states_ = [decoder.init_state() for _ in range(3)]
    for n, state in enumerate(states_):
        for _ in range(2 * n + 1):
            decoder.step(torch_x, state, torch_x)
    before = [state.clone() for state in states_]

    def failing(x, state, words):
        decoder.step(x, state, words)
        raise ValueError("after the buffers have grown")

    with pytest.raises(ValueError, match="after"):
        together(failing, [(torch_x, state, torch_x) for state in states_])
    for state, wanted in zip(states_, before, strict=True):
        assert_alike(state, wanted)
        assert_close(decoder.step(torch_x, state, torch_x), decoder.step(torch_x, wanted, torch_x))
