"""The codec's training: entries that move by averages, crops, and the tiny recipe, whose loss falls."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from vowels import sung_vowel

from duologue.checkpoints.parts import load_part
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.data_prep.speech.pitch import pitch
from duologue.model.codec.codec import Codec, CodecConfig, causal
from duologue.model.codec.finite_scalar import FiniteScalarQuantiser
from duologue.model.codec.quantiser import Quantiser, QuantiserConfig
from duologue.model.codec.seanet import SEANetConfig
from duologue.model.codec.vocos import VocosConfig
from duologue.model.errors import DuologueError
from duologue.training import assemble
from duologue.training.data.waveforms import Waveforms
from duologue.training.loop.run_folder import newest_state
from duologue.training.loop.trainer import train
from duologue.training.losses.codebooks import CodebookConfig, Codebooks, kmeans, perplexity
from duologue.training.losses.discriminators import DiscriminatorConfig
from duologue.training.losses.semantic import SemanticConfig
from duologue.training.presets.nano import CODEC
from duologue.training.recipes.codec import recipe


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Five clips of gliding chords, from 0.2 to 1.5 s."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    clips = []
    for i, seconds in enumerate((0.2, 1.5, 0.7, 1.0, 1.2)):
        t = np.arange(int(seconds * 16000)) / 16000
        pitches = rng.uniform(150, 2000, 3)[:, None] * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 4, 3)[:, None] * t))
        sound = np.sin(2 * np.pi * np.cumsum(pitches, axis=1) / 16000).sum(0) * (0.5 + 0.5 * np.sin(6 * np.pi * t))
        clips.append(Clip((4000 * sound).astype(np.int16), {"id": f"clip-{i}", "text": "", "voice": "chords"}))
    writer = ShardWriter(folder, name="recordings", sample_rate=16000, seed=0, parameters={})
    writer.write(0, clips[:3])
    writer.write(1, clips[3:])
    writer.finish()
    return folder


def tiny(folder, **changes):
    return replace(recipe("tiny"), data=(str(folder),), **changes)


def test_crops_go_through_clips_and_are_functions_of_seed_and_step(recordings):
    data = Waveforms((str(recordings),), 16000, 30000)
    whole = np.concatenate([clip.pcm for clip in data.sets[0]])
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    rows = data.crops(rng, 4)
    assert torch.equal(rows, data.crops(again, 4)) and rows.shape == (4, 30000)
    text = whole.astype(np.float32) / 32768
    assert all(np.abs(text[:-29999] - float(row[0])).min() < 1e-6 for row in rows)
    first, last = tiny(recordings).build(), tiny(recordings, seed=1).build()
    assert torch.equal(first.batch(5)["samples"], tiny(recordings).build().batch(5)["samples"])
    assert not torch.equal(first.batch(5)["samples"], last.batch(5)["samples"])


def test_fractions_say_how_often_a_set_is_drawn_from(recordings):
    data = Waveforms((str(recordings),) * 2, 16000, 1600, fractions=(3.0, 1.0))
    assert data.chances.tolist() == [0.75, 0.25]
    for change, message in (
        ({"fractions": (1.0,)}, "as many as the data sets"),
        ({"sample_rate": 8000}, "16000 Hz; the codec's is 8000"),
        ({"length": 10**6}, "less than one crop of 62.5 s"),
    ):
        settings = {"sample_rate": 16000, "length": 1600, "fractions": ()} | change
        with pytest.raises(DuologueError, match=message):
            Waveforms((str(recordings),) * 2, **settings)


def test_the_pitch_of_a_crop_is_that_of_its_clips(tmp_path):
    """Two clips of one tone each: 100 Hz, then 200; a crop across their border has both, and each where it is."""
    t = np.arange(16000) / 16000
    tones = [sum(np.sin(2 * np.pi * hertz * k * t) / k for k in range(1, 9)) for hertz in (100, 200)]
    writer = ShardWriter(tmp_path, name="tones", sample_rate=16000, seed=0, parameters={})
    writer.write(
        0, [Clip((6000 * x).astype(np.int16), {"id": str(i), "text": "", "voice": "tone"}) for i, x in enumerate(tones)]
    )
    writer.finish()
    data = Waveforms((str(tmp_path),), 16000, 8000)
    found, fractions = data.voice([(0, 4000), (0, 12000), (0, 12345)], 100, 4)
    assert found.shape == (3, 80) and fractions.shape == (3, 80, 4)
    assert fractions[0, :, 0].min() > 0.9
    assert found[0].sub(100).abs().max() < 1
    assert found[1, :38].sub(100).abs().max() < 1 and found[1, 42:].sub(200).abs().max() < 2
    assert found[2, :34].sub(100).abs().max() < 1 and found[2, 39:].sub(200).abs().max() < 2


def test_a_codec_after_wavtokenizer_learns_as_well(recordings, tmp_path):
    """SEANet and Vocos, which know nothing of pitch, in the place of nano's encoder and decoder."""
    plain = CodecConfig(
        sample_rate=16000,
        encoder=SEANetConfig(dim=16, filters=4, ratios=(5, 4, 4, 3), lstm_layers=1, causal=True, reflect=False),
        quantiser=QuantiserConfig(dim=16, size=64),
        decoder=VocosConfig(in_dim=16, dim=32, ffn_dim=64, layers=2, residual_blocks=1, groups=8, n_fft=960, hop=240,
                            causal=True, chunk=3, left_context=66),
    )  # fmt: skip
    run = tiny(recordings, codec=plain, out=str(tmp_path), steps=30, dev_data=(str(recordings),))
    task = run.build()
    assert task.batch(0).keys() == {"samples", "codebooks"}
    task.train()
    first = float(task(task.batch(0))[1]["mel"])
    metrics = train(run, run.build(), progress=False)
    assert metrics["mel"] < 0.9 * first and metrics[f"mel_{recordings.name}"] < 0.9 * first


