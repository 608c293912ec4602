"""Function calls in the forms of several families of models: found from the template, told apart from what is said, and
read in pieces of any size."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat import TOOL, chat_tokenizer

from duologue.model.language_model.chat_template import ChatTemplate
from duologue.model.language_model.tool_calls import CallFormat, CallReader, CallState, read_calls
from duologue.model.tokens import TokenKind

START = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
HERMES = (
    f"{TOOLS}{START}{{% for c in m.tool_calls or [] %}}\n<tool_call>\n"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}" + END
)
LLAMA = (
    f"{TOOLS}{START}{{% for c in m.tool_calls or [] %}}"
    '{"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}' + END
)
MISTRAL = (
    f"{TOOLS}{START}{{% if m.tool_calls %}}[TOOL_CALLS] [{{% for c in m.tool_calls %}}"
    '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"}'
    "{% if not loop.last %}, {% endif %}{% endfor %}]{% endif %}" + END
)
OUTSIDE = (
    f"{TOOLS}{START}{{% for c in m.tool_calls or [] %}}"
    "[CALL]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}{% endfor %}" + END
)
MUTE = TOOLS + START + END
FORMS = {"hermes": HERMES, "llama": LLAMA, "mistral": MISTRAL, "outside": OUTSIDE}
PLACES = [{"place": 'a "b" {c} \\ [d]'}, {}, {"place": "Wien", "days": [1, {"x": None}]}]


def form(template: str) -> CallFormat | None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    return CallFormat.of(ChatTemplate(tokenizer))


@pytest.fixture(scope="module", params=sorted(FORMS))
def calls(request: pytest.FixtureRequest) -> CallFormat:
    found = form(FORMS[request.param])
    assert found is not None
    return found


def shown(calls: CallFormat, *arguments: dict[str, Any], before: str = "") -> str:
    """What the template writes for calls, in the place of a reply."""
    listed: Any = [{"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": each}}
                   for each in arguments]  # fmt: skip
    message = {"role": "assistant", "content": before, "tool_calls": listed}
    text = calls.template.render([{"role": "user", "content": "a"}, message], (), reply=False)
    return text.rpartition("<|im_start|>assistant\n")[2].removesuffix("<|im_end|>\n")


def test_the_form_is_found_from_the_template() -> None:
    marks = {kind: getattr(form(template), "marker", None) for kind, template in FORMS.items()}
    assert marks == {"hermes": "<tool_call>", "llama": "", "mistral": "[TOOL_CALLS]", "outside": "[CALL]"}
    hermes = form(HERMES)
    assert hermes is not None and (hermes.name_key, hermes.arguments_key) == ("name", "arguments")
    assert form(MUTE) is None, "the template leaves calls out"
    assert CallFormat.of(ChatTemplate(chat_tokenizer("chatml"))) is None, "it has no place for tools"


@given(st.integers(0, 3), st.lists(st.integers(1, 9), min_size=1, max_size=80))
def test_calls_are_read_in_pieces_of_any_size(which: int, sizes: list[int]) -> None:
    calls = FOUND[sorted(FORMS)[which]]
    text = shown(calls, *PLACES) if calls.marker or not calls.name_key else shown(calls, PLACES[0])
    reader, names, arguments, ended = CallReader(calls), [], [""] * 3, 0
    at = 0
    for size in [*sizes, len(text)]:
        for piece in reader.push(text[at : at + size]):
            names += [piece.name] if piece.name else []
            arguments[piece.number] += piece.arguments
            ended += piece.ended
        at += size
    count = 3 if calls.marker else 1
    assert names == ["weather"] * count and ended == count
    assert [json.loads(each) for each in arguments[:count]] == PLACES[:count]


FOUND = {kind: found for kind, template in FORMS.items() if (found := form(template)) is not None}


def kinds_of(calls: CallFormat, text: str) -> tuple[str, str]:
    """What is said of a text, and what is part of a call; a token a step, those undecided for as long as needed."""
    state, decided, ids = CallState(), [], calls.template.encode(text)
    for token in ids:
        decided += calls.push(token, state)
    decided += calls.end(state)
    said = [token for token, kind in zip(ids, decided, strict=True) if kind is TokenKind.REPLY]
    return calls.template.decode(said), calls.template.decode(ids[len(said) :], special=True)


def test_what_is_said_is_told_from_a_call(calls: CallFormat) -> None:
    call = shown(calls, PLACES[0])
    said, called = kinds_of(calls, call)
    assert said.strip() == "" and called == call.lstrip("\n")
    for words in ("What is it?", 'a < b, <tool> and [x] {"name', "", "  "):
        assert kinds_of(calls, words) == (words, "")
    said, called = kinds_of(calls, f"One moment. {call}")
    if calls.marker:
        assert said.strip() == "One moment." and read_calls(calls, called) == [("weather", json.dumps(PLACES[0]))]
    else:
        assert called == "", "JSON behind words is no call"


def test_a_call_that_must_be_made_begins_the_reply(calls: CallFormat) -> None:
    call = shown(calls, {"place": "Wien"})
    for name in ("", "weather"):
        forced = calls.template.decode(calls.begin(name).forced, special=True)
        assert call.startswith(forced) and ("weather" in forced) == bool(name)
    assert calls.begin(None).forced == []
    assert calls.template.encode(call.strip())[0] in calls.first_tokens


def test_a_reply_with_calls_is_a_message_of_the_templates(calls: CallFormat) -> None:
    text = shown(calls, PLACES[0], before="Soon." if calls.marker else "")
    message = calls.message(calls.template.encode(text))
    assert [call["function"] for call in message["tool_calls"]] == [{"name": "weather", "arguments": PLACES[0]}]
    user = {"role": "user", "content": "a"}
    again = calls.template.decode(calls.template.write([user, message], [TOOL], reply=False).ids, special=True)
    assert again.endswith(f"{text}<|im_end|>\n")
    assert "tool_calls" not in calls.message(calls.template.encode("Wien."))


def test_what_is_no_call_is_none() -> None:
    hermes = FOUND["hermes"]
    for text in ("<tool_call>", "<tool_call>{", '<tool_call>{"name": 3}', '<tool_call>{"name": "a", "arguments": 3}',
                 '<tool_call>{"name": "a", "arguments": {"b":', "}{][,"):  # fmt: skip
        assert read_calls(hermes, text) == [], text
    assert read_calls(hermes, '<tool_call>{"arguments": "{\\"b\\": 1}", "name": "a"}') == [("a", '{"b": 1}')]
    assert read_calls(hermes, '<tool_call>{"name": "a"}</tool_call>') == [("a", "{}")]
