"""The unit vocoder beyond the law: batches, durations, errors, and what a streamed reply costs."""

import math
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.duration import LONGEST, durations_from_log
from duologue.model.speech_decoder.source_filter import SourceFilterConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.model.speech_decoder.voices import Speaker

TINY = UnitVocoderConfig(
    units=10, embedding_dim=8, channels=32, upsample_rates=(4, 2), upsample_kernels=(8, 4), resblock_kernels=(3, 7),
    resblock_dilations=(1, 3), duration_hidden=8,
)  # fmt: skip
SOURCE_FILTER = SourceFilterConfig(
    dim=8, ffn_dim=16, layers=2, kernel=3, ahead=2, hop=8, pieces=2, cepstrum=12, noise_cepstrum=6, n_fft=64
)
LENGTHS = (50, 100, 200, 400, 800)  # units


@pytest.fixture(scope="module", params=[None, SOURCE_FILTER], ids=["hifigan", "source-filter"])
def vocoder(request):
    torch.manual_seed(0)
    return UnitVocoder(replace(TINY, source_filter=request.param)).eval()


@pytest.fixture(scope="module")
def nano_sized():
    torch.manual_seed(0)
    return UnitVocoder(UnitVocoderConfig(units=200, channels=128, resblock_kernels=(3, 7))).eval()


@torch.inference_mode()
def test_rows_of_a_batch_are_independent(vocoder):
    units = torch.randint(10, (3, 6))
    durations = torch.tensor([[1, 2, 3, 1, 1, 2], [5, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 0]])
    together = vocoder(units, durations)
    assert together.shape == (3, 10 * 8)
    for row in range(3):
        torch.testing.assert_close(together[row : row + 1], vocoder(units[row : row + 1], durations[row : row + 1]))


@torch.inference_mode()
def test_predicted_durations_are_those_used(vocoder):
    units = torch.randint(10, (1, 30))
    durations = vocoder.predict_durations(units)
    torch.testing.assert_close(vocoder(units), vocoder(units, durations))
    assert vocoder(units).shape == (1, int(durations.sum()) * TINY.hop)


def test_durations_are_whole_at_least_one_and_never_absurd():
    log = torch.tensor([-9.0, 0.0, math.log(3.4), math.log(3.6), 99.0, float("inf"), float("nan")])
    assert durations_from_log(log).tolist() == [1, 1, 2, 3, LONGEST, LONGEST, 1]


def test_rows_that_last_differently_are_refused(vocoder):
    with pytest.raises(DuologueError, match=r"equally many frames, got \[3, 4\]"):
        vocoder(torch.zeros(2, 2, dtype=torch.long), torch.tensor([[1, 2], [2, 2]]))
    with pytest.raises(DuologueError, match=r"shaped as the units, \(1, 2\), got \(1, 3\)"):
        vocoder(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))


@torch.inference_mode()
def test_the_declared_latency_is_no_larger_than_needed(vocoder):
    """With every unit one frame long, one unit fewer of look-ahead would not do."""
    vocoder = UnitVocoder(vocoder.config).eval()
    vocoder.duration.proj.weight.zero_()
    vocoder.duration.proj.bias.zero_()
    state, units, ready, short = vocoder.init_state(), torch.randint(10, (1, 40)), 0, 0
    for fed, unit in enumerate(units.unbind(1), start=1):
        ready += vocoder.step(unit[:, None], state).shape[-1]
        assert ready >= (fed - vocoder.latency) * TINY.hop
        short += ready < (fed - vocoder.latency + 1) * TINY.hop
    assert short > 20


@pytest.mark.parametrize(
    "change,message",
    [
        ({"units": 0}, "units must be at least 1, got 0"),
        ({"upsample_kernels": (8,)}, "as many, got 2 and 1"),
        ({"upsample_kernels": (8, 5)}, "even number, got 5 for 2"),
        ({"channels": 30}, "divisible by 4"),
        ({"resblock_kernels": (3, 4)}, "must be odd"),
        ({"resblock_kernels": ()}, "resblock_kernels must be at least 1"),
    ],
)
def test_inconsistent_sizes_are_refused(change, message):
    with pytest.raises(DuologueError, match=message):
        replace(TINY, **change)


def streamed(vocoder, units, chunk):
    """One reply, units coming ``chunk`` at a time."""
    state = vocoder.init_state()
    for part in units.split(chunk, dim=1):
        vocoder.step(part, state)
    vocoder.flush(state)


