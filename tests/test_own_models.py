"""Anybody's models from their folders to a conversation: a Llama and a Qwen with a Whisper, tiny and random, through
every stage, ``assemble``, ``ask``, ``listen``, the service with the official client, and every suite."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_model import tiny_llm, tiny_whisper
from running_server import collect, pcm16, running
from test_every_suite import (  # noqa: F401 (its tests run here too, over the fixture system of this file)
    questions,
    test_benchmarks,
    test_delays,
    test_questions,
    test_scenes,
    test_transcripts,
)
from tiny_assistant import Loudness

from duologue.data_prep.audio import read_audio
from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.demo.cli import main
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.loading import load

pytestmark = pytest.mark.guides
FAMILIES = {"llama": "headers", "qwen2": "chatml"}
SYSTEM = "You are a helpful assistant."
ASKED = ("What is the capital of France?", "Wie heißt die Hauptstadt von Österreich?", "Who wrote it, and when?",
         "How do I get to the station, please?", "What's $5 in euros?", "Tell me: why is the sky blue?",
         "When does the last train leave?", "Could you say that again?")  # fmt: skip
STATEMENTS = ("I'll be home at seven.", "My sister is at school.", "We had fish for dinner.", "It rained all day.",
              "The train was late again.", "They went to the sea.", "She has a car.", "He sold it.")  # fmt: skip


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    assert ended.value.code in (0, None), words


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conversations of one's own in one's own writing, spoken; statements; the replies' units."""
    here = tmp_path_factory.mktemp("data")
    talks = [{"system": SYSTEM, "turns": [
        {"text": ASKED[i], "reply": f"The answer is no. {i}, I'd say!", "slot": str(i)},
        {"text": ASKED[i + 1], "reply": "It's lovely there — 巴黎."},
    ]} for i in range(0, 8, 2)]  # fmt: skip
    talks += [{"turns": [{"text": text, "respond": False}]} for text in STATEMENTS]
    (here / "turns.jsonl").write_text("".join(json.dumps(talk, ensure_ascii=False) + "\n" for talk in talks))
    (here / "statements.txt").write_text("\n".join(STATEMENTS) + "\n")
    speak, replies = ("voices=espeak:en-us,espeak:en-gb", "workers=1"), f"{here / 'replies'}"
    run("prepare", "turns", f"source={here}", f"out={here / 'questions'}", *speak)
    run("prepare", "turns", f"source={here}", f"out={replies}", "part=replies", "voices=espeak:en-us", "workers=1")
    run("prepare", "asides", f"statements={here / 'statements.txt'}", f"out={here / 'asides'}", "n=8", *speak)
    run("prepare", "units", f"data={replies}", f"quantiser={here / 'units'}", "clusters=20", "judge=0")
    return here


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that every stage has taught, most in two steps."""
    here = tmp_path_factory.mktemp(request.param)
    llm = tiny_llm(here, request.param, FAMILIES[request.param], max_position_embeddings=2048)
    encoder = tiny_whisper(here)
    asked, said = f"data={data / 'questions'}", f"data={data / 'replies'}"
    few = ("preset=tiny", "batch_size=4", "workers=0")

    def train(stage: str, *words: object) -> Path:
        run("train", stage, *few, "steps=2", f"out={here / stage}", *words)
        return here / stage

    # Enough of this one for answers that end.
    text = train("text_sft", f"llm={llm}", f"data={data / 'turns.jsonl'}", "steps=120", "lr=1e-2")
    speech = train("speech_to_text", f"llm={text}", f"encoder={encoder}", asked, "lora=4")
    parts = (f"llm={speech}", f"encoder={encoder}", f"start=adaptor={speech}")
    monitor = train("duplex", *parts, f"data={data / 'questions'},{data / 'asides'}")
    decoder = train("unit_decoder", f"llm={speech}", said, "unit_decoder.units=20", "unit_decoder.upsample=40")
    voice = train("unit_vocoder", said, "vocoder.units=20")
    run("assemble", here / "whole", f"encoder={encoder}", f"adaptor={speech}", f"llm={speech}", f"monitor={monitor}",
        f"unit_decoder={decoder}", f"vocoder={voice}")  # fmt: skip
    return here / "whole"


@pytest.fixture(scope="module")
def system(model: Path) -> Assistant:
    found = load(str(model))
    return Assistant(found.model, found.tokenizer, found.path, Loudness())


@pytest.fixture(scope="module")
def question(data: Path) -> np.ndarray:
    clip = ShardedDataset(data / "questions")[0]
    return np.pad(clip.pcm.astype(np.float32) / 32_768, (8_000, 40_000))


def test_labels_are_as_they_were_written(data: Path) -> None:
    clips = ShardedDataset(data / "questions").metas
    assert [meta["text"] for meta in clips[:8]] == list(ASKED)
    assert [meta["answer"] for meta in clips[:2]] == ["The answer is no. 0, I'd say!", "It's lovely there — 巴黎."]
    assert clips[1]["history"] == [[ASKED[0], clips[0]["answer"]]] and clips[1]["system"] == SYSTEM


def test_ask_and_listen(model: Path, question: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from duologue.data_prep.audio import write_wav

    write_wav(tmp_path / "q.wav", question, 16_000)
    run("ask", tmp_path / "q.wav", "-m", model, "--instructions", "Be brief.", "--json")
    found = json.loads(capsys.readouterr().out)
    assert "instructions" not in str(found["warning"]) and found["timings"]["audio_s"] > 0
    run("listen", tmp_path / "q.wav", "-o", tmp_path / "said.wav", "-m", model, "--preset", "responsive")
    lines = capsys.readouterr()
    assert "hears through a window" in lines.err and "monitor" not in lines.err
    assert len(read_audio(tmp_path / "said.wav", 16_000)) == len(question)


def test_the_service(model: Path, question: np.ndarray) -> None:
    with running(assistant=load(str(model))) as server, server.client().realtime.connect(model="tiny") as connection:
        connection.recv()
        detection: Any = {"input": {"turn_detection": {"type": "server_vad"}}}
        connection.session.update(
            session={"type": "realtime", "instructions": SYSTEM, "max_output_tokens": 6, "audio": detection}
        )
        collect(connection, "session.updated")
        connection.input_audio_buffer.append(audio=pcm16(question))
        events = collect(connection, "response.done")
        assert events[-1].response.status in ("completed", "incomplete")
        messages: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED[0]}]
        done = server.client().chat.completions.create(model="tiny", messages=messages, max_tokens=4)
        assert done.choices[0].message.content is not None and "warnings" not in (done.model_extra or {})
