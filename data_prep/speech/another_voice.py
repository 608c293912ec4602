"""What makes another speaker of a recording: tape speed, tempo alone, formants alone, another source of the voice.

All functions take and return float32 (n,) at any sample rate; one numpy FFT pair or one loop over 32 ms frames each.
"""

from functools import lru_cache

import numpy as np

_PAD = 64  # samples of silence that keep the ends from ringing into each other
_WINDOW = 512  # samples, 32 ms at 16 kHz
_HOP = _WINDOW // 2
_SEARCH = 128  # samples either side: reaches periods of a 62 Hz voice at 16 kHz
_COARSE = 4  # the search for the best joint runs on every fourth sample
_QUEFRENCIES = 40  # cepstral coefficients of an envelope: formants, not harmonics, of voices below 400 Hz


@lru_cache(maxsize=1)
def _fast_lengths() -> np.ndarray:
    """Even 7-smooth numbers up to 2^23, sorted: lengths with a cheap Fourier transform."""
    limit, lengths = 1 << 23, [2]
    for prime in (2, 3, 5, 7):
        for length in lengths:  # grows while it is walked: every power of the prime is appended in turn
            if length * prime <= limit:
                lengths.append(length * prime)
    return np.array(sorted(lengths))


def fast_length(n: int) -> int:
    """The smallest even 7-smooth number >= n (n itself, made even, beyond 2^23)."""
    lengths = _fast_lengths()
    i = int(np.searchsorted(lengths, n))
    return int(lengths[i]) if i < len(lengths) else n + n % 2


def _transform_lengths(n: int, ratio: float) -> tuple[int, int]:
    """Fast lengths (N, M), N >= n, with N / M as near to `ratio` as a dozen candidates allow (about 1e-4)."""
    lengths = _fast_lengths()
    i = int(np.searchsorted(lengths, n))
    if n < 4096 or i + 12 >= len(lengths):
        return n, max(1, round(n / ratio))
    longer = lengths[i : i + 12]
    j = np.clip(np.searchsorted(lengths, longer / ratio), 1, len(lengths) - 1)
    pairs_in = np.concatenate([longer, longer])
    pairs_out = np.concatenate([lengths[j - 1], lengths[j]])
    best = int(np.argmin(np.abs(pairs_in / pairs_out / ratio - 1)))
    return int(pairs_in[best]), int(pairs_out[best])


def resample(wav: np.ndarray, ratio: float) -> np.ndarray:
    """float32 (n,) -> (round(n / ratio),): played `ratio` times faster, as a tape is, every frequency times `ratio`.

    Band-limited interpolation by cutting or extending the spectrum.
    """
    n = len(wav)
    length_out = max(1, round(n / ratio)) if n else 0
    if n < 2 or ratio == 1.0:
        return np.resize(wav, length_out).astype(np.float32)
    length_in, length_fft = _transform_lengths(n + _PAD, ratio)
    spectrum = np.fft.rfft(wav, length_in)[: length_fft // 2 + 1]
    spectrum *= np.float32(length_fft / length_in)
    return fit(np.fft.irfft(spectrum, length_fft), length_out)


def fit(wav: np.ndarray, length: int) -> np.ndarray:
    """float32 (length,): cut at the end or filled with zeros."""
    if len(wav) >= length:
        return wav[:length].astype(np.float32, copy=False)
    out = np.zeros(length, np.float32)
    out[: len(wav)] = wav
    return out


@lru_cache(maxsize=1)
def _hann() -> np.ndarray:
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)).astype(np.float32)


