"""The most likely continuations of many prompts at once, in writing: for data, where no reply is heard or streamed.

Tokens in, tokens out. What all prompts begin with (a system prompt) is read once, and a row that has ended leaves the
batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DuologueError
from .causal_lm import LLM, LLMState, transformers_cache


class Continuation(NamedTuple):
    """ids: without the token that ends them. ended: False where ``most`` tokens were not enough."""

    ids: list[int]
    ended: bool


@torch.no_grad()
def continue_all(
    llm: LLM,
    prompts: Sequence[Sequence[int]],
    ends: Collection[int],
    most: int,
    enough: Callable[[list[int]], bool] = lambda ids: False,
) -> list[Continuation]:
    """Continue each prompt by its most likely tokens, until one of ``ends``, until it is ``enough``, or for ``most``.

    In float32 a prompt's continuation does not depend on its neighbours; shorter prompts are padded on the left, behind
    what all have in common.

    Raises:
        DuologueError: an empty prompt.
    """
    if not all(prompts):
        raise DuologueError("a prompt is empty: there is nothing to continue")
    said: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    if not prompts:
        return []
    live = list(range(len(prompts)))
    ids, mask, state = _opened(llm, prompts, _shared(llm, prompts, most))
    for _ in range(most):
        best = _next(llm, ids, mask, state)  # (rows,)
        kept = []
        for row, token in enumerate(best.tolist()):
            at = live[row]
            if token not in ends:
                said[at].append(token)
            if token in ends or enough(said[at]):
                ended[at] = True
            else:
                kept.append(row)
        if not kept:
            break
        if len(kept) < len(live):
            rows = torch.tensor(kept, device=best.device)
            best, mask, live = best[rows], mask[rows], [live[row] for row in kept]
            state = LLMState(layers=[layer.map(lambda x, rows=rows: x[rows]) for layer in state.layers])  # type: ignore
        ids, mask = best[:, None], torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
    return [Continuation(*each) for each in zip(said, ended, strict=True)]


def _shared(llm: LLM, prompts: Sequence[Sequence[int]], most: int) -> int:
    """How many tokens all prompts begin with, short of a whole prompt; 0 where padding behind them could push them out
    of a sliding window."""
    window = llm.lm.config.to_dict().get("sliding_window")
    if window and max(map(len, prompts)) + most > window:
        return 0
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in alike), min(map(len, prompts)) - 1)


def _opened(llm: LLM, prompts: Sequence[Sequence[int]], shared: int) -> tuple[Tensor, Tensor, LLMState]:
    """The prompts behind the ``shared`` tokens of their beginning, (rows, t) padded on the left; which positions count,
    (rows, all), those of the beginning included; and the state behind it."""
    device = next(llm.parameters()).device
    state, rows = llm.init_state(), len(prompts)
    if shared:
        llm.extend(llm.embed(torch.tensor([list(prompts[0][:shared])], device=device)), state)
        state = LLMState(layers=[layer.map(lambda x: x.expand(rows, -1, -1, -1)) for layer in state.layers])
    longest = max(map(len, prompts)) - shared
    ids = torch.zeros(rows, longest, dtype=torch.long)
    mask = torch.ones(rows, shared + longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        own = torch.tensor(list(prompt[shared:]))
        ids[row, longest - len(own) :] = own
        mask[row, shared : shared + longest - len(own)] = 0
    return ids.to(device), mask.to(device), state


def _next(llm: LLM, ids: Tensor, mask: Tensor, state: LLMState) -> Tensor:
    """The best next token (rows,) behind ids (rows, t), the last of the positions that ``mask`` (rows, all) counts."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    hidden: Tensor = llm.lm.base_model(
        inputs_embeds=llm.embed(ids), attention_mask=mask, position_ids=positions, use_cache=True,
        past_key_values=transformers_cache(state.layers),
    )[0]  # fmt: skip
    return llm.head(hidden[:, -1]).argmax(-1)
