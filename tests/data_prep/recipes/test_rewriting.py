"""Instructions rewritten and answered by a chat model over real HTTP: each asked once, whatever breaks in between."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, Failing, Messages, serving

from duologue.data_prep.datasets.conversations import read_conversations
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes.rewrite import broken_rule
from duologue.data_prep.text.endpoint import Endpoint
from duologue.data_prep.text.spoken import UNITS
from duologue.model.errors import DuologueError

pytest.importorskip("openai")


def role_of(messages: Messages) -> str:
    return "rewrite" if "typed" in messages[0]["content"] else "answer"


def in_words(text: str) -> str:
    return "".join(UNITS[int(letter)] if letter.isdigit() else letter for letter in text)


def obedient(messages: Messages) -> str:
    """Rewrites "Add 1" as "Um, Add one"; answers with how many messages it has seen, in words."""
    if role_of(messages) == "rewrite":
        return "Um, " + in_words(messages[-1]["content"])
    return "That is message " + ("one", "two", "three", "four", "five")[len(messages) - 1] + "."


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(obedient) as running:
        yield running


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are a hundredth; no key, no proxy of this machine."""
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.005)
    monkeypatch.setattr(client, "MAX_RETRY_DELAY", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def alpaca(folder: Path, count: int) -> str:
    rows = [{"instruction": f"Add {at}", "output": "[1]"} for at in range(count)]
    (folder / "alpaca.json").write_text(json.dumps(rows))
    return f"source={folder / 'alpaca.json'}"


def settings(folder: Path, server: ChatServer, source: str, *more: str) -> list[str]:
    return [source, f"out={folder / 'spoken.jsonl'}", f"endpoint={server.url}", "model=m", *more]


def rows_of(folder: Path, name: str = "spoken.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_rewritten_and_answered(tmp_path: Path, server: ChatServer) -> None:
    counts = main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 3)))
    assert counts == {"conversations": 3, "turns": 3, "failed": 0, "asked": 6, "remembered": 0}
    asked = ["Um, Add zero", "Um, Add one", "Um, Add two"]
    assert rows_of(tmp_path) == [
        {"id": f"{at:06d}", "turns": [{"text": text, "reply": "That is message two."}]} for at, text in enumerate(asked)
    ]
    assert [turn.text for one in read_conversations(tmp_path / "spoken.jsonl") for turn in one.turns] == asked
    rewriting = [one["messages"] for one in server.requests if role_of(one["messages"]) == "rewrite"]
    assert sorted(messages[1]["content"] for messages in rewriting) == ["Add 0", "Add 1", "Add 2"]
    answering = [one["messages"] for one in server.requests if role_of(one["messages"]) == "answer"]
    assert sorted(messages[1]["content"] for messages in answering) == sorted(asked)  # as it is spoken
    assert all("at most 50 words" in one["messages"][0]["content"] for one in server.requests)


def test_what_is_said_stands_in_later_turns(tmp_path: Path, server: ChatServer) -> None:
    said = [("human", "Hi 1"), ("gpt", "[x]"), ("human", "And 2?"), ("gpt", "[y]")]
    entry = {"conversations": [{"from": who, "value": what} for who, what in said]}
    (tmp_path / "s.json").write_text(json.dumps([entry]))
    main("rewrite", settings(tmp_path, server, f"source={tmp_path / 's.json'}"))
    (row,) = rows_of(tmp_path)
    assert [turn["reply"] for turn in row["turns"]] == ["That is message two.", "That is message four."]
    last = max((one["messages"] for one in server.requests), key=len)
    assert [message["content"] for message in last[1:]] == ["Um, Hi one", "That is message two.", "Um, And two?"]


