"""The monitor learns from texts, read as if they had been heard."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from any_model import tiny_adaptor, tiny_llm, tiny_whisper
from safetensors.torch import load_file, save_file
from tone_clips import tone_clips

from duologue.model.duplex.monitor import TURN_STATES, TurnState
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH, ChatTemplate, Given
from duologue.training.loop.run_folder import newest_state
from duologue.training.main import resolve, run

QUERY, NOISE, WAIT = (
    TURN_STATES.index(turn_state) for turn_state in (TurnState.QUERY, TurnState.NOISE, TurnState.WAIT)
)
TEXTS = [("What is the capital?", True), ("The assistant is lovely.", False), ("what are you", True)]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("parts")
    with (folder / "texts.jsonl").open("w") as file:
        for at, (text, asked) in enumerate(TEXTS * 30):
            turn = {"text": text} | ({} if asked else {"respond": False})
            file.write(json.dumps({"id": str(at), "turns": [turn]}) + "\n")
    llm, encoder = tiny_llm(folder), tiny_whisper(folder)
    ctc = ["preset=tiny", f"llm={llm}", f"encoder={encoder}", f"data={tone_clips(folder / 'tones')}", "dev_data="]
    run("ctc_adaptor", [*ctc, f"out={folder / 'ctc'}", "steps=1"])
    return [*ctc, f"adaptor={folder / 'ctc'}", f"texts={folder / 'texts.jsonl'}", "scenes=8", "batch_size=8",
            "instructions=Be kind."]  # fmt: skip


def test_a_text_is_read_as_what_is_heard_would_be(words: list[str]) -> None:
    task: Any = resolve("duplex", words).build()
    batch = task.batch(task.batches)
    with torch.no_grad():
        hidden, laid = task.read(batch)
        states, due = task.heard_states(hidden, laid)
    assert len(batch["tokens"]) == 64 and set(due.tolist()) == {QUERY, NOISE, WAIT}
    template: ChatTemplate = task.tokens.template
    at = 0
    for tokens in batch["tokens"]:
        text = template.decode(tokens.tolist()).strip()
        asked = dict((text.strip("?.").lower(), asked) for text, asked in TEXTS)[text]
        turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [Given((SPEECH,))]}]
        ids, _ = template.write(turns, reply=False)  # type: ignore[arg-type]
        row = torch.tensor([*ids[: ids.index(SPEECH)], *tokens.tolist()])
        with torch.no_grad():
            wanted = task.llm.states(task.llm.embed(row[None]))[0, -1]
        at += len(text.split())
        assert torch.allclose(states[at - 1], wanted, atol=1e-4)
        states_due = due[at - len(text.split()) : at].tolist()
        assert states_due == [WAIT] * (len(states_due) - 1) + [QUERY if asked else NOISE]
    assert at == len(due)


def test_it_learns_texts_and_goes_on_where_it_stopped(words: list[str], tmp_path: Path) -> None:
    more = [*words, "lr=1e-2", "warmup=1", "schedule=constant", "precision=no"]
    figures = run("duplex", [*more, f"out={tmp_path / 'whole'}", "steps=60", "save_every=60"])
    assert figures["right"] > 0.8
    for steps in (30, 60):
        run("duplex", [*more, f"out={tmp_path / 'parts'}", f"steps={steps}", "save_every=30"])
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    assert {name.partition(".")[0] for name in whole} == {"monitor"}


def test_a_checkpoint_has_no_copy_of_what_others_trained(words: list[str], tmp_path: Path) -> None:
    """And is not gone on from with other weights in their place."""
    more = [*words, f"out={tmp_path / 'run'}", "schedule=constant"]
    run("duplex", [*more, "steps=2", "save_every=2"])
    state = newest_state(tmp_path / "run")
    assert state is not None and {name.partition(".")[0] for name in state["task"]} <= {"monitor", "mel", "adaptor"}
    assert not any(name.startswith(("llm.", "adaptor.transformer.", "encoder.")) for name in state["task"])
    (theirs,) = (word.partition("=")[2] for word in words if word.startswith("llm="))
    shutil.copytree(theirs, tmp_path / "other")
    tensors = load_file(tmp_path / "other/model.safetensors")
    name = next(name for name, tensor in tensors.items() if tensor.dim() == 2)
    save_file(tensors | {name: tensors[name] + 1}, tmp_path / "other/model.safetensors", {"format": "pt"})
    with pytest.raises(DuologueError, match=r"was trained with other weights than those of start=.*llm="):
        run("duplex", [*more, f"llm={tmp_path / 'other'}", "steps=4", "save_every=2"])


def test_mistakes_are_one_line(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="texts are read once, beside scenes that are kept: give scenes=N"):
        resolve("duplex", [*words, "scenes=0"]).build()
    with pytest.raises(DuologueError, match="texts are for an adaptor that hears words, of kind ctc"):
        resolve("duplex", [*words, f"adaptor={tiny_adaptor(tmp_path)}"]).build()
    (tmp_path / "empty.jsonl").write_text('{"turns": [{"text": "?!"}]}')
    with pytest.raises(DuologueError, match=r"texts: .*empty\.jsonl has no words"):
        resolve("duplex", [*words, f"texts={tmp_path / 'empty.jsonl'}"]).build()
