"""Training sequences of the language model: token ids and speech embeddings, one after the other, padded to a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import DuologueError
from .llm import LLM

IGNORE = -100  # label of a position that is not learnt


@dataclass(frozen=True, kw_only=True)
class TextPiece:
    """Token ids; ``learn`` says which of them the model should learn to write (one flag for all, or one each)."""

    ids: Sequence[int]
    learn: bool | Sequence[bool] = False


Piece = TextPiece | Tensor  # a tensor (T, D): speech embeddings


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A batch for :class:`LLM`, padded on the right."""

    embeds: Tensor  # (B, L, D)
    attention_mask: Tensor  # (B, L) int64, 0 for padding
    labels: Tensor  # (B, L): the id at each position that is learnt, IGNORE elsewhere; not shifted
    ids: Tensor  # (B, L): the id at each position, ``pad`` for speech and padding


def assemble(llm: LLM, examples: Sequence[Sequence[Piece]], pad: int) -> Assembled:
    """Join each example's pieces, in order, and pad them to one length. Gradients flow into the speech embeddings.

    Args:
        examples: e.g. ``[TextPiece(ids=(bos, user)), speech, TextPiece(ids=(transcript, *words, eos), learn=True)]``.
        pad: the token id that stands where there is none.

    Raises:
        DuologueError: no examples, flags that are not as many as ids, or speech of another width than the model.
    """
    if not examples:
        raise DuologueError("no examples to assemble; a batch needs at least one")
    rows = [_row(example, pad, llm.hidden_size) for example in examples]
    length = max(len(ids) for ids, _, _ in rows)
    device = llm.lm.device

    def batched(index: int, filler: int) -> Tensor:
        return torch.tensor([row[index] + [filler] * (length - len(row[index])) for row in rows], device=device)

    ids, labels, spoken = batched(0, pad), batched(1, IGNORE), batched(2, 0).bool()
    mask = torch.tensor([[1] * len(row[0]) + [0] * (length - len(row[0])) for row in rows], device=device)
    embeds = llm.embed(ids)  # (B, L, D)
    speech = [piece for example in examples for piece in example if isinstance(piece, Tensor)]
    if speech:
        embeds = embeds.masked_scatter(spoken[..., None], torch.cat(speech).to(embeds))
    return Assembled(embeds=embeds, attention_mask=mask, labels=labels, ids=ids)


def _row(example: Sequence[Piece], pad: int, width: int) -> tuple[list[int], list[int], list[int]]:
    """Ids, labels, and 1 where speech stands, of one example."""
    ids: list[int] = []
    labels: list[int] = []
    spoken: list[int] = []
    for piece in example:
        if isinstance(piece, Tensor):
            if piece.ndim != 2 or piece.shape[1] != width:
                raise DuologueError(f"speech is shaped {tuple(piece.shape)}; it must be (T, {width})")
            new, learn = [pad] * len(piece), [False] * len(piece)
        else:
            new = list(piece.ids)
            learn = [piece.learn] * len(new) if isinstance(piece.learn, bool) else list(piece.learn)
        if len(learn) != len(new):
            raise DuologueError(f"{len(learn)} flags for {len(new)} ids; they must be as many")
        ids += new
        labels += [id_ if flag else IGNORE for id_, flag in zip(new, learn, strict=True)]
        spoken += [int(isinstance(piece, Tensor))] * len(new)
    return ids, labels, spoken
