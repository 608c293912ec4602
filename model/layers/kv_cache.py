"""Keys and values of one attention layer: appended in place, shared by clones, cut in no time.

A buffer is a view [start, end) into a block that may be longer and that several buffers may share. What lies inside a
view never changes. So a clone is another view of the same block; truncation moves ``end``; a window moves ``start``.
Who appends first after a clone goes on in the block; the other one, when it appends in its turn, takes a copy of what
it sees into a block of its own, once, unless the first is gone by then. Blocks grow by doubling, so copying costs a
constant per appended frame.

Buffers that share a block must not append from several threads at the same time.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DuologueError
from ..streaming import State

SMALLEST = 64  # frames in a first block
_T = TypeVar("_T")


class _Block:
    """Storage that buffers share: keys (B, H, room, D), values (B, H, room, D_v), and who looks at it."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.users: weakref.WeakSet[KVBuffer] = weakref.WeakSet()


class KVBuffer(State):
    """Keys (B, H, T, D) and values (B, H, T, D_v) of the frames so far.

    Args:
        window: how many frames to keep before those that are being appended; ``None``: all.
    """

    def __init__(self, window: int | None = None) -> None:
        self.window = window
        self.start = self.end = 0  # in the block
        self.dropped = 0  # frames that left the window
        self._block: _Block | None = None

    # A state is otherwise a dataclass, equal by value; buffers stand in sets, so they are equal by identity.
    __hash__ = object.__hash__
    __eq__ = object.__eq__

    @property
    def length(self) -> int:
        """Frames appended so far, those that left the window included."""
        return self.dropped + self.end - self.start

    @property
    def keys(self) -> Tensor | None:
        """The keys kept, (B, H, T, D): a view, not to be written to. ``None`` before the first append."""
        return None if self._block is None else self._block.keys[:, :, self.start : self.end]

    @property
    def values(self) -> Tensor | None:
        """The values kept, (B, H, T, D_v), as ``keys``."""
        return None if self._block is None else self._block.values[:, :, self.start : self.end]

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add n frames (B, H, n, D); return the window and the new frames together, as views."""
        frames = keys.shape[2]
        if self.window is not None:
            kept = max(self.start, self.end - self.window)
            self.dropped += kept - self.start
            self.start = kept
        block = self._block
        if block is None or not self._may_write(block, frames):
            block = self._move(keys, values, frames)
        stop = self.end + frames
        block.keys[:, :, self.end : stop] = keys
        block.values[:, :, self.end : stop] = values
        self.end = stop
        return block.keys[:, :, self.start : stop], block.values[:, :, self.start : stop]

    @property
    def kept(self) -> int:
        """Frames that the next :meth:`append` returns before the new ones."""
        frames = self.end - self.start
        return frames if self.window is None else min(frames, self.window)

    def positions(self, frames: int, device: torch.device) -> Tensor:
        """Where the next frames stand in the stream: (frames,)."""
        return torch.arange(self.length, self.length + frames, device=device)

    def each(self, fn: Callable[[KVBuffer], _T]) -> _T:
        """What ``fn`` says of this buffer, in the form in which :meth:`attend` takes masks."""
        return fn(self)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Append n frames, let their queries (B, G · H, n, D) look at all that is kept: (B, G · H, n, D_v).

        mask: (n, kept + n) says who sees whom, ``None``: all. G queries share a key.
        """
        keys, values = self.append(keys, values)
        if keys.shape[1] != query.shape[1]:
            keys, values = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (keys, values))
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)

    def truncate(self, length: int) -> None:
        """Forget all frames after the first ``length``. Takes no time, however long the buffer.

        Raises:
            DuologueError: ``length`` is not between what the window still holds and the present length.
        """
        if not self.dropped <= length <= self.length:
            raise DuologueError(f"cannot truncate to {length}; it must be between {self.dropped} and {self.length}")
        self.end = self.start + length - self.dropped

    def clone(self) -> KVBuffer:
        """A buffer that sees the same frames in the same storage; nothing is copied."""
        return self._view(self._block, self.start, self.end)

    def map(self, fn: Callable[[Tensor], Tensor]) -> KVBuffer:
        """A buffer of its own with ``fn`` applied to copies of the frames it sees (for ``to(device)``)."""
        if self._block is None:
            return self._view(None, 0, 0)
        frames = self.end - self.start
        keys, values = (fn(x[:, :, self.start : self.end].clone()) for x in (self._block.keys, self._block.values))
        return self._view(_Block(keys, values), 0, frames)

    def adopt(self, other: KVBuffer) -> None:
        """See what ``other`` sees, which is not to be used any more."""
        if self._block is not other._block:
            for block, change in ((self._block, weakref.WeakSet.discard), (other._block, weakref.WeakSet.add)):
                if block is not None:
                    change(block.users, self)
        if other._block is not None:
            other._block.users.discard(other)
        self.start, self.end, self.dropped, self._block = other.start, other.end, other.dropped, other._block

    def _view(self, block: _Block | None, start: int, end: int) -> KVBuffer:
        other = KVBuffer(self.window)
        other.start, other.end, other.dropped, other._block = start, end, self.dropped, block
        if block is not None:
            block.users.add(other)
        return other

    def _may_write(self, block: _Block, frames: int) -> bool:
        """Whether there is room behind ``end`` that no other buffer looks at."""
        return self.end + frames <= block.keys.shape[2] and all(other.end <= self.end for other in block.users)

    def _move(self, keys: Tensor, values: Tensor, frames: int) -> _Block:
        """Take the frames seen into a new block of at least twice what is needed now."""
        old, kept = self._block, self.end - self.start
        room = max(SMALLEST, 2 * (kept + frames), 0 if old is None else old.keys.shape[2])

        def grown(new: Tensor, before: Any) -> Tensor:
            with torch.inference_mode(False):  # a block outlives the mode that it was made in
                storage = new.new_empty(*new.shape[:2], room, new.shape[3])
            if before is not None:
                storage[:, :, :kept] = before
            return storage

        block = _Block(grown(keys, self.keys), grown(values, self.values))
        if old is not None:
            old.users.discard(self)
        block.users.add(self)
        self._block, self.start, self.end = block, 0, kept
        return block


