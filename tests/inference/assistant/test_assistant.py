"""Asking and conversing, with a tiny model of random weights whose words are known (tests/tiny_assistant.py)."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_assistant import HEARD, SAID, tiny_assistant
from torch import nn

from duologue.checkpoints import store
from duologue.data_prep.audio import write_wav
from duologue.inference.assistant import turn as turns
from duologue.inference.assistant.assistant import Assistant, Sampling, load
from duologue.inference.assistant.text_stream import TextStream, ids_of
from duologue.model.errors import DuologueError

RATE = 16_000


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return tiny_assistant()


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(RATE * seconds))).astype(np.float32)


def test_a_recording_gets_words_and_speech(assistant: Assistant, tmp_path: os.PathLike) -> None:
    path = os.path.join(tmp_path, "question.wav")
    write_wav(path, noise(1.0), RATE)
    reply = assistant.ask(path)
    assert (reply.transcript, reply.text) == (HEARD, SAID)
    assert reply.sample_rate == RATE and reply.waveform.dtype == np.float32
    assert len(reply.units) >= 5 and len(reply.waveform) >= 320 * len(reply.units)
    assert np.abs(reply.waveform).max() <= 1 and reply.warning is None


def test_a_typed_question(assistant: Assistant) -> None:
    reply = assistant.ask(text="what is seven plus three")
    assert (reply.transcript, reply.text) == ("", SAID) and len(reply.waveform)
    assert reply.timings.audio_s == 0 and reply.timings.compute_delay_ms is not None


def test_typed_text_is_read_as_it_is_said(assistant: Assistant) -> None:
    model: Any = assistant.model

    def ids(text: str) -> tuple[list[int], list[str]]:
        return ids_of(assistant.tokenizer, model.config.layout, text)

    assert ids("What is 47, plus three?") == ids("what is forty seven plus three")
    assert ids("what is forty seven plus three")[1] == []
    assert ids("what is <reply>") == ids("what is reply"), "a marker that is typed is a word"
    assert ids("what is a Zyzzyva")[1] == ["zyzzyva"]
    assert assistant.ask(text="what is a zyzzyva").warning == "words that the model does not know: zyzzyva"


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_text(assistant: Assistant, text: str) -> None:
    with pytest.raises(DuologueError, match="has no words"):
        assistant.ask(text=text)


def test_a_question_is_there(assistant: Assistant) -> None:
    with pytest.raises(DuologueError, match="a recording, a text, or both"):
        assistant.ask()


@pytest.mark.parametrize("samples", [1, 2, 399, 400, 401, 2_559, 2_560, 2_561])
def test_questions_of_any_length(assistant: Assistant, samples: int) -> None:
    turn = assistant.stream((RATE, noise(1.0)[:samples]), as_recorded=True)
    assert "".join(chunk.text_delta for chunk in turn).strip() == SAID
    assert assistant.ask((RATE, noise(1.0)[:samples])).text == (SAID if samples > 2_000 else "")  # 128 ms are speech


def test_chunks_add_up_to_the_reply(assistant: Assistant) -> None:
    turn = assistant.stream((RATE, noise(0.7)))
    chunks = list(turn)
    reply = turn.reply()
    assert "".join(chunk.text_delta for chunk in chunks).strip() == reply.text == SAID
    assert "".join(chunk.transcript_delta for chunk in chunks).strip() == reply.transcript == HEARD
    np.testing.assert_array_equal(np.concatenate([chunk.pcm for chunk in chunks]), reply.waveform)
    assert sum(len(chunk.pcm) > 0 for chunk in chunks) > 2, "speech comes while the reply is made"
    model: Any = assistant.model
    whole = model.vocoder(torch.tensor([reply.units])).detach()[0].clamp(-1, 1)
    np.testing.assert_allclose(reply.waveform, whole, atol=1e-5, err_msg="streamed speech is that of all its units")


def test_the_reply_does_not_depend_on_listening_in_chunks(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = tiny_assistant(scripted=False)
    question = (RATE, noise(1.33))
    live = free.ask(question, sampling=Sampling(max_tokens=12))
    monkeypatch.setattr(turns, "CHUNK_MS", 10_000)
    whole = free.ask(question, sampling=Sampling(max_tokens=12))
    assert (live.text, live.transcript, live.units) == (whole.text, whole.transcript, whole.units)


def test_what_is_heard_reaches_the_model() -> None:
    """Another recording, another reply: nothing but the model and what it heard decides."""
    free = tiny_assistant(scripted=False)
    greedy = Sampling(max_tokens=12)
    assert (
        free.ask((RATE, noise(1.0, 1)), sampling=greedy).transcript
        != free.ask(text="what is two", sampling=greedy).text
    )
    first, second = (free.stream((RATE, noise(1.0, seed)), state=free.model.init_state()) for seed in (1, 2))
    next(first), next(second)
    assert not torch.equal(first._state.hidden, second._state.hidden)


def test_a_conversation_remembers(assistant: Assistant) -> None:
    conversation = assistant.converse()
    conversation.ask(text="what is seven plus three")
    length = conversation._state.llm.length
    assert conversation.turns == 1 and length > 10
    reply = conversation.ask((RATE, noise(0.5)))
    assert reply.text == SAID and conversation.turns == 2 and conversation._state.llm.length > length + 10
    conversation.clear()
    assert conversation.turns == 0 and conversation._state.llm.length == 0


def test_a_turn_that_is_broken_off_leaves_no_trace(assistant: Assistant) -> None:
    conversation = assistant.converse()
    conversation.ask(text="what is seven plus three")
    length = conversation._state.llm.length
    turn = conversation.stream((RATE, noise(0.5)))
    for _ in range(4):
        next(turn)
    del turn
    assert conversation.turns == 1 and conversation._state.llm.length == length
    assert conversation.ask(text="what is two").text == SAID


def test_two_conversations_do_not_mix(assistant: Assistant) -> None:
    free = tiny_assistant(scripted=False)
    greedy = Sampling(max_tokens=10)
    alone = [free.converse().ask((RATE, noise(0.5, seed)), sampling=greedy).units for seed in (0, 1)]
    pair = [free.converse().stream((RATE, noise(0.5, seed)), sampling=greedy) for seed in (0, 1)]
    going = list(pair)
    while going:  # in turn, one chunk each
        going = [turn for turn in going if next(turn, None) is not None]
    assert [turn.reply().units for turn in pair] == alone


def test_a_full_conversation_is_refused() -> None:
    assistant = tiny_assistant()
    positions = assistant.model.config.llm["max_position_embeddings"]
    with pytest.raises(DuologueError, match=f"the question takes .* but the model has {positions}: ask a shorter"):
        list(assistant.stream((8_000, np.zeros(8_000 * 300, np.int8)), as_recorded=True))
    conversation = assistant.converse()
    for _ in range(8):
        conversation.ask(text=" ".join(["seven"] * 240))
    with pytest.raises(DuologueError, match="begin a new conversation"):
        conversation.ask(text=" ".join(["seven"] * 240))


def test_a_reply_that_is_cut_short_says_so(assistant: Assistant) -> None:
    reply = assistant.ask((RATE, noise(0.5)), sampling=Sampling(max_tokens=9))
    assert reply.text == "it makes" and reply.warning == "the reply was cut short after 9 tokens"


def test_text_alone() -> None:
    reply = tiny_assistant(speech=False).ask((RATE, noise(0.5)))
    assert reply.text == SAID and len(reply.waveform) == 0 and reply.units == []
    assert reply.timings.compute_delay_ms is None and reply.timings.first_word_ms is not None


class StandIn:
    """A clock that moves only when told to."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def perf_counter(self) -> float:
        return self.seconds