def test_a_sung_vowel_is_voiced_in_and_out(tmp_path):
    """Even of a decoder that whispers at first, which one with a filter for each source does not unlearn."""
    vowel = sung_vowel(3.0)
    writer = ShardWriter(tmp_path / "vowel", name="vowel", sample_rate=16000, seed=0, parameters={})
    writer.write(0, [Clip((32767 * vowel).astype(np.int16), {"id": "ah", "text": "", "voice": "singer"})])
    writer.finish()
    run = tiny(tmp_path / "vowel", out=str(tmp_path / "run"), steps=60, quantise_after=60)
    task = run.build()
    decoder, sizes = task.codec.decoder, run.codec.decoder
    with torch.no_grad():
        said = decoder.head.bias.view(sizes.pieces, -1)
        if sizes.bands:
            said[:, sizes.cepstrum :] = -4.0  # a fiftieth of the power
        else:
            said[:, 0] = -12.6
    train(run, task, progress=False)
    with torch.inference_mode():
        embeddings = task.codec.encoder(torch.from_numpy(vowel)[None, None])
        copy = task.codec.decoder(embeddings)[0, 0, : len(vowel)].numpy()
    heard, wanted = (pitch(wave, 16000, 160) for wave in (copy, vowel))
    both = (heard > 0) & (wanted > 0)
    assert (wanted > 0).mean() > 0.95 and both.mean() > 0.8
    assert np.median(np.abs(np.log2(heard[both] / wanted[both]))) < 0.05


def test_kmeans_finds_the_clusters():
    generator = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(8, 4, generator=generator)
    vectors = centres.repeat(40, 1) + 0.01 * torch.randn(320, 4, generator=generator)
    found = kmeans(vectors, 32, 10, generator)
    assert torch.cdist(centres, found).min(dim=1).values.max() < 0.05
    few = kmeans(vectors[:5], 32, 10, generator)
    assert few.shape == (32, 4) and len(few.unique(dim=0)) == 32


def learner(size=6, codebooks=1, batches=1, **changes):
    sizes = QuantiserConfig(dim=3, size=size, codebooks=codebooks)
    torch.manual_seed(0)
    quantiser = Quantiser(sizes)
    averages = Codebooks(sizes, CodebookConfig(**({"decay": 0.9, "dead_after": 3} | changes)), batches, seed=0)
    averages.initialise(quantiser, torch.randn(200, 3))
    return quantiser, averages.train()


def test_entries_are_running_averages_of_what_chose_them():
    quantiser, averages = learner()
    before = quantiser.entries[0].clone()
    x = torch.randn(2, 3, 5)
    vectors = x.transpose(1, 2).reshape(-1, 3)
    codes = torch.cdist(vectors, before).argmin(dim=1)
    averages.quantise(quantiser, x, 1)
    for entry in range(6):
        mine = vectors[codes == entry]
        wanted = (0.9 * 0.1 * before[entry] + 0.1 * mine.sum(0)) / (0.9 * 0.1 + 0.1 * len(mine))
        assert torch.allclose(quantiser.entries[0, entry], wanted, atol=1e-6)