class KVRows:
    """The buffers of several conversations as one of their batch, for a step: each row keeps its own length."""

    def __init__(self, rows: list[KVBuffer]) -> None:
        self.rows = rows

    @property
    def length(self) -> int:
        """Frames appended so far to the longest row."""
        return max(row.length for row in self.rows)

    def positions(self, frames: int, device: torch.device) -> Tensor:
        """Where the next frames of each row stand in its stream: (B, frames)."""
        return torch.stack([row.positions(frames, device) for row in self.rows])

    def each(self, fn: Callable[[KVBuffer], _T]) -> list[_T]:
        """What ``fn`` says of each row."""
        return [fn(row) for row in self.rows]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, masks: list[Tensor | None]) -> Tensor:
        """As :meth:`KVBuffer.attend`, each row for itself, which is faster than all rows padded."""
        parts = zip(self.rows, query.split(1), keys.split(1), values.split(1), masks, strict=True)
        return torch.cat([row.attend(q, k, v, mask) for row, q, k, v, mask in parts])

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add n frames (B, H, n, D) to each row; return all frames (B, H, longest, D), zeros before shorter rows'."""
        parts = zip(self.rows, keys.split(1), values.split(1), strict=True)
        rows = [row.append(k, v) for row, k, v in parts]
        longest = max(k.shape[2] for k, _ in rows)
        padded = tuple(x.new_zeros(*x.shape[:2], longest, x.shape[3]) for x in (keys, values))
        for i, row in enumerate(rows):
            for whole, part in zip(padded, row, strict=True):
                whole[i, :, longest - part.shape[2] :] = part[0]
        return padded[0], padded[1]