def test_timings(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of the model takes its own time, and a consumer takes long between chunks."""
    clock, model = StandIn(), assistant.model
    monkeypatch.setattr(turns, "time", clock)
    heard: list[int] = []

    def takes(seconds: float, name: str) -> None:
        original = getattr(model, name)

        def slow(*given: object, **named: object) -> object:
            clock.seconds += seconds
            if name == "listen":
                heard.append(given[0].shape[1])  # type: ignore[attr-defined]
            return original(*given, **named)

        monkeypatch.setattr(model, name, slow)

    takes(1.0, "listen")
    takes(10.0, "end_turn")
    takes(100.0, "reply_step")
    takes(1_000.0, "reply_flush")
    turn = assistant.stream((RATE, noise(1.0)), as_recorded=True)
    first_pcm = None
    for count, chunk in enumerate(turn):
        clock.seconds += 1e6  # what a consumer does is not the model's time
        if first_pcm is None and len(chunk.pcm):
            first_pcm = count
    timings = turn.reply().timings
    steps = len(f"{HEARD} <reply> {SAID} <eos>".split())
    assert heard == [2_560] * 6 + [640], "chunks of 160 ms"
    assert timings.audio_s == 1.0 and timings.listen_ms == pytest.approx(6_000)
    assert timings.first_word_ms == pytest.approx(1e3 * (1 + 10 + 100)), "from the last chunk handed over"
    assert first_pcm is not None and first_pcm >= len(HEARD.split())
    # <reply> gives no chunk of its own, so the chunk counted n is step n + 2
    assert timings.compute_delay_ms == turn.compute_delay_ms == pytest.approx(1e3 * (11 + 100 * (first_pcm + 2)))
    assert timings.total_ms == pytest.approx(1e3 * (7 + 10 + 100 * steps + 1_000))
    assert timings.real_time_factor == pytest.approx(timings.total_ms / 1e3 / (1.0 + timings.reply_s))


def test_loading_is_silent_and_answers_alike(
    assistant: Assistant, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = store.save(tmp_path / "tiny", assistant.model, assistant.tokenizer)
    loaded = load(str(folder))
    assert capfd.readouterr() == ("", "")
    assert loaded.path == folder and 1 <= torch.get_num_threads() <= 4
    assert loaded.ask(text=HEARD).units == assistant.ask(text=HEARD).units


def test_an_unknown_model() -> None:
    with pytest.raises(DuologueError) as caught:
        load("no-such-model")
    assert "no-such-model" in str(caught.value) and "\n" not in str(caught.value)


def test_no_gradients_and_no_training_mode(assistant: Assistant) -> None:
    model: Any = assistant.model
    assert not model.training and not torch.is_inference_mode_enabled()
    turn = assistant.stream(text="what is two")
    next(turn)
    assert not torch.is_inference_mode_enabled(), "the mode must not leak into the consumer between chunks"


def test_letters_of_several_tokens_are_held_back() -> None:
    """A byte-level tokenizer splits a character into tokens; no broken character is ever given out."""

    class Bytes:
        def decode(self, ids: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
            return bytes(ids).decode(errors="replace")

    stream = TextStream(Bytes())
    deltas = [stream.push(byte) for byte in "naïve 日".encode()]
    assert "\ufffd" not in "".join(deltas) and "".join(deltas) + stream.end() == stream.text == "naïve 日"
    stream.push("é".encode()[0])
    assert stream.end() == "\ufffd", "a reply that was cut inside a character ends with the mark for it"


def test_matrices_that_widen_are_laid_out_by_columns_and_say_the_same() -> None:
    plain = store.load("nano").model
    laid: Any = load("nano").model
    matrices = {name: module for name, module in laid.named_modules() if isinstance(module, nn.Linear)}
    few = {name for name, module in matrices.items() if module.weight.stride(0) == 1}
    assert "llm.lm.model.layers.0.mlp.up_proj" in few and "llm.lm.model.layers.0.mlp.down_proj" not in few
    for name, weight in laid.named_parameters():
        assert torch.equal(weight, plain.get_parameter(name)), name
    rows = torch.randn(1, 2, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(laid.llm(rows).logits, plain.llm(rows).logits, atol=1e-4, rtol=1e-4)
