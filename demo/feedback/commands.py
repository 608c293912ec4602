"""The commands ``duologue feedback …``."""

from __future__ import annotations

from typing import Annotated

import typer

from ...checkpoints.program import say
from ..home import Commands

feedback_commands = Commands(no_args_is_help=True, rich_markup_mode=None)
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings; a wrong one lists what there is.")
]


@feedback_commands.command("rounds")
def feedback_rounds(settings: Settings = None) -> None:
    """A model answers several times, rewards tell its answers apart, and it learns to prefer the best; again.

    \b
    duologue feedback rounds out=runs/brief reward=brief words=8 measure=right,fresh
    duologue feedback rounds out=runs/right model=mine questions=mine/turns.jsonl reward=right,fresh:0.5 rounds=3
    duologue feedback rounds out=runs/graded reward=judge judge.url=http://localhost:8000/v1 judge.model=NAME
    duologue feedback rounds out=runs/pairs train=false            pairs alone, for duologue train dpo
    duologue feedback rounds out=runs/brief reward=brief dpo.steps=200 dpo.beta=0.3     settings of the training

    Rewards: right, brief, fresh, spoken, judge, model. A broken-off run goes on where it stopped.
    """
    from ...checkpoints.settings import read_settings
    from ...training.main import run as train
    from .rounds import Config, run

    own = [word for word in settings or [] if not word.startswith("dpo.")]
    theirs = [word.removeprefix("dpo.") for word in settings or [] if word.startswith("dpo.")]
    run(read_settings(Config, own, "feedback rounds"), lambda words: train("dpo", [*theirs, *words]), say)


@feedback_commands.command("talks")
def feedback_talks(settings: Settings = None) -> None:
    """A simulated user holds long conversations with a model; what repeats itself or is not fit is left out.

    \b
    duologue feedback talks out=talks.jsonl model=mine openings=openings.txt          the model plays both
    duologue feedback talks out=talks.jsonl model=mine user=http://localhost:8000/v1 user_model=NAME turns=12
    duologue feedback talks out=talks.jsonl model=mine user=other keep.max_words=40 keep.language=de
    """
    from ...checkpoints.settings import read_settings
    from .talks import Config, run

    run(read_settings(Config, settings or [], "feedback talks"), say)
