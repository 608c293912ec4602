"""Feedback in rounds: a model answers several times, rewards tell its answers apart, and it learns to prefer the best.

OUT/measured-1.jsonl    answers to held-out questions after round 1, and their rewards; measured-0: before it
OUT/round-1/            answers.jsonl, scores.jsonl, pairs.jsonl, the run ``dpo`` and the ``model`` that came of it
OUT/report.json         every reward before and after each round, and whether they differ

What is there is not made again: a run that was broken off goes on by the same command.

Source: Xu et al., "Some things are more cringe than others: Iterative preference optimization" (arXiv 2312.16682), and
Yuan et al. (arXiv 2401.10020), section 2: pairs of a model's own answers, round after round.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...checkpoints import store
from ...checkpoints.files import expanded, read_object, write_json, write_json_lines
from ...checkpoints.outputs import keep_apart, model_path
from ...checkpoints.source import CONFIG
from ...data_prep.datasets.question_sets import Dialogue, question_set
from ...data_prep.datasets.splits import Split
from ...data_prep.text.journal import Journal
from ...inference.assistant.assistant import Assistant, limit_threads
from ...inference.assistant.loading import load
from ...inference.evaluation.judges.endpoint import EndpointJudge, JudgeConfig
from ...inference.evaluation.metrics.statistics import Metric, compare
from ...inference.feedback import rewards
from ...inference.feedback.answers import Answer, Sampler, answer_all
from ...inference.feedback.pairs import Scored, pair_of
from ...inference.feedback.rewards import RULES, Worth, read_weights
from ...model.errors import DuologueError
from ...training.loop.parts import load_parts

MEASURES = "measures"


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    out: the folder of all rounds
    model: what answers and learns: a bundled name, a folder or a hub id
    questions: a question set's name, or a file of conversations
    n, held_out: questions of training that a round asks; of development, that every round is measured on (0: none)
    reward: what counts, with weights: right,brief:0.5 (see inference/feedback/rewards.py)
    measure: rewards that are measured beside those that count
    measure_temperature: of the answers that are measured; 0: the likeliest
    words: that a brief answer has at most
    rounds: how many; train: otherwise nothing is learnt, and the first round's pairs are all
    samples, temperature, top_p, max_tokens, seed: of the answers to each question
    margin: how much less an answer must be worth than the best one to be rejected; rejected: so many of them at most
    judge: url and model of a chat model that grades (reward judge)
    reward_model: a run of recipe reward (reward model)
    recogniser: that hears what is spoken (reward spoken); none: the usual one
    """

    out: str
    model: str = "nano"
    questions: str = "nano"
    n: int = 200
    held_out: int = 200
    reward: str = "right"
    measure: str = "brief,fresh"
    measure_temperature: float = 0.0
    words: int = 12
    rounds: int = 1
    train: bool = True
    samples: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int = 0
    margin: float = 0.3
    rejected: int = 1
    judge: JudgeConfig | None = None
    reward_model: str | None = None
    recogniser: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("held_out", 0), ("words", 1), ("rounds", 1), ("samples", 2), ("max_tokens", 1),
                            ("seed", 0), ("rejected", 1), ("measure_temperature", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise DuologueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in ("temperature", "margin"):
            if not getattr(self, name) > 0:
                raise DuologueError(f"{name} is {getattr(self, name)}; it must be above 0")
        named = [*read_weights(self.reward), *read_weights(self.measure or "fresh")]
        for reward, setting in (("judge", self.judge), ("model", self.reward_model)):
            if reward in named and setting is None:
                what = "judge.url= and judge.model=" if reward == "judge" else "reward_model=RUN"
                raise DuologueError(f"reward {reward} needs {what}")

    @property
    def sampler(self) -> Sampler:
        return Sampler(samples=self.samples, temperature=self.temperature, top_p=self.top_p,
                       max_tokens=self.max_tokens, seed=self.seed)  # fmt: skip


def run(config: Config, train: Callable[[list[str]], Any], say: Callable[[str], None]) -> dict[str, Any]:
    """All rounds; returns what report.json holds.

    Args:
        train: trains ``dpo`` with these settings.
        say: shows a line as each round ends.
    Raises:
        DuologueError: questions, rewards or settings that do not fit each other, or a round without any pair.
    """
    out = expanded(config.out)
    keep_apart({"out=": out}, {"model=": model_path(config.model), "questions=": config.questions})
    out.mkdir(parents=True, exist_ok=True)
    _same_settings(config, out / "report.json")
    work = _Rounds(config, out, train)
    report: dict[str, Any] = {"config": asdict(config), "rounds": []}
    before, model, llm = work.measured("0", config.model), config.model, config.model
    for number in range(1, config.rounds + 1):
        folder = out / f"round-{number}"
        pairs, answered = work.pairs(folder, number, model)
        report["rounds"].append({"round": number, "questions": answered, "pairs": pairs})
        if config.train:
            if not pairs:
                raise DuologueError(
                    f"no two answers to one of {answered} questions differ by margin={config.margin} in "
                    f"{config.reward}: ask more questions (n=), more often (samples=), or lower the margin"
                )
            model, llm = work.learnt(folder, model, llm)
            after = work.measured(str(number), model)
            report["rounds"][-1][MEASURES] = _differences(before, after)
            before = after
        write_json(out / "report.json", report)
        for line in _lines(report["rounds"][-1]):
            say(line)
        if not config.train:
            break
    return report


def _same_settings(config: Config, report: Path) -> None:
    """Raises DuologueError where rounds of other settings are there; more of them may be asked for."""
    if not report.is_file():
        return
    before, now = read_object(report).get("config", {}), asdict(config)
    for key, value in now.items():
        if key != "rounds" and before.get(key) != value:
            raise DuologueError(
                f"{report.parent} has rounds of {key}={before.get(key)}, not {value}: go on with the same settings, or "
                "give another out="
            )


class _Rounds:
    """The steps of a round."""

    def __init__(self, config: Config, out: Path, train: Callable[[list[str]], Any]) -> None:
        self.config, self.out, self.train = config, out, train
        self.questions = question_set(config.questions)
        self.worth = self._worth()
        self.recogniser = None
        if "spoken" in self.worth.rewards:
            from ...checkpoints.recognisers.recogniser import find_recogniser

            self.recogniser = find_recogniser(config.recogniser)

    def _worth(self) -> Worth:
        config, weights = self.config, read_weights(self.config.reward)
        named = dict.fromkeys([*weights, *(read_weights(config.measure) if config.measure else {})])
        made: dict[str, rewards.Reward] = {}
        for name in named:
            if name == "judge":
                assert config.judge is not None
                made[name] = rewards.judged(EndpointJudge(config.judge, self.out / "judge.jsonl"))
            elif name == "model":
                from ...training.preference.reward_model import load_reward

                made[name] = _by_model(load_reward(str(config.reward_model)))
            else:
                assert name in RULES
                made[name] = rewards.brief(config.words) if name == "brief" else getattr(rewards, name)
        return Worth(weights, made)

    def asked(self, split: Split, count: int, number: int) -> list[Dialogue]:
        """Questions of a split: of a set in writing the next ones in each round, of one that makes them new ones."""
        found = self.questions.written(split)
        if found is None:
            return list(self.questions.distinct(1_000 * self.config.seed + number, count, split)) if count else []
        if count and not found:
            advice = "give held_out=0, or a larger set" if split is Split.DEV else "give a larger set"
            raise DuologueError(f"{self.config.questions} has no question in the split {split.value}: {advice}")
        first = max(0, number - 1) * count % max(1, len(found))
        return [*found[first:], *found[:first]][:count]

    def scored(
        self, folder: Path, model: str, questions: Sequence[Dialogue], sampler: Sampler, name: str
    ) -> Iterator[tuple[Dialogue, list[Scored]]]:
        journal = Journal(folder / f"{name}.jsonl")
        assistant = functools.cache(lambda: _loaded(model))
        for question, answers in answer_all(assistant, questions, sampler, journal, model, self.recogniser):
            found = []
            for answer in answers:
                each = self.worth.each(question, answer)
                found.append(Scored(text=answer.text, rewards=each, total=self.worth.total(each)))
            yield question, found

    def pairs(self, folder: Path, number: int, model: str) -> tuple[int, int]:
        """Write the pairs of a round; returns how many there are, of how many questions."""
        folder.mkdir(exist_ok=True)
        questions = self.asked(Split.TRAIN, self.config.n, number)
        made, scores = [], []
        sampled = self.scored(folder, model, questions, self.config.sampler, "answers")
        for at, (question, answers) in enumerate(sampled):
            name = f"round-{number}-{at}"
            scores += [{"id": name, **asdict(answer)} for answer in answers]
            pair = pair_of(name, question, answers, self.config.margin, self.config.rejected)
            made += [] if pair is None else [pair]
        write_json_lines(folder / "scores.jsonl", scores)
        write_json_lines(folder / "pairs.jsonl", made)
        return len(made), len(questions)

    def learnt(self, folder: Path, model: str, llm: str) -> tuple[str, str]:
        """Train on a round's pairs; returns the model that came of it, and the run that has its language model."""
        dpo, made = folder / "dpo", folder / "model"
        if not (made / CONFIG).is_file():
            self.train([f"llm={llm}", f"data={folder / 'pairs.jsonl'}", f"out={dpo}"])
            checkpoint = store.load(model)
            load_parts({"llm": checkpoint.model.llm}, [f"llm={dpo}"])
            store.save(made, checkpoint.model, checkpoint.tokenizer, half=True)
        return str(made), str(dpo)

    def measured(self, round_: str, model: str) -> dict[str, dict[str, Any]]:
        """Of each held-out question the rewards of the model's answer, as rows by their question."""
        questions = self.asked(Split.DEV, self.config.held_out, 0)
        once = replace(self.config.sampler, samples=1, temperature=self.config.measure_temperature)
        rows, name = {}, f"held_out-{round_}"
        for at, (question, (answer,)) in enumerate(self.scored(self.out, model, questions, once, name)):
            values = {**answer.rewards, "reward": answer.total}
            rows[str(at)] = {"question": question.question, "answer": answer.text,
                             MEASURES: {key: [value, 1] for key, value in values.items()}}  # fmt: skip
        write_json_lines(self.out / f"measured-{round_}.jsonl", ({"id": at, **row} for at, row in rows.items()))
        return rows


def _loaded(model: str) -> Assistant:
    assistant = load(model)
    limit_threads(assistant)
    return assistant


def _by_model(score: Callable[[Mapping[str, Any]], float]) -> rewards.Reward:
    def worth(question: Dialogue, answer: Answer) -> float:
        return score({"text": question.question, "answer": answer.text, "history": question.history,
                      "system": question.system})  # fmt: skip

    return worth


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """{reward: before, after, the 95 % interval of the difference, p} over the held-out questions."""
    names = list(next(iter(before.values()))[MEASURES]) if before else []
    found = {}
    for name in names:
        each = compare(Metric(key=name, name=name), before, after)
        found[name] = {"before": each.a, "after": each.b, "low": each.low, "high": each.high, "p": each.p,
                       "questions": each.count}  # fmt: skip
    return found


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"round {report['round']}: {report['pairs']} pairs of {report['questions']} questions"
    for name, found in report.get(MEASURES, {}).items():
        yield (
            f"  {name}: {found['before']:.3f} -> {found['after']:.3f} "
            f"(difference {found['low']:+.3f} to {found['high']:+.3f}, p = {found['p']:.3g})"
        )
