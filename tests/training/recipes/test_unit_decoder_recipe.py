"""The unit decoder's training: its loss, where it reads the LLM's states, and the tiny recipe, which overfits."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.data_prep.nano.dialogues import generate
from duologue.data_prep.nano.vocabulary import token_ids
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.spelling_decoder import SpellingDecoderConfig
from duologue.model.speech_decoder.unit_decoder import CTCCollapse
from duologue.training.loop.trainer import train
from duologue.training.losses.ctc_units import IGNORE, ctc_unit_frames, ctc_unit_loss
from duologue.training.recipes.unit_decoder import recipe

HOP = 320


@pytest.fixture(scope="module")
def replies(tmp_path_factory):
    """Eight replies, one of them a drill; a word's units are a function of its letters."""
    folder = tmp_path_factory.mktemp("replies")
    clips, rows = [], []
    for i in range(8):
        dialogue = generate(3, i, "train")
        answer = dialogue.answer if i else "seven bird nine"
        units = [n for word in answer.split() for n in [sum(map(ord, word)) % 190 + j for j in (0, 5, 2)]]
        meta = {"id": f"r{i}", "text": answer, "voice": "none"} | ({"question": dialogue.question} if i else {})
        clips.append(Clip(np.zeros(len(units) * 2 * HOP, np.int16), meta))
        rows.append({"id": f"r{i}", "units": units, "durations": [2] * len(units)})
    writer = ShardWriter(folder, name="replies", sample_rate=16000, seed=0, parameters={})
    writer.write(0, clips)
    writer.finish()
    (folder / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tiny(folder, **changes):
    return replace(recipe("tiny"), data=(str(folder),), **changes)


def test_the_loss_ignores_padding():
    """A reply's loss is its own, whatever it is batched with and however it is padded."""
    torch.manual_seed(0)
    logits, units = torch.randn(2, 40, 6), torch.tensor([[0, 1, 1, 4, 2], [3, 2, IGNORE, IGNORE, IGNORE]])
    frames = torch.tensor([40, 10])
    together = ctc_unit_loss(logits, frames, units)
    first = ctc_unit_loss(logits[:1], frames[:1], units[:1])
    second = ctc_unit_loss(logits[1:, :10], frames[1:], units[1:, :2])
    torch.testing.assert_close(together, (5 * first + 2 * second) / 7)


def test_the_loss_is_low_where_the_units_are_and_finite_where_they_cannot_be():
    units = torch.tensor([[0, 1, 4]])
    right = torch.full((1, 6, 6), -20.0)
    for frame, label in enumerate([5, 0, 0, 1, 5, 4]):
        right[0, frame, label] = 20.0
    assert CTCCollapse(5)(right).tolist() == units.tolist()
    assert ctc_unit_loss(right, torch.tensor([6]), units) < 1e-6
    assert ctc_unit_loss(right, torch.tensor([2]), units) == 0  # three units in two frames


def test_frames_are_stretched_to_the_units():
    units = torch.full((2, 70), IGNORE)
    units[0, :70], units[1, :3] = 1, 1
    assert ctc_unit_frames(torch.tensor([2, 2]), units, 25).tolist() == [70, 50]


def test_a_word_is_spoken_from_the_state_that_predicted_it(replies):
    """The first state is that of <reply>; <eos> is not among the words; its units do not depend on what follows."""
    task = tiny(replies, history=1.0).build()
    batch = task.batch(0)
    names = list(token_ids())
    _, places = task.plan(0)
    texts = [task.corpus.corpus.metas[item]["text"] for item in task.items[places]]
    for row, place, length, text in zip(batch["ids"], batch["place"], batch["lengths"], texts, strict=True):
        assert " ".join(names[i] for i in row[place[:length]]) == text
        assert names[row[place[0] - 1]] == "<reply>"
        assert names[row[place[length - 1] + 1]] == "<eos>"
        assert int((row == token_ids()["<reply>"]).sum()) == 2  # a turn before this one
    logits, _ = task.decode(batch)
    changed = batch["ids"].scatter(1, batch["place"][:, 1:2], token_ids()["<noise>"])
    other, _ = task.decode(batch | {"ids": changed})
    first = task.recipe.unit_decoder.upsample
    torch.testing.assert_close(logits[:, :first], other[:, :first])
    assert (logits[:, first : 2 * first] - other[:, first : 2 * first]).abs().max() > 1e-3


def test_the_tiny_recipe_overfits_eight_samples(replies, tmp_path):
    run = tiny(replies, out=str(tmp_path / "run"), dev_data=(str(replies),))
    task = run.build()
    frozen = {name: value.clone() for name, value in task.llm.state_dict().items()}
    metrics = train(run, task, progress=False)
    assert metrics["loss"] < 0.1, metrics
    assert metrics[f"unit_error_rate_{replies.name}"] < 0.05, metrics
    assert metrics[f"blanks_{replies.name}"] < 0.9, metrics
    assert all(torch.equal(value, frozen[name]) for name, value in task.llm.state_dict().items())
    saved = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert saved["unit_decoder"]["band"] == 4


@torch.no_grad()
def test_what_is_measured_is_what_is_streamed(replies):
    """Units of a batch are those that a conversation would get, word by word."""
    task = tiny(replies).build().eval()
    task.unit_decoder.output_proj.weight.mul_(5.0)
    batch = task.batch(0)
    written = task.write(batch)
    assert sum(map(len, written)) > 50
    embeds = task.llm.embed(batch["ids"])
    hidden = task.llm(embeds).hidden
    for row in range(len(written)):
        state, last, units = task.unit_decoder.init_state(), task.collapse.init_state(), []
        for at in batch["place"][row, : batch["lengths"][row]].tolist():
            here = embeds[row : row + 1, at : at + 1]
            step = task.unit_decoder.step(hidden[row : row + 1, at - 1 : at], state, here)
            units += task.collapse.step(step, last)[0].tolist()
        assert units == written[row]


def test_answers_without_room_are_refused_and_drills_left_out(replies, monkeypatch):
    base = tiny(replies)
    with pytest.raises(DuologueError, match=r"more units than 2 a word; unit_decoder.upsample must be about 3"):
        replace(base, unit_decoder=replace(base.unit_decoder, upsample=2)).build()
    task = base.build()
    task.corpus.spoken[0] = replace(task.corpus.spoken[0], units=np.arange(100))  # the drill, of three words
    assert len(task.items) == 8
    monkeypatch.setattr("duologue.training.recipes.unit_decoder.UnitCorpus", lambda *_: task.corpus)
    assert task._open(("-",))[1].tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_repeated_tokens_need_a_blank_between(replies, tmp_path):
    """A codec's tokens: a reply whose tokens repeat needs more frames than it has tokens."""
    rows = [json.loads(line) for line in (replies / "units.jsonl").read_text().splitlines()]
    for row in rows:
        row["units"], row["durations"] = [7] * (2 * len(row["units"])), [1] * (2 * len(row["units"]))
    (replies / "codec.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plain = tiny(replies, units_file="codec.jsonl")
    task = plain.build()
    assert all((task.corpus.spoken[i].units == 7).all() for i in task.items)
    batch = task.batch(0)
    _, frames = task.decode(batch)
    logits = torch.full((len(frames), int(frames.max()), plain.unit_decoder.units + 1), -20.0)
    logits[:, 0::2, plain.unit_decoder.units], logits[:, 1::2, 7] = 20.0, 20.0  # blank, token, blank, token
    written = [[u for u in row[:length] if u >= 0] for row, length in
               zip(task.collapse(logits).tolist(), (frames // 2).tolist(), strict=True)]  # fmt: skip
    assert all(set(row) == {7} and len(row) > 1 for row in written)
    narrow = replace(plain.unit_decoder, upsample=7)  # six tokens a word fit in seven frames, with blanks they do not
    with pytest.raises(DuologueError, match="upsample must be about 12"):
        replace(plain, unit_decoder=narrow).build()


def spelling(folder, **changes):
    """The tiny recipe with a decoder that reads spelling."""
    base = tiny(folder, **changes)
    sizes = SpellingDecoderConfig(in_dim=64, dim=64, layers=1, heads=2, ffn_dim=128, units=200, blank_bias=-2.0)
    return replace(base, unit_decoder=sizes, state_dropout=0.5)


def test_a_decoder_that_reads_spelling_learns_and_unseen_words_are_measured(replies, tmp_path):
    """With the states of half of the replies, and of none of them."""
    meta = {"id": "new", "text": "a zebra", "voice": "none"}
    writer = ShardWriter(tmp_path / "new", name="replies", sample_rate=16000, seed=0, parameters={})
    writer.write(0, [Clip(np.zeros(4 * HOP, np.int16), meta)])
    writer.finish()
    row = {"id": "new", "units": [1, 2], "durations": [2, 2]}
    (tmp_path / "new" / "units.jsonl").write_text(json.dumps(row) + "\n")
    data = {"out": str(tmp_path / "run"), "dev_data": (str(replies), str(tmp_path / "new"))}
    run = spelling(replies, steps=60, lr=1e-2, save_every=60, **data)
    task = run.build()
    metrics = train(run, task, progress=False)
    assert metrics["loss"] < 2 and metrics[f"unit_error_rate_{replies.name}"] < 0.6, metrics
    assert "unit_error_rate_new_unseen" in metrics and f"unit_error_rate_{replies.name}_unseen" not in metrics
    batch = task.batch(0) | {"seen": torch.zeros(8, dtype=torch.bool)}
    with torch.no_grad():
        assert task(batch)[0] < 2


def test_the_states_of_a_fraction_of_the_replies_are_seen(replies, monkeypatch):
    """Where they are not, the language model does not run."""
    task = spelling(replies).build().eval()
    torch.nn.init.normal_(task.unit_decoder.state_proj.weight)  # it begins with zeros
    batch = next(batch for batch in map(task.batch, range(5)) if 0 < int(batch["seen"].sum()) < 8)
    assert bool(tiny(replies).build().batch(0)["seen"].all())
    seen = int(batch["seen"].nonzero()[0])
    whole, _ = task.decode(batch | {"seen": torch.ones(8, dtype=torch.bool)})
    some, _ = task.decode(batch)
    torch.testing.assert_close(some[seen], whole[seen])
    monkeypatch.setattr(task.llm, "forward", lambda *_: pytest.fail("the language model runs"))
    none, _ = task.decode(batch | {"seen": torch.zeros(8, dtype=torch.bool)})
    unseen = int((~batch["seen"]).nonzero()[0])
    torch.testing.assert_close(some[unseen], none[unseen])
    assert not torch.allclose(none[seen], some[seen])