def exponent(costs):
    """The slope of log cost over log length, by least squares."""
    x = [math.log(length) for length in LENGTHS]
    y = [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


@torch.inference_mode()
def test_arithmetic_grows_linearly_with_the_reply(vocoder):
    costs = []
    for length in LENGTHS:
        with FlopCounterMode(display=False) as counter:
            streamed(vocoder, torch.arange(length)[None] % 10, chunk=16)
        costs.append(counter.get_total_flops())
    assert 0.8 < exponent(costs) < 1.05


@torch.inference_mode()
def test_time_grows_linearly_with_the_reply(nano_sized):
    """Exponent at most 1.15 from 50 to 800 units. CPU time of this thread, the least of repeats, up to three trials."""
    streamed(nano_sized, torch.arange(50)[None] % 200, chunk=8)  # warm up
    for _ in range(3):
        best = [math.inf] * len(LENGTHS)
        for _ in range(2):
            for i, length in enumerate(LENGTHS):
                begin = time.process_time()
                streamed(nano_sized, torch.arange(length)[None] % 200, chunk=8)
                best[i] = min(best[i], time.process_time() - begin)
        if (slope := exponent(best)) <= 1.15:
            return
    pytest.fail(f"cost grows with exponent {slope:.2f}: {[round(seconds, 3) for seconds in best]} s for {LENGTHS}")


@torch.inference_mode()
@pytest.mark.parametrize("speed", [0.8, 0.93, 1.25])
def test_speed_divides_durations_in_a_stream(vocoder, speed: float):
    """Chunks of any size give the same samples, as long as all units together, but for the least that a unit lasts."""
    units = torch.randint(10, (1, 60), generator=torch.Generator().manual_seed(3))
    usual = vocoder.predict_durations(units)
    wholes = []
    for size in (1, 7, 60):
        state = vocoder.init_state()
        state.speed = speed
        wholes.append(torch.cat([*(vocoder.step(x, state) for x in units.split(size, 1)), vocoder.flush(state)], dim=1))
    torch.testing.assert_close(wholes[0], wholes[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(wholes[0], wholes[2], atol=1e-5, rtol=0)
    pieces = 1 if vocoder.config.source_filter is None else 2  # of a frame; a unit lasts one at least
    shortest = max(60 / pieces, float(usual.sum()) / speed)
    assert wholes[0].shape[1] / TINY.hop == pytest.approx(shortest, abs=1 / pieces)
    frames = vocoder.init_state()
    frames.speed = speed
    assert sum(frames.lengths([3] * 1000, 1)) == pytest.approx(3000 / speed, abs=1)


@torch.inference_mode()
def test_a_quick_source_filter_leaves_out_pieces_of_what_it_says_at_speed_1(monkeypatch):
    torch.manual_seed(0)
    vocoder: Any = UnitVocoder(replace(TINY, source_filter=SOURCE_FILTER)).eval()
    vocoder.duration.proj.weight.data.zero_()
    vocoder.duration.proj.bias.data.fill_(math.log(6))  # 5 frames, 10 pieces
    said, sound = [], vocoder.generator.sound
    monkeypatch.setattr(vocoder.generator, "sound", lambda c, *rest: (said.append(c.pulses), sound(c, *rest))[1])
    vocoder(UNITS)
    plain, said[:] = said[0], []
    state = vocoder.init_state()
    state.speed = 1.25
    for x in UNITS.split(3, 1):
        vocoder.step(x, state)
    vocoder.flush(state)
    kept = plain.unflatten(1, (-1, 10))[:, :, [0, 1, 3, 4, 5, 6, 8, 9]].flatten(1, 2)
    torch.testing.assert_close(torch.cat(said, dim=1), kept, atol=1e-5, rtol=0)


VOICES = {
    "one": Speaker(row=0),
    "other": Speaker(row=1),
    "deep": Speaker(row=0, pitch=0.8, formants=0.88),
    "high": Speaker(row=1, pitch=1.4, formants=1.15),
}
UNITS = torch.randint(10, (1, 40), generator=torch.Generator().manual_seed(4))


@torch.inference_mode()
@pytest.mark.parametrize("name", VOICES)
def test_each_voice_streams_as_it_is_said_at_once(name: str):
    torch.manual_seed(0)
    vocoder: Any = UnitVocoder(replace(TINY, source_filter=SOURCE_FILTER, voices=VOICES)).eval()
    torch.nn.init.normal_(vocoder.speakers.weight)
    vocoder.generator.head.bias[[1, 21]] = 4.0  # voiced throughout
    whole = vocoder(UNITS, speaker=VOICES[name])
    for size in (1, 7, 40):
        state = vocoder.init_state(1, VOICES[name])
        pieces = [vocoder.step(x, state) for x in UNITS.split(size, 1)]
        torch.testing.assert_close(torch.cat([*pieces, vocoder.flush(state)], dim=1), whole, atol=1e-5, rtol=0)
    others = [vocoder(UNITS, speaker=speaker) for other, speaker in VOICES.items() if other != name]
    assert all(other.shape != whole.shape or (other - whole).abs().max() > 1e-3 for other in others)
    usual = vocoder(UNITS)
    assert torch.equal(usual, whole) is (name == "one")


@torch.inference_mode()
def test_a_voice_without_changes_is_the_vocoders_own_to_the_bit(vocoder):
    assert not any(name.startswith("speakers") for name in vocoder.state_dict())
    assert torch.equal(vocoder(UNITS), vocoder(UNITS, speaker=Speaker(pitch=1.0, formants=1.0)))


@pytest.mark.parametrize(
    ("voices", "says"),
    [
        ({"one": Speaker(row=0), "other": Speaker()}, "one: 0, other: None"),
        ({"one": Speaker(row=0), "other": Speaker(row=2)}, "each needs one"),
        ({"deep": Speaker(pitch=0.8)}, "'deep' has a pitch or formants of its own"),
    ],
)
def test_voices_that_cannot_be_are_refused(voices, says):
    with pytest.raises(DuologueError, match=says):
        replace(TINY, voices=voices)
    with pytest.raises(DuologueError, match=r"pitch is 3; it must be 0.5 to 2"):
        Speaker(pitch=3)