def test_gradients_pass_straight_through_and_draw_to_the_entry():
    quantiser, averages = learner()
    x = torch.randn(1, 3, 4, requires_grad=True)
    quantised, loss = averages.eval().quantise(quantiser, x, 1)
    assert torch.allclose(quantised, quantiser.decode(quantiser.encode(x)), atol=1e-6)
    weight = torch.randn(1, 3, 4)
    (gradient,) = torch.autograd.grad((quantised * weight).sum(), x, retain_graph=True)
    assert torch.allclose(gradient, weight)
    (gradient,) = torch.autograd.grad(loss, x)
    assert torch.allclose(gradient, 2 * (x - quantised).detach() / x.numel(), atol=1e-6)


def test_dead_entries_become_vectors_of_the_batch():
    quantiser, averages = learner()
    far = quantiser.entries.data[0, 2] = torch.full((3,), 50.0)
    averages.sums[0, 2] = far * averages.counts[0, 2]
    x = torch.randn(1, 3, 8)
    for update in range(1, 4):
        assert torch.allclose(quantiser.entries[0, 2], far)
        averages.quantise(quantiser, x, 1)
        assert int(averages.updates) == update
    vectors = x[0].T
    assert torch.cdist(quantiser.entries[0, 2][None], vectors).min() < 1e-5
    assert float(averages.metrics()["utilisation"]) < 1


def test_batches_of_a_step_make_one_update_in_any_grouping():
    """Two batches that wait for each other move entries as one batch of both does."""
    x, y = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    together, one = learner(codebooks=2)
    apart, two = learner(codebooks=2, batches=2)
    one.quantise(together, torch.cat([x, y]), 2)
    two.quantise(apart, x, 2)
    assert int(two.updates) == 0
    two.quantise(apart, y, 2)
    assert torch.allclose(together.entries, apart.entries, atol=1e-6)


def test_a_bad_batch_leaves_no_trace():
    quantiser, averages = learner()
    before = quantiser.entries.clone()
    averages.quantise(quantiser, torch.full((1, 3, 4), torch.nan), 1)
    assert torch.equal(quantiser.entries, before) and torch.isfinite(averages.sums).all()


def test_perplexity():
    assert float(perplexity(torch.ones(8))) == pytest.approx(8)
    assert float(perplexity(torch.tensor([1.0, 0, 0]))) == pytest.approx(1)


def test_the_tiny_recipe_learns(recordings, tmp_path):
    """The mel distance falls to little more than half, most entries are used, and the codec can be used afterwards."""
    run = tiny(recordings, out=str(tmp_path / "run"), dev_data=(str(recordings),))
    task = run.build()
    task.train()
    first = float(task(task.batch(0))[1]["mel"])
    task = run.build()
    metrics = train(run, task, progress=False)
    assert metrics["mel"] < 0.6 * first
    assert metrics["utilisation"] > 0.8 and metrics["perplexity"] > 16
    name = recordings.name
    assert metrics[f"mel_{name}"] < 0.6 * first and metrics[f"used_{name}"] > 32
    samples = task.data.crops(np.random.default_rng(0), 2)
    handed_on = load_part(assemble.run(tmp_path / "codec", assemble.Config(codec=run.out)), "codec", CodecConfig, Codec)
    assert handed_on.config == run.codec
    with torch.inference_mode():
        codes = task.codec.encode(samples)
        assert codes.shape == (2, 1, 20)
        wanted = task.codec.decode(codes)
        assert wanted.shape == samples.shape
        task.codec.half().float()  # as it is stored: pulses move with the least change of pitch
        assert (handed_on.decode(codes) - task.codec.decode(codes)).norm() < 1e-3 * wanted.norm()


DISCRIMINATORS = DiscriminatorConfig(periods=(2,), scales=1, resolutions=(64,), channels=4, max_channels=8, hinge=True)


def test_a_run_with_discriminators_and_several_codebooks_goes_on_exactly(recordings, tmp_path):
    """Codec, averages and discriminators go on from a checkpoint as if never stopped; also a codec that was trained
    before, whose entries move on."""
    sizes = replace(recipe("tiny").codec, quantiser=QuantiserConfig(dim=16, size=32, codebooks=3))
    before = tiny(recordings, codec=sizes, out=str(tmp_path / "before"), steps=1, warmup=0)
    train(before, before.build(), progress=False)
    base = tiny(recordings, codec=sizes, adversary=True, discriminator=DISCRIMINATORS, discriminator_after=2, steps=8,
                save_every=4, warmup=1, start=(f"codec={before.out}",),
                schedule="constant", quantise_after=3)  # fmt: skip
    whole, cut = (replace(base, out=str(tmp_path / name)) for name in ("whole", "cut"))
    metrics = train(whole, whole.build(), progress=False)
    assert {"discriminator", "adversarial", "features", "mel", "utilisation", "perplexity"} <= metrics.keys()
    train(replace(cut, steps=4), cut.build(), progress=False)
    train(cut, cut.build(), progress=False)
    a, b = (newest_state(Path(r.out)) for r in (whole, cut))
    for part in ("task", "rival"):
        assert all(torch.equal(tensor, b[part][name]) for name, tensor in a[part].items()), part
    assert {whole.build().batch(i)["codebooks"] for i in range(3, 23)} == {1, 2, 3}


