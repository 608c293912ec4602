"""A student half as large as nano's language model, taught by two teachers, against the same student by itself.

The teachers are nano's language model, and the same after a short fine-tuning on other conversations. Both students
begin with the same weights and see the same batches, for as many steps. What is compared, question by question, is
asked in the development split: the loss of an answer's tokens, and whether the student's own answer is right.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duologue.checkpoints.files import write_json_lines
from duologue.data_prep.datasets.question_sets import Dialogue, question_set
from duologue.data_prep.datasets.splits import Split
from duologue.data_prep.text.spoken import contains_slot
from duologue.inference.evaluation.metrics.statistics import Better, Metric, compare
from duologue.training.data.turns import counted, stack
from duologue.training.loop.parts import load_parts
from duologue.training.main import resolve, run

HALF = ["llm.hidden_size=192", "llm.intermediate_size=512", "llm.num_hidden_layers=5", "llm.num_attention_heads=3",
        "llm.num_key_value_heads=3"]  # fmt: skip
STEPS = 150
COMMON = ["workers=0", "batch_size=4", "warmup=20", f"steps={STEPS}", f"save_every={STEPS}", "optimiser=muon",
          "precision=no"]  # fmt: skip
QUESTIONS, ASKED = 400, 100  # of the development split: how many losses, how many answers are compared
LOSS = Metric(key="loss", name="Loss of an answer's token, nats", better=Better.LOWER)
RIGHT = Metric(key="right", name="Answered right", unit="%")


def rows_of(folder: Path, dialogues: list[Dialogue]) -> dict[str, dict[str, Any]]:
    """For each dialogue [nats, tokens] of its answer; of the first ASKED also whether the student answers right."""
    task: Any = resolve("distil", [*HALF, "label_weight=1"]).build()
    load_parts(task.parts(), [f"llm={folder}"])
    task.eval()
    rows = []
    for dialogue in dialogues:
        row = task.tokens.row()
        for earlier in dialogue.history:
            row.add_turn(*earlier, question_weight=0.0, answer_weight=0.0)
        row.add_turn(dialogue.question, dialogue.answer, question_weight=0.0)
        rows.append(row)
    found: dict[str, dict[str, Any]] = {}
    with torch.no_grad():
        for at in range(0, len(rows), 20):
            batch = stack(rows[at : at + 20])
            hidden = task.llm.states(task.llm.embed(batch["ids"]))
            logits, wanted, _ = counted(task.llm, hidden, batch["ids"], batch["weights"])
            counts = (batch["weights"][:, 1:] > 0).sum(1).tolist()
            for nats in torch.nn.functional.cross_entropy(logits, wanted, reduction="none").split(counts):
                found[str(len(found))] = {"measures": {"loss": [float(nats.sum()), len(nats)]}}
    for at, answer in enumerate(task.answer(dialogues[:ASKED])):
        found[str(at)]["measures"]["right"] = [float(contains_slot(answer, dialogues[at].slot)), 1]
    return found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_teachers_make_a_better_student_of_half_the_size(root: Path, tmp_path: Path) -> None:
    if not (root / "checkpoints" / "nano" / "config.json").is_file():
        pytest.skip("nano is not in this copy")
    torch.set_num_threads(1)
    other, second = tmp_path / "other.jsonl", tmp_path / "second"
    dialogues = question_set("nano").distinct(7, 400, Split.TRAIN)
    write_json_lines(other, ({"turns": [*({"text": q, "reply": a} for q, a in d.history),
                                        {"text": d.question, "reply": d.answer}]} for d in dialogues))  # fmt: skip
    run("text_sft", ["start=llm=nano", f"data={other}", "steps=20", "save_every=20", "lr=3e-4", "warmup=5", "workers=0",
                     "batch_size=32", "precision=no", f"out={second}"])  # fmt: skip
    words = [*HALF, *COMMON]
    run("distil", [*words, "label_weight=1", f"out={tmp_path / 'alone'}"])
    run("distil", [*words, "label_weight=0", f"teachers=nano,{second}", f"out={tmp_path / 'taught'}"])
    student: Any = resolve("distil", [*words, "label_weight=1"]).build()
    teacher: Any = resolve("text_sft", []).build()
    sizes = [sum(p.numel() for p in task.llm.parameters()) for task in (student, teacher)]
    assert 0.4 < sizes[0] / sizes[1] < 0.52
    asked = list(question_set("nano").distinct(1, QUESTIONS, Split.DEV))
    alone, taught = (rows_of(tmp_path / name, asked) for name in ("alone", "taught"))
    loss, right = (compare(metric, alone, taught) for metric in (LOSS, RIGHT))
    for found in (loss, right):
        print(json.dumps({"metric": found.metric.id, "alone": found.a, "taught": found.b,
                          "difference": [found.low, found.high], "p": found.p, "n": found.count}))  # fmt: skip
    assert loss.b is not None and loss.a is not None and loss.b < loss.a and loss.p is not None and loss.p < 0.01
    assert right.count == ASKED  # as few are right after so few steps in either
