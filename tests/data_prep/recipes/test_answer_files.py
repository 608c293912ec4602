"""What a language model writes into conversations: each asked once, in batches, with what was said before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from any_model import tiny_llm

from duologue.data_prep.datasets.conversations import read_conversations
from duologue.data_prep.prepare import main
from duologue.data_prep.recipes import answers
from duologue.data_prep.text.sentences import first_sentences, is_closed
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import ChatTemplate
from duologue.model.language_model.greedy import Continuation


class Mind:
    """Answers prompts in the place of a language model's weights: ``say`` gives the text to the prompt's text."""

    def __init__(self, say: Callable[[str], str]) -> None:
        self.say, self.batches = say, list[list[str]]()
        self.template: ChatTemplate

    def continue_all(
        self, llm: object, prompts: Sequence[list[int]], ends: object, most: int, enough: Callable[[list[int]], bool]
    ) -> list[Continuation]:
        self.batches.append([self.template.decode(prompt) for prompt in prompts])
        return [self._continued(prompt, most, enough) for prompt in self.batches[-1]]

    def _continued(self, prompt: str, most: int, enough: Callable[[list[int]], bool]) -> Continuation:
        ids = self.template.encode(self.say(prompt))
        for size in range(1, min(most, len(ids)) + 1):
            if enough(ids[:size]):
                return Continuation(ids[:size], True)
        return Continuation(ids[:most], most > len(ids))


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_llm(tmp_path_factory.mktemp("llm"), template="chatml")


@pytest.fixture
def mind(monkeypatch: pytest.MonkeyPatch) -> Mind:
    mind, load = Mind(lambda prompt: "It is so. And more."), answers.load_llm

    def loaded(*given: Any) -> Any:
        model, tokenizer = load(*given)
        mind.template = ChatTemplate(tokenizer)
        return model, tokenizer

    monkeypatch.setattr(answers, "load_llm", loaded)
    monkeypatch.setattr(answers, "continue_all", mind.continue_all)
    return mind


def written(path: Path, *conversations: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in conversations))
    return f"source={path}"


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_model_of_transformers_answers(tmp_path: Path, llm: str) -> None:
    """The tiny one says nothing of sense, but it says it; what it does not end is left out."""
    source = written(tmp_path / "q.jsonl", {"turns": [{"text": "Hello"}]}, {"turns": [{"text": "What is Paris?"}]})
    out = tmp_path / "deep" / "out.jsonl"
    with pytest.raises(DuologueError, match="the first because: the model wrote no whole answer within max_tokens=5"):
        main("answers", [source, f"out={out}", f"llm={llm}", "max_tokens=5", "sentences=1"])
    assert not out.exists() and len(rows(out.with_name("out.jsonl.answers.jsonl"))) == 2


def test_replies_in_turn(tmp_path: Path, llm: str, mind: Mind) -> None:
    """A later turn is asked behind the answer to the earlier one; a reply that is there stays."""
    mind.say = lambda prompt: f"You said {prompt.rsplit('user', 1)[1].split()[0]}. And more."
    source = written(
        tmp_path / "q.jsonl",
        {"id": "a", "system": "Be kind.", "turns": [{"text": "one"}, {"text": "two", "instruction": "Short."}]},
        {"id": "b", "turns": [{"text": "three", "reply": "3"}, {"text": "four"}, {"text": "go", "respond": False}]},
    )
    out = tmp_path / "out.jsonl"
    counts = main("answers", [source, f"out={out}", f"llm={llm}", "sentences=1"])
    assert counts == {"conversations": 2, "turns": 5, "failed": 0, "written": 3, "remembered": 0}
    first, second = read_conversations(out)
    assert [turn.reply for turn in first.turns] == ["You said one.", "You said two."] and first.system == "Be kind."
    assert [turn.reply for turn in second.turns] == ["3", "You said four.", None]
    (early, later) = mind.batches
    assert sorted(len(prompts) for prompts in mind.batches) == [1, 2]
    assert "Be kind." in later[0] and "You said one." in later[0] and "two\nShort." in later[0]
    assert any("three" in prompt and "assistant\n3" in prompt for prompt in early)


def test_nothing_is_written_twice(tmp_path: Path, llm: str, mind: Mind, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that broke off goes on; more conversations ask for what is new; another setting asks anew."""
    source = written(tmp_path / "q.jsonl", *({"turns": [{"text": f"{'x ' * (7 - at)}{at}"}]} for at in range(7)))
    settings = [source, f"out={tmp_path / 'out.jsonl'}", f"llm={llm}", "batch_size=2"]
    say = mind.say

    def breaking(prompt: str) -> str:
        if len(mind.batches) == 3:
            raise KeyboardInterrupt
        return say(prompt)

    mind.say = breaking
    monkeypatch.setattr(answers, "BLOCK", 2)
    with pytest.raises(KeyboardInterrupt):
        main("answers", settings)
    assert not (tmp_path / "out.jsonl").exists()
    assert [prompt.split("user")[1].split()[-2] for batch in mind.batches[:2] for prompt in batch] == list("3210")
    mind.say = say
    assert main("answers", [*settings, "n=4"])["remembered"] == 4  # the first block is whole
    counts = main("answers", settings)
    assert (counts["written"], counts["remembered"], counts["conversations"]) == (3, 4, 7)
    assert [row["turns"][0]["text"][-1] for row in rows(tmp_path / "out.jsonl")] == list("0123456")  # in their order
    monkeypatch.setattr(answers, "load_llm", None)  # not even loaded
    assert main("answers", settings)["written"] == 0


