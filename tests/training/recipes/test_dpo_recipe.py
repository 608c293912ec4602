"""Preferences are learnt from pairs in writing and from clips, with any language model; the reference stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_model import tiny_adaptor, tiny_ctc_adaptor, tiny_llm, tiny_whisper
from safetensors.torch import load_file

from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.data_prep.nano.dialogues import generate
from duologue.model.errors import DuologueError
from duologue.training.loop.parts import load_parts
from duologue.training.loop.trainer import train
from duologue.training.main import resolve

REJECTED = ("the capital of monday is blue", "rome is spelled k i")


def turn_of(index: int) -> dict[str, Any]:
    dialogue = generate(0, index, "train")
    return {"text": dialogue.question, "reply": dialogue.answer, "rejected": REJECTED[index % 2]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Forty conversations of one or two turns, whose right answers are preferred to others."""
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [{"turns": [turn_of(at), *([turn_of(at + 100)] if at % 4 == 0 else [])]} for at in range(40)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"data={file}"


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight clips, one of them behind another one's turn."""
    folder = tmp_path_factory.mktemp("pairs") / "clips"
    writer = ShardWriter(folder, name="pairs", sample_rate=16_000, seed=0, parameters={})
    rng, clips = np.random.default_rng(0), []
    for at in range(8):
        turn = turn_of(at)
        rejected = [turn["rejected"]] if at % 2 else turn["rejected"]
        meta = {"id": str(at), "text": turn["text"], "answer": turn["reply"], "rejected": rejected,
                "conversation": f"c{at // 2}", "turn": at % 2, "voice": "noise"}  # fmt: skip
        if at == 1:
            meta["history"] = [[turn_of(0)["text"], turn_of(0)["reply"]]]
        clips.append(Clip((3000 * rng.standard_normal(8000 + 500 * at)).astype(np.int16), meta))
    writer.write(0, clips)
    writer.finish()
    return f"data={folder}"


def test_a_tiny_model_learns_the_preferences(written: str, tmp_path: Path) -> None:
    """The tiny preset, from a coin toss; pairs that it has not seen are of the same kind."""
    recipe = resolve("dpo", ["preset=tiny", written, "held_out=0.25", f"out={tmp_path}"])
    task: Any = recipe.build()
    before = task.evaluate()
    assert before["preferred"] == 0.5 and 0 < before["by_length"] <= 1
    metrics = train(recipe, task, progress=False)
    assert metrics["preferred"] >= 0.9 and metrics["dpo"] < 0.3
    assert load_file(tmp_path / "model.safetensors").keys() == {f"llm.{name}" for name in task.llm.state_dict()}


def build(*words: str) -> Any:
    return resolve("dpo", ["preset=tiny", "batch_size=4", *words]).build()


def test_packed_pairs_are_worth_what_they_are_alone(written: str) -> None:
    found = {}
    for width in (1, 400):
        task = build(written, f"row_tokens={width}", "sft_weight=0.5")
        torch.nn.init.normal_(task.reference, -20, 1)
        loss, _ = task(task.batch(0))
        loss.backward()
        found[width] = loss.detach(), task.llm.lm.model.layers[0].mlp.down_proj.weight.grad
    assert torch.allclose(found[1][0], found[400][0], rtol=1e-5)
    assert torch.allclose(found[1][1], found[400][1], atol=1e-6)


@pytest.mark.parametrize("lora", [0, 4])
def test_the_reference_is_the_model_before_training(written: str, lora: int) -> None:
    """Whatever has been learnt of low-rank updates when it is asked for."""
    task = build(written, f"lora={lora}")
    with torch.no_grad():
        start = task.eval().compared(task.batch_of(np.arange(4))).sums
    task.adapt()
    if lora:
        for name, parameter in task.llm.named_parameters():
            if ".lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    task.train()(task.batch(0))
    assert task.training and torch.allclose(task.reference[:4], start, atol=1e-4)
    kept = task.reference.clone()
    with torch.no_grad():
        for parameter in task.llm.parameters():
            parameter.mul_(1.1)
    task(task.batch(1))
    assert torch.equal(task.reference, kept), "it is computed once"


def test_processes_share_the_work_of_the_reference(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each computes its chunks, as many as any other; their sum is the whole."""
    task = build(written)
    task.remember()
    whole, parts = task.reference.clone(), []
    asked: list[int] = []
    own = task.batch_of

    def batch_of(chosen: np.ndarray) -> Any:
        asked.append(len(chosen))
        return own(chosen)

    monkeypatch.setattr(task, "batch_of", batch_of)
    for name, value in (("is_initialized", True), ("get_world_size", 3), ("all_reduce", None)):
        monkeypatch.setattr(torch.distributed, name, lambda *_, value=value: value)
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        task.remember()
        parts.append(task.reference.clone())
    assert torch.allclose(sum(parts), whole, atol=1e-4) and len(whole) == 50
    assert len(asked) == 15 and all(not torch.allclose(part, whole) for part in parts)


def test_a_run_goes_on_with_its_own_reference(written: str, tmp_path: Path) -> None:
    words = ["preset=tiny", written, "steps=6", "save_every=3", "warmup=1", "schedule=constant"]
    whole, cut = (resolve("dpo", [*words, f"out={tmp_path / name}"]) for name in ("whole", "cut"))
    train(whole, whole.build(), progress=False)
    train(replace(cut, steps=3), cut.build(), progress=False)
    train(cut, cut.build(), progress=False)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.fixture(scope="module")
def spoilt(written: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that gives the bad answers."""
    folder = tmp_path_factory.mktemp("spoilt")
    rows = [json.loads(line) for line in Path(written.partition("=")[2]).read_text().splitlines()]
    for turn in (turn for row in rows for turn in row["turns"]):
        turn["reply"], turn["rejected"] = turn["rejected"], turn["reply"]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["preset=tiny", f"data={folder / 'pairs.jsonl'}", "objective=margin", "sft_weight=1", "steps=30"]
    recipe = resolve("dpo", [*words, "save_every=30", f"out={folder}"])
    train(recipe, recipe.build(), progress=False)
    return f"start=llm={folder}"


@pytest.mark.parametrize("objective", ["margin", "unlikelihood"])
def test_bad_answers_are_pushed_down_beside_good_ones(
    written: str, spoilt: str, tmp_path: Path, objective: str
) -> None:
    """Without a reference, and without much of the good answers."""
    found = []
    for steps in (1, 30):
        recipe = resolve("dpo", ["preset=tiny", written, spoilt, f"objective={objective}", "margin=20", "lr=1e-3",
                                 f"steps={steps}", "sft_weight=0.1", "held_out=0.25", f"out={tmp_path}"])  # fmt: skip
        task: Any = recipe.build()
        train(recipe, task, progress=False)
        with torch.no_grad():
            found.append(task.compared(task.batch_of(task.held_out)).sums.mean(0))
    (chosen, rejected), (chosen_then, rejected_then) = found
    assert not task.reference.isfinite().any()
    assert rejected > chosen + 5
    assert rejected_then < rejected - 6 and chosen_then - rejected_then > chosen - rejected + 6


def test_answers_count_by_the_token_where_they_are_to(written: str) -> None:
    task = build(written, "per_token=true", "beta=2")
    task(batch := task.batch(0))
    with torch.no_grad():
        task.llm.lm.lm_head.weight.mul_(1.5)
        found = task.compared(batch)
        ahead = ((found.sums - task.reference[batch["which"]]) / found.lengths) @ torch.tensor([1.0, -1.0])
        loss, _ = task(batch)
    assert loss.item() == pytest.approx(-torch.nn.functional.logsigmoid(2 * ahead).mean().item(), rel=1e-5)


@pytest.mark.parametrize("adaptor", ["stack", "ctc"])
def test_clips_with_a_language_model_of_ones_own(spoken: str, tmp_path: Path, adaptor: str) -> None:
    """A clip is heard once for both answers; an earlier turn is heard or read, the same each time."""
    own = (tiny_adaptor if adaptor == "stack" else tiny_ctc_adaptor)(tmp_path)
    parts = [f"llm={tiny_llm(tmp_path)}", f"encoder={tiny_whisper(tmp_path)}", f"adaptor={own}"]
    task = build(*parts, spoken, f"dev_{spoken}", "held_out=0", "history_speech=1", "batch_size=8",
                 "learn=llm,adaptor", "sft_weight=1")  # fmt: skip
    load_parts({"adaptor": task.adaptor}, (f"adaptor={own}",))
    heard: list[int] = []
    task.encoder.register_forward_hook(lambda _, __, frames: heard.append(len(frames)))
    batch = task.batch_of(np.arange(8))
    assert len(batch["clips"]) == 18 and batch["samples"].shape[0] == 9 and len(task.corpus) == 8
    loss, shown = task(batch)
    loss.backward()
    assert heard == [9, 9] and shown["preferred"] == 0.5
    assert all(next(part.parameters()).grad is not None for part in (task.llm.lm.model.layers, task.adaptor))
    with torch.no_grad():
        alone = task.compared(task.batch_of(np.array([1])))
    assert torch.allclose(alone.sums[0], task.reference[1], rtol=1e-3)
    assert task.eval().evaluate().keys() == {"loss_clips"}, "no pair is held out; speech_to_text's figures remain"


def test_nano_starts_from_the_bundled_model(written: str, spoken: str) -> None:
    assert resolve("dpo", [written]).start == ("llm=nano",)
    assert resolve("dpo", [spoken]).start == ("encoder=nano", "adaptor=nano", "llm=nano")
    task: Any = resolve("dpo", [spoken, "history_speech=0"]).build()
    batch = task.batch(0)
    assert batch["samples"].shape[0] == len(batch["pairs"]) and task.lengths.tolist() == sorted(task.lengths)


def test_mistakes_are_one_line(written: str, spoken: str, tmp_path: Path) -> None:
    name = tmp_path / "pairs.jsonl"

    def refused(message: str, *words: str, turn: dict[str, Any] | None = None) -> None:
        if turn is not None:
            name.write_text(json.dumps({"turns": [{"text": "hello", "reply": "hello"} | turn]}) + "\n")
        with pytest.raises(DuologueError, match=message) as caught:
            build(*(words or [f"data={name}"]))
        assert "\n" not in str(caught.value)

    refused("no turn in .*pairs.jsonl has 'rejected', an answer that is worse than its 'reply'", turn={})
    refused("line 1, turn 1: 'rejected' is 7, expected text or a list of texts", turn={"rejected": 7})
    refused("turn 1: 'rejected' is .*, expected text or a list of texts", turn={"rejected": ["hi", " "]})
    refused("turn 1: 'rejected' is the 'reply' itself, 'hello': expected another", turn={"rejected": ["hello"]})
    refused("in the model's tokens both answers are the same", turn={"reply": "zebras", "rejected": "aardvarks"})
    refused("no such file or folder: .*nothing", f"data={tmp_path / 'nothing'}")
    refused("mixes files of conversations and sets of clips", f"{written},{spoken.partition('=')[2]}")
    refused("all are held out", written, "held_out=1")
    refused("beta is 0.0; it must be above 0", written, "beta=0")
    refused("label_smoothing is 0.5; it must be 0 to below 0.5", written, "label_smoothing=0.5")
    refused("no clip in .* has 'rejected', answers that are worse", "data=" + _without_rejected(tmp_path / "plain"))


def _without_rejected(folder: Path) -> str:
    writer = ShardWriter(folder, name="plain", sample_rate=16_000, seed=0, parameters={})
    writer.write(0, [Clip(np.zeros(8000, np.int16), {"id": "0", "text": "hello", "answer": "hello", "voice": "none"})])
    writer.finish()
    return str(folder)
