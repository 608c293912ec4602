"""Units: clusters of frames that come back from disk the same, mean the same sound, and do not mind a shift."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duologue.checkpoints.cards.facts import Card
from duologue.data_prep.datasets.shards import Clip, ShardedDataset, ShardWriter
from duologue.data_prep.prepare import main
from duologue.data_prep.speech.engine import SAMPLE_RATE
from duologue.data_prep.speech.synthesis import synthesise
from duologue.data_prep.speech.voices import REPLY_VOICE
from duologue.data_prep.units.features import HOP, EncoderFeatures, MfccFeatures, fingerprint
from duologue.data_prep.units.kmeans import KMeansUnits, deduplicate
from duologue.data_prep.units.quality import bit_rate, flite_phones, frame_labels, phone_purity, shift_stability
from duologue.model.audio_encoder.mel import LogMel, LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from duologue.model.errors import DuologueError

FREQUENCIES = (300.0, 700.0, 1500.0, 3000.0)


def tones(seed: int, count: int = 12, length: int = 10) -> tuple[torch.Tensor, list[str]]:
    """Tones of `length` frames with a little noise, and the name of each frame: (n,), n / 320 names."""
    rng = np.random.default_rng(seed)
    picked = rng.integers(len(FREQUENCIES), size=count)
    time = np.arange(length * HOP) / 16000
    wav = np.concatenate([0.3 * np.sin(2 * np.pi * FREQUENCIES[at] * time) for at in picked])
    wav += rng.normal(0, 0.001, len(wav))
    return torch.from_numpy(wav.astype(np.float32)), [str(at) for at in np.repeat(picked, length)]


def encoder_features(seed: int = 0, **changes: object) -> EncoderFeatures:
    torch.manual_seed(seed)
    config = WhisperEncoderConfig(
        n_mels=20, n_audio_ctx=500, n_audio_state=32, n_audio_head=2, n_audio_layer=2, chunk=8, left_context=96,
        causal_conv=True,
    )  # fmt: skip
    mel = LogMel(LogMelConfig(n_mels=20))
    return EncoderFeatures(mel, WhisperEncoder(config).eval(), layer=1, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def quantiser() -> KMeansUnits:
    return KMeansUnits.fit(MfccFeatures(), [tones(seed)[0] for seed in range(6)], clusters=8, seed=1)


@pytest.mark.parametrize("n", [0, 1, 319, 320, 321, 5000, 6400])
def test_a_frame_is_320_samples(n: int) -> None:
    waveform = torch.randn(n, generator=torch.Generator().manual_seed(0)) * 0.1
    for features, dim in ((MfccFeatures(), 26), (encoder_features(), 32)):
        assert features(waveform).shape == (n // HOP, dim)
        assert features(waveform).isfinite().all()


def test_a_frame_describes_its_own_samples() -> None:
    """A click in the middle of frame 7 is heard there, not elsewhere."""
    quiet, click = torch.zeros(20 * HOP), torch.zeros(20 * HOP)
    click[7 * HOP + HOP // 2] = 1.0
    features = MfccFeatures()
    changed = (features(quiet) - features(click))[:, :13].abs().sum(1)  # (T,)
    assert int(changed.argmax()) == 7
    assert changed[:6].max() == 0 and changed[9:].max() == 0


def test_mfcc_agrees_with_scipy() -> None:
    """The same cepstra as a cosine transform by another library."""
    fft = pytest.importorskip("scipy.fft")
    features, waveform = MfccFeatures(), tones(3)[0]
    side = (features.n_fft - HOP) // 2
    padded = np.pad(waveform.numpy(), (side, features.n_fft - HOP - side))
    frame = padded[5 * HOP : 5 * HOP + features.n_fft] * features.window.numpy()
    power = np.abs(np.fft.rfft(frame)) ** 2
    log_mel = np.log(np.maximum(features.filters.numpy() @ power, 1e-8))
    wanted = fft.dct(log_mel, type=2, norm="ortho")[:13]
    wanted[0] *= np.sqrt(2)  # the transform's first row is scaled otherwise
    np.testing.assert_allclose(features(waveform)[5, :13].numpy(), wanted, rtol=1e-3, atol=1e-3)


def test_each_tone_gets_units_of_its_own(quantiser: KMeansUnits) -> None:
    waveform, labels = tones(99)
    units = quantiser.encode(waveform)
    assert units.shape == (len(labels),) and units.dtype == torch.int64
    assert phone_purity(units, labels) > 0.85
    assert phone_purity(units[torch.randperm(len(units))], labels) < 0.7


def test_assignment_is_the_nearest_centroid(quantiser: KMeansUnits) -> None:
    frames = torch.randn(50, 26, generator=torch.Generator().manual_seed(0)) * quantiser.scale + quantiser.mean
    distances = torch.cdist((frames - quantiser.mean) / quantiser.scale, quantiser.centroids)
    torch.testing.assert_close(quantiser.assign(frames), distances.argmin(1))


def test_fitting_is_repeatable(quantiser: KMeansUnits) -> None:
    again = KMeansUnits.fit(MfccFeatures(), [tones(seed)[0] for seed in range(6)], clusters=8, seed=1)
    torch.testing.assert_close(again.centroids, quantiser.centroids)


def test_too_little_to_fit() -> None:
    with pytest.raises(DuologueError, match="120 frames cannot make 200 clusters"):
        KMeansUnits.fit(MfccFeatures(), [tones(0)[0]], clusters=200)


def test_out_and_in_again(quantiser: KMeansUnits, tmp_path: Path) -> None:
    quantiser.save(tmp_path)
    loaded = KMeansUnits.load(tmp_path)
    waveform = tones(5)[0]
    torch.testing.assert_close(loaded.encode(waveform), quantiser.encode(waveform))
    assert len(loaded) == 8


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    features = encoder_features(seed=0)
    KMeansUnits.fit(features, [tones(seed)[0] for seed in range(2)], clusters=4).save(tmp_path)
    loaded = KMeansUnits.load(tmp_path, encoder_features(seed=0))
    torch.testing.assert_close(loaded.encode(tones(5)[0]), KMeansUnits.load(tmp_path, features).encode(tones(5)[0]))
    for other in (encoder_features(seed=1), encoder_features(seed=0, passes=((0, 0),)), MfccFeatures()):
        with pytest.raises(DuologueError, match="fitted on"):
            KMeansUnits.load(tmp_path, other)
    with pytest.raises(DuologueError, match="name that checkpoint"):
        KMeansUnits.load(tmp_path)


def test_broken_folders(quantiser: KMeansUnits, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="holds no units"):
        KMeansUnits.load(tmp_path)
    quantiser.save(tmp_path)
    (tmp_path / "units.safetensors").write_bytes(b"rubbish")
    with pytest.raises(DuologueError, match="cannot be read"):
        KMeansUnits.load(tmp_path)
    (tmp_path / "units.json").write_text("{}")
    with pytest.raises(DuologueError, match="cannot be read"):
        KMeansUnits.load(tmp_path)


def test_the_fingerprint_sees_every_weight() -> None:
    encoder = encoder_features().encoder
    before = fingerprint(encoder)
    assert before == fingerprint(encoder) and len(before) == 16
    with torch.no_grad():
        next(iter(encoder.parameters())).flatten()[0] += 1e-3
    assert fingerprint(encoder) != before


def test_averaging_over_positions_is_the_mean_of_the_passes() -> None:
    waveform = tones(2)[0]
    both = encoder_features(passes=((0, 0), (37, 3)))(waveform)
    one, other = (encoder_features(passes=(one,))(waveform) for one in ((0, 0), (37, 3)))
    torch.testing.assert_close(both, (one + other) / 2, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(one, other, atol=1e-3)
    for passes in ((), ((-1, 0),), ((0, -2),)):
        with pytest.raises(DuologueError, match="passes"):
            encoder_features(passes=passes)


def test_an_encoder_of_whole_clips_sees_them_once() -> None:
    chunked = encoder_features()
    whole = WhisperEncoder(replace(chunked.encoder.config, chunk=None, causal_conv=False)).eval()
    assert len(chunked.passes) == 4
    assert EncoderFeatures(chunked.mel, whole, layer=1).passes == ((0, 0),)


@pytest.mark.parametrize("before", [0, 8, 16])
def test_a_pass_after_silence_is_lined_up_again(before: int) -> None:
    """What starts with frame 16, where a chunk starts, is heard from frame 16 on."""
    features = encoder_features(passes=((0, before),))
    quiet = torch.zeros(30 * HOP)
    loud = torch.cat([torch.zeros(16 * HOP), tones(1)[0][: 14 * HOP]])
    changed = (features(quiet) - features(loud)).abs().amax(1)  # (T,)
    assert changed[:16].max() < 1e-5 and changed[16:].min() > 1e-3


def test_layers_outside_the_encoder() -> None:
    features = encoder_features()
    with pytest.raises(DuologueError, match="0 to 2"):
        EncoderFeatures(features.mel, features.encoder, layer=3)


@given(st.lists(st.integers(0, 3), max_size=40))
def test_repeats_are_merged(units: list[int]) -> None:
    merged, durations = deduplicate(torch.tensor(units, dtype=torch.int64))
    assert torch.repeat_interleave(merged, durations).tolist() == units
    assert all(a != b for a, b in zip(merged.tolist(), merged.tolist()[1:], strict=False))


def test_purity_by_hand() -> None:
    assert phone_purity([0, 0, 0, 1, 1, 2], ["a", "a", "b", "b", "b", "c"]) == pytest.approx(5 / 6)
    assert phone_purity([], []) == 0
    with pytest.raises(ValueError):
        phone_purity([0], ["a", "b"])


def test_labels_are_the_phone_at_each_middle() -> None:
    assert frame_labels([("pau", 0.03), ("k", 0.05), ("ae", 0.1)], 6) == ["pau", "k", "ae", "ae", "ae", "ae"]


def test_mfcc_units_do_not_mind_a_shift(quantiser: KMeansUnits) -> None:
    assert shift_stability(quantiser, [tones(7)[0]], shifts=(1, 5, 20)) > 0.97


def test_a_feature_that_knows_its_position_is_caught() -> None:
    class Position:
        def __init__(self) -> None:
            self.description = {"kind": "position"}

        def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
            return torch.arange(len(waveform) // HOP).float()[:, None]  # (T, 1)

    leaky = KMeansUnits(Position(), torch.zeros(1), torch.ones(1), torch.arange(200.0)[:, None])
    assert shift_stability(leaky, [tones(7)[0]], shifts=(1, 5, 20)) == 0


@pytest.mark.programs
def test_flite_tells_its_phones() -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    phones = flite_phones("two", REPLY_VOICE)
    assert [phone for phone, _ in phones] == ["pau", "t", "uw", "pau"]
    ends = [end for _, end in phones]
    assert ends == sorted(ends) and 0.3 < ends[-1] < 1.5
    assert [phone for phone, _ in flite_phones("s e a", REPLY_VOICE)][1:-1] == ["eh", "s", "iy", "ey"]


def write_replies(folder: Path, clips: int = 6) -> None:
    writer = ShardWriter(folder, name="replies", sample_rate=16000, seed=0, parameters={})
    made = [
        Clip((tones(seed)[0].numpy() * 32767).astype(np.int16), {"id": str(seed), "text": "x", "voice": "tone"})
        for seed in range(clips)
    ]
    writer.write(0, made)
    writer.finish()


def test_the_recipe_writes_units_beside_the_shards(tmp_path: Path) -> None:
    data, kept = tmp_path / "replies", tmp_path / "quantiser"
    write_replies(data)
    settings = [f"data={data}", f"quantiser={kept}", "clusters=8"]
    counts = main("units", settings)
    rows = [json.loads(line) for line in (data / "units.jsonl").read_text().splitlines()]
    clips = list(ShardedDataset(data))
    assert [row["id"] for row in rows] == [clip.meta["id"] for clip in clips]
    for row, clip in zip(rows, clips, strict=True):
        assert sum(row["durations"]) == len(clip.pcm) // HOP and len(row["units"]) == len(row["durations"])
    assert 0.9 < counts["shift_stability"] <= 1 and "phone_purity" not in counts  # no flite voice says tones
    assert counts["units"] == sum(len(row["units"]) for row in rows)
    clusters = (kept / "units.safetensors").read_bytes()
    (data / "units.jsonl").unlink()
    main("units", [*settings, "seed=5"])  # the clusters are kept, so the seed changes nothing
    assert (kept / "units.safetensors").read_bytes() == clusters
    assert [json.loads(line) for line in (data / "units.jsonl").read_text().splitlines()] == rows
    with pytest.raises(DuologueError, match="holds 8 clusters, not 200"):
        main("units", settings[:2])


@pytest.mark.programs
def test_the_recipe_judges_its_units(tmp_path: Path) -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    data = tmp_path / "replies"
    main("replies", [f"out={data}", "n=12", "workers=1"])
    counts = main("units", [f"data={data}", f"quantiser={tmp_path / 'q'}", "clusters=60", "judge=6"])
    assert 0.5 < counts["phone_purity"] < 0.98 and counts["shift_stability"] > 0.9
    assert "phone_purity" not in main(
        "units", [f"data={data}", f"quantiser={tmp_path / 'q'}", "clusters=60", "judge=0"]
    )


def test_a_codecs_tokens_are_units(tmp_path: Path) -> None:
    """One a frame of the codec's own, repeats and all; the clip comes back as the codec decodes it."""
    from duologue.checkpoints.parts import save_part
    from duologue.model.codec.codec import Codec, CodecConfig
    from duologue.training.recipes.codec import recipe

    data = tmp_path / "replies"
    write_replies(data, clips=3)
    torch.manual_seed(0)
    codec = Codec(recipe("tiny").codec).eval()
    save_part(tmp_path / "codec", "codec", codec, codec.config, Card())
    counts = main("units", [f"data={data}", f"codec={tmp_path / 'codec'}", "file=codec.jsonl", "judge=2"])
    rows = [json.loads(line) for line in (data / "codec.jsonl").read_text().splitlines()]
    for row, clip in zip(rows, ShardedDataset(data), strict=True):
        wave = torch.from_numpy(clip.pcm.astype(np.float32) / 32768)
        with torch.inference_mode():
            assert row["units"] == codec.encode(wave[None])[0, 0].tolist()[: len(wave) // 240]
        assert row["durations"] == [1] * len(row["units"])
    assert counts["per_second"] == pytest.approx(16000 / 240, rel=0.01) and 0 <= counts["shift_stability"] <= 1
    assert any(a == b for row in rows for a, b in zip(row["units"], row["units"][1:], strict=False)), "repeats are kept"
    assert CodecConfig is type(codec.config) and not (data / "units.jsonl").exists()


def test_bits_a_second() -> None:
    """Four units equally often are two bits each; one unit alone says nothing."""
    even, same = torch.arange(4).repeat(25), torch.zeros(100, dtype=torch.long)
    assert bit_rate([even[:50], even[50:]], seconds=2.0) == pytest.approx(100.0)
    assert bit_rate([same], seconds=2.0) == 0


def test_the_recipe_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="not a data set"):
        main("units", [f"data={tmp_path}", f"quantiser={tmp_path / 'q'}"])
    with pytest.raises(DuologueError, match="recipe units needs data=…"):
        main("units", [])
    for both in ([], [f"quantiser={tmp_path}", "codec=nano-codec"]):
        with pytest.raises(DuologueError, match="one of both"):
            main("units", [f"data={tmp_path}", *both])
    with pytest.raises(DuologueError, match="without a folder"):
        main("units", [f"data={tmp_path}", "quantiser=q", "file=../u.jsonl"])
    with pytest.raises(DuologueError, match="at least 2"):
        main("units", [f"data={tmp_path}", "quantiser=q", "clusters=1"])


