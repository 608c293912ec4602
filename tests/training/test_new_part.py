"""A new part is a file with its config and its class, and a field of the model's config: here a toy, in neither."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duologue.checkpoints import parts, store
from duologue.checkpoints.config_io import config_from_dict, config_to_dict
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import SpeechLM
from duologue.model.speech_lm_config import SpeechLMConfig, part, parts_of
from duologue.training import assemble
from duologue.training.data.marked_turns import marked_config
from duologue.training.loop.task import Batch, Task
from duologue.training.loop.trainer import train
from duologue.training.presets import preset
from duologue.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    in_dim: int
    moods: int = 3


class Toy(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.head = nn.Linear(config.in_dim, config.moods)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


@dataclass(frozen=True, kw_only=True)
class WithToy(SpeechLMConfig):
    toy: ToyConfig | None = field(default=None, metadata=part(Toy, "tells the mood", in_dim="adaptor.out_dim"))


@dataclass(frozen=True, kw_only=True)
class ToyRecipe(Recipe):
    toy: ToyConfig


class ToyTask(Task):
    def __init__(self, recipe: ToyRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.toy, self.rest = Toy(recipe.toy), nn.Linear(1, 1)

    def parts(self) -> dict[str, nn.Module]:
        return {"toy": self.toy}

    def batch(self, number: int) -> Batch:
        return {"x": torch.ones(2, self.toy.config.in_dim)}

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        return self.toy(batch["x"]).square().mean(), {}


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the field stood in the class: every module that names the class names the one with the toy."""
    for name, module in list(sys.modules.items()):
        if name.startswith("duologue.") and getattr(module, "SpeechLMConfig", None) is SpeechLMConfig:
            monkeypatch.setattr(module, "SpeechLMConfig", WithToy)


@pytest.mark.usefixtures("declared")
def test_it_is_trained_assembled_saved_loaded_and_on_the_card(tmp_path: Path) -> None:
    def run(out: str, start: tuple[str, ...] = ()) -> Path:
        recipe = ToyRecipe(stage="toy", out=str(tmp_path / out), learn=("toy",), steps=1, workers=0, start=start,
                           toy=ToyConfig(in_dim=256, moods=5))  # fmt: skip
        train(recipe, ToyTask(recipe), progress=False)
        return tmp_path / out

    first = run("first")
    trained = run("second", (f"toy={first}",))
    assert parts.read_sizes(trained, "toy") == {"toy": ToyConfig(in_dim=256, moods=5)}
    sources = dict.fromkeys(("encoder", "adaptor", "llm"), str(store.resolve("nano")))
    make = assemble.config_of(WithToy)
    loaded = store.load(assemble.run(tmp_path / "model", make(**sources, toy=str(trained)))).model
    toy = loaded.get_submodule("toy")
    task = ToyTask(ToyRecipe(stage="toy", out="x", learn=("toy",), steps=1, toy=ToyConfig(in_dim=256, moods=5)))
    assemble.load_parts({"toy": task.toy}, (f"toy={trained}",))
    assert isinstance(toy, Toy) and torch.equal(toy.head.weight, task.toy.head.weight.half().float())
    again = assemble.run(tmp_path / "again", make(**sources, toy=str(tmp_path / "model")))
    assert torch.equal(store.load(again).model.get_submodule("toy").head.weight, toy.head.weight)
    assert "| toy | tells the mood | 1,285 |" in (tmp_path / "model" / "README.md").read_text()


def test_what_does_not_fit_is_refused_and_older_files_do_without() -> None:
    nano = marked_config("nano", **preset("nano", "assemble"))
    values = {name: getattr(nano, name) for name in nano.__dataclass_fields__}
    model = SpeechLM(replace(WithToy(**values), unit_decoder=None, vocoder=None, toy=ToyConfig(in_dim=256)))
    assert [name for name, _ in model.named_children()][-2:] == ["word_monitor", "toy"]
    with pytest.raises(DuologueError, match=r"toy\.in_dim is 7; it must be 256, as adaptor\.out_dim"):
        WithToy(**values, toy=ToyConfig(in_dim=7))
    assert config_from_dict(WithToy, config_to_dict(nano)).toy is None
    with pytest.raises(DuologueError, match="field 'encoder' is missing"):
        config_from_dict(WithToy, {name: value for name, value in config_to_dict(nano).items() if name != "encoder"})
    assert parts_of(WithToy)["toy"].optional and not parts_of(WithToy)["encoder"].optional