def test_what_stands_around_a_conversation_stays(tmp_path: Path, server: ChatServer) -> None:
    """The system prompt, which the answers are given under; an instruction; what nobody is to answer."""
    turns = [
        {"text": "Nice day 1", "respond": False},
        {"text": "Add 2", "instruction": "Be brief.", "reply": "[1]", "slot": "1"},
    ]
    (tmp_path / "own.jsonl").write_text(json.dumps({"id": "x", "system": "You are kind.", "turns": turns}))
    main("rewrite", settings(tmp_path, server, f"source={tmp_path / 'own.jsonl'}"))
    assert rows_of(tmp_path) == [{"id": "x", "system": "You are kind.", "turns": [
        {"text": "Um, Nice day one", "respond": False},
        {"text": "Um, Add two", "instruction": "Be brief.", "reply": "That is message two."},
    ]}]  # fmt: skip
    (answering,) = [one["messages"] for one in server.requests if role_of(one["messages"]) == "answer"]
    assert answering[0]["content"].endswith("You are kind.") and answering[1]["content"] == "Um, Add two\nBe brief."
    (tmp_path / "own.jsonl").write_text(json.dumps({"turns": [{"audio": "a.wav", "text": "Hi"}]}))
    with pytest.raises(DuologueError, match="000000 has recordings, which cannot be put in other words"):
        main("rewrite", settings(tmp_path, server, f"source={tmp_path / 'own.jsonl'}"))


def test_one_step_alone(tmp_path: Path, server: ChatServer) -> None:
    main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1), "steps=rewrite"))
    assert rows_of(tmp_path)[0]["turns"] == [{"text": "Um, Add zero", "reply": "[1]"}]
    main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1), "steps=answer"))
    assert rows_of(tmp_path)[0]["turns"] == [{"text": "Add 0", "reply": "That is message two."}]


def test_nothing_is_asked_twice(tmp_path: Path, server: ChatServer) -> None:
    """A run that broke off goes on, another source pays for what is new in it, another setting pays anew."""
    calls = []

    def breaking(messages: Messages) -> str:
        calls.append(messages)
        if len(calls) > 7:
            raise Failing(401, '{"error": {"message": "the money is spent"}}')
        return obedient(messages)

    server.model = breaking
    with pytest.raises(DuologueError, match="wants another API key than the one in OPENAI_API_KEY: the money is spent"):
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 10), "concurrency=1"))
    assert {path.name for path in tmp_path.iterdir()} == {"alpaca.json", "spoken.jsonl.answers.jsonl"}
    with open(tmp_path / "spoken.jsonl.answers.jsonl", "ab") as journal:
        journal.write(b'{"key": "half a li')  # as if it had been killed
    server.model = obedient
    counts = main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 10)))
    assert (counts["asked"], counts["remembered"]) == (20 - 7, 7)
    assert main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 12)))["asked"] == 4
    assert len(rows_of(tmp_path)) == 12
    assert main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 12), "temperature=0.1"))["asked"] == 24
    lines = (tmp_path / "spoken.jsonl.answers.jsonl").read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 48


def test_what_fails_for_a_while_is_sent_again(tmp_path: Path, server: ChatServer) -> None:
    seen: Counter[str] = Counter()

    def shaky(messages: Messages) -> str:
        seen[messages[-1]["content"] + role_of(messages)] += 1
        tries = seen[messages[-1]["content"] + role_of(messages)]
        if tries < 3:
            raise Failing((429, 503)[tries - 1], "later", {"retry-after-ms": "5"})
        return obedient(messages)

    server.model = shaky
    counts = main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1)))
    assert counts["asked"] == 2 and set(seen.values()) == {3}
    server.model = lambda messages: (_ for _ in ()).throw(Failing(500, '{"error": {"message": "out of memory"}}'))
    server.requests.clear()
    with pytest.raises(DuologueError, match="failed with status 500, 4 times: out of memory; run the command again"):
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1), "tries=4", "temperature=0"))
    assert len(server.requests) == 4


