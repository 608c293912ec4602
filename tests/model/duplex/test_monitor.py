"""Two monitors, one opinion; and when the word monitor is asked for its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_assistant import tiny_assistant, tiny_config

from duologue.model.duplex.monitor import TURN_STATES, Monitor, MonitorConfig, TurnState, fuse
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import Sampling, SpeechLM, TokenKind

QUERY, NOISE, WAIT = (
    TURN_STATES.index(turn_state) for turn_state in (TurnState.QUERY, TurnState.NOISE, TurnState.WAIT)
)
opinions = st.lists(st.floats(-6, 6), min_size=3, max_size=3).map(lambda x: torch.tensor(x).softmax(dim=0))


@given(opinions, opinions)
def test_words_tell_a_turn_from_noise_and_not_whether_it_is_over(heard: torch.Tensor, read: torch.Tensor) -> None:
    both = fuse(heard, read)
    assert both.sum() == pytest.approx(1, abs=1e-5) and fuse(heard, None) is heard
    assert float(both[QUERY] / both[WAIT]) == pytest.approx(float(heard[QUERY] / heard[WAIT]), rel=1e-3)
    assert bool(both[NOISE] > heard[NOISE]) == bool(read[NOISE] > 0.5) or abs(float(read[NOISE]) - 0.5) < 1e-4


def test_neither_opinion_is_beyond_the_other() -> None:
    sure, very = torch.tensor([0.995, 0.005, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert fuse(sure, very)[QUERY] > 0.7, "it is trusted so far"
    assert fuse(torch.tensor([0.7, 0.3, 0.0]), very)[NOISE] > 0.9


def monitored() -> SpeechLM:
    """A tiny model with a script, and a word monitor that is asked."""
    model = tiny_assistant().model
    torch.manual_seed(3)
    model.word_monitor = Monitor(MonitorConfig(in_dim=32, hidden_dim=8))
    return model


@torch.no_grad()
def test_it_is_asked_once_behind_the_words() -> None:
    model = monitored()
    state, asked = model.init_state(), []
    assert model.word_monitor is not None
    model.word_monitor.register_forward_hook(lambda module, given, out: asked.append(given[0]))
    model.begin_turn(state)
    model.listen(torch.randn(1, 16_000), state)
    model.end_turn(state)
    while (step := model.reply_step(state, Sampling())).kind is not TokenKind.REPLY:
        assert state.word_turn_state is None and step.kind is not TokenKind.END
    assert state.word_turn_state is not None and state.word_turn_state.shape == (3,)
    assert float(state.word_turn_state.sum()) == pytest.approx(1, abs=1e-5)
    reply = model.llm.embed(torch.tensor([[model.config.layout.reply]]))
    plain = model.llm(reply).hidden[0, -1]  # the script's states are those of the last token alone
    assert torch.allclose(asked[0], plain, atol=1e-4), "the state behind <reply>"
    while model.reply_step(state, Sampling()).kind is not TokenKind.END:
        pass
    assert len(asked) == 1
    model.begin_turn(state)
    assert state.word_turn_state is None, "a new turn has new words"


@torch.no_grad()
def test_what_is_typed_is_not_judged() -> None:
    model = monitored()
    state = model.init_state()
    model.read_text([model.config.layout.text[0]], state)
    while model.reply_step(state, Sampling()).kind is not TokenKind.END:
        pass
    assert state.word_turn_state is None


def test_a_word_monitor_needs_words_and_a_width_that_fits() -> None:
    config = tiny_config()
    with pytest.raises(DuologueError, match=r"word_monitor\.in_dim is 16; it must be 32, as adaptor\.out_dim"):
        dataclasses.replace(config, word_monitor=MonitorConfig(in_dim=16))
    silent = dataclasses.replace(config.layout, transcript=None, reply=None)
    with pytest.raises(DuologueError, match="judges a transcript, but the layout has none"):
        dataclasses.replace(config, layout=silent, word_monitor=MonitorConfig(in_dim=32))
