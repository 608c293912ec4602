"""What answers are worth, which pairs come of them, and conversations with a simulated user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from chat_server import Messages, serving
from tiny_assistant import tiny_assistant

from duologue.data_prep.datasets.question_sets import Dialogue, Exchange
from duologue.data_prep.text.endpoint import Endpoint
from duologue.data_prep.text.journal import Journal
from duologue.inference.evaluation.judges.endpoint import EndpointJudge, JudgeConfig
from duologue.inference.feedback import rewards
from duologue.inference.feedback.answers import Answer, Sampler, answer_all
from duologue.inference.feedback.filters import Filter, FilterConfig, speaks
from duologue.inference.feedback.pairs import Scored, pair_of
from duologue.inference.feedback.rewards import Worth, read_weights
from duologue.inference.feedback.simulator import EndpointSpeaker, ModelSpeaker, Talks, converse
from duologue.model.dialogue_state import Sampling
from duologue.model.errors import DuologueError

ASKED = Dialogue(category="", kind="", template="", question="what is two plus two", answer="it is four", slot="four",
                 operands="", history=(("hello", "hello there"),))  # fmt: skip


def worth(name: str, text: str, heard: str | None = None) -> float:
    reward = rewards.brief(4) if name == "brief" else getattr(rewards, name)
    return float(reward(ASKED, Answer(text=text, heard=heard)))


def test_rules_say_what_an_answer_is_worth() -> None:
    assert [worth("right", text) for text in ("that is 4.", "five", "four or five")] == [1, 0, 0]
    assert [worth("brief", text) for text in ("four", "it is just four", "it is " * 4, "")] == [1, 1, 0.5, 0]
    assert worth("fresh", "one two three four") == 1 and worth("fresh", "a b c a b c a b c") == pytest.approx(3 / 7)
    heard = [worth("spoken", "it is four", heard) for heard in ("it is four", "it is for", "no " * 6, "", None)]
    assert heard == pytest.approx([1, 2 / 3, 0, 0, 0])
    both = Worth(read_weights("right,brief:0.5"), {"right": rewards.right, "brief": rewards.brief(1),
                                                   "fresh": rewards.fresh})  # fmt: skip
    each = both.each(ASKED, Answer(text="it four"))
    assert each == {"right": 1, "brief": 0.5, "fresh": 1} and both.total(each) == 1.25


def test_a_chat_model_grades(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    with serving(lambda messages: "5" if "four" in messages[-1]["content"] else "Score: 2") as server:
        judge = rewards.judged(EndpointJudge(JudgeConfig(url=server.url, model="toy"), tmp_path / "judge.jsonl"))
        assert [judge(ASKED, Answer(text=text)) for text in ("four", "five", "four")] == [1, 0.25, 1]
        assert len(server.requests) == 2 and "hello there" in server.requests[0]["messages"][-1]["content"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("good", "'good' is no reward; there are right, brief"), ("right:much", "weight of right is 'much'")],
)
def test_rewards_that_are_none(text: str, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        read_weights(text)
    with pytest.raises(DuologueError, match="has no slot"):
        rewards.right(Dialogue(**{**vars(ASKED), "slot": ""}), Answer(text="four"))


def scored(*answers: tuple[str, float]) -> list[Scored]:
    return [Scored(text=text, rewards={}, total=total) for text, total in answers]


def test_the_best_answer_stands_before_worse_ones() -> None:
    answers = scored(("b", 0.5), ("a", 1.0), ("c", 0.2), ("c", 0.2), ("d", 1.0), ("", 2.0), ("e", 0.8))
    pair = pair_of("x", ASKED, answers, margin=0.3, most=2)
    assert pair == {"id": "x", "turns": [
        {"text": "hello", "reply": "hello there"},
        {"text": ASKED.question, "reply": "a", "rejected": ["c", "b"], "slot": "four"},
    ]}  # fmt: skip
    assert pair_of("x", ASKED, answers, margin=0.9, most=2) is None
    assert pair_of("x", ASKED, scored(("", 1.0)), margin=0.1, most=1) is None


def test_what_was_answered_is_not_answered_again(tmp_path: Path) -> None:
    model, sampler = tiny_assistant(scripted=False), Sampler(samples=3, temperature=1.5, max_tokens=8, seed=4)
    questions = [ASKED, Dialogue(**{**vars(ASKED), "question": "what day is it"})]
    (_, first), = answer_all(lambda: model, questions[:1], sampler, Journal(tmp_path / "a"), "")
    both = [answers for _, answers in answer_all(lambda: model, questions, sampler, Journal(tmp_path / "a"), "")]
    again = list(answer_all(lambda: pytest.fail("it was asked"), questions, sampler, Journal(tmp_path / "a"), ""))
    other = list(answer_all(lambda: model, questions, sampler, Journal(tmp_path / "b"), ""))
    assert both[0] == first and [answers for _, answers in again] == both == [answers for _, answers in other]
    assert len({answer.text for answer in first}) == 3 and all(answer.heard is None for answer in first)


def test_answers_may_be_spoken_and_heard(tmp_path: Path) -> None:
    class Counting:
        name = "counting"

        def __call__(self, waveform: object) -> str:
            return f"{len(waveform)}"  # type: ignore[arg-type]

        def words(self, waveform: object) -> list[object]:
            return []

    greedy, recogniser = Sampler(samples=1, temperature=0.0), Counting()
    found = answer_all(tiny_assistant, [ASKED], greedy, Journal(tmp_path / "a"), "", recogniser)  # type: ignore
    ((_, (answer,)),) = found
    assert answer.text == "it makes the number nine" and answer.heard is not None and int(answer.heard) > 1000


def script(turns: Sequence[Exchange], text: str, system: str, seed: int) -> str:
    return f"you said {text} after {len(turns)} turns"


def test_a_user_is_played_with_the_roles_changed(tmp_path: Path) -> None:
    seen = []

    def user(turns: Sequence[Exchange], text: str, system: str, seed: int) -> str:
        seen.append((list(turns), text, system))
        return "Goodbye." if len(turns) == 2 else f"more {len(turns)}"

    (turns,) = converse(script, user, ["hello"], Talks(turns=9, role="Be rude."), Journal(tmp_path / "a"), "")
    assert [said for said, _ in turns] == ["hello", "more 0", "more 1"]
    assert turns[2][1] == "you said more 1 after 2 turns"
    assert seen[2] == ([(turns[0][1], "more 0"), (turns[1][1], "more 1")], turns[2][1],
                       "Be rude.\nThe person began with: hello")  # fmt: skip
    fail: Talks = Talks(turns=9, role="Be rude.")
    nobody = converse(lambda *_: pytest.fail("asked"), lambda *_: pytest.fail("asked"), ["hello"], fail,
                      Journal(tmp_path / "a"), "")  # fmt: skip
    assert list(nobody) == [turns]
    with pytest.raises(DuologueError, match="nothing that a user could begin with"):
        next(converse(script, user, [], Talks(), Journal(tmp_path / "b"), ""))


def test_models_of_this_machine_and_behind_an_endpoint_converse(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    assistant = tiny_assistant()

    def chat(messages: Messages) -> str:
        return f"what is {len(messages)} plus two"

    with serving(chat) as server:
        endpoint = Endpoint(server.url, "toy", key_variable="NO_KEY", journal=tmp_path / "user")
        model = ModelSpeaker(lambda: assistant, Sampling(max_tokens=20))
        user, journal = EndpointSpeaker(endpoint, 0.5), Journal(tmp_path / "a")
        (turns,) = converse(model, user, ["hello"], Talks(turns=3), journal, "")
        assert [said for said, _ in turns] == ["hello", "what is 2 plus two", "what is 4 plus two"]
        assert server.requests[1]["messages"][1:3] == [
            {"role": "user", "content": turns[0][1]}, {"role": "assistant", "content": "what is 2 plus two"},
        ]  # fmt: skip
    assert {answer for _, answer in turns} == {"it makes the number nine"}
    itself = ModelSpeaker(lambda: assistant, Sampling(max_tokens=20))
    (alone,) = converse(model, itself, ["hello"], Talks(turns=2), Journal(tmp_path / "b"), "")
    assert alone[1][0] == "it makes the number nine", "it plays both"


def test_a_conversation_that_goes_on_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assistant = tiny_assistant(scripted=False)
    greedy = Sampling(max_tokens=8)
    speaker, turns = ModelSpeaker(lambda: assistant, greedy), list[Exchange]()
    for text in ("hello", "what is two plus two", "and three"):
        afresh = ModelSpeaker(lambda: assistant, greedy)(turns, text, "", 0)
        with monkeypatch.context() as patch:
            patch.setattr(assistant.model, "recall", lambda *_: pytest.fail("a turn was read again"))
            turns.append((text, speaker(turns, text, "", 0)))
        assert turns[-1][1] == afresh


GOOD = [("Is it going to rain today?", "No, I think it will be dry."),
        ("What should I wear then?", "A light coat will do.")]  # fmt: skip


@pytest.mark.parametrize(
    ("turns", "kept", "reason"),
    [
        (GOOD, 2, None),
        (GOOD[:1], 0, "it has 1 turns of min_turns=2"),
        ([*GOOD, ("Why?", "")], 2, "the model says 0 words"),
        ([*GOOD, ("And now?", "so so it goes " * 4)], 2, "the model repeats itself"),
        ([*GOOD, ("And the wind?", "No, I think it will be dry.")], 2, "the model says it again"),
        ([*GOOD, ("Und wie wird der Wind?", "It will be calm.")], 2, "the user speaks no en"),
        ([*GOOD, ("And the wind?", "Это будет тихий день.")], 2, "the model speaks no en"),
        ([*GOOD, ("And the wind?", "very " + " and ".join("abcdefghijklmnopqrstuvwxyzabcdefgh"))], 2, "words: "),
    ],
)
def test_what_is_kept_of_a_conversation(turns: list[Exchange], kept: int, reason: str | None) -> None:
    fit, why = Filter(FilterConfig())(turns)
    assert fit == turns[:kept] and (why is None if reason is None else reason in str(why))


def test_conversations_are_kept_once() -> None:
    look = Filter(FilterConfig())
    assert look(GOOD)[0]
    like = [GOOD[0], ("what should i wear then", "A light coat will do!")]
    assert look(like) == ([], "it is as good as the same as one before")
    assert look([("Who wrote the book?", "It was my neighbour."), ("Is she at home?", "Not that I know.")])[0]


def test_languages_are_told_apart() -> None:
    said = {"en": "What do you think of the weather", "de": "Was denkst du über das Wetter",
            "fr": "Que penses-tu de la pluie et du vent", "es": "Qué piensas de la lluvia y el viento",
            "zh": "今天天气怎么样", "ru": "Как погода сегодня"}  # fmt: skip
    for language, text in said.items():
        assert [name for name in said if speaks(text, name)] == [language], text
    assert speaks("42", "ru") and speaks("Paris!", "de")
    with pytest.raises(DuologueError, match="language is 'xx'; it must be en, de"):
        FilterConfig(language="xx")
    with pytest.raises(DuologueError, match=r"repetition is 1.5; a fraction"):
        FilterConfig(repetition=1.5)
    assert json.dumps(FilterConfig(language=None).language) == "null"
