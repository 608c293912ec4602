"""Parts from elsewhere in a recipe: ``llm=FOLDER``, ``encoder=FOLDER``, ``adaptor=FOLDER``, and the tokens that a
language model brings.

FOLDER is what ``duologue import llm`` or ``import whisper`` wrote, a hub id of one, the run of a stage that had such a
part, or a whole checkpoint. The part's sizes replace the recipe's, its weights are the start, and what joins the parts
is as wide as they are. Unless the language model has the words of the recipe's question set, turns are then written in
its own tokens, by its own chat template (see chat_turns.py).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoints.files import expanded
from ...checkpoints.parts import read_run, read_sizes
from ...checkpoints.source import resolve
from ...checkpoints.store import load_tokenizer
from ...checkpoints.weights import made
from ...data_prep.datasets.question_sets import question_set
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_lm_config import SpeechLMConfig
from ...model.tokens import TokenLayout
from ..loop.parts import weighted_runs
from ..recipe import Recipe
from .chat_turns import ChatTokens
from .marked_turns import marked_tokens
from .turns import TurnsRecipe, TurnTokens

LONGEST_PAST = 4096  # positions of past turns


def with_parts(recipe: Recipe, given: dict[str, str]) -> Recipe:
    """The recipe with the parts from the folders ``given``, and in the sizes of the other runs that it starts from.

    Raises:
        DuologueError: a recipe that takes no such part, or a folder that holds none.
    """
    changes: dict[str, Any] = {}
    start = {entry.partition("=")[0]: entry for entry in recipe.start}
    for part, entry in start.items():
        folder = weighted_runs(entry.partition("=")[2])[0][1]
        if part in recipe.joins and part not in given and expanded(folder).is_dir():
            changes |= read_sizes(folder, part)
    for part, name in given.items():
        if part not in recipe.joins:
            raise DuologueError(f"recipe {recipe.stage} takes no {part}={name}; its sizes are those of its preset")
        path = resolve(name)
        start[part] = f"{part}={path}"
        sizes = read_sizes(path, part)
        if part not in sizes:
            raise DuologueError(f"{part}={name}: nothing says the sizes of an {part} there; name another run or folder")
        changes |= sizes
        if part == "llm":
            changes["tokenizer"] = _tokenizer_of(path, recipe)
    return replace(recipe, start=tuple(start.values()), **changes).fitted()


def _tokenizer_of(folder: Path, recipe: Recipe) -> str | None:
    """Whose tokens the language model there writes in; None: the words of the recipe's question set."""
    if run := read_run(folder):
        return run.get("tokenizer")
    questions = recipe.questions if isinstance(recipe, TurnsRecipe) else None
    own = {} if questions is None else question_set(questions).token_ids()
    return None if load_tokenizer(folder).get_vocab() == own else str(folder)


def shape_of(llm: dict[str, Any]) -> tuple[int, int]:
    """How wide a language model's states are, and how many tokens it has: its config need not say what is usual."""
    model = made(lambda: LLM(llm))
    return model.hidden_size, model.vocab_size


def turn_tokens(tokenizer: str | None, questions: str | None) -> TurnTokens:
    """Those of a folder with a tokenizer, or where none is named those of a question set.

    Raises:
        DuologueError: neither, or there is no tokenizer, or one with a chat template that cannot be used.
    """
    if tokenizer is not None:
        return chat_tokens(tokenizer)
    if questions is None:
        raise DuologueError("questions is none, and no llm brings a tokenizer: give one of them")
    return marked_tokens(questions)


@functools.lru_cache(8)
def chat_tokens(folder: str) -> ChatTokens:
    """A language model's own tokens, and its chat template."""
    tokenizer = load_tokenizer(resolve(folder))
    try:
        return ChatTokens(tokenizer)
    except DuologueError as error:
        raise DuologueError(f"{folder}: {error}") from None


def layout_of(tokens: ChatTokens, folder: str, vocab_size: int, units: int) -> TokenLayout:
    """The layout of a model that writes in these tokens: all that it generates is reply.

    Where a vocabulary has one token for several markers, as GPT's, an id that nothing else uses stands for the others:
    no model is fed bos or pad by itself.

    Raises:
        DuologueError: there is no such id.
    """
    tokenizer = load_tokenizer(resolve(folder))
    special = sorted(id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special)
    spare = [tokenizer.pad_token_id, tokenizer.unk_token_id, *special, *range(len(tokenizer), vocab_size)]
    taken = [tokens.eos]
    for wanted in (tokenizer.bos_token_id, tokens.pad):
        free = [id_ for id_ in (wanted, *spare) if id_ is not None and id_ not in taken]
        if not free:
            raise DuologueError(f"the tokenizer in {folder} leaves no id for bos and pad beside its end of a turn")
        taken.append(free[0])
    eos, bos, pad = taken
    edges = sorted({-1, *taken, len(tokenizer)})
    gaps = [(low + 1, high) for low, high in itertools.pairwise(edges) if low + 1 < high <= len(tokenizer)]
    return TokenLayout(bos=bos, eos=eos, pad=pad, text=max(gaps, key=lambda gap: gap[1] - gap[0]), units=units)


def joined_config(tokenizer: str, **parts: Any) -> SpeechLMConfig:
    """A model of these parts that writes in the tokens of the folder ``tokenizer``. Past turns may fill half of the
    language model's context, and LONGEST_PAST positions at most."""
    tokens, llm = chat_tokens(tokenizer), made(lambda: LLM(parts["llm"]))
    units = parts["unit_decoder"].units if "unit_decoder" in parts else 0
    layout, history = layout_of(tokens, tokenizer, llm.vocab_size, units), LONGEST_PAST
    if llm.context is not None:
        history = max(1, min(history, llm.context // 2))
    return SpeechLMConfig(**parts, layout=layout, prompt=None, history=history)
