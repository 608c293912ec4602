"""States there and back, of every stage, and what is refused."""

from __future__ import annotations

import pytest
import torch
from test_streaming_law import STAGES, assert_same, cut

from duologue.checkpoints.state_io import load_state, save_state
from duologue.model.errors import DuologueError


@pytest.mark.parametrize("case", STAGES, ids=lambda case: case.name)
@torch.inference_mode()
def test_a_stage_goes_on_from_disk(case, tmp_path) -> None:
    torch.manual_seed(0)
    stage, x = case.make().eval(), case.input(case.frames)
    whole, state, outputs = stage(x), stage.init_state(x.shape[0]), []
    chunks = cut(x, [max(1, case.frames // 5)], stage.time_in)
    for chunk in chunks:
        save_state(tmp_path / "state", state)
        state = load_state(tmp_path / "state")
        outputs.append(stage.step(chunk, state))
    outputs.append(stage.flush(state))
    assert_same(torch.cat(outputs, dim=stage.time_out), whole, case.tolerance)


def test_a_generator_goes_on(tmp_path) -> None:
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    save_state(tmp_path / "state", [generator, (1, None, "a", 2.5)])
    again, plain = load_state(tmp_path / "state")
    assert torch.equal(torch.rand(4, generator=again), torch.rand(4, generator=generator)) and plain == (
        1,
        None,
        "a",
        2.5,
    )


def test_what_has_no_place_in_a_state_is_refused(tmp_path) -> None:
    with pytest.raises(DuologueError, match=r"state\[1\] is a set"):
        save_state(tmp_path / "state", [1, {2}])
    assert not list(tmp_path.iterdir())
