"""VoiceBench's files and rules, on replies that a person can judge; IFEval's instructions, kept and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import serving

from duologue.inference.evaluation.judges.endpoint import EndpointJudge, JudgeConfig
from duologue.inference.evaluation.metrics.ifeval import CHECKS, follows, follows_loosely
from duologue.inference.evaluation.suites import voicebench as voicebench_suite
from duologue.inference.evaluation.suites.voicebench import choice, letter, score, subset_of
from duologue.model.errors import DuologueError


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("C) the sun", "C"),
        ("The answer is D.", "D"),
        ("The correct answer is **A**.", "A"),
        ("I would choose option (C), since it is warm.", "C"),
        ("It is most likely 'B'.", "B"),
        ("Answer: [d]", "D"),
        ("The best option would be a.", "A"),
        ("Because of gravity, (b) fits.", "B"),
        ("A dog is an animal and so is a cat", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_letters(reply: str, named: str | None) -> None:
    assert letter(reply) == named


def test_yes_and_no() -> None:
    assert choice("Yes, that is plausible... so yes.", "sports_understanding_3") == "yes"
    assert choice("It is not plausible.", "sports_understanding_3") == "no"
    assert choice("The answer is (B)", "hyperbaton_1") == "B" and choice("Hm.", "navigate_2") is None


def the(subset: str, **entry: Any) -> dict[str, Any]:
    return score({"prompt": "p", **entry}, subset, None, 0)["measures"]


def test_scores() -> None:
    assert the("mmsu", response="The answer is C", reference="C") == {"choice": [True, 1], "no_letter": [False, 1]}
    assert the("mmsu", response="<1>B.", reference="C")["choice"] == [False, 1]
    drawn = [score({"response": "hm", "reference": "C"}, "openbookqa", None, seed)["measures"] for seed in range(400)]
    assert all(each["no_letter"] == [True, 1] for each in drawn)
    assert 0.17 < sum(each["choice"][0] for each in drawn) / 400 < 0.33, "drawn at random"
    assert drawn[5] == score({"response": "hm", "reference": "C"}, "openbookqa", None, 5)["measures"], "by the seed"
    assert the("bbh", response="No.", reference="no", id="navigate_1")["bbh"] == [True, 1]
    assert the("advbench", response="I'm sorry, I can't help with that.")["refused"] == [True, 1]
    assert the("advbench", response="")["refused"] == [True, 1]
    assert the("advbench", response="First, take two wires.")["refused"] == [False, 1]
    assert the("sd-qa", response="It was Marie Curie, in 1903.", reference="marie curie")["reference_found"] == [
        True,
        1,
    ]
    assert the("sd-qa", response="It was Curie.", reference="Marie Curie")["reference_found"] == [False, 1]
    entry = {
        "instruction_id_list": ["punctuation:no_comma", "language:response_language", "change_case:english_lowercase"]
    }
    found = the("ifeval", response="no comma here", kwargs=[{}, {"language": "de"}, {}], **entry)
    assert found["ifeval_strict_prompt"] == [True, 1] and found["ifeval_strict_instruction"] == [2, 2]
    with pytest.raises(DuologueError, match="has no 'reference'"):
        the("mmsu", response="A")


# instruction, arguments, a reply that follows it, one that does not
INSTRUCTIONS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["sun", "moon"]}, "Sun and moon.", "The sun."),
    ("keywords:frequency", {"keyword": "la", "frequency": 2, "relation": "at least"}, "la La", "la"),
    ("keywords:forbidden_words", {"forbidden_words": ["sun"]}, "It is sunny.", "The sun."),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "zoo", "zigzag"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two.", "One, two."),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "two words", "now three words"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "well"}, "a\n\nWell, b", "well a\n\nb"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] at [place]", "[name]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Dear.\nP.S. Bye", "Dear. PS bye"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a"),
    ("detectable_format:constrained_response", {}, "My answer is yes.", "Yes."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and b"),
    ("detectable_format:multiple_sections", {"section_spliter": "Part", "num_sections": 2}, "Part 1 Part 2", "Part"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<A song>>\nla", "<A song>\nla"),
    ("combination:two_responses", {}, "one******two", "one******one"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, "say it. It.", "It. Say it"),
    ("startend:end_checker", {"end_phrase": "That is all."}, "So. that is all.", "That is all. Really"),
    ("startend:quotation", {}, '"All of it"', 'Not "all of it"'),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, "AB CD", "AB cd"),
    ("change_case:english_capital", {}, "ALL.", "All."),
    ("change_case:english_lowercase", {}, "all.", "All."),
    ("punctuation:no_comma", {}, "a and b", "a, b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "kept", "broken"), INSTRUCTIONS)
def test_instructions(name: str, arguments: dict[str, Any], kept: str, broken: str) -> None:
    assert follows(kept, name, arguments) is True and follows(broken, name, arguments) is False
    assert follows("", name, arguments) is False and follows_loosely(kept, name, arguments) is True


def test_every_instruction_is_tried_and_others_are_not_judged() -> None:
    assert {name for name, *_ in INSTRUCTIONS} == set(CHECKS)
    assert follows("x", "language:response_language", {}) is None
    assert follows_loosely("Sure, here it is:\nall of it", "punctuation:no_comma", {}) is True


def test_files_in_and_out(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "response": "A", "reference": "A"}, {"prompt": "r", "response": "B.", "reference": "A"},
            {"prompt": "broken", "reference": "A"}]  # fmt: skip
    (tmp_path / "nano-mmsu-test-audio.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "nano-alpacaeval-test-audio.jsonl").write_text(json.dumps({"prompt": "q", "response": "r"}) + "\n")
    with serving(lambda messages: "4") as server:
        judge = JudgeConfig(url=server.url, model="judge")
        report = voicebench_suite.run(data=tmp_path, out=tmp_path / "out", judge=judge, quiet=True)
    found = {entry["id"]: entry for entry in report["metrics"]}
    assert found["choice"]["value"] == 0.5 and found["choice"]["count"] == 2 and found["open"]["value"] == 4.0
    assert report["figures"]["leaderboard"] == {"mmsu": 50.0, "alpacaeval": 4.0, "overall": 65.0}
    (broken,) = report["broken"]
    assert "no response" in broken["reason"] and "broken" in broken["id"]
    assert subset_of(Path("x-alpacaeval_full-test.jsonl"), {}) == "alpacaeval_full"
    with pytest.raises(DuologueError, match="names no subset"):
        subset_of(Path("x.jsonl"), {})


def test_a_judge_over_http(tmp_path: Path) -> None:
    answers = iter(["no idea", "content = 3, style = 5", "Yes.", "2"])
    with serving(lambda messages: next(answers)) as server:
        judge = EndpointJudge(JudgeConfig(url=server.url, model="m"), tmp_path / "j.jsonl")
        assert judge.content_and_style("what is it", "a cat") == (3.0, 5.0), "asked again, for the form"
        assert judge.content_and_style("what is it", "a cat") == (3.0, 5.0) and len(server.requests) == 2, "once each"
        assert judge.agrees("q", "a", "b") is True and judge.related("a", "b", "c") == 2.0
    with serving(lambda messages: "who knows") as server:
        judge = EndpointJudge(JudgeConfig(url=server.url, model="m"), tmp_path / "k.jsonl")
        with pytest.raises(DuologueError, match="gave no grade, but: 'who knows'"):
            judge.score("q", "r")
