"""To answer speech as the frozen language model answers the same words in writing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from any_model import talks, tiny_llm, tiny_whisper

from duologue.model.errors import DuologueError
from duologue.training.data.turns import pack
from duologue.training.loop.lora import without_lora
from duologue.training.loop.trainer import train
from duologue.training.losses.distillation import divergence, in_writing
from duologue.training.main import resolve


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("parts")
    return {"llm": tiny_llm(folder), "encoder": tiny_whisper(folder), "data": talks(folder)}


def task_of(parts: dict[str, str], *more: str) -> Any:
    words = [f"{name}={value}" for name, value in parts.items()]
    usual = ["preset=tiny", "loss=kl", "learn=adaptor", "adaptor.stack=4", "batch_size=6", *more]
    return resolve("speech_to_text", [*words, *usual]).build()


def test_the_divergence_is_that_of_the_distributions() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 5)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    assert torch.allclose(divergence(student, teacher, 2.0), 4 * (p * (p / q).log()).sum(-1), atol=1e-6)
    assert divergence(student, student, 2.0).abs().max() < 1e-6


def test_who_hears_the_words_has_nothing_to_learn(parts: dict[str, str]) -> None:
    """Rows are packed in another order in writing than in speech; each counted token finds its own again."""
    task, rows = task_of(parts), []
    long = ("Wie heißt die Hauptstadt von Österreich? And then?", "Wien.", 1)
    for number, (question, answer, frames) in enumerate((("Hm?", "I'm Anna, sure.", 40), long, ("Who?", "Hi!", 9))):
        row = task.tokens.row("Be brief.")
        row.add_turn("Who are you?", "Anna!")
        row.add_turn(question, answer, frames)
        row.clips.append(number)
        rows.append(row)
    batch, order = pack(rows, 1)
    batch |= in_writing(order, 1)
    assert [row.spoken for row in order] != sorted((row.spoken for row in rows), key=len, reverse=True)
    counted, written = (batch[f"{name}weights"][:, 1:] > 0 for name in ("", "written_"))
    said = batch["written_ids"][:, 1:][written][batch["pairs"]]
    assert said.tolist() == batch["ids"][:, 1:][counted].tolist() and batch["worded"].all()
    perfect = torch.zeros(*batch["ids"].shape, task.llm.hidden_size)
    states = task.llm.states(task.llm.embed(batch["written_ids"]), segments=batch["written_segments"])
    perfect[:, :-1][counted] = states[:, :-1][written][batch["pairs"]]
    loss, metrics = task.taught_loss(perfect, batch)
    assert float(loss) == pytest.approx(0, abs=1e-5) and float(metrics["words"]) > 1
    assert float(task.taught_loss(perfect.flip(0), batch)[0]) > 1e-3


def test_a_clip_without_words_teaches_its_answer(parts: dict[str, str]) -> None:
    task = task_of(parts)
    row = task.tokens.row()
    row.add_turn("", "Could you say that again?", 8)
    row.clips.append(0)
    batch, order = pack([row], 1)
    batch |= in_writing(order, 1)
    hidden = task.llm.states(task.llm.embed(batch["ids"].clamp(min=0)), segments=batch["segments"])
    loss, metrics = task.taught_loss(hidden, batch)
    assert not batch["worded"].any() and float(loss) == pytest.approx(float(metrics["words"])) and not metrics["kl"]


@pytest.mark.parametrize("learn", [("learn=adaptor",), ("learn=adaptor,llm", "lora=4")])
def test_it_learns_what_the_frozen_model_says(learn: tuple[str, ...], parts: dict[str, str], tmp_path: Path) -> None:
    """Towards answers that are not those of the data: a teacher of random weights says something else."""
    task = task_of(parts, *learn, f"out={tmp_path}", "lr=0.01", "warmup=0")
    first = float(task(task.batch(0))[1]["kl"])
    metrics = train(replace(task.recipe, steps=30, save_every=30), task_of(parts, *learn, "lr=0.01"), progress=False)
    assert metrics["kl"] < 0.6 * first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss=kl", "llm={llm}", "learn=llm"], r"loss=kl wants a frozen llm, but it learns: give lora=RANK"),
        (["loss=kl"], r"loss=kl learns from a language model that answers at once: give llm=FOLDER"),
        (["loss=mse"], "loss"),
        (["temperature=0"], r"temperature is 0.* must be above 0"),
    ],
)
def test_what_is_refused(words: list[str], message: str, parts: dict[str, str]) -> None:
    given = [word.format(**parts) for word in words]
    with pytest.raises(DuologueError, match=message):
        resolve("speech_to_text", ["preset=tiny", f"data={parts['data']}", *given]).build()


def test_the_teacher_is_the_model_without_its_updates(parts: dict[str, str]) -> None:
    task = task_of(parts, "learn=llm", "lora=4")
    embeds = task.llm.embed(torch.arange(6)[None])
    before = task.llm.states(embeds)
    task.adapt()
    for name, parameter in task.llm.named_parameters():
        if ".lora_B" in name:
            torch.nn.init.normal_(parameter)
    changed = task.llm.states(embeds)
    with without_lora(task.llm):
        alone = task.llm.states(embeds)
    assert torch.allclose(alone, before, atol=1e-6) and not torch.allclose(changed, before, atol=1e-3)
    assert torch.equal(task.llm.states(embeds), changed), "and with them again"