def test_phones_are_those_of_the_text_as_it_is_said() -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed")
    text = "It’s 2, isn't it?"
    seconds = len(synthesise(text, REPLY_VOICE)) / SAMPLE_RATE
    assert flite_phones(text, REPLY_VOICE)[-1][1] == pytest.approx(seconds, abs=0.05)


def test_clusters_of_known_units_are_found_again(quantiser: KMeansUnits) -> None:
    """From speech and its units alone; a unit that nobody said is never heard."""
    spoken = [(waveform, quantiser.encode(waveform)) for waveform, _ in map(tones, range(6))]
    found, waveform = KMeansUnits.of_units(MfccFeatures(), spoken, clusters=9), tones(99)[0]
    assert len(found) == 9 and found.centroids.isfinite().all()
    assert (found.encode(waveform) == quantiser.encode(waveform)).float().mean() > 0.95


def test_the_units_of_a_model_without_its_quantiser(tmp_path: Path) -> None:
    """Clusters from nano's speech of some texts hear what it says in another."""
    from duologue.checkpoints.store import load
    from duologue.data_prep.units.own_speech import own_speech

    data, kept = tmp_path / "replies", tmp_path / "quantiser"
    texts = ("one plus seven is eight", "two plus six is four", "five plus four is ten", "zzyzx")
    writer = ShardWriter(data, name="replies", sample_rate=16000, seed=0, parameters={})
    pcm = (tones(0)[0].numpy() * 32767).astype(np.int16)
    writer.write(0, [Clip(pcm, {"id": text, "text": text, "voice": "tone"}) for text in texts])
    writer.finish()
    settings = [f"data={data}", f"quantiser={kept}", "model=nano", "judge=0"]
    with torch.inference_mode():
        nano, text = load("nano"), "five plus four is nine"
        ((waveform, units),) = own_speech(nano, ["zzyzx", text])
        assert len(waveform) == HOP * len(units)
        main("units", settings)
        found = KMeansUnits.load(kept).encode(waveform)
    assert len(KMeansUnits.load(kept)) == 200 and (found == units).float().mean() > 0.4
    shutil.rmtree(kept)
    with pytest.raises(DuologueError, match="clusters=50: nano has 200 units"):
        main("units", [*settings, "clusters=50"])
    with pytest.raises(DuologueError, match="nano-codec"):
        main("units", [*settings[:2], "model=nano-codec"])
