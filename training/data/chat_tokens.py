"""Parts from elsewhere in a recipe: ``llm=FOLDER`` and ``encoder=FOLDER``, and the tokens that a language model brings.

FOLDER is what ``duologue import llm`` or ``import whisper`` wrote, a hub id of one, the run of a stage that had such a
part, or for ``llm`` a whole checkpoint. The part's sizes replace the recipe's, its weights are the start, and what
joins the parts is as wide as they are. Unless it has the words of the recipe's question set, turns are then written in
the language model's own tokens, by its own chat template: the speech stands where the user's words would, and the
answer follows at once.

    user: [speech] assistant: answer <end of turn> user: …
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoints.parts import read_run, read_sizes
from ...checkpoints.source import one_line, resolve
from ...checkpoints.store import load_tokenizer
from ...checkpoints.weights import made
from ...data_prep.datasets.question_sets import question_set
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_lm_config import PromptConfig, SpeechLMConfig
from ...model.tokens import TokenLayout
from ..recipe import Recipe
from .turns import TurnsRecipe, TurnTokens, marked_tokens

SPEECH = -200  # stands for an embedding of speech, as in LLaMA-Omni's code: no token of anybody's
MARKED_ONLY = ("ctc_weight", "text_fraction", "history")  # what a recipe does with a question set's own words
_ASKED, _ANSWERED = "SPEECHGOESHERE", "ANSWERGOESHERE"
# For a language model that was never taught to chat.
_PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def with_parts(recipe: Recipe, given: dict[str, str]) -> Recipe:
    """The recipe with ``llm`` or ``encoder`` from the folders ``given``.

    Raises:
        DuologueError: a recipe that takes no such part, or a folder that holds none.
    """
    changes: dict[str, Any] = {}
    start = {entry.partition("=")[0]: entry for entry in recipe.start}
    for part, name in given.items():
        if part not in recipe.joins:
            raise DuologueError(f"recipe {recipe.stage} takes no {part}={name}; its sizes are those of its preset")
        folder = resolve(name)
        start[part] = f"{part}={folder}"
        sizes = read_sizes(folder, part)
        if part not in sizes:
            raise DuologueError(f"{part}={name}: nothing says the sizes of an {part} there; name another run or folder")
        changes |= sizes
        if part == "llm":
            changes["tokenizer"] = _tokenizer_of(folder, recipe)
    if changes.get("tokenizer"):
        changes |= {name: 0.0 for name in MARKED_ONLY if hasattr(recipe, name)}
    return replace(recipe, start=tuple(start.values()), **changes).fitted()


def _tokenizer_of(folder: Path, recipe: Recipe) -> str | None:
    """Whose tokens the language model there writes in; None: the words of the recipe's question set."""
    if run := read_run(folder):
        return run.get("tokenizer")
    own = question_set(recipe.questions).token_ids() if isinstance(recipe, TurnsRecipe) else {}
    return None if load_tokenizer(folder).get_vocab() == own else str(folder)


def shape_of(llm: dict[str, Any]) -> tuple[int, int]:
    """How wide a language model's states are, and how many tokens it has: its config need not say what is usual."""
    model = made(lambda: LLM(llm))
    return model.hidden_size, model.vocab_size


def turn_tokens(tokenizer: str | None, questions: str) -> TurnTokens:
    """Those of a folder with a tokenizer, or where none is named those of a question set."""
    return marked_tokens(questions) if tokenizer is None else chat_tokens(tokenizer)


def chat_tokens(folder: str) -> TurnTokens:
    """A language model's own tokens, and its chat template around speech.

    Raises:
        DuologueError: no tokenizer there, or a template that does not show where a turn begins and ends.
    """
    tokenizer = load_tokenizer(resolve(folder))

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def written(*contents: str) -> str:
        roles = itertools.cycle(("user", "assistant"))
        turns = [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]
        return str(
            tokenizer.apply_chat_template(
                turns, chat_template=tokenizer.chat_template or _PLAIN, tokenize=False, add_generation_prompt=True,
                enable_thinking=False,
            )
        )  # fmt: skip

    try:
        before, after = map(ids, written(_ASKED).split(_ASKED))
        following = ids(written(_ASKED, _ANSWERED, _ASKED).split(_ANSWERED)[1].split(_ASKED)[0])
    except Exception as error:  # jinja's own, or a template that leaves out what it was given
        raise DuologueError(f"the chat template in {folder} cannot be used: {one_line(error)}") from None
    if not before or not following:
        raise DuologueError(f"the chat template in {folder} puts no token before a question or after an answer")
    special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    end = next((at for at, id_ in enumerate(following) if id_ in special), 0)
    prompt = PromptConfig(
        prefix_ids=tuple(before), suffix_ids=tuple(after), next_prefix_ids=tuple(following[end:])
    )  # fmt: skip
    eos, pad = following[end], tokenizer.pad_token_id
    return TurnTokens(
        prompt=prompt, reply=None, eos=eos, pad=eos if pad is None else pad, speech=SPEECH,
        encode=lambda text: list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)),
        decode=lambda said: str(tokenizer.decode(said, skip_special_tokens=True)).strip(),
    )  # fmt: skip


def layout_of(tokens: TurnTokens, folder: str, vocab_size: int, units: int) -> TokenLayout:
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
    """A model of these parts that writes in the tokens of the folder ``tokenizer``."""
    tokens, (_, vocab) = chat_tokens(tokenizer), shape_of(parts["llm"])
    units = parts["unit_decoder"].units if "unit_decoder" in parts else 0
    return SpeechLMConfig(**parts, layout=layout_of(tokens, tokenizer, vocab, units), prompt=None)
