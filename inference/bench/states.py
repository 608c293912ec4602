"""What it costs to clone a conversation, to cut it, and to let two clones go their own ways.

A full-duplex session clones its conversation whenever it prepares an answer and cuts it whenever an answer is
interrupted. Caches are shared views (see ``model/layers/kv_cache.py``), so neither copies anything; of two clones that
both go on, the second copies what it sees, once. For nano all of it is timed here; for a language model of 8 B
parameters the views are timed on tensors without storage, and bytes are counted.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ...checkpoints.files import write_json
from ...checkpoints.store import read_model_config
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLMState
from ...model.layers.kv_cache import KVBuffer

POSITIONS = (128, 1024, 8192)
TIMES = 200


@dataclass(frozen=True, kw_only=True)
class CacheSizes:
    """Of the language model's keys and values."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: str

    @property
    def bytes_a_position(self) -> int:
        """Keys and values of one position, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize


@dataclass(frozen=True)
class StateCost:
    """Microseconds and bytes at so many positions; ``diverge_us`` is None where there is no storage to copy."""

    positions: int
    held_bytes: int
    clone_us: float
    truncate_us: float
    diverge_us: float | None
    diverge_bytes: int


def sizes_of(preset: str) -> CacheSizes:
    """nano's as its checkpoint states them, or Llama-3.1-8B's.

    Raises:
        DuologueError: another name.
    """
    if preset == "nano":
        llm = read_model_config("nano").llm
        heads = llm["num_attention_heads"]
        return CacheSizes(layers=llm["num_hidden_layers"], kv_heads=llm.get("num_key_value_heads", heads),
                          head_dim=llm["hidden_size"] // heads, dtype=torch.float32, device="cpu")  # fmt: skip
    if preset == "llama-omni-8b":
        return CacheSizes(layers=32, kv_heads=8, head_dim=128, dtype=torch.bfloat16, device="meta")
    raise DuologueError(f"there is no preset {preset!r}; it must be nano or llama-omni-8b")


def filled(sizes: CacheSizes, positions: int) -> LLMState:
    """The state of a conversation of so many positions, with room for more."""
    state = LLMState(layers=[KVBuffer() for _ in range(sizes.layers)])
    append(state, sizes, positions)
    return state


def append(state: LLMState, sizes: CacheSizes, positions: int) -> None:
    new = torch.zeros(1, sizes.kv_heads, positions, sizes.head_dim, dtype=sizes.dtype, device=sizes.device)
    for layer in state.layers:
        layer.append(new, new)


def median_us(prepare: Callable[[], LLMState], work: Callable[[LLMState], object]) -> float:
    """The median time of ``work`` on a fresh state, in microseconds."""
    spent = []
    for _ in range(TIMES):
        state = prepare()
        begin = time.perf_counter()
        work(state)
        spent.append(1e6 * (time.perf_counter() - begin))
    return statistics.median(spent)


def measure(sizes: CacheSizes, positions: int) -> StateCost:
    """Costs at so many positions."""
    state = filled(sizes, positions)
    first = state.clone()
    append(first, sizes, 1)  # goes on in the block that they share: now another clone has to copy
    copies = sizes.device != "meta"
    return StateCost(
        positions=positions,
        held_bytes=positions * sizes.bytes_a_position,
        clone_us=median_us(lambda: state, lambda s: s.clone()),
        truncate_us=median_us(state.clone, lambda s: s.truncate(positions // 2)),
        diverge_us=median_us(state.clone, lambda s: append(s, sizes, 1)) if copies else None,
        diverge_bytes=positions * sizes.bytes_a_position,
    )


def run(*, out: Path | None, say: Callable[[str], None], preset: str = "nano") -> list[StateCost]:
    """Measure, print a table, and write report.json to ``out``.

    Raises:
        DuologueError: an unknown preset.
    """
    sizes = sizes_of(preset)
    costs = [measure(sizes, positions) for positions in POSITIONS]
    say(f"{preset}: {sizes.bytes_a_position:,} bytes a position")
    say(f"  {'positions':>9}{'held':>12}{'clone':>12}{'cut in half':>14}{'both go on':>14}{'copied then':>14}")
    for cost in costs:
        both = "-" if cost.diverge_us is None else f"{cost.diverge_us:.0f} µs"
        held, copied = (f"{count / 2**20:.2f} MiB" for count in (cost.held_bytes, cost.diverge_bytes))
        times = f"{f'{cost.clone_us:.0f} µs':>12}{f'{cost.truncate_us:.0f} µs':>14}"
        say(f"  {cost.positions:>9}{held:>12}{times}{both:>14}{copied:>14}")
    say("  a clone and a cut copy nothing; of two clones that go on, the second copies what it sees, once")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        report = {"preset": preset, "bytes_a_position": sizes.bytes_a_position,
                  "costs": [dataclasses.asdict(cost) for cost in costs]}  # fmt: skip
        write_json(out / "report.json", report)
    return costs
