"""The decoder that reads spelling: what a character's frames depend on, and a reply of a model that speaks with it."""

from dataclasses import replace

import pytest
import torch
from tiny_chat import chat_assistant

from duologue.checkpoints.state_io import load_state, save_state
from duologue.checkpoints.store import load, save
from duologue.inference.session.answer import Answer
from duologue.model.decoding.reply import reply
from duologue.model.dialogue_state import Sampling
from duologue.model.errors import DuologueError
from duologue.model.layers.batching import kind_of
from duologue.model.speech_decoder.spelling_decoder import SpellingDecoder, SpellingDecoderConfig
from duologue.model.speech_lm import SpeechLM
from duologue.model.tokens import TokenKind

SIZES = SpellingDecoderConfig(in_dim=8, dim=16, layers=1, heads=2, ffn_dim=24, units=9, upsample=2, band=12, kernel=5)


def decoder(**changes):
    torch.manual_seed(0)
    made = SpellingDecoder(replace(SIZES, **changes)).eval()
    torch.nn.init.normal_(made.state_proj.weight)
    made.read_by(lambda ids: "".join(map(chr, ids)))
    return made


def ids_of(text):
    return torch.tensor([[ord(letter) for letter in text]])


@torch.no_grad()
def test_a_character_sees_its_word_to_the_end_and_nothing_behind():
    stage = decoder()
    hidden = torch.randn(1, 9, 8)
    one, other, longer = (stage(hidden, ids_of(text)) for text in ("ab cde fg", "ab cdx fg", "ab cde yz"))
    same = [torch.equal(one[:, 2 * at : 2 * at + 2], other[:, 2 * at : 2 * at + 2]) for at in range(9)]
    assert same == [True, True, False, False, False, False, False, False, False]  # its first letters too
    assert torch.equal(one[:, :12], longer[:, :12]) and not torch.equal(one, longer)
    elsewhere = hidden.clone()
    elsewhere[:, 4] += 1
    moved = stage(elsewhere, ids_of("ab cde fg"))
    assert torch.equal(one[:, :4], moved[:, :4]) and not torch.equal(one[:, 8:10], moved[:, 8:10])


@torch.no_grad()
def test_a_batch_is_its_rows_and_numbers_have_the_frames_of_their_words():
    stage = decoder()
    hidden = torch.randn(2, 5, 8)
    ids = torch.cat([ids_of("in 90"), ids_of("so   ")])
    both = stage(hidden, ids, torch.tensor([5, 2]))
    assert stage.positions([ids[0].tolist()]) == [len("in ninety")]
    assert both.shape[1] == 2 * len("in ninety")
    alone = stage(hidden[1:, :2], ids[1:, :2])
    torch.testing.assert_close(both[1:, :4], alone)
    stretched = stage(hidden, ids, torch.tensor([5, 2]), torch.tensor([30, 4]))
    assert stretched.shape[1] == 30
    torch.testing.assert_close(stretched[1:, :4], alone)


def test_what_cannot_be_is_said():
    with pytest.raises(DuologueError, match="kernel is 4; it must be an odd number"):
        replace(SIZES, kernel=4)
    with pytest.raises(DuologueError, match="give the model its tokenizer with read_by"):
        SpellingDecoder(SIZES).spelling  # noqa: B018
    with pytest.raises(DuologueError, match="batch_size is 2, it must be 1"):
        decoder().init_state(2)


SAID = "photographs of 1969, toughs"


def spelling_chat():
    """A model of random weights that speaks by spelling, and the ids of SAID and of what ends a reply."""
    chat = chat_assistant()
    sizes = replace(SIZES, in_dim=32, units=20, blank_bias=-2.0)
    model = SpeechLM(replace(chat.model.config, unit_decoder=sizes)).eval().read_by(chat.tokenizer)
    torch.nn.init.normal_(model.unit_decoder.state_proj.weight)
    for parameter in model.unit_decoder.parameters():
        parameter.data.mul_(3)
    ids = [*chat.tokenizer.encode(SAID, add_special_tokens=False), model.layout.eos]
    return model, chat.tokenizer, ids


def replying(model, tokenizer):
    state = model.init_state()
    model.read_text(tokenizer.encode("hello"), state)
    return state


@torch.no_grad()
def test_the_units_of_a_reply_are_those_of_its_whole_text(tmp_path):
    """The last word comes with END; a checkpoint knows how words are spelt."""
    made, tokenizer, ids = spelling_chat()
    save(tmp_path / "model", made, tokenizer)
    model = load(tmp_path / "model").model
    state, told = replying(model, tokenizer), iter(ids)
    hidden, steps = [], []
    for step in reply(model, state, Sampling(), choose=lambda: next(told)):
        steps.append(step)
        hidden.append(state.hidden)
    units = torch.cat([step.units for step in steps], dim=1)
    whole = model.speech.collapse(model.unit_decoder(torch.cat(hidden[:-1], dim=1), torch.tensor([ids[:-1]])))
    assert torch.equal(units, whole) and units.shape[1] > 20
    assert steps[-1].kind is TokenKind.END and steps[-1].units.shape[1] and steps[-1].held == 0
    assert steps[0].held == 1 and not steps[0].units.shape[1]  # "ph"
    pcm = torch.cat([step.pcm for step in steps], dim=1)
    torch.testing.assert_close(pcm, model.vocoder(units), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_reply_under_way_is_saved_and_its_steps_are_nobody_elses(tmp_path):
    """Rows of a batch would become different numbers of frames."""
    stage, hidden, ids = decoder(), torch.randn(1, 12, 8), ids_of("photo graphs")
    state = stage.init_state()
    stage.step(hidden[:, :8], state, ids[:, :8])
    assert state.unread.text == " gr" and kind_of(state) != kind_of(state.clone())
    save_state(tmp_path / "state", state)
    ends = [stage.step(hidden[:, 8:], s, ids[:, 8:]) for s in (state, load_state(tmp_path / "state"))]
    tails = [stage.flush(s) for s in (state, load_state(tmp_path / "state"))]
    assert torch.equal(*ends) and tails[0].shape[1] == 2 * len(" graphs") and tails[1].shape[1] == 2 * len(" gr")


@torch.no_grad()
def test_a_word_is_heard_when_its_own_speech_has_been_played():
    model, tokenizer, ids = spelling_chat()
    state, told = replying(model, tokenizer), iter(ids)
    answer = Answer.begin(state)
    step, model.reply_step = model.reply_step, lambda *a, **k: step(*a, **k, forced=next(told))
    while not answer.written:
        answer.advance(model, Sampling(), 1, 10_000)
        answer.play(len(answer.waiting))
        assert answer.heard == len(answer.words) - answer.held
        assert answer.written or answer.held  # no word of SAID is over with its last token
    assert answer.ended and not answer.held and answer.heard == len(ids) - 1
