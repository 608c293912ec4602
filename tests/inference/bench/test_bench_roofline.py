"""What a GPU would carry is bound by the chip's figures, and falls where the model grows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from duologue.checkpoints.store import read_model_config
from duologue.inference.bench.roofline import FRACTION, StageWork, bound, run, spent_s, works_of
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_vocoder import UnitVocoderConfig


def test_the_bound_is_that_of_the_slower_of_memory_and_arithmetic() -> None:
    work = StageWork("llm", weights=10**6, used=10**6, positions=1.0)
    assert spent_s([work], 2, memory=1e9, arithmetic=1e12) == {("llm", "memory"): 2e-3}
    assert spent_s([work], 2, memory=1e12, arithmetic=1e9) == {("llm", "arithmetic"): 2e-3}
    assert bound([work], 1e12, 1e9).conversations == int(FRACTION * 80 / 1)  # 1 ms each: half of them run
    remembers = replace(work, past=10**6)
    assert spent_s([remembers], 20, 1e9, 1e15)["llm", "past"] == pytest.approx(0.01)
    assert bound([remembers], 1e9, 1e15).by == ("llm", "past")
    assert bound([work], 1e7, 1e15).conversations == 0, "the weights alone take longer"


def test_works_are_those_of_the_models_parts() -> None:
    config = read_model_config("nano")
    works = {work.name: work for work in works_of(config)}
    assert works["llm"].weights == 4_868_608 and works["llm"].past == 2 * 6 * 256 * 400 * 2
    assert works["unit decoder"].positions == pytest.approx(25 * 3 * 0.08) and works["encoder"].positions == 4
    whole = {work.name: work for work in works_of(replace(config, encoder=replace(config.encoder, chunk=None)))}
    assert whole["encoder"].positions == 4 * 22, "a window of 8.8 s for each 0.4 s"
    waves = {work.name: work for work in works_of(replace(config, vocoder=UnitVocoderConfig(units=200)))}
    assert waves["vocoder"].used > 2 * waves["vocoder"].weights, "most of its layers run faster than its frames"


def test_the_command_computes_and_measures(tmp_path: Path) -> None:
    lines: list[str] = []
    run(model="nano", device="cpu", dtype="float32", conversations=(2,), out=tmp_path, say=lines.append)
    found = json.loads((tmp_path / "roofline.json").read_text())
    assert found["gpus"]["h200"]["conversations"] > found["gpus"]["l4"]["conversations"] > 100
    assert all(ms > 0 for ms in found["measured"]["2"].values()) and "2 conversations on cpu" in lines[-1]
    with pytest.raises(DuologueError, match="gpu is 'b9'; it must be one of l4"):
        run(gpus=("b9",), out=None, say=lines.append)


@pytest.mark.gpu
def test_a_gpu_carries_what_its_bound_allows(tmp_path: Path) -> None:
    """No more than the roofline says, and with 64 conversations at a fraction of the frame."""
    found = run(model="nano", device="cuda", out=tmp_path, say=print)
    assert sum(found["measured"][64].values()) < 80
