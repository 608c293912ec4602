"""A cascade: a language model of transformers at random, read and written as transformers itself does, a recogniser
that always hears the same, and espeak-ng's voice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_assistant import Loudness
from tiny_chat import chat_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from duologue.checkpoints.importers.llm import Config, read, run
from duologue.checkpoints.recognisers.recogniser import TimedWord
from duologue.data_prep.speech.engine import SAMPLE_RATE, Voice
from duologue.data_prep.speech.synthesis import at_rate, synthesise
from duologue.inference.assistant.assistant import Assistant, Sampling
from duologue.inference.assistant.cascade import FRAME, Cascade
from duologue.inference.assistant.loading import load
from duologue.inference.assistant.text_stream import dictation
from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.evaluation.report.run_folder import loaded
from duologue.inference.evaluation.suites import asr as asr_suite
from duologue.inference.session.events import EventKind
from duologue.inference.session.session import Session
from duologue.model.decoding.reply import reply
from duologue.model.errors import DuologueError
from duologue.model.tokens import TokenKind

VOICE = Voice(engine="espeak", name="en-us")
HEARD = "What is the capital of France?"
FEW = Sampling(max_tokens=8)
NOISE = (0.2 * np.random.default_rng(0).standard_normal(8_000)).astype(np.float32)


class Hears:
    """Hears what it is told that it hears."""

    name = "told"

    def __init__(self, words: str = HEARD) -> None:
        self.said = words

    def __call__(self, waveform: np.ndarray) -> str:
        assert waveform.dtype == np.float32 and waveform.ndim == 1
        return self.said

    def words(self, waveform: np.ndarray) -> list[TimedWord]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves one."""
    path, tokenizer = tmp_path_factory.mktemp("llm") / "llama", chat_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, initializer_range=0.5, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def cascade(folder: Path, words: str = HEARD, voice: Voice | None = VOICE) -> Assistant:
    tokenizer = chat_tokenizer()
    return Assistant(Cascade(Hears(words), read(folder)[1], tokenizer, voice), tokenizer, vad=Loudness())


