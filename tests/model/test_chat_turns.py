"""Turns written by a chat template: what the language model is fed is what transformers writes of the conversation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_chat_template import ASKED, CALL, MORE, RESULT, SYSTEM, theirs
from tiny_chat import CHATML, TEMPLATES, TOOL, chat_assistant

from duologue.checkpoints.state_io import load_state, save_state
from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.text_stream import ids_of
from duologue.model.decoding.reply import reply
from duologue.model.dialogue_state import DialogueState, Sampling
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH, Given
from duologue.model.speech_lm import SpeechLM

FEW = Sampling(max_tokens=5)


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return chat_assistant()


def model_of(assistant: Assistant) -> SpeechLM:
    assert isinstance(assistant.model, SpeechLM)
    return assistant.model


def said(assistant: Assistant, state: DialogueState) -> list[int]:
    """Let it reply; the ids of the reply."""
    model = model_of(assistant)
    return [step.token for step in list(reply(model, state, FEW))[:-1]]


def read(assistant: Assistant, text: str, state: DialogueState) -> None:
    model_of(assistant).read_text(ids_of(assistant.tokenizer, assistant.model.layout, text)[0], state)


def fed(state: DialogueState) -> list[int]:
    assert state.chat is not None and len(state.chat.fed) == state.llm.length
    return state.chat.fed


def hear(assistant: Assistant, state: DialogueState, seconds: float = 0.5, about: str = "") -> None:
    model = model_of(assistant)
    model.begin_turn(state)
    model.listen(torch.randn(1, round(16000 * seconds), generator=torch.Generator().manual_seed(3)) / 10, state)
    if about:
        model.ask_about(ids_of(assistant.tokenizer, model.layout, about)[0], state)
    model.end_turn(state)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_typed_conversation_is_fed_as_transformers_writes_it(kind: str) -> None:
    chat = chat_assistant(kind, speech=False)
    instructions = SYSTEM["content"] if kind != "no_system" else ""
    state = model_of(chat).init_state(0, instructions)
    messages: list[Any] = [SYSTEM] if instructions else []
    for question in (ASKED, MORE, ASKED):
        read(chat, question["content"], state)
        messages.append(question)
        assert fed(state) == theirs(chat.tokenizer, messages)
        before = len(fed(state))
        messages.append({"role": "assistant", "content": "It's Paris."})
        written = theirs(chat.tokenizer, [*messages, ASKED])[before:]
        for token in written[: next(at for at, id_ in enumerate(written) if id_ in model_of(chat).prompt.ends)]:
            model_of(chat).reply_step(state, FEW, forced=token)


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("question", ["What is the capital of France?", "Wie heißt die Hauptstadt von Österreich?"])
def test_a_typed_question_is_answered_as_the_language_model_alone_answers_it(kind: str, question: str) -> None:
    """To the token in float32: nothing that is joined to it changes what it writes."""
    assistant = chat_assistant(kind)
    model = model_of(assistant)
    state = model.init_state()
    ids = torch.tensor([theirs(assistant.tokenizer, [{"role": "user", "content": question}])])
    ends = list(model.prompt.ends)
    settings = {"do_sample": False, "eos_token_id": ends, "attention_mask": torch.ones_like(ids)}
    alone = model.llm.lm.generate(ids, max_new_tokens=5, **settings)
    read(assistant, question, state)
    assert said(assistant, state) == [token for token in alone[0, ids.shape[1] :].tolist() if token not in ends]


def test_instructions_stand_before_the_first_question_where_there_is_no_system_role() -> None:
    chat = chat_assistant("no_system", speech=False)
    state = model_of(chat).init_state(0, SYSTEM["content"])
    read(chat, ASKED["content"], state)
    folded = {"role": "user", "content": f"{SYSTEM['content']}\n\n{ASKED['content']}"}
    assert fed(state) == theirs(chat.tokenizer, [folded])


def test_past_turns_in_words_are_fed_as_transformers_writes_them(assistant: Assistant) -> None:
    model, state = model_of(assistant), model_of(assistant).init_state(0, "Be brief.")
    words = [ids_of(assistant.tokenizer, model.layout, text)[0] for text in (ASKED["content"], "Paris.")]
    model.recall(words[0], words[1], state)
    read(assistant, MORE["content"], state)
    messages = [{"role": "system", "content": "Be brief."}, ASKED, {"role": "assistant", "content": "Paris."}, MORE]
    assert fed(state) == theirs(assistant.tokenizer, messages)


@pytest.mark.parametrize("kind", ["headers", "bos_inside"])
def test_tools_and_results_are_fed_as_transformers_writes_them(kind: str) -> None:
    chat = chat_assistant(kind, speech=False)
    state = model_of(chat).init_state(0, SYSTEM["content"], [TOOL])
    read(chat, ASKED["content"], state)
    assert fed(state) == theirs(chat.tokenizer, [SYSTEM, ASKED], tools=[TOOL])
    begun = model_of(chat).init_state(0, SYSTEM["content"], [TOOL])
    model_of(chat).read_messages([ASKED, CALL, RESULT], begun)
    assert fed(begun) == theirs(chat.tokenizer, [SYSTEM, ASKED, CALL, RESULT], tools=[TOOL])
    said(chat, begun)


@pytest.mark.parametrize("kind", ["headers", "bos_inside"])
def test_a_reply_given_as_a_message_takes_the_place_of_the_one_that_was_not_made(kind: str) -> None:
    """A talk that is repeated from its beginning: speech is heard again, and what was called and said is known."""
    chat = chat_assistant(kind, speech=False)
    model, state = model_of(chat), model_of(chat).init_state(0, "", [TOOL])
    told: Any = {"role": "assistant", "content": "Fine."}
    wanted: list[Any] = []
    for _ in range(2):
        before = 0 if state.chat is None else state.chat.fed.count(SPEECH)
        hear(chat, state)
        wanted.append({"role": "user", "content": [Given((SPEECH,) * (fed(state).count(SPEECH) - before))]})
        model.read_messages([CALL, RESULT, told], state)
        wanted += [CALL, RESULT, told]
    assert fed(state) == model.prompt.template.write(wanted, [TOOL]).ids  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", TEMPLATES)
def test_speech_stands_where_the_users_words_would(kind: str) -> None:
    chat = chat_assistant(kind, speech=False)
    model, state = model_of(chat), model_of(chat).init_state(0, "Be brief.")
    hear(chat, state, about="What is said?")
    count = fed(state).count(SPEECH)
    assert count == model.stages.hearing(torch.zeros(1, 8000)).shape[1]
    first = said(chat, state)
    hear(chat, state, 0.3)
    template = model.prompt.template  # type: ignore[attr-defined]
    wanted = template.write([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [Given((SPEECH,) * count), "What is said?"]},
        {"role": "assistant", "content": [Given(tuple(first))]},
        {"role": "user", "content": [Given((SPEECH,) * (fed(state).count(SPEECH) - count))]},
    ]).ids  # fmt: skip
    assert fed(state) == wanted


def test_what_is_fed_little_by_little_is_what_is_fed_at_once(assistant: Assistant) -> None:
    model, state = model_of(assistant), model_of(assistant).init_state(0, "Be brief.")
    for question in (ASKED, MORE):
        read(assistant, question["content"], state)
        said(assistant, state)
    read(assistant, "And now?", state)
    whole = model.llm(model.llm.embed(torch.tensor([fed(state)]))).logits[0, -1]
    assert torch.allclose(model.next_logits(state), whole, atol=1e-4)


def test_a_reply_that_was_cut_is_remembered_as_far_as_it_was_heard(assistant: Assistant) -> None:
    model, state = model_of(assistant), model_of(assistant).init_state()
    read(assistant, ASKED["content"], state)
    steps = list(reply(model, state, FEW))
    state.truncate(steps[2].position)
    read(assistant, MORE["content"], state)
    kept = Given(tuple(step.token for step in steps[:2]))
    template = model.prompt.template  # type: ignore[attr-defined]
    assert fed(state) == template.write([ASKED, {"role": "assistant", "content": [kept]}, MORE]).ids


def test_a_template_that_rewrites_past_replies_is_followed() -> None:
    """As Qwen3's, which forgets what was thought: what was fed otherwise is forgotten and fed again."""
    thinking = CHATML.replace("{{ m['content'] }}", "{{ m['content'].split('</think>')[-1] }}").replace(
        "assistant\n{% endif %}", "assistant\n<think></think>{% endif %}"
    )
    chat = chat_assistant("chatml", speech=False, template=thinking)
    state = model_of(chat).init_state()
    hear(chat, state)
    first = said(chat, state)
    read(chat, MORE["content"], state)
    template = model_of(chat).prompt.template  # type: ignore[attr-defined]
    speech = Given((SPEECH,) * fed(state).count(SPEECH))
    past = [{"role": "user", "content": [speech]}, {"role": "assistant", "content": [Given(tuple(first))]}, MORE]
    assert fed(state) == template.write(past).ids
    whole_again = CHATML.replace("<|im_start|>{{ m['role'] }}", "<|im_start|>{{ loop.length }}{{ m['role'] }}")
    chat = chat_assistant("chatml", speech=False, template=whole_again)
    state = model_of(chat).init_state()
    hear(chat, state)
    said(chat, state)
    with pytest.raises(DuologueError, match="writes past speech otherwise than it was heard"):
        read(chat, MORE["content"], state)


