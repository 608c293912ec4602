"""Words looked for by a beam: what hot words and n-gram models change is transcript, reply and times alike."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_assistant import Loudness, tiny_assistant
from tiny_chat import brief
from tiny_words import RATE, tones, words_assistant

from duologue.inference.assistant.one_shot import OneShotRequest
from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.assistant.word_lists import (
    beside_its_own,
    decoder_of,
    expected,
    hot_words,
    phrases_in,
    phrases_of,
)
from duologue.inference.session.events import EventKind
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.decoding.beam import BeamConfig
from duologue.model.decoding.decoder import FEW, MANY, DecoderConfig, HotWord, _phrases
from duologue.model.decoding.grammars.jsgf import parse
from duologue.model.decoding.ngrams.counts import count, vocabulary
from duologue.model.decoding.ngrams.smoothing import estimate
from duologue.model.decoding.reply import reply
from duologue.model.dialogue_state import Sampling
from duologue.model.errors import DuologueError

SAID = "the capital of France"
MOST = Sampling(max_tokens=5)


@pytest.fixture(scope="module")
def assistant():
    """Its " of" may be " is", its " capital" " France"."""
    return brief(words_assistant(vague=True))


def replied(model, state) -> list[int]:
    return [step.token for step in reply(model, state, MOST)]


def heard(model, text: str, chunk: int = 1111):
    state = model.init_state()
    model.begin_turn(state)
    for piece in torch.from_numpy(tones(text, 0.3, 0.2))[None].split(chunk, dim=1):
        model.listen(piece, state)
    model.end_turn(state)
    return state


def test_a_hot_word_is_heard_and_answered(assistant) -> None:
    """The words that a search finds are the transcript, and what the language model hears."""
    hot = assistant.with_decoder(DecoderConfig(hot_words=(HotWord("Is"),)))
    assert transcribe(assistant, tones(SAID)) == SAID
    assert transcribe(hot, tones(SAID)) == "the capital is France"
    model = hot.model
    state = heard(model, SAID)
    ids = [token.token for token in state.transcript.tokens]
    assert assistant.tokenizer.decode(ids) == " the capital is France"
    read = model.init_state()
    model.read_text(ids, read)
    assert replied(model, state)[len(ids) :] == replied(model, read)
    assert transcribe(assistant, tones(SAID)) == SAID, "the model that it is a view of stays as it was"
    assert hot.with_decoder(None).model.decoder is None
    assert transcribe(hot.with_decoder(None), tones(SAID)) == SAID


def test_words_have_their_times(assistant) -> None:
    for given in (assistant, assistant.with_decoder(decoder_of(hotwords="is"))):
        state = heard(given.model, SAID)
        times = [(token.start, token.confidence) for token in state.transcript.tokens]
        assert [start for start, _ in times] == pytest.approx([0.3, 0.62, 0.94, 1.26], abs=0.05)
    assert times[2][1] < 0.5 < times[0][1], "less sure of the word that it was told"


def test_the_n_best_have_scores_and_times(assistant) -> None:
    pcm = torch.from_numpy(tones(SAID, 0.3, 0.2))[None]
    hot = assistant.with_decoder(decoder_of(beam=4, hotwords="is:1.5")).model
    found = hot.n_best(pcm)
    texts = [assistant.tokenizer.decode([token.token for token in text.tokens]).strip() for text in found]
    assert texts == ["the capital is France", SAID, "the France is France", "the France of France"]
    assert [text.score for text in found] == sorted((text.score for text in found), reverse=True)
    assert found[0].score == pytest.approx(found[0].ctc + 1.5) and found[1].score == pytest.approx(found[1].ctc)
    assert found[1].ctc - found[0].ctc == pytest.approx(1.0, abs=0.01), "of its one vague frame"
    assert [token.start for token in found[3].tokens] == pytest.approx([0.3, 0.62, 0.94, 1.26], abs=0.05)
    assert found[0].tokens == heard(hot, SAID).transcript.tokens
    with pytest.raises(DuologueError, match="found by a decoder"):
        assistant.model.n_best(pcm)


@pytest.mark.parametrize("chunk", [160, 1280, 10**6])
def test_in_any_chunks_and_in_a_window(assistant, chunk: int) -> None:
    model = assistant.with_decoder(decoder_of(hotwords="is")).model
    tokens = heard(model, SAID, chunk).transcript.tokens
    assert [token.token for token in tokens] == [token.token for token in heard(model, SAID).transcript.tokens]
    assert model.while_speaking().decoder is model.decoder
    apart = heard(model.without_replies(), SAID, chunk)
    assert apart.transcript.tokens == tokens


def test_a_list_is_swapped_within_a_turn(assistant) -> None:
    """What is not final yet is found as the decoder of the moment says."""
    hot, state = assistant.with_decoder(decoder_of(hotwords="is, France")).model, assistant.model.init_state()
    assistant.model.begin_turn(state)
    first, second = (torch.from_numpy(tones(*said))[None] for said in (("the capital", 0.3), ("of France",)))
    assistant.model.listen(first, state)
    hot.listen(second[:, :1600], state)  # no pause yet
    kept = state.clone()
    for model, heard_so_far in ((hot, state), (assistant.model, kept)):
        model.listen(second[:, 1600:], heard_so_far)
        model.end_turn(heard_so_far)
    decode = assistant.tokenizer.decode
    assert decode([token.token for token in state.transcript.tokens]) == " the capital is France"
    assert decode([token.token for token in kept.transcript.tokens]) == " the capital of France"


@pytest.mark.parametrize("units", ["plain", "tokens"])
def test_an_n_gram_model_decides_what_is_vague(assistant, units: str) -> None:
    sentences = [["the", "capital", "is", "france"]] * 4 + [["the", "capital", "of", "france"]]
    if units == "tokens":
        encode = assistant.tokenizer.encode
        sentences = [[str(encode(" France" if word == "france" else f" {word}", add_special_tokens=False)[0])
                      for word in row] for row in sentences]  # fmt: skip
    lm = estimate(count(lambda: sentences, vocabulary(sentences), 2), units=units)
    told = assistant.with_decoder(DecoderConfig(lm=lm, lm_weight=2.0))
    assert transcribe(told, tones(SAID)) == "the capital is France"
    assert transcribe(assistant.with_decoder(DecoderConfig(lm=lm, lm_weight=0.0)), tones(SAID)) == SAID


def test_a_models_own_decoder_stays_unless_another_is_asked_for() -> None:
    sentences = [["the", "capital"]]
    lm, other = (estimate(count(lambda: sentences, vocabulary(sentences), order), units="plain") for order in (1, 2))
    own = DecoderConfig(lm=lm, lm_weight=0.3, lm_bonus=2.0, beam=BeamConfig(width=6))
    assert beside_its_own(None, own) is own and beside_its_own(None, own, beam=1) is None
    hot = beside_its_own(decoder_of(hotwords="France"), own)
    assert hot == dataclasses.replace(own, hot_words=hot_words(["France"]))
    assert beside_its_own(decoder_of(3), own, 3) == dataclasses.replace(own, beam=BeamConfig(width=3))
    asked = DecoderConfig(lm=other)
    assert beside_its_own(asked, own) is asked and beside_its_own(asked, None) is asked


def test_of_a_grammar_one_text_is_heard(assistant, tmp_path: Path) -> None:
    """What it allows and nothing else, as the transcript and by the language model; with the times of its words."""
    pytest.importorskip("kaldifst")
    rules = "#JSGF V1.0;\ngrammar g;\npublic <x> = the (France | capital) is <y>; <y> = France;\n"
    (tmp_path / "orders.jsgf").write_text(rules)
    model = assistant.with_decoder(decoder_of(grammar=tmp_path / "orders.jsgf")).model
    tokens = heard(model, SAID).transcript.tokens
    assert assistant.tokenizer.decode([token.token for token in tokens]) == " the capital is France"
    assert heard(model, SAID, 160).transcript.tokens == tokens
    assert [token.start for token in tokens] == pytest.approx([0.3, 0.62, 0.94, 1.26], abs=0.05)
    assert [text.tokens for text in model.n_best(torch.from_numpy(tones(SAID, 0.3, 0.2))[None])] == [tokens]
    (tmp_path / "orders.jsgf").write_text("<x> = Zürich;")
    with pytest.raises(DuologueError, match=r"orders\.jsgf: the word 'Zürich' cannot be spelt"):
        assistant.with_decoder(decoder_of(grammar=tmp_path / "orders.jsgf"))
    (tmp_path / "orders.jsgf").write_text("<x> = the;")
    with pytest.raises(DuologueError, match="give hot words and n-gram models without a grammar"):
        decoder_of(grammar=tmp_path / "orders.jsgf", hotwords="is")


def test_lists_of_requests_change_at_once(assistant) -> None:
    request = OneShotRequest(assistant, assistant.vad)

    def written() -> str:
        request.begin(True)
        request.hear(tones(SAID, 0.3, 0.2))
        request.end()
        return request.step(MOST, 20, aloud=False).transcript.strip()

    found = [written()]
    for words in (["is"], ["France"], []):
        request.expect(words)
        found.append(written())
    assert found == [SAID, "the capital is France", "the France of France", SAID]


def test_keywords_of_a_session_change_at_once(assistant, tmp_path: Path) -> None:
    def heard_by(session: Session) -> list[str]:
        wave = tones(SAID, 0.4, 2.0)
        wave = np.pad(wave, (0, -len(wave) % session.frame))
        events = [event for at in range(0, len(wave), session.frame)
                  for event in session.tick(wave[at : at + session.frame]).events]  # fmt: skip
        return [event.text for event in events if event.kind is EventKind.USER_TEXT]

    config = SessionConfig(sampling=MOST, keywords=("is",))
    session = Session(assistant, config, vad=Loudness())
    assert heard_by(session) == ["the capital is France"]
    session.save(tmp_path / "saved")
    assert heard_by(Session.load(tmp_path / "saved", assistant, vad=Loudness())) == ["the capital is France"]
    session.configure(dataclasses.replace(config, keywords=()))
    assert heard_by(session) == [SAID]
    with pytest.raises(DuologueError, match="'Zürich' cannot be spelt"):
        session.configure(dataclasses.replace(config, keywords=("Zürich",)))
    assert session.config.keywords == () and heard_by(session) == [SAID]


def test_what_a_language_model_writes_is_searched_too() -> None:
    """The same decoder, over transcripts that the model itself writes: hot words and n-grams change them."""
    written = tiny_assistant()
    pcm = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    clip = torch.from_numpy(pcm)[None]

    def ids(model) -> list[int]:
        state = model.init_state()
        model.begin_turn(state)
        model.listen(clip, state)
        model.end_turn(state)
        return [step.token for step in reply(model, state, Sampling(max_tokens=30), aloud=False)]

    plain = ids(written.model)
    decode = written.tokenizer.decode
    end = plain.index(written.model.layout.reply)
    assert ids(written.with_decoder(DecoderConfig(beam=BeamConfig(width=1))).model) == plain, "the likeliest each time"
    wide = BeamConfig(margin=np.inf, near=np.inf, labels=999)
    hot = written.with_decoder(DecoderConfig(hot_words=(HotWord("zero", 30.0),), beam=wide))
    found = hot.model.n_best(clip)
    texts = [decode([token.token for token in text.tokens]) for text in found]
    assert "zero" not in decode(plain[:end]) and "zero" in texts[0]
    assert [text.score for text in found] == sorted((text.score for text in found), reverse=True)
    heard = ids(hot.model)
    assert decode(heard[: heard.index(written.model.layout.reply)]) == texts[0]
    assert ids(hot.with_decoder(None).model) == plain and not written.model.spells("xylophone")
    with pytest.raises(DuologueError, match="'xylophone' cannot be spelt"):
        written.with_decoder(decoder_of(hotwords="xylophone"))
    with pytest.raises(DuologueError, match="a grammar is looked for in CTC's posteriors"):
        written.with_decoder(DecoderConfig(grammar=parse("<x> = zero;", "g")))


def test_models_that_write_no_words(assistant) -> None:
    other = words_assistant()
    assert not other.model.takes_decoder and other.with_decoder(None) is other
    with pytest.raises(DuologueError, match="this model writes none"):
        other.with_decoder(DecoderConfig())
    with pytest.raises(DuologueError, match="'Zürich' cannot be spelt"):
        assistant.with_decoder(decoder_of(hotwords="Zürich"))


def test_lists_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Evanescence:4\n# bands\n\nAsiana Airlines # of Korea\n")
    assert phrases_in(str(tmp_path / "names.txt")) == ["Evanescence:4", "Asiana Airlines"]
    assert phrases_in("one, two three,") == ["one", "two three"]
    with pytest.raises(DuologueError, match=r"no such file: names/all\.txt"):
        phrases_in("names/all.txt")
    words = hot_words(["Evanescence: 4", "olly", "Olly:-1", "half: life"], 3.0)
    assert words == (HotWord("Evanescence", 4.0), HotWord("Olly", -1.0), HotWord("half: life", 3.0))
    for given, told in (("!, ?", "has no letters"), (",", "no words in it")):
        with pytest.raises(DuologueError, match=told):
            decoder_of(hotwords=given)
    assert decoder_of() is decoder_of(beam=1) is None
    assert decoder_of(beam=3) == DecoderConfig(beam=BeamConfig(width=3))


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("ZyntriQix, Digique Plus, CynapseFive.", ["ZyntriQix", "Digique Plus", "CynapseFive"]),
        ("Olly", ["Olly"]),
        ("Hello. The call is about our new product Evanescence Pro and the GPT-3 model. We met Ann in Paris.",
         ["Evanescence Pro", "GPT-3", "Ann", "Paris"]),
        ("So this is a long talk in which nobody has a name.", []),
        ("", []),
    ],
)  # fmt: skip
def test_what_a_prompt_puts_into_mind(prompt: str, found: list[str]) -> None:
    assert phrases_of(prompt) == found


def test_the_words_of_a_request() -> None:
    def spells(text: str) -> bool:
        return "ë" not in text

    assert expected("Ann, Zoë, olly", ["olly", " "], spells) == ["olly", "Ann"]
    with pytest.raises(DuologueError, match="keyword 'Zoë' cannot be spelt"):
        expected("", ["Zoë"], spells)
    with pytest.raises(DuologueError, match="there are 1001 keywords; at most 1000"):
        expected("Ann", map(str, range(1000)), spells)


def test_a_decoders_view_costs_no_weights(assistant) -> None:
    hot = assistant.with_decoder(decoder_of(hotwords="is")).model
    names = dict(hot.named_parameters())
    assert all(names[name] is weight for name, weight in assistant.model.named_parameters())
    assert len(names) == len(dict(assistant.model.named_parameters())), "none is there twice"
    assert dataclasses.replace(hot.decoder, hot_words=()).hot_words == ()
    assert np.isfinite(tones(SAID)).all() and assistant.input_rate == RATE


def test_of_a_long_list_each_phrase_is_less_likely(assistant) -> None:
    """By MANY times the logarithm of how many times FEW there are, spread; not those that are avoided."""
    labels = assistant.model._labels()
    weights = {}
    for size in (1, FEW, 10 * FEW):
        words = tuple(HotWord("is the capital" if at == 0 else "of " * at, 2.0) for at in range(size))
        weights[size] = _phrases(words, labels)[0].biases
    assert weights[1] == weights[FEW] == (2.0, 2.0, 2.0)
    assert weights[10 * FEW] == pytest.approx((2.0 - MANY * np.log(10) / 3,) * 3)
    avoided = _phrases(tuple(HotWord("of " * (at + 1), -1.0) for at in range(100)), labels)
    assert {bias for phrase in avoided for bias in phrase.biases} == {-1.0}