def test_first_steps_may_do_without_entries(recordings, tmp_path):
    """Then k-means finds them among embeddings that are worth something."""
    run = tiny(recordings, out=str(tmp_path / "run"), steps=3, quantise_after=3, dev_data=(str(recordings),))
    task = run.build()
    before = task.codec.quantiser.entries.clone()
    assert not any("used" in name for name in train(run, task, progress=False))
    assert not task.averages.initialised and torch.equal(task.codec.quantiser.entries, before)
    batch = task.batch(2)
    controls = task.codec.decoder.controls(task.codec.encoder(batch["samples"][:, None]))
    logits = batch["periodic"].logit(eps=1e-3)
    assert torch.equal(
        task.make(batch)[2], task.codec.decoder.sound(controls, batch["pitch"], periodic=logits)[:, 0]
    )
    task.train()
    task(task.batch(3))
    assert task.averages.initialised and not torch.equal(task.codec.quantiser.entries, before)


def test_a_decoder_alone_learns_behind_codes_that_stay(recordings, tmp_path):
    """What writes a codec's codes still fits: encoder and entries stay to the bit, and so do the codes."""
    first = tiny(recordings, out=str(tmp_path / "first"), steps=20)
    train(first, first.build(), progress=False)
    run = tiny(recordings, out=str(tmp_path / "second"), start=(f"codec={first.out}",), learn=("codec.decoder",),
               adversary=True, discriminator=DISCRIMINATORS, discriminator_after=2, steps=4,
               schedule="constant")  # fmt: skip
    metrics = train(run, run.build(), progress=False)
    assert {"mel", "discriminator"} <= metrics.keys()
    before, after = (load_file(Path(r.out) / "model.safetensors") for r in (first, run))
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) != name.startswith("codec.decoder."), name


def test_nano_is_small_and_quick_to_answer():
    codec = Codec(CODEC)
    assert 2 * sum(p.numel() for p in codec.parameters()) < 8 * 2**20  # bytes as float16
    assert codec.delay_ms == 67.5 and codec.exact
    assert CODEC.frame_rate < 75
    slower = recipe("nano-40").codec
    assert slower.frame_rate == 40 and Codec(slower).delay_ms == 75
    with torch.device("meta"):
        assert [Codec(causal(rate)).delay_ms for rate in (75, 40)] == [60, 62.5]


@pytest.mark.parametrize(
    "change,message",
    [
        ({"crop_ms": 30}, "crop_ms is 30"),
        ({"gain_db": (6.0, -6.0)}, "gain_db is"),
        ({"codebooks": None}, "decay is 1"),
    ],
)
def test_what_does_not_fit_is_refused(recordings, change, message):
    with pytest.raises(DuologueError, match=message):
        change = {"codebooks": CodebookConfig(decay=1.0)} if "codebooks" in change else change
        tiny(recordings, **change).build()


