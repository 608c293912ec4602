"""What cloning and cutting a conversation costs: nothing that grows with it, but for the second of two that go on."""

import json
from pathlib import Path

import pytest
import torch

from duologue.inference.bench import states as bench_states
from duologue.inference.bench.states import CacheSizes, filled, measure, run, sizes_of
from duologue.model.errors import DuologueError


@pytest.mark.slow
def test_cloning_and_cutting_do_not_grow_with_the_conversation() -> None:
    sizes = CacheSizes(layers=4, kv_heads=4, head_dim=64, dtype=torch.float32, device="cpu")
    short, long = measure(sizes, 64), measure(sizes, 16384)
    assert long.clone_us < 5 * short.clone_us and long.truncate_us < 5 * short.truncate_us
    assert short.diverge_us is not None and long.diverge_us is not None
    assert long.diverge_us > 10 * long.clone_us, "the copy of the second that goes on is what costs"
    assert long.held_bytes == 16384 * 2 * 4 * 4 * 64 * 4 == long.diverge_bytes


def test_bytes_are_those_of_the_tensors() -> None:
    sizes = CacheSizes(layers=3, kv_heads=2, head_dim=8, dtype=torch.bfloat16, device="cpu")
    state = filled(sizes, 10)
    tensors = [tensor for layer in state.layers for tensor in (layer.keys, layer.values)]
    assert sum(t.numel() * t.element_size() for t in tensors if t is not None) == 10 * sizes.bytes_a_position


def test_the_table_and_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_states, "TIMES", 5)
    lines: list[str] = []
    costs = run(preset="llama-omni-8b", out=tmp_path, say=lines.append)
    assert lines[0] == "llama-omni-8b: 131,072 bytes a position" and all(cost.diverge_us is None for cost in costs)
    assert json.loads((tmp_path / "report.json").read_text())["bytes_a_position"] == 131072
    assert "1024.00 MiB" in lines[-2]
    assert sizes_of("nano").bytes_a_position == 2 * 6 * 4 * 64 * 4  # layers, heads, each of 64 floats
    with pytest.raises(DuologueError, match="no preset 'huge'"):
        sizes_of("huge")
