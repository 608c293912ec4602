"""The source-filter generator: pulses at the pitch asked for, filters that are what their cepstra say, bad sizes."""

import math
from dataclasses import replace

import pytest
import torch

from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.source_filter import Source, SourceFilterConfig

SIZES = SourceFilterConfig(hop=320, pieces=2, cepstrum=20, noise_cepstrum=10, n_fft=1024)
PIECE = 160
SILENT = -30.0  # nepers


def sounded(f0, pulses, noise):
    """Hz (S,), cepstra -> samples."""
    source = Source(SIZES, 16000)
    return source(f0[None], pulses[None], noise[None], source.init_state(1))[0]


def cepstra(pieces, width, level):
    out = torch.zeros(pieces, width)
    out[:, 0] = level
    return out


def power_by_frequency(samples):
    return torch.fft.rfft(samples * torch.hann_window(len(samples))).abs().square()


@pytest.mark.parametrize("hertz", [80.0, 125.0, 333.375])
def test_pulses_have_harmonics_of_the_pitch_alone_all_equally_strong(hertz):
    pieces = 100  # a second
    samples = sounded(torch.full((pieces,), hertz), cepstra(pieces, 20, -3.0), cepstra(pieces, 10, SILENT))
    power = power_by_frequency(samples)  # bins of 1 Hz
    harmonics = [round(k * hertz) for k in range(1, int(7500 / hertz))]
    near = torch.zeros_like(power, dtype=torch.bool)
    for k in harmonics:
        near[k - 3 : k + 4] = True
    between = power[: harmonics[-1] + 4][~near[: harmonics[-1] + 4]]
    assert between.sum() < 1e-3 * power.sum()
    each = torch.stack([power[k - 3 : k + 4].sum() for k in harmonics])
    assert each.max() / each.min() < 1.1


def test_both_sources_have_the_power_that_the_filters_say():
    level = math.log(0.03)
    voiced = sounded(torch.full((200,), 110.0), cepstra(200, 20, level), cepstra(200, 10, SILENT))
    hiss = sounded(torch.zeros(200), cepstra(200, 20, level), cepstra(200, 10, level))
    assert voiced.square().mean().sqrt() == pytest.approx(0.03, rel=0.05)
    # One noise passes from a piece's filter to the next's, which are alike.
    assert hiss.square().mean().sqrt() == pytest.approx(0.03, rel=0.05)


def test_a_cepstrum_is_the_logarithm_of_the_gain_and_its_filter_does_not_ring_ahead():
    pieces, noise = 400, cepstra(400, 10, -3.0)
    noise[:, 1] = 1.0  # gain exp(-3 + cos w)
    samples = sounded(torch.zeros(pieces), cepstra(pieces, 20, SILENT), noise)
    spectrum = torch.stft(samples, 512, window=torch.hann_window(512), return_complex=True).abs().square().mean(1).log()
    wanted = 2 * (-3 + torch.cos(torch.linspace(0, math.pi, 257)))
    measured = spectrum - spectrum.mean() + wanted.mean()
    assert (measured - wanted)[4:-4].abs().max() < 0.4
    late = cepstra(20, 10, SILENT)
    late[10:] = noise[0]
    samples = sounded(torch.zeros(20), cepstra(20, 20, SILENT), late)
    assert samples[: 10 * PIECE].abs().max() < 1e-6
    assert samples[11 * PIECE :].abs().max() > 1e-3


def test_a_voice_sets_in_and_stops_where_it_is_told():
    f0 = torch.tensor([0.0] * 5 + [100.0] * 10 + [0.0] * 5)
    samples = sounded(f0, cepstra(20, 20, -3.0), cepstra(20, 10, SILENT))
    assert samples[: 5 * PIECE].abs().max() < 1e-6
    assert samples[5 * PIECE : 15 * PIECE].square().mean() > 1e-4
    assert samples[15 * PIECE + 20 :].abs().max() < 1e-6  # a flat filter rings no further


@pytest.mark.parametrize(
    "change,message",
    [
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"ahead": -1}, "ahead is -1; it must be at least 0"),
        ({"pieces": 3}, "pieces is 3; the hop, 320, must be a multiple of it"),
        ({"n_fft": 170}, "n_fft is 170; it must be even, and exceed a piece"),
    ],
)
def test_inconsistent_sizes_are_refused(change, message):
    with pytest.raises(DuologueError, match=message):
        replace(SIZES, **change)