def test_what_is_asked_twice_is_sent_once(tmp_path: Path, server: ChatServer) -> None:
    """Even if both ask at the same time."""
    server.model = lambda messages: time.sleep(0.05) or obedient(messages)
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Add 1"}] * 4))
    counts = main("rewrite", settings(tmp_path, server, f"source={tmp_path / 'alpaca.json'}"))
    assert (counts["conversations"], counts["asked"], counts["remembered"]) == (4, 2, 6) and len(server.requests) == 2


def test_as_many_at_a_time_as_asked_for(tmp_path: Path, server: ChatServer) -> None:
    together = threading.Barrier(3)  # nobody is answered until three have asked

    def waiting(messages: Messages) -> str:
        together.wait(timeout=60)
        return obedient(messages)

    server.model = waiting
    main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 6), "concurrency=3"))
    assert server.busiest == 3
    assert [row["id"] for row in rows_of(tmp_path)] == [f"{at:06d}" for at in range(6)]  # in their order all the same


def test_a_rule_that_is_broken_is_said_once(tmp_path: Path, server: ChatServer) -> None:
    """Digits in the first answer: asked again with the complaint. A model that never obeys loses that conversation."""

    def careless(messages: Messages) -> str:
        if role_of(messages) == "answer" or "Add 1" in messages[1]["content"]:
            return obedient(messages)
        return "Add the 4" if len(messages) == 2 or "Add 2" in messages[1]["content"] else "Add the four"

    server.model = careless
    counts = main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 3)))
    assert (counts["conversations"], counts["failed"]) == (2, 1)
    assert [row["turns"][0]["text"] for row in rows_of(tmp_path)] == ["Add the four", "Um, Add one"]
    assert rows_of(tmp_path, "spoken.jsonl.failed.jsonl") == [
        {"id": "000002", "turn": 0, "reason": "the model keeps breaking the rules: it has digits"}
    ]
    again = [one["messages"] for one in server.requests if len(one["messages"]) == 4]
    assert len(again) == 2 and all("it has digits" in messages[3]["content"] for messages in again)
    assert all(messages[2] == {"role": "assistant", "content": "Add the 4"} for messages in again)


def test_one_refusal_is_not_the_end(tmp_path: Path, server: ChatServer) -> None:
    def filtering(messages: Messages) -> str | None:
        if "Add 1" in messages[1]["content"]:
            raise Failing(400, '{"error": {"message": "filtered"}}')
        return None if "Add 2" in messages[1]["content"] else obedient(messages)

    server.model = filtering
    counts = main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 3)))
    assert (counts["conversations"], counts["failed"]) == (1, 2)
    reasons = [row["reason"] for row in rows_of(tmp_path, "spoken.jsonl.failed.jsonl")]
    assert reasons[0].endswith("refused with status 400: filtered") and reasons[1].endswith("it has no words")
    server.model = lambda messages: "[no]"
    with pytest.raises(DuologueError, match=r"none of the conversations .* first because: the model .* brackets"):
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 3), "temperature=0"))


@pytest.mark.parametrize(
    ("failing", "complaint"),
    [
        (Failing(404, '{"error": {"message": "The model `m` does not exist"}}'), "has no model 'm', .*does not exist"),
        (Failing(403, "<html>\nForbidden\n</html>", {"Content-Type": "text/html"}), "another API key .*Forbidden"),
        (Failing(200, "<html>hello</html>", {"Content-Type": "text/html"}), "does not speak the chat-completions"),
        (Failing(200, "{", {}), "does not speak the chat-completions"),
        (Failing(200, '{"choices": []}'), "does not speak the chat-completions"),
        (Failing(200, "[]"), "does not speak the chat-completions"),
    ],
    ids=["no model", "forbidden", "a web page", "broken JSON", "no choice", "a list"],
)
def test_an_endpoint_that_does_not_work(tmp_path: Path, server: ChatServer, failing: Failing, complaint: str) -> None:
    server.model = lambda messages: (_ for _ in ()).throw(failing)
    with pytest.raises(DuologueError, match=complaint) as caught:
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 2), "tries=2"))
    assert "\n" not in str(caught.value) and server.url in str(caught.value)
    assert not (tmp_path / "spoken.jsonl").exists()