@pytest.mark.parametrize(
    ("into", "wanted"),
    [
        ("text", {"id": "a-text", "turns": [{"text": "Where is it?"}]}),
        ("statement", {"id": "a-statement", "turns": [{"text": "Where is it?", "respond": False}]}),
        ("follow_up", {"id": "a", "turns": [{"text": "Capital?", "reply": "Paris."}, {"text": "Where is it?"}]}),
    ],
)
def test_more_from_a_set(into: str, wanted: dict[str, Any], tmp_path: Path, llm: str, mind: Mind) -> None:
    """In other words, behind the answer, or as something that needs none; no text twice."""
    mind.say = lambda prompt: '"Where is it?"' if "Capital" in prompt else '"Hello."'
    source = written(
        tmp_path / "q.jsonl",
        {"id": "a", "turns": [{"text": "Capital?", "reply": "Paris."}]},
        {"id": "b", "turns": [{"text": "hello.", "reply": "Hi."}]},
        {"id": "c", "turns": [{"text": "no reply"}]},
        {"id": "d", "turns": [{"text": "Capital!", "reply": "Paris."}]},
    )
    out = tmp_path / "out.jsonl"
    ask = "ask=Asked {text}, told {reply}: what else?"
    counts = main("answers", [source, f"out={out}", f"llm={llm}", ask, f"into={into}"])
    assert (counts["conversations"], counts["failed"], counts["written"]) == (1, 2, 3)
    assert rows(out) == [wanted]
    assert any("Asked Capital?, told Paris.: what else?" in prompt for prompt in mind.batches[0])
    assert rows(tmp_path / "out.jsonl.failed.jsonl") == [
        {"id": "b", "turn": 0, "reason": "there is such a text already: Hello."},
        {"id": "d", "turn": 0, "reason": "there is such a text already: Where is it?"},
    ]


def test_one_of_several_wordings(tmp_path: Path, llm: str, mind: Mind) -> None:
    source = written(tmp_path / "q.jsonl", *({"id": f"{at}", "turns": [{"text": f"t{at}"}]} for at in range(20)))
    main("answers", [source, f"out={tmp_path / 'out.jsonl'}", f"llm={llm}", "ask=First {text}|Second {text}"])
    asked = [prompt.split("user\n")[1].split()[0] for batch in mind.batches for prompt in batch]
    assert len(asked) == 20 and 5 < asked.count("First") < 15 and set(asked) == {"First", "Second"}


@pytest.mark.parametrize(
    ("text", "count", "wanted"),
    [
        ("It is Paris. It", 1, "It is Paris."),
        ("It is Paris.", 1, None),  # of 1.5 there may be more
        ("Dr. King was born in the U.S. in 1929. He", 1, "Dr. King was born in the U.S. in 1929."),
        ("It costs 1.5 dollars! Yes", 1, "It costs 1.5 dollars!"),
        ("1. Open it.\n2. Close it.", 1, "1. Open it."),
        ('He said "no." Then', 1, 'He said "no."'),
        ("Steps:\n- one", 1, "Steps:"),
        ("\n\nYes. No. Maybe", 2, "Yes. No."),
        ("Yes.\n\nNo.\n", 2, "Yes.\n\nNo."),
        ("是。不是。", 1, "是。"),
        ("", 1, None),
    ],
)
def test_where_sentences_end(text: str, count: int, wanted: str | None) -> None:
    assert first_sentences(text, count) == wanted


def test_what_is_closed() -> None:
    assert all(map(is_closed, ["Yes.", "No!", 'He said "no."', "是。"]))
    assert not any(map(is_closed, ["Steps:", "", "and then", "1. Open"]))


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["into=song"], "into=song: expected reply, text, follow_up, statement"),
        (["ask=Say it again"], r"ask=Say it again: expected \{text\} or \{reply\} in it"),
        (["ask={text}|Again"], "in each where | stands between"),
        (["batch_size=0"], "batch_size=0: expected at least 1"),
        (["dtype=int4"], "dtype is 'int4'; it must be"),
        (["llm=."], "is not a folder of an imported llm|has no language model"),
        (["ask={reply}", "into=text"], r"nothing to ask about: expected conversations whose last turn has \{reply\}"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, llm: str, overrides: list[str], complaint: str) -> None:
    source = written(tmp_path / "q.jsonl", {"turns": [{"text": "Hello"}]})
    with pytest.raises(DuologueError, match=complaint):
        main("answers", [source, f"out={tmp_path / 'out.jsonl'}", f"llm={llm}", *overrides])
    assert not (tmp_path / "out.jsonl").exists()