def test_it_is_fed_and_replies_as_transformers_does(folder: Path) -> None:
    """Behind a system prompt and a turn in writing, and with a question in writing about what is heard: what the
    language model reads equals apply_chat_template, and what it writes equals generate."""
    assistant = cascade(folder, voice=None)
    model: Any = assistant.model
    theirs, encode = AutoModelForCausalLM.from_pretrained(folder), model.template.encode
    before = [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello there."},
    ]  # fmt: skip
    for about in ("", "And of Austria?"):
        state = model.init_state(0, "Be brief.")
        model.recall(encode("Hi."), encode("Hello there."), state)
        model.begin_turn(state)
        model.listen(torch.from_numpy(NOISE)[None], state)
        if about:
            model.ask_about(encode(about), state)
        model.end_turn(state)
        asked = [*before, {"role": "user", "content": f"{HEARD} {about}".strip()}]
        ids = assistant.tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")
        assert state.chat.fed == ids["input_ids"][0].tolist()
        said = theirs.generate(ids["input_ids"], max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
        steps = list(reply(model, state, FEW))
        assert [step.token for step in steps if step.kind is TokenKind.REPLY] == said.tolist()
        assert not any(step.pcm.shape[1] for step in steps)


def dictated(assistant: Assistant, text: str, aloud: bool) -> list[Any]:
    """The steps of a reply that is made to be ``text``."""
    model: Any = assistant.model
    state = model.init_state()
    model.begin_turn(state)
    model.listen(torch.from_numpy(NOISE)[None], state)
    model.end_turn(state)
    heard = len(model.template.encode(HEARD))
    tokens = [*model.template.encode(text), model.layout.eos]
    taken: list[int] = []

    def choose() -> int:
        taken.append(0)
        return 0 if len(taken) <= heard else tokens[len(taken) - heard - 1]  # a transcript is not to be chosen

    steps = list(reply(model, state, Sampling(), aloud=aloud, choose=choose))
    assert [step.kind for step in steps[:heard]] == [TokenKind.TRANSCRIPT] * heard
    assert model.template.decode([step.token for step in steps[:heard]]) == HEARD
    if not aloud:  # as a session does it: samples when there is time
        assert not any(step.pcm.shape[1] for step in steps)
        return [model.sound(step.units, state) for step in steps[heard:]]
    return [step.pcm for step in steps[heard:]]


@pytest.mark.parametrize("aloud", [True, False])
def test_sentences_are_spoken_when_they_are_complete(folder: Path, aloud: bool) -> None:
    assistant = cascade(folder)
    sentences = ("It's 3.5 francs, sir.", "**Lovely!**", "--", "Is it")
    text = "It's 3.5 francs, sir. **Lovely!** \n--\nIs it"
    parts = [part for part in dictated(assistant, text, aloud) if part.shape[1]]
    wanted = [synthesise(sentence.replace("*", ""), VOICE) for sentence in sentences if sentence != "--"]
    assert [part.shape[1] for part in parts] == [len(pcm) + -len(pcm) % FRAME for pcm in wanted]
    for part, pcm in zip(parts, wanted, strict=True):
        assert np.allclose(part[0, : len(pcm)].numpy(), pcm / 32_768, atol=1e-4)


def test_a_reply_in_ssml(folder: Path) -> None:
    """Tags, in the reply or beside it, are not said aloud: a break is silence, a rate is the voice's."""
    assistant = cascade(folder)
    model, encode = assistant.model, assistant.model.template.encode  # type: ignore[attr-defined]
    text = 'Is it<break time="400ms"/> <emphasis>this</emphasis> one? <prosody rate="fast">It is.</prosody><break/>'
    given = dictation(assistant.tokenizer, model.layout, text, ssml=True)

    def said(ids: list[int], tags: list[str]) -> torch.Tensor:
        state = model.init_state()
        state.ssml = True
        model.read_text(encode("Hello"), state)
        state.tags, ids = tags, [*ids, model.layout.eos]
        return torch.cat([step.pcm for step in reply(model, state, FEW, choose=lambda: ids.pop(0))], dim=1)[0]

    written = said(encode(text), [])
    beside = said(given.ids, given.tags)  # the space is inside of prosody, where no sentence is heard to end
    assert torch.equal(beside[:9_000], written[:9_000]) and abs(len(beside) - len(written)) <= FRAME

    def spoken(text: str, rate: float = 1.0) -> torch.Tensor:
        return torch.from_numpy(synthesise(text, VOICE, at_rate(rate, VOICE)) / 32_768).float()

    def bounds(wave: torch.Tensor) -> tuple[int, int]:
        loud = (wave.abs() > 0.01).nonzero()[:, 0]
        return int(loud[0]), int(loud[-1]) + 1

    first, second, third = spoken("Is it"), spoken("this one?"), spoken("It is.", 1.2)
    end, start = bounds(first)[1], bounds(second)[0]
    assert torch.allclose(written[:end], first[:end], atol=1e-4) and not written[end : end + 6_400].any()
    assert torch.allclose(written[end + 6_400 :][: len(second) - start], second[start:], atol=1e-4)
    last = bounds(third)[1]
    behind = written[end + 6_400 + len(second) - start :]
    behind = behind[-(end + 6_400 + len(second) - start) % FRAME :]
    assert torch.allclose(behind[:last], third[:last], atol=1e-4)
    assert len(behind) == last + 4_000 + -(last + 4_000) % FRAME and not behind[last:].any()
    assert at_rate(1.2, Voice(engine="flite", name="rms")) is None


def test_nothing_understood_is_not_answered(folder: Path) -> None:
    assistant = cascade(folder, "")
    talk = assistant.converse()
    assert talk.ask((SAMPLE_RATE, NOISE)).text == "" and talk.ask(text="Hello.", sampling=FEW).text
    assert transcribe(assistant, NOISE) == "" and transcribe(cascade(folder), NOISE) == HEARD
    with pytest.raises(DuologueError, match="a beam searches transcripts"):
        transcribe(assistant, NOISE, beam=2)
    with pytest.raises(DuologueError, match="the text has 625 tokens; the model's context has 512"):
        assistant.model.read_text([1] * 600, assistant.model.init_state())


def test_a_session_and_clones(folder: Path) -> None:
    assistant = cascade(folder)
    model: Any = assistant.model
    model.prompt.ends = frozenset({model.layout.eos, *range(0, 400, 3)})  # a reply at random is soon over
    session = Session(assistant, vad=Loudness())
    wave = np.concatenate([NOISE, np.zeros(72_000, np.float32)])
    ticks = [session.tick(frame) for frame in np.pad(wave, (0, -len(wave) % 1280)).reshape(-1, 1280)]
    events = [event for tick in ticks for event in tick.events]
    assert "".join(event.text for event in events if event.kind is EventKind.USER_TEXT) == HEARD
    assert any(event.kind is EventKind.ANSWER_TEXT for event in events)
    assert any(event.kind is EventKind.ANSWER_AUDIBLE for event in events)
    assert np.abs(np.concatenate([tick.pcm for tick in ticks])).max() > 0.05
    state = model.init_state()
    model.read_text(model.template.encode("Hello."), state)
    other = state.clone()
    said = [[step.token for step in reply(model, each, FEW, aloud=False)] for each in (state, other)]
    assert said[0] == said[1] and len(said[0]) > 1


def test_its_file(folder: Path, tmp_path: Path) -> None:
    """Paths are counted from it; a language model of transformers or an imported one; both reply alike."""
    run(folder, tmp_path / "imported", Config())
    entry = {"llm": "imported", "recogniser": "pocketsphinx", "voice": "espeak:en-us"}
    (tmp_path / "cascade.json").write_text(json.dumps({"cascade": entry}))
    (tmp_path / "other.json").write_text(json.dumps({"cascade": {"llm": str(folder), "voice": None}}))
    one, source = loaded(str(tmp_path))
    two, other = loaded(str(tmp_path / "other.json"))
    assert one.model.speaks and not two.model.speaks and isinstance(one.model, Cascade)
    assert one.ask(text="Hello.", sampling=FEW).text == two.ask(text="Hello.", sampling=FEW).text != ""
    assert source["sha256"] != other["sha256"] and source["name"] == str(tmp_path)
    with pytest.raises(DuologueError, match="no such file: "):
        loaded(str(tmp_path / "none.json"))
    for wrong, told in (
        ({"llm": "imported", "ear": "x"}, "unknown key 'ear': expected llm, recogniser, voice, language"),
        ({"voice": "flite:rms"}, "must be an object with 'llm'"),
        ({"llm": "imported", "voice": 3}, "'voice' is 3, expected text"),
        ({"llm": "nowhere"}, "unknown model 'nowhere'"),
        ({"llm": "imported", "voice": "nobody"}, "unknown voice"),
        ({"llm": "imported", "language": "de"}, "pocketsphinx knows English alone"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps({"cascade": wrong}))
        with pytest.raises(DuologueError, match=told):
            load(str(tmp_path / "wrong.json"))
    (tmp_path / "wrong.json").write_text(json.dumps({"cascade": entry, "voice": "flite:rms"}))
    with pytest.raises(DuologueError, match="unknown key 'voice' beside 'cascade'"):
        load(str(tmp_path / "wrong.json"))
    with pytest.raises(DuologueError, match="neither --int8 nor"):
        load(str(tmp_path), int8=True)


def test_its_transcripts_are_its_recognisers(folder: Path, tmp_path: Path) -> None:
    questions = tmp_path / "mine.jsonl"
    questions.write_text(json.dumps({"turns": [{"text": "what is the capital of france"}]}) + "\n")
    report = asr_suite.run(
        model=cascade(folder), data=questions, out=tmp_path / "out", voices="espeak:en-us", quiet=True
    )
    assert report["rows"][0]["greedy"] == HEARD and report["settings"]["beam"] == 1
    assert [metric["value"] for metric in report["metrics"]] == [0, 0] and "instruction" not in report["settings"]


def test_every_word_is_spoken_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no sentence ends for long, and where the user begins to speak in the midst of one."""
    assistant, spoken = cascade(folder), list[str]()
    model: Any = assistant.model
    monkeypatch.setattr(Cascade, "_synthesised", lambda self, text: spoken.append(text) or torch.zeros(FRAME))
    said = "Paris " * 39 + "Donaudampfschifffahrtsgesellschaft and Paris. Lovely"
    state = model.init_state()
    model.read_text(model.template.encode("Hello"), state)
    for token in [*model.template.encode(said), model.template.eos]:
        model.reply_step(state, FEW, forced=token)
    assert "".join(spoken) == said
    model.read_text(model.template.encode("Hello"), state)
    (token,) = model.template.encode("Paris")[:1]
    model.reply_step(state, FEW, forced=token)
    spoken.clear()
    model.recogniser = Hears("")
    model.begin_turn(state)  # and nothing is understood
    model.listen(torch.from_numpy(NOISE)[None], state)
    model.end_turn(state)
    assert model.reply_step(state, FEW).kind is TokenKind.END and not "".join(spoken)
    model.read_text(model.template.encode("Hello"), state)
    assert state.chat.messages[-2][1]["content"][0].ids == (token,)  # what was said stays said