def test_nobody_there(tmp_path: Path) -> None:
    with serving(obedient) as server:
        pass
    with pytest.raises(DuologueError, match=r"cannot be reached: .*refused.*run the command again"):
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1), "tries=2"))


def test_too_slow(tmp_path: Path, server: ChatServer) -> None:
    server.model = lambda messages: time.sleep(1) or "hello"
    with pytest.raises(DuologueError, match="did not answer in time, 2 times"):
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1), "tries=2", "timeout_s=0.1"))


def test_the_key_comes_from_the_environment(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-7")
    main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1), "api_key_env=MY_KEY"))
    assert server.keys == {"Bearer secret-7"}
    assert not any("secret-7" in path.read_text() for path in tmp_path.iterdir())


def test_a_full_disk(tmp_path: Path, server: ChatServer) -> None:
    from test_turn_sets import small_disk

    def talkative(messages: Messages) -> str:
        said = obedient(messages)
        return said + " well" * 2000 if role_of(messages) == "rewrite" else said

    server.model = talkative
    wide = settings(tmp_path, server, alpaca(tmp_path, 4), "max_words=3000", "concurrency=1")
    with small_disk(), pytest.raises(DuologueError, match=r"cannot write .*answers\.jsonl: File too large"):
        main("rewrite", wide)
    journal = (tmp_path / "spoken.jsonl.answers.jsonl").read_text()
    assert journal.endswith("\n") and len([json.loads(line) for line in journal.splitlines()]) == 2
    counts = main("rewrite", wide)
    assert (counts["asked"], counts["remembered"]) == (6, 2)


def test_a_spoilt_journal_is_named(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "spoken.jsonl.answers.jsonl").write_text('{"key": "a", "answer": "b"}\nrubbish\n')
    with pytest.raises(DuologueError, match=r"answers\.jsonl, line 2 is no answer"):
        main("rewrite", settings(tmp_path, server, alpaca(tmp_path, 1)))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Well, it's about twenty, I think.", ""),
        ("Das weiß ich nicht; 法国在哪里？", ""),
        ("It is 20.", "it has digits"),
        ("Paris (in France).", "it has brackets"),
        ("- one\n- two", "it is a list"),
        ("**Paris**", "it has the character '*', which is not said"),
        ("one two three four five six seven eight nine", "it has 9 words, more than 8"),
        ("", "it has no words"),
    ],
)
def test_the_rules(text: str, problem: str) -> None:
    assert broken_rule(text, 8) == problem


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["source=x", "out=y"], "needs endpoint=…, model=…"),
        (["source=x", "out=y", "endpoint=z", "model=m", "key=1"], "unknown key 'key'"),
        (["source=x", "out=y", "endpoint=z", "model=m", "steps=sing"], "steps=sing: expected rewrite, answer"),
        (["source=x", "out=y", "endpoint=z", "model=m", "concurrency=0"], "concurrency=0: expected at least 1"),
        (["source=x", "out=y", "endpoint=z", "model=m", "temperature=3"], "temperature=3: expected"),
        (["source=x", "out=y", "endpoint=z", "model=m"], "no such file or folder: x"),
    ],
)
def test_wrong_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], complaint: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DuologueError, match=complaint):
        main("rewrite", overrides)
    assert not list(tmp_path.iterdir())


def test_an_address_that_is_none(tmp_path: Path) -> None:
    for url in ("localhost:8000", "http://", "me"):
        with pytest.raises(DuologueError, match=r"expected an address such as http://localhost:8000/v1"):
            Endpoint(url, "m", key_variable="K", journal=tmp_path / "j")
