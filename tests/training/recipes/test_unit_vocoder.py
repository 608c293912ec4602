"""The unit vocoder's training: losses, crops, and the tiny recipe, which overfits eight samples."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from duologue.data_prep.datasets.shards import Clip, ShardedDataset, ShardWriter
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder
from duologue.training.data.units import UnitCorpus, read_units
from duologue.training.loop.run_folder import newest_state
from duologue.training.loop.trainer import train
from duologue.training.losses.discriminators import DiscriminatorConfig
from duologue.training.losses.spectral import SpectralLoss, SpectralLossConfig
from duologue.training.recipes.unit_vocoder import recipe, without_weight_norm

HOP = 320


def sung(units, durations):
    """One tone a unit, so that units say what to hear, over a little noise: int16 samples."""
    frequency = np.repeat(200.0 + 100.0 * np.array(units), np.array(durations) * HOP)
    tone = np.sin(2 * np.pi * np.cumsum(frequency) / 16000)
    return (8000 * tone + 80 * np.random.default_rng(0).standard_normal(len(tone))).astype(np.int16)


@pytest.fixture(scope="module")
def replies(tmp_path_factory):
    """Eight clips of tones with their units; the last is shorter than a crop."""
    folder = tmp_path_factory.mktemp("replies")
    rng = np.random.default_rng(0)
    clips, rows = [], []
    for i in range(8):
        units = (np.cumsum(rng.integers(1, 7, 8 if i < 7 else 2)) % 8).tolist()
        durations = [2 + unit % 4 for unit in units]  # a unit always lasts as long
        tail = np.zeros(int(rng.integers(0, HOP)), np.int16)  # recordings do not end on a frame
        meta = {"id": f"clip-{i}", "text": "la", "voice": "tones"}
        clips.append(Clip(np.concatenate([sung(units, durations), tail]), meta))
        rows.append({"id": f"clip-{i}", "units": units, "durations": durations})
    writer = ShardWriter(folder, name="replies", sample_rate=16000, seed=0, parameters={})
    writer.write(0, clips[:5])
    writer.write(1, clips[5:])
    writer.finish()
    (folder / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tiny(folder, **changes):
    return replace(recipe("tiny"), **{"data": (str(folder),)} | changes)


def test_spectral_loss_is_zero_for_the_recording_and_hears_pitch_level_and_noise():
    loss = SpectralLoss(SpectralLossConfig())
    recorded = torch.from_numpy(sung([1, 4, 2], [20, 20, 20]).astype(np.float32))[None] / 32768
    assert loss(recorded, recorded)[0] == 0
    noise = torch.randn(recorded.shape, generator=torch.Generator().manual_seed(0))
    near, far = loss(recorded + 1e-4 * noise, recorded)[0], loss(recorded + 1e-3 * noise, recorded)[0]
    other = torch.from_numpy(sung([2, 4, 1], [20, 20, 20]).astype(np.float32))[None] / 32768
    assert 0 < near < far < loss(other, recorded)[0]
    total, parts = loss(0.5 * recorded, recorded)
    # Half the amplitude is ln 2 in every log-amplitude above the floor, and half of every spectrum.
    assert math.isclose(float(parts["convergence"]), 0.5, rel_tol=1e-3)
    assert 0.3 < float(parts["mel"]) < 0.7 and float(total) == pytest.approx(
        5 * float(parts["mel"]) + float(parts["magnitude"]) + float(parts["convergence"])
    )


def test_silence_gives_finite_losses_and_gradients():
    made = torch.zeros(2, 3200, requires_grad=True)
    recorded = torch.zeros(2, 3200)
    recorded[0, 100] = 0.1
    loss, _ = SpectralLoss(SpectralLossConfig())(made, recorded)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(made.grad).all()
    loss, _ = SpectralLoss(SpectralLossConfig())(torch.zeros(1, 3200), torch.zeros(1, 3200))
    assert loss == 0


def test_crops_join_clips_and_keep_units_beside_their_samples(replies):
    corpus = UnitCorpus((str(replies),), units=200, hop=HOP)
    spoken = read_units(replies)
    expected = np.concatenate([np.repeat(row.units, row.durations) for row in spoken.values()])
    assert len(corpus) == 8 and np.array_equal(corpus.frames, expected)
    dataset = ShardedDataset(replies)
    whole = np.concatenate([clip.pcm[: len(clip.pcm) // HOP * HOP] for clip in dataset])
    for start, length in ((0, len(expected)), (3, 40), (len(expected) - 20, 20), (int(corpus.ends[0]), 1)):
        frames, samples = corpus.crop(start, length)
        assert np.array_equal(frames, expected[start : start + length])
        assert np.array_equal(samples, whole[start * HOP : (start + length) * HOP])


def test_a_batch_is_a_function_of_seed_and_step(replies):
    first, again, other = (tiny(replies, seed=seed).build() for seed in (1, 1, 2))
    last = first.batch(9)
    for name, value in again.batch(9).items():
        assert torch.equal(value, last[name])
    assert not torch.equal(other.batch(9)["samples"], last["samples"])
    assert not torch.equal(first.batch(8)["samples"], last["samples"])
    assert last["frames"].shape == (8, 20) and last["samples"].shape == (8, 20 * HOP)


def test_weight_norm_is_folded_and_plain_weights_can_be_loaded(replies):
    task = tiny(replies).build()
    plain = task.parts()["vocoder"]
    assert set(plain.state_dict()) == set(UnitVocoder(task.recipe.vocoder).state_dict())
    units = torch.randint(8, (1, 6))
    task.eval()
    with torch.no_grad():
        expected = task.vocoder(units)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(plain(units), expected)
        other = tiny(replies, seed=5).build().eval()
        assert not torch.allclose(other.vocoder(units, torch.ones_like(units)), plain(units, torch.ones_like(units)))
        problems = other.vocoder.load_state_dict(plain.state_dict())
        assert not problems.missing_keys and not problems.unexpected_keys
        torch.testing.assert_close(other.vocoder(units), expected)
        torch.testing.assert_close(without_weight_norm(other.vocoder)(units), expected)


def test_the_tiny_recipe_overfits_eight_samples(replies, tmp_path):
    """The mel distance falls from 2.4 below 0.6, and the durations become those of the recordings."""
    run = tiny(replies, out=str(tmp_path / "run"))
    task = run.build()
    metrics = train(run, task, progress=False)
    assert metrics["mel"] < 0.6
    vocoder = task.parts()["vocoder"]
    for row in read_units(replies).values():
        predicted = vocoder.predict_durations(torch.from_numpy(row.units)[None])[0]
        assert (predicted - torch.from_numpy(row.durations)).abs().max() <= 1
    assert (tmp_path / "run" / "model.safetensors").is_file()


DISCRIMINATORS = DiscriminatorConfig(periods=(2, 3), scales=2, channels=4, max_channels=16)


def test_a_run_with_discriminators_goes_on_exactly(replies, tmp_path):
    """Generator and discriminator, which joins late, alternate and go on from a checkpoint as if never stopped."""
    base = tiny(
        replies,
        adversary=True,
        discriminator=DISCRIMINATORS,
        discriminator_after=4,
        steps=12,
        save_every=3,
        warmup=1,
        schedule="constant",
    )
    whole, cut = (replace(base, out=str(tmp_path / name)) for name in ("whole", "cut"))
    task = whole.build()
    assert task.make_discriminator() is not None
    metrics = train(whole, task, progress=False)
    assert {"discriminator", "adversarial", "features", "mel"} <= metrics.keys()
    train(replace(cut, steps=6), cut.build(), progress=False)
    train(cut, cut.build(), progress=False)
    a, b = (newest_state(Path(r.out)) for r in (whole, cut))
    for part in ("task", "rival"):
        assert all(torch.equal(tensor, b[part][name]) for name, tensor in a[part].items()), part
    # The discriminator has moved, the generator without one would be elsewhere.
    fresh = base.build().make_discriminator().state_dict()
    assert any(not torch.equal(tensor, fresh[name]) for name, tensor in a["rival"].items())
    alone = replace(base, adversary=False, out=str(tmp_path / "alone"))
    train(alone, alone.build(), progress=False)
    lone = newest_state(Path(alone.out))["task"]
    assert any(not torch.equal(tensor, lone[name]) for name, tensor in a["task"].items())


def test_the_discriminator_waits_for_its_turn(replies, tmp_path):
    recipe = tiny(
        replies,
        adversary=True,
        discriminator=DISCRIMINATORS,
        discriminator_after=3,
        steps=3,
        save_every=3,
        out=str(tmp_path),
    )
    train(recipe, recipe.build(), progress=False)
    fresh = recipe.build().make_discriminator().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in newest_state(tmp_path)["rival"].items())


TINY = recipe("tiny").vocoder


@pytest.mark.parametrize(
    "change,message",
    [
        ({"crop_ms": 10}, "at least one frame, 20 ms"),
        ({"crop_ms": 60000}, "a crop needs 3000"),
        ({"spectral": SpectralLossConfig(sample_rate=8000)}, "sample_rate is 8000"),
        ({"vocoder": replace(recipe("tiny").vocoder, units=4)}, "the model's are 0 to 3"),
        (
            {"vocoder": replace(TINY, source_filter=replace(TINY.source_filter, bands=4))},
            "bands is 4; only a codec learns them",
        ),
    ],
)
def test_what_does_not_fit_is_refused(replies, change, message):
    with pytest.raises(DuologueError, match=message):
        tiny(replies, **change).build()


@pytest.mark.parametrize(
    "text,message",
    [
        ("not json\n", "line 1 is not JSON"),
        ('{"id": "clip-0", "units": [1]}\n', "line 1: expected"),
        ('{"id": "clip-0", "units": [1, 2], "durations": [1]}\n', "as many durations"),
        ('{"id": "clip-0", "units": [1], "durations": [0]}\n', "at least 1"),
        ('{"id": "clip-9", "units": [1], "durations": [2]}\n', "no units for clip clip-0"),
        ('{"id": "clip-0", "units": [1], "durations": [2]}\n', r"last 2 frames, its recording \d+"),
    ],
)
def test_bad_unit_files_are_refused(replies, tmp_path, text, message):
    for path in replies.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "units.jsonl").unlink()
    with pytest.raises(DuologueError, match="is missing"):
        read_units(tmp_path)
    (tmp_path / "units.jsonl").write_text(text)
    with pytest.raises(DuologueError, match=message):
        UnitCorpus((str(tmp_path),), units=200, hop=HOP)


def voiced(folder, hertz, name, source):
    """Four clips of one note, whose units say nothing of it."""
    rng, clips, rows = np.random.default_rng(int(hertz)), [], []
    for i in range(4):
        units = (np.cumsum(rng.integers(1, 7, 10)) % 8).tolist()
        time = np.arange(10 * 3 * HOP) / 16000
        tone = sum(np.cos(2 * np.pi * k * hertz * time) / k for k in range(1, 12))
        clips.append(Clip((4000 * tone).astype(np.int16), {"id": f"{name}-{i}", "text": "la", "voice": source}))
        rows.append({"id": f"{name}-{i}", "units": units, "durations": [3] * 10})
    writer = ShardWriter(folder, name=name, sample_rate=16000, seed=0, parameters={})
    writer.write(0, clips)
    writer.finish()
    (folder / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder)


def test_a_table_of_voices_learns_to_tell_them_apart(replies, tmp_path):
    """Two voices an octave apart, by folder; the same units then sound in either, as its index says."""
    data = tuple(voiced(tmp_path / name, hertz, name, "note") for name, hertz in (("low", 100), ("high", 200)))
    out = str(tmp_path / "run")
    task = tiny(replies, data=data, voices=("low", "high"), out=out, steps=60, save_every=60).build()
    assert task.corpus.speakers.tolist() == [0] * 4 + [1] * 4 and task.batch(3)["rows"].shape == (8, 20)
    train(task.recipe, task, progress=False)
    vocoder = task.parts()["vocoder"]
    units = torch.arange(8).repeat_interleave(4)[None]
    with torch.no_grad():
        said = [vocoder.generator.controls(vocoder.embed(units, row)).log_f0.median() for row in (0, 1)]
    low, high = (120 * float(log.exp()) for log in said)
    assert low == pytest.approx(100, rel=0.1) and high > 1.5 * low


def test_whose_a_clip_is_its_meta_or_its_folder_says(replies, tmp_path):
    folders = tuple(voiced(tmp_path / name, 100, name, name) for name in ("b", "a"))
    task = tiny(replies, data=folders, voices=("a", "b"), dev_data=folders[:1]).build()
    assert task.corpus.speakers.tolist() == [1] * 4 + [0] * 4, "by the metas"
    assert "mel_b" in task.evaluate()
    single = tiny(replies, seed=3).build().parts()["vocoder"].state_dict()
    task.vocoder.load_state_dict(single)
    assert not task.vocoder.speakers.weight.any(), "a vocoder of one voice is where all begin"
    with pytest.raises(DuologueError, match="clips are in the voices a, b: voices must name these"):
        tiny(replies, data=folders, voices=("a", "c", "d")).build()
    with pytest.raises(DuologueError, match="each needs a name of its own"):
        tiny(replies, voices=("a", "a"))
