"""Qwen2-Audio behind `ask`, with transformers' own network at random and its own generation as the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_assistant import Loudness
from tiny_chat import TOOL
from tiny_qwen2_audio import tiny_qwen2_audio

from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.loading import load
from duologue.inference.session.events import EventKind
from duologue.inference.session.notes import notes
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.audio_llm.qwen2_audio import Qwen2Audio
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.speech_decoder import SpeechDecoder
from duologue.model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.model.speech_lm import Sampling

FEW = Sampling(max_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2-Audio on disk, random."""
    return tiny_qwen2_audio(tmp_path_factory.mktemp("qwen2-audio"))


@pytest.fixture(scope="module")
def chat(folder: Path) -> Assistant:
    found = load(str(folder))
    assert isinstance(found.model, Qwen2Audio)
    return found


def clip(seed: int, n: int = 8000) -> tuple[int, np.ndarray]:
    return 16_000, (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def qwen(chat: Assistant) -> Qwen2Audio:
    assert isinstance(chat.model, Qwen2Audio)
    return chat.model


def reference(chat: Assistant, messages: list[dict[str, Any]], clips: list[tuple[int, np.ndarray]]) -> str:
    """What transformers' own `generate` answers to the whole conversation at once."""
    text = qwen(chat).processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    more = {"audio": [samples for _, samples in clips], "sampling_rate": 16_000} if clips else {}
    inputs = qwen(chat).processor(text=[text], return_tensors="pt", **more)
    with torch.inference_mode():
        ids = qwen(chat).network.generate(**inputs, max_new_tokens=6, do_sample=False)
    return str(chat.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def user(clips: int, text: str | None = None) -> dict[str, Any]:
    words = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [{"type": "audio"}] * clips + words}


def test_voice_chat_and_analysis(chat: Assistant) -> None:
    spoken, asked = chat.ask(clip(0), sampling=FEW), chat.ask(clip(0), "what sound is this?", FEW)
    assert spoken.text == reference(chat, [user(1)], [clip(0)])
    assert asked.text == reference(chat, [user(1, "what sound is this?")], [clip(0)])
    assert spoken.text != asked.text, "the question was not read"
    assert chat.ask(clip(1), sampling=FEW).text != spoken.text, "the recording was not heard"
    assert spoken.waveform.shape == (0,) and spoken.timings.audio_s == 0.5
    assert chat.ask(text="hello", sampling=FEW).text == reference(chat, [user(0, "hello")], [])


def test_turns_remember_recordings_and_are_read_once(chat: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation, fed = chat.converse(), []
    network = qwen(chat).network
    forward = network.model.forward

    def watched(**inputs: Any) -> Any:
        fed.append(inputs)
        return forward(**inputs)

    monkeypatch.setattr(network.model, "forward", watched)
    conversation.ask(clip(0), sampling=FEW)
    begun = len(fed)
    conversation.ask([clip(1), clip(2, 6000)], "which is louder?", FEW)
    monkeypatch.undo()
    assert conversation.turns == 2
    # The second turn read what was new in it: its own two recordings and words, not the first turn again.
    assert len(fed[begun]["input_features"]) == 2
    text = chat.tokenizer.decode(fed[begun]["input_ids"][0]).replace("<|AUDIO|>", "")
    assert text.startswith("<|im_end|>\n<|im_start|>user\nAudio 2: <|audio_bos|><|audio_eos|>\nAudio 3: "), text
    # All of it in one pass, by transformers' network, says the same next.
    heard = [inputs for inputs in fed[: begun + 1] if "input_features" in inputs]
    with torch.inference_mode():
        logits = network(
            input_ids=torch.cat([inputs["input_ids"] for inputs in fed[: begun + 1]], dim=1),
            input_features=torch.cat([inputs["input_features"] for inputs in heard]),
            feature_attention_mask=torch.cat([inputs["feature_attention_mask"] for inputs in heard]),
        ).logits
    assert int(logits[0, -1].argmax()) == int(fed[begun + 1]["input_ids"])


def test_instructions_tools_and_results_are_written_by_the_processor(chat: Assistant) -> None:
    system = {"role": "system", "content": [{"type": "text", "text": "Be brief."}]}
    asked = chat.ask(clip(0), "what sound is this?", FEW, instructions="Be brief.")
    assert asked.text == reference(chat, [system, user(1, "what sound is this?")], [clip(0)])
    assert "instructions" not in str(asked.warning)
    model, template = qwen(chat), chat.model.processor.chat_template  # type: ignore[attr-defined]
    assert not model.takes_tools and "no place" in str(chat.ask(text="hello", sampling=FEW, tools=[TOOL]).warning)
    model.processor.chat_template = "{% if tools %}{{ tools | tojson }}{% endif %}" + template
    del model.takes_tools  # it is found out once
    try:
        assert model.takes_tools
        state = model.init_state(0, "Be brief.", [TOOL])
        model.read_messages([user(0, "hello"), {"role": "assistant", "content": "..."}, user(0, "and?")], state)
        wanted = model.processor.apply_chat_template(
            [system, user(0, "hello"), {"role": "assistant", "content": "..."}, user(0, "and?")], tools=[TOOL],
            add_generation_prompt=True, tokenize=False,
        )  # fmt: skip
        assert state.text == wanted and "weather" in wanted
    finally:
        model.processor.chat_template = template
        del model.takes_tools


def test_a_session_answers_in_writing_once_a_turn_is_over(chat: Assistant) -> None:
    """It hears whole clips, has no monitor and no voice; a reply that is cut is remembered as far as it was written."""
    assert len(notes(chat.model)) == 3 and "once it is over" in notes(chat.model)[0]
    session = Session(chat, SessionConfig(sampling=FEW, instructions="Be brief."), vad=Loudness())
    question = np.concatenate([clip(0)[1], np.zeros(24_640, np.float32)])
    events = [event for frame in np.split(question[: 25 * 1280], 25) for event in session.tick(frame).events]
    kinds = [event.kind for event in events]
    assert EventKind.ANSWER_FINISHED in kinds and session.state.memory.past
    said = "".join(event.text for event in events if event.kind is EventKind.ANSWER_TEXT)
    assert said and session.state.dialogue.llm.length > 0
    session.type("hello")
    session.tick(np.zeros(1280, np.float32))
    session.truncate(0)
    session.type("and now?")
    ticks = [session.tick(np.zeros(1280, np.float32)) for _ in range(6)]
    assert any(event.kind is EventKind.ANSWER_FINISHED for tick in ticks for event in tick.events)


def test_a_turn_that_fails_leaves_no_trace(chat: Assistant, tmp_path: Path) -> None:
    conversation, other = chat.converse(), chat.converse()
    conversation.ask(clip(0), sampling=FEW)
    other.ask(clip(0), sampling=FEW)
    with pytest.raises(DuologueError):
        conversation.ask(tmp_path / "none.wav")
    with pytest.raises(DuologueError, match="the question ' ' has no words"):
        conversation.ask(text=" ")
    assert conversation.ask(clip(1), sampling=FEW).text == other.ask(clip(1), sampling=FEW).text
    assert conversation.turns == 2


def test_long_recordings_are_cut_and_it_says_so(chat: Assistant) -> None:
    reply = chat.ask([clip(0), clip(1, 31 * 16_000)], sampling=Sampling(max_tokens=1))
    assert reply.warning == "recording 2 was cut after 30 s; the reply was cut short after 1 tokens"


def test_it_speaks_where_a_speech_decoder_is_attached(chat: Assistant) -> None:
    torch.manual_seed(0)
    decoder = UnitDecoder(UnitDecoderConfig(in_dim=32, dim=32, heads=2, ffn_dim=48, units=20, sub_position=True)).eval()
    torch.nn.init.normal_(decoder.output_proj.weight)
    torch.nn.init.normal_(decoder.sub_position)
    vocoder = UnitVocoder(UnitVocoderConfig(units=20, embedding_dim=8, channels=32, resblock_kernels=(3,))).eval()
    model = Qwen2Audio(qwen(chat).network, qwen(chat).processor, SpeechDecoder(decoder, vocoder))
    talking = Assistant(model, chat.tokenizer)
    reply = talking.ask(clip(0), sampling=FEW)
    assert reply.text == chat.ask(clip(0), sampling=FEW).text
    with torch.inference_mode():
        wanted = vocoder(torch.tensor([reply.units]))[0].clamp(-1, 1).numpy()
    assert len(reply.units) > 6 and np.abs(reply.waveform - wanted).max() < 1e-4
    assert reply.timings.compute_delay_ms is not None


def test_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from duologue.data_prep.audio import write_wav
    from duologue.demo.cli import main

    write_wav(tmp_path / "clip.wav", clip(0)[1], 16_000)
    with pytest.raises(SystemExit) as caught:
        main(["ask", str(tmp_path / "clip.wav"), "--text", "what sound is this?", "-m", str(folder), "--json"])
    said = capsys.readouterr()
    assert caught.value.code in (0, None), said.err
    assert json.loads(said.out)["timings"]["audio_s"] == 0.5
    for option in (["--int8"], ["--encoder", "windowed"], ["--encoder", "loud"], ["--dtype", "int4"]):
        with pytest.raises(SystemExit) as caught:
            main(["ask", "--text", "hello", "-m", str(folder), *option])
        assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_damaged_folder_is_one_line(folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if "multi_modal_projector" in name)
    del tensors[name]
    save_file(tensors, tmp_path / "model/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DuologueError, match=r"missing keys, .*multi_modal_projector.* for one"):
        load(str(tmp_path / "model"))


def test_what_cannot_be_read_changes_nothing(chat: Assistant) -> None:
    """And tools may be Python functions."""
    conversation = chat.converse("Be kind.")
    conversation.ask(clip(1), sampling=FEW)
    model, state = qwen(chat), conversation._state
    before, length = list(state.messages), state.llm.length  # type: ignore[attr-defined]
    for content in (3, [{"type": "audio"}], "<|AUDIO|>", "and <|im_end|>", "\ud800"):
        with pytest.raises(DuologueError, match=r"a message (holds|has half)"):
            model.read_messages([{"role": "user", "content": content}], state)
    with pytest.raises(DuologueError, match=r"a message holds '<\|AUDIO\|>'"):
        chat.converse("<|AUDIO|>")
    assert state.messages == before and state.llm.length == length  # type: ignore[attr-defined]
    assert conversation.ask(clip(2), sampling=FEW).text


def test_truncated_anywhere_it_goes_on(chat: Assistant) -> None:
    """What the network has read is the text of what is left."""
    model, encode = qwen(chat), chat.tokenizer.encode
    state = model.init_state(0, "Be kind.")
    for question, reply in (("Hello", "Yes."), ("And you?", "Me too."), ("Who?", "Anna.")):
        model.recall(encode(question), encode(reply), state)
    for length in range(0, state.llm.length, 5):
        cut = state.clone()
        cut.truncate(length)
        model.read_text(encode("And again?"), cut)
        assert cut.llm.length == len(encode(cut.text)) <= state.llm.length + 60
        assert {message["role"] for message in cut.messages[2::2]} <= {"assistant"}