def time_scale(wav: np.ndarray, factor: float) -> np.ndarray:
    """float32 (n,) -> (round(n * factor),): the tempo changes, pitch and formants stay.

    WSOLA (Verhelst and Roelands, ICASSP 1993): each 32 ms frame is taken within 8 ms of where the tempo puts it,
    where it best continues the frame before; half-overlapped Hann windows join them.
    """
    n = len(wav)
    length_out = max(1, round(n * factor)) if n else 0
    if n < 2 * _WINDOW or factor == 1.0:
        return fit(wav, length_out)  # two frames or less: nothing to overlap
    frames = length_out // _HOP + 2
    margin = _WINDOW + _SEARCH
    padded = np.zeros(n + 2 * margin + _WINDOW, np.float32)
    padded[margin : margin + n] = wav
    coarse = padded[: len(padded) // _COARSE * _COARSE].reshape(-1, _COARSE).mean(1)
    target_length, reach = _HOP // _COARSE, _SEARCH // _COARSE
    energy = np.concatenate([[0.0], np.cumsum(np.square(coarse, dtype=np.float64))])
    energy = np.sqrt(energy[target_length:] - energy[:-target_length] + 1e-8)  # (lags,) of a window starting there
    last = len(coarse) - _WINDOW // _COARSE
    # frame f covers output samples [(f - 1) * hop, (f + 1) * hop)
    ideal = margin / _COARSE + (np.arange(frames) - 1) * (target_length / factor)
    ideal = np.clip(np.rint(ideal).astype(np.int64), reach, last - reach).tolist()
    starts = [ideal[0]]
    for centre in ideal[1:]:
        follow = starts[-1] + target_length  # where the frame before would go on by itself
        low = centre - reach
        target = coarse[follow : follow + target_length]
        score = np.correlate(coarse[low : low + 2 * reach + target_length], target, "valid")  # (2 * reach + 1,)
        starts.append(min(low + int((score / energy[low : low + 2 * reach + 1]).argmax()), last - target_length))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)
    pieces = windows[np.array(starts) * _COARSE] * _hann()  # (frames, 512)
    out = (pieces[1:, :_HOP] + pieces[:-1, _HOP:]).reshape(-1)
    return fit(out, length_out)