def test_a_clone_and_a_saved_state_go_on_as_the_first(assistant: Assistant, tmp_path: Any) -> None:
    model, state = model_of(assistant), model_of(assistant).init_state(0, "Be brief.", [TOOL])
    hear(assistant, state)
    save_state(tmp_path / "state", state)
    answers = [said(assistant, each) for each in (state.clone(), load_state(tmp_path / "state"), state)]
    assert answers[0] == answers[1] == answers[2]
    again = model.begin_again(state)
    assert again.chat is not None and again.chat.system == "Be brief." and again.chat.tools == [TOOL]


def test_a_conversation_has_instructions_and_says_where_they_have_no_effect(assistant: Assistant) -> None:
    talk = assistant.converse("Be brief.", [TOOL])
    first = talk.ask(text="Hello?", sampling=FEW)
    assert first.warning is not None and "calls no tools" in first.warning and "instructions" not in first.warning
    assert talk.ask((16000, np.zeros(8000, np.float32)), "What is said?", FEW).text is not None
    assert talk.read([RESULT], FEW).text is not None
    one = assistant.ask(text="Hello?", sampling=FEW, instructions="Be brief.")
    assert one.text == first.text and one.warning == "the reply was cut short after 5 tokens"
    from tiny_assistant import tiny_assistant

    nano = tiny_assistant(speech=False)
    warned = nano.ask(text="what is seven", instructions="Be brief.").warning
    assert warned is not None and "this model follows no instructions: it has learnt none" in warned