@pytest.mark.parametrize("levels", [(8, 5), (4, 3, 5)])
def test_finite_scalars_are_rounded_to_levels_each_of_which_is_a_code(levels):
    """Every code is heard as itself again; gradients pass rounding with the slope of what is rounded."""
    size = math.prod(levels)
    torch.manual_seed(0)
    quantiser = FiniteScalarQuantiser(QuantiserConfig(dim=len(levels), size=size, levels=levels))
    with torch.no_grad():  # the maps do nothing, so that values can be told
        for each in (quantiser.inward, quantiser.outward):
            each.weight.copy_(torch.eye(len(levels)))
            each.bias.zero_()
    codes = torch.arange(size)[None, None]
    values = quantiser.decode(codes)  # (1, L, size)
    assert torch.equal(values[0].T, quantiser.entries[0]) and len(values[0].T.unique(dim=0)) == size
    for channel, level in enumerate(levels):
        wanted = (torch.arange(level) - level // 2) / (level // 2)
        torch.testing.assert_close(values[0, channel].unique(), wanted)
    wide = 3 * torch.randn(1, len(levels), 5000)
    assert len(quantiser.encode(wide).unique()) == size
    nearby = quantiser.encode(0.6 * torch.randn(1, len(levels), 400))
    assert nearby.min() >= 0 and nearby.max() < size
    x = torch.randn(2, len(levels), 3, requires_grad=True)
    quantised, found = quantiser.straight_through(x)
    torch.testing.assert_close(quantised, quantiser.decode(quantiser.encode(x)))
    assert torch.equal(found[:, None], quantiser.encode(x))
    (gradient,) = torch.autograd.grad(quantised.sum(), x)
    assert (gradient > 0).all()
    with pytest.raises(DuologueError, match=f"must be 0 to {size - 1}"):
        quantiser.decode(codes + 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_finite_scalars_of_fewer_bits(dtype):
    """Embeddings come in the weights' dtype; what is no number has a code all the same."""
    torch.manual_seed(0)
    quantiser = FiniteScalarQuantiser(QuantiserConfig(dim=8, size=40, levels=(8, 5))).to(dtype)
    codes = quantiser.encode(torch.randn(1, 8, 50, dtype=dtype))
    assert quantiser.decode(codes).dtype == quantiser.entries.dtype == dtype
    assert 0 <= int(quantiser.encode(torch.full((1, 8, 1), torch.nan))) < 40


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"levels": (8, 8)}, "levels are 8,8, for 64 codes"),
        ({"levels": (2, 32), "size": 64}, "at least 3"),
        ({"levels": (8, 8), "size": 64, "codebooks": 2}, "with levels it must be 1"),
    ],
)
def test_levels_that_cannot_be_are_refused(sizes, message):
    with pytest.raises(DuologueError, match=message):
        QuantiserConfig(**{"dim": 8} | sizes)


def test_finite_scalars_learn_with_what_an_encoder_hears(recordings, speech_encoder, tmp_path):
    """The recording comes back in several codes, and the encoder's frames are predicted; first without rounding."""
    sizes = replace(recipe("tiny").codec, quantiser=QuantiserConfig(dim=16, size=64, levels=(4, 4, 4)))
    run = tiny(recordings, codec=sizes, semantic=SemanticConfig(encoder=speech_encoder), steps=40, quantise_after=20,
               learn=("codec", "semantic.head"), schedule="constant", out=str(tmp_path / "run"))  # fmt: skip
    task = run.build().train()
    first = task(task.batch(20))[1]
    whole, rounded = (task.make({**task.batch(0), "codebooks": books})[2] for books in (0, 1))
    assert not torch.equal(whole, rounded)
    metrics = train(run, task, progress=False)
    assert metrics["mel"] < 0.8 * float(first["mel"]) and metrics["semantic"] < 0.9 * float(first["semantic"])
    samples = torch.cat([task.batch(i)["samples"] for i in range(4)])
    with torch.inference_mode():
        assert len(task.codec.encode(samples).unique()) > 8
    folder = assemble.run(tmp_path / "codec", assemble.Config(codec=run.out))
    assert load_part(folder, "codec", CodecConfig, Codec).config.quantiser.levels == (4, 4, 4)
    assert "finite scalar quantisation to 64 codes" in (folder / "README.md").read_text()
    with pytest.raises(DuologueError, match=r"learn is codec; with semantic\.encoder"):
        replace(run, learn=("codec",))


@pytest.mark.slow
def test_two_processes_learn_the_same_entries(recordings, tmp_path):
    """A real launch over gloo: sums, counts and candidates of both processes make the update of one that has both."""
    settings = {"steps": 8, "accumulate": 2, "save_every": 8, "log_every": 4, "warmup": 1, "lr": 1e-4}
    alone = tiny(recordings, out=str(tmp_path / "alone"), **settings)
    train(alone, alone.build(), progress=False)
    launch = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "--num_cpu_threads_per_process", "1", "--multi_gpu", "--num_processes", "2"]  # fmt: skip
    recipe_ = ["train", "codec", "preset=tiny", f"data={recordings}", f"out={tmp_path / 'shared'}", "workers=0"]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *launch, "-m", "duologue", *recipe_,
         *(f"{key}={value}" for key, value in settings.items())],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "shared"))
    for name, tensor in one.items():
        # On average: rounding alone can make a single vector choose another entry.
        assert (tensor - two[name]).abs().mean() <= 0.01 * tensor.abs().mean() + 1e-6, name