@lru_cache(maxsize=1)
def _cepstrum() -> tuple[np.ndarray, np.ndarray]:
    """Bases (bins, Q), (bins, Q): log spectrum @ the first = cepstrum, times the second transposed = envelope."""
    bins, q = np.arange(_WINDOW // 2 + 1)[:, None], np.arange(_QUEFRENCIES)[None, :]
    synthesis = np.cos(2 * np.pi * bins * q / _WINDOW)
    weight = np.full((_WINDOW // 2 + 1, 1), 2.0 / _WINDOW)
    weight[0] = weight[-1] = 1.0 / _WINDOW
    lifter = 0.5 + 0.5 * np.cos(np.pi * q / _QUEFRENCIES)
    analysis = synthesis * weight * lifter * np.where(q == 0, 1.0, 2.0)
    return analysis.astype(np.float32), synthesis.astype(np.float32)


def shift_formants(wav: np.ndarray, ratio: float) -> np.ndarray:
    """float32 (n,) -> (n,): the spectral envelope is stretched by `ratio` (> 1: a shorter vocal tract), pitch stays.

    Each 32 ms frame is filtered by envelope(f / ratio) / envelope(f), the envelope being 40 cepstral coefficients.
    """
    n = len(wav)
    if n < _WINDOW or ratio == 1.0:
        return wav.astype(np.float32)
    analysis, synthesis = _cepstrum()
    bins = np.arange(_WINDOW // 2 + 1)
    warped = np.cos(2 * np.pi * (np.minimum(bins / ratio, bins[-1]))[:, None] * np.arange(_QUEFRENCIES) / _WINDOW)
    change = (warped - synthesis).T.astype(np.float32)  # (Q, bins)
    frames = -(-n // _HOP) + 1
    padded = np.zeros((frames + 1) * _HOP, np.float32)
    padded[_HOP : _HOP + n] = wav
    taper = np.sqrt(_hann())
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * taper  # (frames, 512)
    spectrum = np.fft.rfft(windows, axis=1)  # (frames, 257)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    power += np.float32(1e-6) * power.mean() + np.float32(1e-12)
    gain = (np.float32(0.5) * np.log(power)) @ analysis @ change  # (frames, 257), in nepers
    spectrum *= np.exp(np.clip(gain, -2.3, 2.3))  # at most 20 dB
    pieces = np.fft.irfft(spectrum, _WINDOW, axis=1) * taper
    out = (pieces[1:, :_HOP] + pieces[:-1, _HOP:]).reshape(-1)
    return fit(out, n)


def revoice(
    wav: np.ndarray, rng: np.random.Generator, sample_rate: int, pitch: float, liveliness: float, breath: float
) -> np.ndarray:
    """float32 (n,) -> (n,): the words said by another source: the envelope of each 32 ms frame is kept, and excited by
    pulses of another pitch and by noise. So speak vocoders, and so does nobody whose recording there is.

    sample_rate: 8000 to 24000 Hz.  pitch: Hz, about which the new one moves.
    liveliness: how far, beside the old one; 0 is monotonous.
    breath: the fraction of noise in what is voiced; 1 is a whisper.

    A channel vocoder (Dudley, 1939) with the envelopes of :func:`shift_formants`; voiced is what repeats itself within
    2.5 to 14 ms.
    """
    n = len(wav)
    if n < 2 * _WINDOW:
        return wav.astype(np.float32)
    frames = -(-n // _HOP) + 1
    padded = np.zeros((frames + 1) * _HOP, np.float32)
    padded[_HOP : _HOP + n] = wav
    taper = np.sqrt(_hann())
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * taper  # (frames, 512)
    spectrum = np.fft.rfft(windows, axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)  # (frames, 257)
    voiced, old = voicing(windows, sample_rate)
    new = np.clip(pitch * np.exp(liveliness * (old - np.median(old[voiced]) if voiced.any() else old)), 50.0, 450.0)
    places = np.arange(frames) * _HOP
    track = np.interp(np.arange(len(padded)) - _HOP, places, new)  # (samples,) Hz
    turns = np.floor(np.cumsum(track / sample_rate))
    pulses = np.where(np.diff(turns, prepend=0.0) > 0, np.sqrt(sample_rate / track), 0.0).astype(np.float32)
    noise = rng.standard_normal(len(padded), dtype=np.float32)
    buzz, hiss = (
        np.fft.rfft(np.lib.stride_tricks.sliding_window_view(source, _WINDOW)[::_HOP] * taper, axis=1)
        for source in (pulses, noise)
    )
    bins = np.arange(_WINDOW // 2 + 1) * (sample_rate / _WINDOW)
    fraction = (1 - breath) / (1 + np.exp((bins - rng.uniform(2500, 6500)) / 400))  # high up everybody's voice is noise
    fraction = np.where(voiced[:, None], fraction, 0.0).astype(np.float32)
    analysis, synthesis = _cepstrum()
    floor = np.float32(1e-6) * power.mean() + np.float32(1e-12)
    envelope = np.exp(np.float32(0.5) * np.log(power + floor) @ analysis @ synthesis.T)
    made = (fraction * buzz + np.sqrt(1 - np.square(fraction)) * hiss) * envelope
    gain = np.sqrt(power.sum(1) / (np.square(made.real) + np.square(made.imag)).sum(1).clip(1e-12))
    pieces = np.fft.irfft(made * gain[:, None], _WINDOW, axis=1) * taper
    out = fit((pieces[1:, :_HOP] + pieces[:-1, _HOP:]).reshape(-1), n)
    return out / max(1.0, float(np.abs(out).max()))


def voicing(windows: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each window (F, 512): whether it repeats itself, bool (F,), and the logarithm of how often a second (F,).

    The latter goes evenly over what does not.
    """
    shortest, longest = sample_rate // 400, sample_rate // 70
    spectrum = np.fft.rfft(windows, 2 * _WINDOW, axis=1)
    again = np.fft.irfft(np.square(np.abs(spectrum)), axis=1)[:, : longest + 1]
    taper = np.fft.irfft(np.square(np.abs(np.fft.rfft(np.sqrt(_hann()), 2 * _WINDOW))))[: longest + 1]
    again /= (again[:, :1] + 1e-9) * (taper / taper[0])
    twice = 0.05 * np.log2(np.arange(shortest, longest + 1))  # what repeats itself does so after two periods as well
    lags = (again[:, shortest:] - twice).argmax(1) + shortest
    loud = np.square(windows).sum(1)
    voiced = (again[np.arange(len(lags)), lags] > 0.5) & (loud > 1e-3 * loud.max())
    pitch = np.log(sample_rate / lags)
    if voiced.any():
        pitch = np.interp(np.arange(len(lags)), np.flatnonzero(voiced), pitch[voiced])
    return voiced, pitch
