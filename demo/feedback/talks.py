"""Conversations of a model with a simulated user, filtered, as a file of conversations."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ...checkpoints.files import expanded, lines, read_text, write_json_lines
from ...checkpoints.outputs import keep_apart, model_path
from ...data_prep.datasets.question_sets import question_set
from ...data_prep.datasets.splits import Split
from ...data_prep.text.endpoint import Endpoint
from ...data_prep.text.journal import Journal
from ...inference.assistant.assistant import Assistant, limit_threads
from ...inference.assistant.loading import load
from ...inference.evaluation.judges.endpoint import KEY_VARIABLE
from ...inference.feedback.filters import Filter, FilterConfig
from ...inference.feedback.simulator import ROLE, EndpointSpeaker, ModelSpeaker, Speaker, Talks, converse
from ...model.dialogue_state import Sampling
from ...model.errors import DuologueError


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    out: the file of conversations; OUT.turns.jsonl keeps every turn, OUT.failed.jsonl says what was left out
    model: what is talked with
    user: who plays the user: self, the model with the roles changed; a model's name or folder; or an endpoint's address
    user_model: the name of the user's model at the endpoint
    openings: what users begin with: a .txt, one a line; a question set's name; or a file of conversations
    n, turns: how many conversations, and turns of each, at most
    system: the model's system prompt; role: what the user's model is told
    temperature, max_tokens, seed: of both
    keep: what is kept of them (see inference/feedback/filters.py)
    """

    out: str
    model: str = "nano"
    user: str = "self"
    user_model: str = ""
    openings: str = "nano"
    n: int = 50
    turns: int = 8
    system: str = ""
    role: str = ROLE
    temperature: float = 0.7
    max_tokens: int = 64
    seed: int = 0
    keep: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        for name, least in (("n", 1), ("turns", 1), ("max_tokens", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise DuologueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.user.startswith(("http:", "https:")) and not self.user_model:
            raise DuologueError(f"user={self.user} is an endpoint: give user_model=NAME, its model there")


def run(config: Config, say: Callable[[str], None]) -> dict[str, int]:
    """Hold the conversations and write those that are kept; returns the counts.

    Raises:
        DuologueError: a model or an endpoint that fails, no openings, or nothing is left.
    """
    out = expanded(config.out)
    journal, failed = (out.with_name(f"{out.name}.{what}.jsonl") for what in ("turns", "failed"))
    models = {"model=": model_path(config.model), "user=": model_path(config.user)}
    keep_apart({"out=": out, "the journal": journal, "the list of failures": failed},
               {"openings=": config.openings, **models})  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    sampling = Sampling(temperature=config.temperature, max_tokens=config.max_tokens)
    loaded = _once(config.model)
    model = ModelSpeaker(loaded, sampling)
    user: Speaker = ModelSpeaker(loaded if config.user == "self" else _once(config.user), sampling)
    if config.user.startswith(("http:", "https:")):
        answers = out.with_name(f"{out.name}.user.jsonl")
        endpoint = Endpoint(config.user, config.user_model, key_variable=KEY_VARIABLE, journal=answers)
        user = EndpointSpeaker(endpoint, config.temperature)
    talks = Talks(turns=config.turns, system=config.system, role=config.role)
    about = f"{config.model} {config.user} {config.user_model} {sampling}"
    kept, failures, look = list[dict[str, Any]](), list[dict[str, Any]](), Filter(config.keep)
    for number, turns in enumerate(
        converse(model, user, openings_of(config), talks, Journal(journal), about, config.seed)
    ):
        name = f"talk-{config.seed}-{number}"
        fit, reason = look(turns)
        if reason is not None:
            failures.append({"id": name, "turns": len(turns), "kept": len(fit), "reason": reason})
        if fit:
            system = {"system": config.system} if config.system else {}
            kept.append({"id": name, **system, "turns": [{"text": said, "reply": answer} for said, answer in fit]})
    write_json_lines(failed, failures)
    if not kept:
        raise DuologueError(f"no conversation can be kept, the first because {failures[0]['reason']}; see {failed}")
    write_json_lines(out, kept)
    counts = {"conversations": len(kept), "turns": sum(len(row["turns"]) for row in kept), "cut": len(failures)}
    say(", ".join(f"{name}: {count}" for name, count in counts.items()))
    return counts


def openings_of(config: Config) -> list[str]:
    """What the users begin with, each of them once."""
    if config.openings.endswith(".txt"):
        found = [line.strip() for line in lines(read_text(expanded(config.openings))) if line.strip()]
    else:
        questions = question_set(config.openings)
        written = questions.written(answered=False)
        some = questions.distinct(config.seed, config.n, Split.TRAIN) if written is None else written
        found = [each.question for each in some if not each.history]
    return list(dict.fromkeys(found))[: config.n]


def _once(name: str) -> Callable[[], Assistant]:
    @functools.cache
    def loaded() -> Assistant:
        assistant = load(name)
        limit_threads(assistant)
        return assistant

    return loaded
