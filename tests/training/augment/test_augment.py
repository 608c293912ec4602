"""Augmentation changes how words sound, never what is promised of the array: dtype, length, bounds, determinism."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.data_prep.sounds.noise import NOISE_KINDS, cut, mix, noise_bank
from duologue.data_prep.speech.another_voice import fast_length, resample, revoice, shift_formants, time_scale
from duologue.model.errors import DuologueError
from duologue.training.augment.augment import NO_AUGMENTATION, AugmentConfig, another_voice, augment
from duologue.training.augment.channel import (
    colour,
    equaliser,
    mu_law,
    overdrive,
    requantise,
    room_response,
    set_level,
    telephone,
)
from duologue.training.augment.spec import SpecAugmentConfig, spec_augment

RATE = 16000
RATIOS = (0.82, 0.93, 1.07, 1.22)
EVERYTHING = AugmentConfig(
    **{field.name: 1.0 for field in dataclasses.fields(AugmentConfig) if field.name.endswith("_chance")}
)


def only(**chosen: object) -> AugmentConfig:
    return dataclasses.replace(NO_AUGMENTATION, **chosen)


def sine(hertz: float, seconds: float = 1.5, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def frequency(wav: np.ndarray) -> float:
    """Hz of the strongest component, the ends left out, to about 0.1 Hz."""
    inner = wav[len(wav) // 8 : -len(wav) // 8]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner)), 1 << 18))
    return float(spectrum.argmax()) * RATE / (1 << 18)


def vowel(pitch: float, first: float, second: float, seconds: float = 1.0) -> np.ndarray:
    """Harmonics of `pitch` under two formant peaks."""
    time = np.arange(int(seconds * RATE)) / RATE
    out = np.zeros_like(time)
    for hertz in np.arange(pitch, 7000, pitch):
        gain = sum(1 / (1 + ((hertz - f) / 150) ** 2) for f in (first, second)) + 0.003
        out += gain * np.sin(2 * np.pi * hertz * time + hertz)
    return (0.3 * out / np.abs(out).max()).astype(np.float32)


def centroid(wav: np.ndarray, low: float, high: float) -> float:
    power = np.abs(np.fft.rfft(wav * np.hanning(len(wav)))) ** 2
    hertz = np.fft.rfftfreq(len(wav), 1 / RATE)
    inside = (hertz > low) & (hertz < high)
    return float((power * hertz)[inside].sum() / power[inside].sum())


def power(wav: np.ndarray) -> float:
    return float(np.mean(np.square(wav, dtype=np.float64)))


# ---- the whole chain -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    samples=st.sampled_from([0, 1, 2, 7, 64, 511, 512, 1023, 1024, 1025, 4800, 16001]),
    kind=st.sampled_from(["speechlike", "silence", "full scale", "constant"]),
    config=st.sampled_from([AugmentConfig(), EVERYTHING]),
)
def test_any_clip_comes_out_float32_finite_and_bounded(seed, samples, kind, config):
    rng = np.random.default_rng(seed)
    wav = {
        "speechlike": 0.1 * rng.standard_normal(samples),
        "silence": np.zeros(samples),
        "full scale": rng.choice([-1.0, 1.0], samples),
        "constant": np.full(samples, 0.5),
    }[kind].astype(np.float32)
    wav = np.clip(wav, -1, 1)
    before = wav.copy()
    noises = [np.ones(10, np.float32) * 0.1, np.zeros(100, np.int16), np.arange(3000, dtype=np.int16)]
    out = augment(wav, np.random.default_rng(seed), config, noises)
    assert out.dtype == np.float32 and out.ndim == 1
    assert np.isfinite(out).all() and np.abs(out).max(initial=0.0) <= 1.0
    assert (wav == before).all(), "the input was written to"
    assert (out == augment(wav, np.random.default_rng(seed), config, noises)).all(), "not deterministic"
    assert (len(out) > 0) == (samples > 0)


def test_seeds_differ():
    wav = vowel(120, 700, 1500)
    outs = [augment(wav, np.random.default_rng(seed), AugmentConfig()) for seed in range(8)]
    assert len({out.tobytes() for out in outs}) == 8


def test_nothing_chosen_changes_nothing():
    wav = vowel(120, 700, 1500)
    assert (augment(wav, np.random.default_rng(0), NO_AUGMENTATION) == wav).all()


@pytest.mark.parametrize(
    "chosen",
    [
        {"room_chance": 1.0},
        {"equaliser_chance": 1.0},
        {"noise_chance": 1.0},
        {"telephone_chance": 1.0},
        {"mu_law_chance": 1.0},
        {"quantise_chance": 1.0},
        {"overdrive_chance": 1.0},
        {"level_chance": 1.0},
        {"pitch_chance": 1.0},
        {"formants_chance": 1.0},
        {"source_chance": 1.0},
    ],
)
def test_each_effect_is_heard_and_keeps_the_length(chosen):
    wav = vowel(120, 700, 1500)
    out = augment(wav, np.random.default_rng(3), only(**chosen))
    assert len(out) == len(wav) and not np.allclose(out, wav, atol=1e-4)


@pytest.mark.parametrize("ratio", RATIOS)
def test_length_follows_speed_tempo_and_silence(ratio):
    wav = vowel(120, 700, 1500)
    rng = np.random.default_rng(0)
    assert len(augment(wav, rng, only(speed_chance=1.0, speed=(ratio, ratio)))) == round(len(wav) / ratio)
    assert len(augment(wav, rng, only(tempo_chance=1.0, tempo=(ratio, ratio)))) == round(len(wav) / ratio)
    out = augment(wav, rng, only(silence_chance=1.0, silence_s=(0.25, 0.25)))
    assert (out == np.concatenate([np.zeros(4000), wav, np.zeros(4000)]).astype(np.float32)).all()


def test_pitch_moves_without_the_tempo_and_tempo_without_the_pitch():
    tone = sine(400)
    rng = np.random.default_rng(0)
    higher = another_voice(tone, rng, only(pitch_chance=1.0, pitch=(1.2, 1.2)))
    assert abs(len(higher) - len(tone)) <= 1 and frequency(higher) == pytest.approx(480, rel=0.01)
    slower = another_voice(tone, rng, only(tempo_chance=1.0, tempo=(0.85, 0.85)))
    assert len(slower) == round(len(tone) / 0.85) and frequency(slower) == pytest.approx(400, rel=0.01)
    both = AugmentConfig(speed_chance=1.0, pitch_chance=1.0, formants_chance=0.0, tempo_chance=0.0)
    for seed in range(20):  # never further than the ranges say
        ratio = frequency(another_voice(tone, np.random.default_rng(seed), both)) / 400
        assert 0.81 <= ratio <= 1.23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_chance": 1.5}, "noise_chance is 1.5"),
        ({"snr_db": (40.0, 5.0)}, "low <= high"),
        ({"speed": (0.0, 1.0)}, "speed starts at 0.0"),
        ({"silence_s": (-1.0, 1.0)}, "silence_s"),
        ({"source_pitch": (0.0, 200.0)}, "source_pitch starts at 0.0"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(DuologueError, match=message):
        AugmentConfig(**change)


@pytest.mark.parametrize("wav", [np.zeros(10), np.zeros((1, 10), np.float32), np.zeros(10, np.int16)])
def test_other_arrays_are_refused(wav):
    with pytest.raises(DuologueError, match=r"wanted float32 \(samples,\)"):
        augment(wav, np.random.default_rng(0), AugmentConfig())


# ---- voice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("samples", [3000, 24000])
def test_resampling_moves_every_frequency_by_the_ratio(ratio, samples):
    for hertz in (200.0, 1000.0, 3000.0):
        tone = sine(hertz)[:samples]
        out = resample(tone, ratio)
        assert len(out) == round(samples / ratio)
        assert frequency(out) == pytest.approx(hertz * ratio, rel=2e-3)
        assert power(out[500:-500]) == pytest.approx(power(tone[500:-500]), rel=0.02)


def test_resampling_does_not_fold():
    out = resample(sine(7500), 1.2)  # 9 kHz has no place at 16 kHz
    assert power(out[2000:-2000]) < 1e-4 * power(sine(7500))


@pytest.mark.parametrize("factor", RATIOS)
def test_time_scaling_keeps_a_tone(factor):
    for hertz in (80.0, 220.0, 1000.0):
        tone = sine(hertz)
        out = time_scale(tone, factor)
        assert len(out) == round(len(tone) * factor)
        assert frequency(out) == pytest.approx(hertz, rel=5e-3)
        assert power(out[1000:-1000]) == pytest.approx(power(tone), rel=0.05)


def test_time_scaling_keeps_the_order_of_events():
    wav = np.zeros(16000, np.float32)
    wav[4000:4800], wav[12000:12800] = sine(300, 0.05), sine(900, 0.05)
    out = time_scale(wav, 1.25)
    assert abs(np.abs(out).argmax() - 1.25 * 4400) < 800 or abs(np.abs(out).argmax() - 1.25 * 12400) < 800
    assert frequency(np.concatenate([np.zeros(1000), out[5000:6000], np.zeros(1000)])) == pytest.approx(300, rel=0.1)
    assert frequency(np.concatenate([np.zeros(1000), out[15000:16000], np.zeros(1000)])) == pytest.approx(900, rel=0.1)


@pytest.mark.parametrize("ratio", [0.85, 1.18])
def test_formants_move_and_pitch_stays(ratio):
    wav = vowel(100, 700, 1800)
    out = shift_formants(wav, ratio)
    assert len(out) == len(wav) and out.dtype == np.float32
    moved = centroid(out, 350, 1150) / centroid(wav, 350, 1150)
    assert np.log(moved) / np.log(ratio) == pytest.approx(0.6, abs=0.45)  # 28 % to the full shift
    harmonics = np.abs(np.fft.rfft(out[2000:12000] * np.hanning(10000)))
    hertz = np.fft.rfftfreq(10000, 1 / RATE)
    on = (np.abs(hertz - np.rint(hertz / 100) * 100) < 10) & (hertz > 50)
    assert np.square(harmonics[on]).sum() > 0.97 * np.square(harmonics).sum()  # still harmonics of 100 Hz


def on_harmonics(wav: np.ndarray, pitch: float) -> float:
    """The share of the power below 2 kHz that lies within 10 Hz of a harmonic."""
    power = np.square(np.abs(np.fft.rfft(wav[2000:12000] * np.hanning(10000))))
    hertz = np.fft.rfftfreq(10000, 1 / RATE)
    band = (hertz > 60) & (hertz < 2000)
    near = np.abs(hertz - np.rint(hertz / pitch) * pitch) < 10
    return float(power[band & near].sum() / power[band].sum())


@pytest.mark.parametrize(("old", "new"), [(100, 170), (210, 120)])
def test_another_source_has_its_own_pitch_and_the_same_formants(old, new):
    wav = vowel(old, 700, 1800)
    out = revoice(wav, np.random.default_rng(0), RATE, new, 0.0, 0.0)
    assert len(out) == len(wav) and out.dtype == np.float32
    assert on_harmonics(out, new) > 0.9 and on_harmonics(out, old) < 0.6
    for low, high in ((350, 1150), (1300, 2300)):
        assert centroid(out, low, high) == pytest.approx(centroid(wav, low, high), rel=0.12)
    assert np.sqrt(np.mean(out**2) / np.mean(wav**2)) == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("rate", [8000, 24000])
def test_another_source_at_other_rates(rate):
    """A recording played faster: as many samples, all frequencies in proportion."""
    out = revoice(vowel(160, 700, 1800), np.random.default_rng(0), rate, 140 * rate / RATE, 0.0, 0.0)
    assert on_harmonics(out, 140) > 0.85


def test_the_new_pitch_moves_as_the_old_one_did():
    time = np.arange(int(1.5 * RATE)) / RATE
    rising = np.cumsum(np.exp(np.interp(time, [0, 1.5], np.log([100, 160])))) / RATE
    wav = (0.2 * sum(np.sin(2 * np.pi * k * rising) / k for k in range(1, 20))).astype(np.float32)

    def pitch_of(piece: np.ndarray) -> float:
        piece = piece * np.hanning(len(piece))
        again = np.correlate(piece, piece, "full")[len(piece) - 1 :]
        return RATE / (40 + int(again[40:230].argmax()))

    for liveliness, rise in ((1.0, 1.31), (0.0, 1.0)):
        out = revoice(wav, np.random.default_rng(0), RATE, 200, liveliness, 0.0)
        assert pitch_of(out[17000:20000]) / pitch_of(out[4000:7000]) == pytest.approx(rise, rel=0.06)


def test_a_whisper_has_no_pitch_and_silence_stays_silent():
    wav = vowel(100, 700, 1800)
    out = revoice(wav, np.random.default_rng(0), RATE, 150, 1.0, 1.0)
    assert on_harmonics(out, 100) < 0.5 and on_harmonics(out, 150) < 0.5
    quiet = np.concatenate([wav, np.zeros(8000, np.float32)])
    assert np.abs(revoice(quiet, np.random.default_rng(0), RATE, 150, 1.0, 0.2)[-7000:]).max() < 1e-3
    assert not revoice(np.zeros(4000, np.float32), np.random.default_rng(0), RATE, 150, 1.0, 0.2).any()


def test_no_ratio_is_the_identity():
    wav = vowel(100, 700, 1800)
    for out in (resample(wav, 1.0), time_scale(wav, 1.0), shift_formants(wav, 1.0)):
        assert (out == wav).all()
    assert np.abs(shift_formants(wav, 1.0 + 1e-9) - wav).max() < 1e-3  # through every frame and back


def test_fast_lengths_are_smooth_even_and_long_enough():
    for n in (1, 2, 11, 127, 1009, 48611, 10**7 + 1):
        length = fast_length(n)
        assert length >= n and length % 2 == 0
        rest = length
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1 or n > 2**23
    assert fast_length(48000) == 48000


# ---- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snr_db", [5.0, 20.0, 40.0])
def test_the_ratio_asked_for_is_the_ratio_got(snr_db):
    speech = vowel(120, 700, 1500)
    for kind in NOISE_KINDS:
        noise = cut(noise_bank(kind, RATE), len(speech), np.random.default_rng(0))
        added = mix(speech, noise, snr_db, power(speech)) - speech
        assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(snr_db, abs=0.1)
    # in the whole chain: silence around the speech does not dilute it; given recordings are used, whatever their level
    noises = [(20 * np.random.default_rng(1).standard_normal(RATE)).astype(np.int16)]
    config = only(noise_chance=1.0, silence_chance=1.0, silence_s=(0.5, 0.5), snr_db=(snr_db, snr_db))
    added = augment(speech, np.random.default_rng(0), config, noises)
    added[8000:-8000] -= speech
    assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(snr_db, abs=0.5)


def test_the_ratio_is_that_of_the_speech_as_the_room_leaves_it():
    speech = vowel(120, 700, 1500)
    quiet = only(room_chance=1.0, direct_db=(-2.0, -2.0), equaliser_chance=1.0, bump_db=(8.0, 8.0))
    noisy = dataclasses.replace(quiet, noise_chance=1.0, snr_db=(10.0, 10.0))
    for seed in range(5):
        clean = augment(speech * 0.1, np.random.default_rng(seed), quiet)
        added = augment(speech * 0.1, np.random.default_rng(seed), noisy) - clean
        assert 10 * np.log10(power(clean) / power(added)) == pytest.approx(10, abs=0.5)


def test_recorded_noise_is_mixed_in():
    tone = (3000 * np.sin(2 * np.pi * 2500 * np.arange(5000) / RATE)).astype(np.int16)
    config = only(noise_chance=1.0, recorded_chance=1.0)
    out = augment(np.zeros(8000, np.float32), np.random.default_rng(0), config, [tone])
    assert frequency(out) == pytest.approx(2500, rel=0.01)
    assert frequency(augment(np.zeros(8000, np.float32), np.random.default_rng(0), config, [])) != 2500


def test_kinds_of_noise_have_their_colour():
    bands = {}
    for kind in NOISE_KINDS:
        noise = noise_bank(kind, RATE)
        assert len(noise) == 30 * RATE and power(noise) == pytest.approx(1.0, rel=1e-3)
        spectrum = np.abs(np.fft.rfft(noise)) ** 2
        hertz = np.fft.rfftfreq(len(noise), 1 / RATE)
        octaves = [(100, 200), (400, 800), (3200, 6400)]
        bands[kind] = [10 * np.log10(spectrum[(hertz >= lo) & (hertz < hi)].mean()) for lo, hi in octaves]
    slope = {kind: (bands[kind][2] - bands[kind][0]) / 5 for kind in bands}  # dB an octave
    assert slope["white"] == pytest.approx(0, abs=0.3)
    assert slope["pink"] == pytest.approx(-3, abs=0.3)
    assert slope["brown"] == pytest.approx(-6, abs=0.4)
    assert bands["hum"][0] - bands["hum"][2] > 25
    assert bands["babble"][1] - bands["babble"][2] > 10  # speech is loudest below 1 kHz
    with pytest.raises(ValueError):
        noise_bank("white", RATE)[0] = 1.0


def test_a_cut_wraps_a_short_noise():
    noise = np.arange(5, dtype=np.float32)
    out = cut(noise, 12, np.random.default_rng(0))
    assert len(out) == 12 and (np.diff(out) % 5 == 1).all()


# ---- channel -------------------------------------------------------------------------------------------------------


def test_a_room_keeps_the_direct_path_and_decays_as_asked():
    for seed, rt60 in ((0, 0.15), (1, 0.3), (2, 0.6)):
        room = room_response(np.random.default_rng(seed), rt60, 0.0, RATE)
        assert room[0] == 1.0 and len(room) == int(rt60 * RATE)
        assert np.dot(room[1:], room[1:]) == pytest.approx(1.0, rel=0.01)  # direct_db = 0
        late = np.square(room[int(0.05 * RATE) :].astype(np.float64))  # after the early reflections
        energy = 10 * np.log10(late.reshape(-1, len(late) // 4)[:4].sum(1)) if len(late) % 4 == 0 else None
        if energy is not None:
            quarter = len(late) / 4 / RATE
            assert (energy[0] - energy[3]) / (3 * quarter) == pytest.approx(60 / rt60, rel=0.1)
    click = np.zeros(4000, np.float32)
    click[1000] = 1.0
    out = colour(click, RATE, room_response(np.random.default_rng(0), 0.2, 6.0, RATE), None)
    assert np.abs(out).argmax() == 1000 and np.abs(out[:1000]).max() < 1e-4 and len(out) == 4000
    expected = np.convolve(click, room_response(np.random.default_rng(0), 0.2, 6.0, RATE))[:4000]
    assert np.abs(out - expected).max() < 1e-4


def test_an_equaliser_weighs_frequencies_and_does_not_delay():
    hertz = np.array([0.0, 1000.0, 1001.0, 8000.0])
    gains = np.array([1.0, 1.0, 0.1, 0.1])
    low, high = sine(500), sine(3000)
    out = colour(low + high, RATE, None, (hertz, gains))
    inner = slice(2000, -2000)
    assert np.abs(out - (low + 0.1 * high))[inner].max() < 0.02
    for seed in range(20):
        hertz, gains = equaliser(np.random.default_rng(seed), RATE, (-3, 3), (-8, 8))
        assert (gains > 0).all() and gains.max() <= 10 and hertz[-1] == 8000


@pytest.mark.parametrize("samples", [1, 100, 8000, 24000])
def test_a_telephone_passes_its_band_alone(samples):
    assert len(telephone(sine(1000)[:samples], RATE)) == samples
    if samples < 8000:
        return
    inner = slice(2000, samples - 2000)
    tones = {hertz: sine(hertz)[:samples] for hertz in (60, 1000, 3000, 5000)}
    heard = {hertz: power(telephone(tone, RATE)[inner]) / power(tone[inner]) for hertz, tone in tones.items()}
    assert heard[60] < 0.01 and heard[5000] < 0.01
    assert heard[1000] == pytest.approx(1, abs=0.05) and heard[3000] == pytest.approx(1, abs=0.05)
    assert np.corrcoef(telephone(tones[1000], RATE)[inner], tones[1000][inner])[0, 1] > 0.99  # in step


def test_quantisers():
    wav = sine(300, amplitude=0.9)
    for bits in (4, 6, 8):
        out = requantise(wav, bits)
        assert len(np.unique(out)) <= 2**bits + 1 and np.abs(out - wav).max() <= 0.5 / 2 ** (bits - 1) + 1e-6
    coded = mu_law(wav)
    assert len(np.unique(coded)) <= 256 and np.abs(coded - wav).max() < 0.03
    quiet = 0.01 * wav  # where µ-law is finer than linear steps
    assert np.abs(mu_law(quiet) - quiet).max() < 0.3 * np.abs(requantise(quiet, 8) - quiet).max()
    assert mu_law(np.zeros(3, np.float32)).tolist() == [0, 0, 0]


def test_overdrive_clips_and_keeps_the_peak():
    wav = sine(300, amplitude=0.4)
    out = overdrive(wav, 3.0)
    assert np.abs(out).max() == pytest.approx(np.abs(wav).max(), rel=1e-4)
    assert (np.abs(out) > 0.399).mean() > 0.5 and power(out) > power(wav)


@pytest.mark.parametrize("level", [-35.0, -12.0, 0.0])
def test_level_is_that_of_the_peak(level):
    out = set_level(sine(300, amplitude=0.02), level)
    assert 20 * np.log10(np.abs(out).max()) == pytest.approx(level, abs=0.01)
    assert (set_level(np.zeros(5, np.float32), level) == 0).all()


# ---- masks ---------------------------------------------------------------------------------------------------------


def test_masks_are_bounded_seeded_and_stay_within_the_clip():
    config = SpecAugmentConfig(mel_masks=2, mel_width=10, time_masks=2, time_width=20, time_fraction=0.2)
    mel = torch.randn(6, 40, 150, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([150, 100, 60, 10, 1, 0])
    before = mel.clone()
    out = spec_augment(mel, lengths, torch.Generator().manual_seed(1), config)
    assert torch.equal(mel, before) and out.shape == mel.shape and out.dtype == mel.dtype
    assert torch.equal(out, spec_augment(mel, lengths, torch.Generator().manual_seed(1), config))
    assert not torch.equal(out, spec_augment(mel, lengths, torch.Generator().manual_seed(2), config))
    changed = out != mel
    for row, length in enumerate(lengths.tolist()):
        assert not changed[row, :, length:].any()
        if length == 0:
            continue
        whole_frames = changed[row, :, :length].all(0)
        whole_mels = changed[row, :, :length].all(1) if not whole_frames.all() else torch.zeros(40)
        assert whole_frames.sum() <= 2 * min(20, 0.2 * length) and whole_mels.sum() <= 2 * 10
        assert torch.isclose(out[row][changed[row]], mel[row, :, :length].mean(), atol=1e-5).all()
    many = torch.stack([spec_augment(mel, lengths, torch.Generator().manual_seed(s), config) != mel for s in range(60)])
    assert many[:, 0].any(0).all()  # every place of a full clip is masked some time
    assert 0.1 < many[:, 0].float().mean() < 0.45


def test_masks_work_in_half_precision_and_without_lengths():
    mel = torch.randn(2, 80, 300).to(torch.bfloat16)
    out = spec_augment(mel, generator=torch.Generator().manual_seed(0))
    assert out.dtype == torch.bfloat16 and out.isfinite().all() and not torch.equal(out, mel)
    none = SpecAugmentConfig(mel_masks=0, time_masks=0)
    assert torch.equal(spec_augment(mel, config=none), mel)
    with pytest.raises(DuologueError, match=r"wanted \(B, M, T\)"):
        spec_augment(mel[0])
