"""The source-filter generator: pulses at the pitch asked for, filters that are what their cepstra say, bad sizes."""

import math
from dataclasses import replace

import pytest
import torch

from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.periodicity import Periodicity
from duologue.model.speech_decoder.source_filter import Source, SourceFilter, SourceFilterConfig

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


def gains(cepstrum):
    return torch.fft.rfft(cepstrum, 1024).real.exp()


def test_the_powers_of_both_filters_add_up_to_the_envelopes():
    """At every frequency, and in each band by the fraction that is periodic; without a voice all is noise."""
    share, envelope = Periodicity(4, 64), cepstra(2, 64, -3.0)[None]
    envelope[..., 1] = 0.5
    logits = torch.tensor([[[2.0, 0.0, -1.0, -3.0]] * 2])
    pulses, noise = share(envelope, logits, torch.tensor([[100.0, 0.0]]))
    whole, voiced, breath = (gains(cepstrum).square() for cepstrum in (envelope, pulses, noise))
    assert torch.allclose((voiced + breath)[0, 0], whole[0, 0], rtol=0.02)
    assert torch.equal(breath[0, 1], whole[0, 1])
    middles = [64, 192, 320, 448]  # of 513 bins
    assert torch.allclose((voiced / whole)[0, 0, middles], logits[0, 0].sigmoid(), atol=0.03)


def test_a_voice_cannot_fall_silent_beside_its_noise():
    """Whatever the stack says, in a voiced piece either source keeps a part of the envelope's power."""
    generator = SourceFilter(8, replace(SIZES, dim=8, ffn_dim=16, layers=1, bands=4), 16000)
    controls = generator.controls(torch.randn(1, 8, 50))
    controls = replace(controls, pulses=cepstra(100, SIZES.cepstrum, -3.0)[None])
    whisper = float(generator.sound(controls, torch.zeros(1, 100)).square().mean())
    for said in (-1e3, 1e3):
        controls = replace(controls, periodic=torch.full_like(controls.periodic, said))
        loud = generator.sound(controls, torch.full((1, 100), 125.0))[0, 0]
        power = power_by_frequency(loud)
        spacing = 125 * len(loud) // 16000
        near = torch.zeros_like(power, dtype=torch.bool)
        for k in range(1, 60):
            near[k * spacing - 3 : k * spacing + 4] = True
        ratio = power[near].mean() / power[~near].mean()
        assert ratio > 1.02 if said < 0 else ratio > 100
        assert float(loud.square().mean()) == pytest.approx(whisper, rel=0.2)


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
