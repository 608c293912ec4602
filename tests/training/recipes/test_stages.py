"""The stages that make the audio encoder and the language model, each on its tiny preset: it overfits eight samples."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.data_prep.nano.dialogues import generate
from duologue.data_prep.nano.vocabulary import token_ids
from duologue.model.errors import DuologueError
from duologue.training.data.marked_turns import marked_tokens
from duologue.training.data.turns import Row, pack, spoken_words_loss
from duologue.training.loop.trainer import train
from duologue.training.losses.error_rate import error_rate
from duologue.training.recipes import asr_pretrain, duplex, speech_to_text, text_sft

TOKENS = marked_tokens("nano")


@pytest.mark.slow
def test_asr_pretrain_overfits_eight_clips(questions: Path, tmp_path: Path) -> None:
    recipe = replace(asr_pretrain.recipe("tiny"), data=(str(questions),), out=str(tmp_path / "run"))
    task = recipe.build()
    metrics = train(recipe, task, progress=False)
    assert metrics["ctc"] < 0.2, "nats a character"
    waves = [task.corpus[i].pcm.astype(np.float32) / 32768 for i in range(8)]
    heard = task.transcribe(waves)
    assert error_rate(heard, [task.corpus[i].meta["text"] for i in range(8)]) < 0.05, heard  # of characters


def test_text_sft_overfits_eight_dialogues(tmp_path: Path) -> None:
    recipe = replace(text_sft.recipe("tiny"), out=str(tmp_path / "run"))
    task = recipe.build()
    metrics = train(recipe, task, progress=False)
    assert metrics["loss"] < 0.15
    dialogues = [generate(recipe.seed, i, "train") for i in range(8)]
    answers = task.answer(dialogues)
    assert sum(a == d.answer for a, d in zip(answers, dialogues, strict=True)) >= 7, answers


def test_speech_to_text_overfits_eight_clips_with_the_encoder_frozen(questions: Path, tmp_path: Path) -> None:
    recipe = replace(speech_to_text.recipe("tiny"), data=(str(questions),), out=str(tmp_path / "run"))
    task = recipe.build()
    before = {name: tensor.clone() for name, tensor in task.encoder.state_dict().items()}
    metrics = train(recipe, task, progress=False)
    assert metrics["loss"] < 0.15
    waves = [task.corpus[i].pcm.astype(np.float32) / 32768 for i in range(8)]
    said = [task.converse(wave) for wave in waves]
    wanted = [(task.corpus[i].meta["text"], task.corpus[i].meta["answer"]) for i in range(8)]
    assert sum(a == b for a, b in zip(said, wanted, strict=True)) >= 6, said
    assert all(torch.equal(before[name], tensor) for name, tensor in task.encoder.state_dict().items())


def test_a_batch_is_a_function_of_its_number(questions: Path) -> None:
    base = speech_to_text.recipe("tiny")
    recipe = replace(base, data=(str(questions),), augment="full", text_fraction=0.5, batch_size=4)
    first, again, other = recipe.build().batch(3), recipe.build().batch(3), recipe.build().batch(4)
    for name in ("samples", "ids", "weights", "offsets"):
        assert torch.equal(first[name], again[name]), name
    assert not (first["samples"].shape == other["samples"].shape and torch.equal(first["samples"], other["samples"]))


def test_ctc_of_the_spoken_words_is_torchs_own_row_by_row() -> None:
    table = token_ids()
    speech, blank = table["<speech>"], table["<pad>"]
    torch.manual_seed(0)
    logits = torch.randn(3, 9, len(table))
    ids = torch.full((3, 9), table["<bos>"])
    ids[0, 1:7] = speech
    ids[1, 2:4] = ids[1, 6:9] = speech  # two clips in a row are one stretch of speech
    rows = [[20, 21], [22, 22], []]  # the third row is text alone
    wanted = 0.0
    for i, words in enumerate(rows[:2]):
        log_probs = logits[i][ids[i] == speech].log_softmax(-1)[:, None]  # (T, 1, V)
        lengths = torch.tensor([len(log_probs)]), torch.tensor([len(words)])
        wanted += torch.nn.functional.ctc_loss(log_probs, torch.tensor([words]), *lengths, blank, "sum").item()
    loss = spoken_words_loss(logits[ids == speech], rows, (ids == speech).sum(1).tolist(), blank)
    assert loss.item() == pytest.approx(wanted / 4)


def test_packed_rows_learn_what_rows_alone_learn(questions: Path) -> None:
    """The same loss and the same gradient from a third of the positions; no row sees another."""
    base = replace(speech_to_text.recipe("tiny"), data=(str(questions),), text_fraction=1.0)
    found = {}
    for width in (1, 300):
        task = replace(base, row_tokens=width).build()
        batch = task.batch(0)
        loss, _ = task(batch)
        loss.backward()
        gradients = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
        found[width] = batch["ids"].numel(), loss.detach(), gradients
    (alone, loss, gradients), (packed, same_loss, same_gradients) = found[1], found[300]
    assert packed < 0.75 * alone
    assert torch.allclose(loss, same_loss, rtol=1e-5)
    assert gradients.keys() == same_gradients.keys()
    for name, gradient in gradients.items():
        assert (gradient - same_gradients[name]).abs().max() <= 1e-4 * gradient.abs().max() + 1e-7, name


def test_packing_keeps_every_row() -> None:
    rows = [Row(TOKENS, ids=[100 + i] * n, weights=[1.0] * n, clips=[i]) for i, n in enumerate((5, 9, 2, 20, 4))]
    batch, order = pack(rows, 12)
    assert sorted(row.clips[0] for row in order) == [0, 1, 2, 3, 4]
    real = batch["segments"] >= 0
    assert batch["ids"][real].tolist() == [i for row in order for i in row.ids]
    assert batch["segments"][real].unique_consecutive().tolist() == [0, 1, 2, 3, 4]
    assert batch["ids"].shape == (3, 20)  # 20; 9 + 2; 5 + 4
    assert torch.equal(real, batch["mask"].bool())


def test_rows_of_text_ask_what_is_named(questions: Path) -> None:
    tiny = replace(speech_to_text.recipe("tiny"), data=(str(questions),), text_fraction=1.0)
    task = replace(tiny, text_only=("clock",)).build()
    rows = task.written_rows(0, 3)
    assert len(rows) == 3 and all("clock" in TOKENS.decode(row.ids) and row.ids.count(2) == 4 for row in rows)
    assert [row.ids for row in rows] == [row.ids for row in task.written_rows(0, 3)]
    with pytest.raises(DuologueError, match="text_only is songs"):
        replace(tiny, text_only=("songs",))


def test_written_dialogues_are_partly_for_practice() -> None:
    for stage in (text_sft, speech_to_text, duplex):
        with pytest.raises(DuologueError, match=r"practice is 1\.5; a fraction lies between 0 and 1"):
            replace(stage.recipe(), practice=1.5)
    task = replace(text_sft.recipe("tiny"), dialogues=None, practice=0.25).build()
    practised = [task._drawn(at, favoured=False).kind.endswith("_practice") for at in range(400)]
    assert 0.18 < np.mean(practised) < 0.32


@pytest.mark.parametrize("stage", [speech_to_text, duplex])
def test_a_spoken_follow_up_goes_on_from_other_turns_each_time(stage: ModuleType, tmp_path: Path) -> None:
    """What is said again is what the turn before said, be it cut short, and hardly ever the same."""
    drawn = (generate(0, index, "train") for index in itertools.count())
    again = dataclasses.asdict(next(dialogue for dialogue in drawn if dialogue.kind == "follow_again"))
    writer = ShardWriter(tmp_path / "set", name="questions", sample_rate=16_000, seed=0, parameters={})
    noise = np.random.default_rng(0).integers(-9000, 9000, (8, 16_000)).astype(np.int16)
    about = {"text": again["question"], "voice": "noise", "prosody": None, **again}
    writer.write(0, [Clip(pcm, {"id": str(at), **about}) for at, pcm in enumerate(noise)], [])
    writer.finish()
    task = replace(stage.recipe("tiny"), data=(str(tmp_path / "set"),), row_tokens=1, text_fraction=0.0).build()
    answers = Counter[str]()
    for step in range(4):
        for ids in task.batch(step)["ids"].tolist():
            before, *said = TOKENS.decode(ids).split(f" {again['question']} ")
            if len(said) == 1:  # two in a row now and then
                assert before.endswith(said[0]), (before, said)
                answers[said[0]] += 1
    assert len(answers) > 12 and max(answers.values()) < 6
