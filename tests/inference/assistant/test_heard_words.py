"""A model with a chat template whose adaptor hears words by itself: its transcript, and what has no words."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io

import numpy as np
import openai
import pytest
import soundfile
import torch
from running_server import running
from tiny_assistant import Loudness
from tiny_chat import brief
from tiny_words import RATE, noise, tones, words_assistant

from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.front_end.speech_segments import NO_WORDS
from duologue.inference.session.events import Event, EventKind
from duologue.inference.session.policy import DuplexConfig
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.adaptor.ctc import CTCAdaptorConfig
from duologue.model.decoding.joint_beam import JointConfig
from duologue.model.decoding.reply import reply, transcript
from duologue.model.dialogue_state import Sampling
from duologue.model.duplex.monitor import TurnState
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH
from duologue.model.tokens import TokenKind

TEXT = "the capital of France"
MOST = Sampling(max_tokens=5)
FRAME = 1280


@pytest.fixture(scope="module")
def assistant():
    return brief(words_assistant())


def heard(model, text: str, before: float = 0.3, question: list[int] | None = None):
    """The state behind a turn in which that was said."""
    state = model.init_state()
    model.begin_turn(state)
    for piece in torch.from_numpy(tones(text, before, 0.2))[None].split(1111, dim=1):
        model.listen(piece, state)
    model.ask_about(question or [], state)
    model.end_turn(state)
    return state


def test_to_write_down_needs_no_language_model(assistant, monkeypatch) -> None:
    clip = tones(TEXT, 0.3, 0.2)
    said = transcribe(assistant, clip)

    def extend(*_args: object) -> None:
        raise AssertionError("the language model runs")

    monkeypatch.setattr(assistant.model.llm, "extend", extend)
    assert transcribe(assistant, clip) == said == TEXT
    with pytest.raises(AssertionError, match="runs"):
        assistant.ask((RATE, clip))


def test_with_a_context_the_language_model_is_asked(assistant) -> None:
    clip, asked = tones(TEXT, 0.3, 0.2), "Transcribe the speech. Context: Paris"
    with_context = transcribe(assistant, clip, context="Paris")
    assert with_context == assistant.ask((RATE, clip), asked).text != TEXT
    free = JointConfig(width=1, alpha=0.0)
    plain = assistant.ask((RATE, clip), "Transcribe the speech.").text
    assert transcribe(assistant, clip, context="Paris", joint=free) == plain != with_context


def test_the_transcript_costs_no_step_of_the_language_model(assistant) -> None:
    model, decode = assistant.model, assistant.tokenizer.decode
    state = heard(model, TEXT)
    ids = [assistant.tokenizer.encode(f" {word}", add_special_tokens=False)[0] for word in TEXT.split()]
    assert state.chat.fed.count(SPEECH) == 4, "a position a word, none for silence"
    before = state.llm.length
    steps = list(transcript(model, state, MOST))
    assert [step.token for step in steps] == ids and decode(ids) == f" {TEXT}"
    assert all(step.foreseen and step.position == before for step in steps) and state.llm.length == before
    assert [step.heard.start for step in steps] == pytest.approx([0.3, 0.62, 0.94, 1.26], abs=0.05), "in seconds"
    assert [step.heard.end for step in steps] == pytest.approx([0.54, 0.86, 1.18, 1.5], abs=0.05)
    assert [step.heard.confidence for step in steps] == [0.9] * 4
    said = [step.token for step in reply(model, state, MOST)]
    read = model.init_state()
    model.read_text(ids, read)
    assert said == [step.token for step in reply(model, read, MOST)], "the answer to the same words in writing"
    assert model.transcribes and model.hears_words and not model.without_voice().speaks


def test_views_and_copies_of_a_model_hear_by_its_own_embeddings(assistant) -> None:
    model = assistant.model
    view = model.with_shared_steps(lambda stage, name: copy.copy(stage))
    assert view.stages.hearing is model.stages.hearing, "streams with unlike numbers of words share no step"
    assert view.stages.llm is not model.stages.llm
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.llm.lm.get_input_embeddings().weight.zero_()
    pcm = torch.from_numpy(tones(TEXT))[None]
    assert model.stages.hearing(pcm).detach().abs().sum() > 0 and twin.stages.hearing(pcm).detach().abs().sum() == 0
    for weight in twin.parameters():
        weight.data = weight.data.bfloat16()
    assert twin.stages.hearing(pcm).dtype == torch.bfloat16


def test_a_question_is_asked_about_what_is_heard(assistant) -> None:
    model = assistant.model
    question = assistant.tokenizer.encode(" is it late?", add_special_tokens=False)
    both, alone = heard(model, TEXT, question=question), heard(model, "", question=question)
    assert [step.kind for step in transcript(model, both, MOST)] == [TokenKind.TRANSCRIPT] * 4
    assert not alone.empty and not list(transcript(model, alone, MOST))
    assert SPEECH not in alone.chat.fed and next(reply(model, alone, MOST)).kind is not TokenKind.TRANSCRIPT


def test_no_words_are_no_question(assistant) -> None:
    talk = assistant.converse()
    first = talk.ask((RATE, tones(TEXT, 0.2, 0.3)), sampling=MOST)
    assert first.transcript == TEXT and first.text
    nothing = talk.ask((RATE, noise(1.0)), sampling=MOST)
    assert (nothing.text, nothing.transcript, nothing.warning) == ("", "", NO_WORDS)
    assert talk.turns == 1, "it leaves no trace"
    state = heard(assistant.model, "")
    assert state.empty and [step.kind for step in reply(assistant.model, state, MOST)] == [TokenKind.END]
    assert transcribe(assistant, tones(f"{TEXT} is", 0.5, 0.5)) == f"{TEXT} is"
    assert transcribe(assistant, noise(1.0)) == ""
    assistant.warm_up()
    long = f"{TEXT} is " * 6  # 9.6 s
    assert assistant.ask((RATE, tones(long)), sampling=MOST).transcript == long.strip()


def wav(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV")
    return file.getvalue()


def run(session: Session, wave: np.ndarray) -> list[Event]:
    wave = np.pad(wave, (0, -len(wave) % FRAME))
    return [event for at in range(0, len(wave), FRAME) for event in session.tick(wave[at : at + FRAME]).events]


CONFIG = SessionConfig(duplex=DuplexConfig(endpoint_ms=400, resume_ms=240), sampling=MOST)


@pytest.mark.parametrize("speculate_ms", [0, 160])
def test_a_session_answers_words_alone(assistant, speculate_ms: int) -> None:
    duplex = dataclasses.replace(CONFIG.duplex, speculate_ms=speculate_ms)
    session = Session(assistant, dataclasses.replace(CONFIG, duplex=duplex), vad=Loudness())
    events = run(session, tones(TEXT, 0.4, 2.0))
    assert [event.text for event in events if event.kind is EventKind.USER_TEXT] == [TEXT]
    assert EventKind.ANSWER_FINISHED in [event.kind for event in events]
    question = session.state.memory.past[0][0]
    assert assistant.tokenizer.decode(question) == f" {TEXT}"
    length = session.state.dialogue.llm.length
    events = run(session, np.concatenate([noise(0.8), np.zeros(2 * RATE, np.float32)]))
    kinds = [event.kind for event in events]
    if speculate_ms:
        assert EventKind.TURN_IGNORED in kinds and EventKind.ANSWER_STARTED not in kinds
    assert EventKind.ANSWER_TEXT not in kinds and session.state.dialogue.llm.length == length
    session.configure(dataclasses.replace(session.config, instructions="Be brief."))
    run(session, np.zeros(RATE, np.float32))
    users = [message["content"] for _, message in session.state.dialogue.chat.messages if message["role"] == "user"]
    assert [str(content[0]) if isinstance(content, list) else content for content in users] == [f" {TEXT}"]
    assert SPEECH not in session.state.dialogue.chat.fed, "remembered in words"


def test_push_to_talk_without_words_gets_no_words(assistant) -> None:
    session = Session(assistant, CONFIG, vad=Loudness())
    session.press()
    run(session, noise(1.0))
    session.press(False)
    kinds = [event.kind for event in run(session, np.zeros(RATE, np.float32))]
    assert EventKind.ANSWER_FINISHED in kinds and EventKind.ANSWER_TEXT not in kinds
    assert not session.state.memory.past


def test_a_prepared_answer_knows_the_last_words(assistant) -> None:
    """The monitor is asked behind the last word, which hearing may still hold back where the user falls silent."""
    session = Session(assistant, CONFIG, vad=Loudness())
    run(session, tones(TEXT, 0.4, 0.2))
    state = session.state
    assert state.answer is not None
    state.answer.dialogue.turn_state = torch.tensor([1.0, 0.0, 0.0])
    state.dialogue.turn_state = torch.tensor([0.0, 0.0, 1.0])
    assert session._turn_state() is TurnState.QUERY


def test_the_server_writes_down_what_it_hears(assistant) -> None:
    with running(assistant=assistant) as found:
        client = found.client()
        file = ("q.wav", wav(tones(TEXT, 0.3, 0.3)))
        assert client.audio.transcriptions.create(file=file, model="tiny").text == TEXT
        quiet = ("n.wav", wav(noise(1.0)))
        assert client.audio.transcriptions.create(file=quiet, model="tiny").text == ""
        content = [{"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(noise(1.0))).decode(),
                                                           "format": "wav"}}]  # fmt: skip
        with pytest.raises(openai.BadRequestError, match="no words were understood"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": content}])  # type: ignore


def test_two_transcripts_are_refused() -> None:
    config = words_assistant().model.config
    with pytest.raises(DuologueError, match="adaptor of kind ctc writes the transcript: the layout's must be null"):
        dataclasses.replace(
            config, adaptor=CTCAdaptorConfig(in_dim=40, out_dim=32, vocab=9),
            layout=dataclasses.replace(config.layout, transcript=5, reply=6, text=(9, 300)),
        )  # fmt: skip
