"""Self-supervision: labels that mean something, masks that hide, a tiny encoder that learns, a second iteration."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main as prepare
from duologue.model.errors import DuologueError
from duologue.training.loop.run_folder import newest_state
from duologue.training.loop.trainer import train
from duologue.training.losses.codebooks import perplexity
from duologue.training.losses.random_quantiser import RandomQuantiser, RandomQuantiserConfig
from duologue.training.recipes.ssl import recipe, span_mask


def tiny(questions: Path, **changes: object):
    return replace(recipe("tiny"), data=(str(questions),), **changes)


def test_a_label_is_the_nearest_entry_to_the_projected_frames() -> None:
    quantiser = RandomQuantiser(RandomQuantiserConfig(size=16, dim=4, codebooks=3), n_mels=5, stack=2, seed=0)
    mel = torch.randn(2, 5, 9)
    labels = quantiser(mel)
    assert labels.shape == (2, 4, 3) and labels.dtype == torch.int64
    stacked = torch.cat([mel[1, :, 4], mel[1, :, 5]])  # frame 2 of the second row
    for k in range(3):
        point = torch.nn.functional.normalize(stacked @ quantiser.projection[k], dim=0)
        assert int(torch.cdist(point[None], quantiser.entries[k]).argmin()) == int(labels[1, 2, k])
    other = RandomQuantiser(RandomQuantiserConfig(size=16, dim=4, codebooks=3), n_mels=5, stack=2, seed=0)
    assert torch.equal(other(mel), labels), "another process must make the same labels"
    assert torch.equal(quantiser(3 * mel), labels)


def test_standard_bands_spread_over_the_entries(questions: Path) -> None:
    """Log-mels lie to one side of zero: as they are, they share a few labels; at mean 0 and deviation 1 they do not."""
    task = tiny(questions, longest_ms=60_000).build()  # clips whole
    mel = torch.cat([task.mel(torch.from_numpy(clip.pcm / 32768).float()[None]) for clip in task.corpus.sets[0]], dim=2)
    standard = (mel - task.mean) / task.scale
    assert standard.mean(2).abs().max() < 0.01 and (standard.std(2) - 1).abs().max() < 0.01
    noisy = 1 + 0.2 * torch.randn(1, 80, 4000)
    crowded, spread = (perplexity(torch.bincount(task.quantiser(x)[..., 0].flatten(), minlength=64))
                       for x in (noisy, (noisy - 1) / 0.2))  # fmt: skip
    assert spread > 30 and crowded < spread / 3


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(1, 12), st.integers(0, 99))
def test_masks_are_stretches_within_the_clip(frames: list[int], span: int, seed: int) -> None:
    lengths = torch.tensor(frames)
    mask = span_mask(lengths, 60, 0.05, span, torch.Generator().manual_seed(seed))
    for row, length in zip(mask, frames, strict=True):
        assert row.any() and not row[length:].any()
        stretches = "".join("x" if masked else " " for masked in row[:length]).split()
        assert all(len(one) >= span for one in stretches[:-1]), "only the clip's end cuts a stretch short"
    assert mask.shape == (len(frames), 60)


def test_what_is_masked_is_not_heard(questions: Path) -> None:
    """The loss depends on masked sound through its labels alone, and on the rest through the encoder."""
    task = tiny(questions).build().eval()
    batch = task.batch(0)
    seen: list[torch.Tensor] = []
    task.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    generator = torch.Generator().manual_seed(batch["mask_seed"])
    span = span_mask(batch["frames"], batch["samples"].shape[1] // 320, task.recipe.mask_chance, 3, generator)
    task.predict(batch)
    mel = task.mel(batch["samples"])
    masked = span.repeat_interleave(2, dim=1)[:, None].expand_as(mel)
    assert 0.2 < span.float().mean() < 0.7
    standard = (seen[0] - task.mean) / task.scale
    assert standard[masked].abs().max() < 1 and abs(float(standard[masked].std()) - 0.1) < 0.01
    torch.testing.assert_close(seen[0][~masked], mel[~masked], rtol=1e-4, atol=1e-4)


def test_the_tiny_recipe_learns_and_goes_on_to_units(questions: Path, tmp_path: Path) -> None:
    """Labels of masked frames are found many times as often as by chance; then units of its own layer are."""
    run = tiny(questions, out=str(tmp_path / "first"), dev_data=(str(questions),), steps=80, save_every=80)
    first = train(run, run.build(), progress=False)
    assert first["accuracy"] > 0.3, "chance is 1 in 64"
    assert first[f"accuracy_{questions.name}"] > 0.3 and first[f"perplexity_{questions.name}"] > 5
    settings = [f"data={questions}", f"checkpoint={run.out}", "layer=1", f"quantiser={tmp_path / 'units'}"]
    counts = prepare("units", [*settings, "clusters=16", "file=ssl_units.jsonl", "judge=2"])
    assert counts["clips"] == 8 and counts["bits_per_second"] <= 4 * counts["per_second"]
    again = tiny(questions, out=str(tmp_path / "second"), units="ssl_units.jsonl", clusters=16, longest_ms=1500)
    task = again.build()
    second = train(again, task, progress=False)
    commonest = float(torch.bincount(torch.cat([torch.from_numpy(u) for u in task.spoken[0].values()])).max())
    commonest /= sum(len(frames) for frames in task.spoken[0].values())
    assert second["accuracy"] > commonest + 0.1, "more than always saying the commonest unit"


def test_units_are_those_of_the_piece_that_was_cut(questions: Path, tmp_path: Path) -> None:
    """Frame j of a cut clip has the unit of the sound that is heard there."""
    rows = []
    for clip in ShardedDataset(questions):
        frames = len(clip.pcm) // 320
        rows.append({"id": clip.meta["id"], "units": list(range(frames)), "durations": [1] * frames})
    (questions / "counted.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = tiny(questions, units="counted.jsonl", clusters=1000, longest_ms=800).build()
    starts = set()
    for number in range(4):
        _, items = task.plan(number)
        batch = task.batch(number)
        for row, item in enumerate(items):
            start, count = int(batch["units"][row, 0]), int(batch["frames"][row])
            assert batch["units"][row, :count].tolist() == list(range(start, start + count))
            heard = torch.from_numpy(task.corpus[int(item)].pcm[start * 320 :][: count * 320] / 32768).float()
            torch.testing.assert_close(batch["samples"][row, : count * 320], heard)
            starts.add(start)
    assert len(starts) > 4, "long clips are cut at random"


def test_a_stopped_run_goes_on_exactly(questions: Path, tmp_path: Path) -> None:
    base = tiny(questions, steps=8, save_every=4, warmup=1, schedule="constant", augment="light")
    whole, cut = (replace(base, out=str(tmp_path / name)) for name in ("whole", "cut"))
    train(whole, whole.build(), progress=False)
    train(replace(cut, steps=4), cut.build(), progress=False)
    train(cut, cut.build(), progress=False)
    a, b = (newest_state(Path(one.out)) for one in (whole, cut))
    assert all(torch.equal(tensor, b["task"][name]) for name, tensor in a["task"].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_ms": 10}, "mask_ms is 10"),
        ({"mask_chance": 1.0}, "mask_chance is 1.0"),
        ({"units": "u.jsonl"}, "go together"),
        ({"units": "u.jsonl", "clusters": 16, "augment": "light"}, "moves sounds away from their units"),
        ({"units": "u.jsonl", "clusters": 16}, "u.jsonl is missing"),
    ],
)
def test_what_does_not_fit_is_refused(questions: Path, changes: dict, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        tiny(questions, **changes).build()