@pytest.mark.parametrize("kind", TEMPLATES)
def test_truncated_anywhere_it_goes_on(kind: str) -> None:
    """The turn whose end is forgotten is forgotten, and what is fed then is what the messages that are left give."""
    assistant = chat_assistant(kind, speech=False)
    model, state = model_of(assistant), assistant.model.init_state()
    for _ in range(2):
        hear(assistant, state)
        said(assistant, state)
    for length in range(0, state.llm.length + 1, 3):
        cut = state.clone()
        cut.truncate(length)
        read(assistant, "And Austria?", cut)
        assert cut.chat is not None
        assert fed(cut) == model.prompt._written(cut.chat, []).ids  # type: ignore[attr-defined]


def test_a_conversation_may_last_past_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant = chat_assistant(template="{{ strftime_now('%j') }}" + CHATML, speech=False)
    monkeypatch.setattr("time.time", lambda: 0.0)
    state = assistant.model.init_state()
    hear(assistant, state)
    said(assistant, state)
    before = list(fed(state))
    hear(assistant, state)
    assert fed(state)[: len(before)] == before


def test_instructions_that_leave_no_room_are_refused_at_once(assistant: Assistant) -> None:
    model, context = model_of(assistant), assistant.model.init_state
    with pytest.raises(DuologueError, match="instructions and tools have 9022 tokens"):
        context(0, "hello " * 3000)
    state = context(0, "hello " * 500)
    words = ids_of(assistant.tokenizer, model.layout, "hello " * 260)[0]
    assert model.prompt.around(state) + len(words) > 2048 > len(words) + 1024
    with pytest.raises(DuologueError, match="the model's context has 2048"):
        model.read_text(words, state)
    model.read_text(words[:9], state)
    before = list(fed(state))
    with pytest.raises(DuologueError, match="the model's context has 2048"):
        model.read_text(words, state)
    assert fed(state) == before


def test_what_a_client_does_to_its_messages_later_changes_nothing(assistant: Assistant) -> None:
    state, message = assistant.model.init_state(), {"role": "user", "content": ["Hello"]}
    model_of(assistant).read_messages([message], state)
    message["content"].append(" there")  # type: ignore[attr-defined]
    before = list(fed(state))
    read(assistant, "And Austria?", state)
    assert fed(state)[: len(before)] == before
