"""The pitch of a recording, and how much of its power repeats with it, band by band: what a source-filter generator
learns to say.

Pitch: the autocorrelation of a windowed frame over the window's own, and the cheapest path through its peaks; or pYIN,
by librosa, which takes four times as long and hears more of the voice where it is soft or creaks.

Periodicity: in each band, the autocorrelation at the pitch's period over that of a sound that repeats exactly, in a
window of three periods: long enough to tell noise from harmonics, short enough for a pitch that glides.

Source: Boersma 1993, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a
sampled sound" (IFA Proceedings 17); Mauch and Dixon 2014, "pYIN" (ICASSP); the ratio in bands as in Morise et al. 2016,
"WORLD" (IEICE Transactions E99-D(7)).
"""

from __future__ import annotations

import importlib.util

import numpy as np

from ...model.errors import DuologueError

TRACKERS = ("autocorrelation", "pyin")
CANDIDATES = 5  # peaks a frame
VOICELESS = 0.45  # strength of the candidate that there is no voice
OCTAVE = 0.02  # a higher candidate is worth so much an octave
JUMP = 0.35  # costs so much an octave from frame to frame
CHANGE = 0.14  # between voice and none
SILENCE = 0.03  # of the loudest frame's peak: below it, having no voice grows likelier
WINDOWS = (0.012, 0.016, 0.024, 0.032, 0.048)  # seconds, of which one is taken that holds three periods
STEP_S = 0.02  # of pYIN, whose time goes with the number of its frames
RESOLUTION = 0.1  # of the same, in semitones: with 0.2 a third of the voiced frames are lost
LAGS = np.linspace(0.98, 1.02, 9)  # of the period: the pitch is not known better


def check_tracker(tracker: str) -> None:
    """Raises DuologueError for one that does not exist, or whose library is missing."""
    if tracker not in TRACKERS:
        raise DuologueError(f"tracker is {tracker!r}; it must be {' or '.join(TRACKERS)}")
    if tracker == "pyin" and importlib.util.find_spec("librosa") is None:
        raise DuologueError("tracker=pyin needs librosa: pip install 'duologue[eval]'")


def pyin(samples: np.ndarray, sample_rate: int, hop: int, low: float = 60.0, high: float = 400.0) -> np.ndarray:
    """As :func:`pitch`, by pYIN. A step of its frames is so many whole hops as come next to 20 ms."""
    import librosa

    middles = hop * np.arange(len(samples) // hop) + hop // 2
    if not len(middles):
        return np.zeros(0, np.float32)
    step = hop * max(1, round(STEP_S * sample_rate / hop))
    window = 1 << int(np.ceil(np.log2(3 * sample_rate / low)))  # as long as three periods of the lowest pitch
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    hertz, voiced, _ = librosa.pyin(
        padded, fmin=low, fmax=high, sr=sample_rate, frame_length=window, hop_length=step, resolution=RESOLUTION
    )
    nearest = ((middles + step // 2) // step).clip(max=len(hertz) - 1)  # frame k has its middle at sample k * step
    return np.where(voiced, np.nan_to_num(hertz), 0.0)[nearest].astype(np.float32)


def pitch(samples: np.ndarray, sample_rate: int, hop: int, low: float = 65.0, high: float = 400.0) -> np.ndarray:
    """Samples (n,) float -> Hz (n // hop,) float32, of the frame in the middle of each hop; 0: no voice.

    Costs follow Boersma's for steps of 10 ms: ``hop`` should be near that.
    """
    frames = len(samples) // hop
    if frames == 0:
        return np.zeros(0, np.float32)
    window = int(3 * sample_rate / low)  # three periods of the lowest pitch
    padded = np.pad(np.asarray(samples, np.float32), window)
    starts = window + hop // 2 - window // 2 + hop * np.arange(frames)
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[starts]  # (F, window)
    cut = cut - cut.mean(1, keepdims=True)
    peaks = np.abs(cut).max(1)
    taper = np.hanning(window + 2)[1:-1].astype(np.float32)
    size = 1 << int(np.ceil(np.log2(1.5 * window)))
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2)
    both = np.fft.irfft(np.abs(np.fft.rfft(cut * taper, size, axis=1)) ** 2, axis=1)
    first, last = int(sample_rate / high), int(np.ceil(sample_rate / low))
    r = both[:, : last + 2] / np.maximum(both[:, :1], 1e-9) / (own[: last + 2] / own[0])
    hertz, strength = _peaks(r, first, last, sample_rate, low)
    quiet = 2 - (peaks / max(float(peaks.max()), 1e-9)) / (SILENCE / (1 + VOICELESS))
    strength[:, 0] = VOICELESS + np.maximum(0.0, quiet)
    return hertz[np.arange(frames), _cheapest(hertz, strength)]


def _peaks(r: np.ndarray, first: int, last: int, sample_rate: int, low: float) -> tuple[np.ndarray, np.ndarray]:
    """Autocorrelations (F, last + 2) -> Hz and strengths (F, 1 + CANDIDATES), the first for no voice; -inf: none."""
    middle, left, right = r[:, first : last + 1], r[:, first - 1 : last], r[:, first + 1 : last + 2]
    curve = left - 2 * middle + right
    top = (middle > left) & (middle >= right) & (middle > 0.5 * VOICELESS)
    shift = np.where(top, (left - right) / np.where(curve == 0, 1.0, 2 * curve), 0.0)
    hertz = sample_rate / (np.arange(first, last + 1) + shift)
    height = np.where(top, middle - 0.25 * (left - right) * shift + OCTAVE * np.log2(hertz / low), -np.inf)
    best = np.argpartition(-height, CANDIDATES, axis=1)[:, :CANDIDATES]
    none = np.zeros((len(r), 1))
    return (
        np.concatenate([none, np.take_along_axis(hertz, best, 1)], 1).astype(np.float32),
        np.concatenate([none, np.take_along_axis(height, best, 1)], 1),
    )


def _cheapest(hertz: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """The candidate of each frame on the path with the largest strength less the cost of its jumps (Viterbi)."""
    octaves = np.log2(np.maximum(hertz, 1.0))
    voiced = hertz > 0
    score, back = strength[0], np.zeros(hertz.shape, np.int64)
    for t in range(1, len(hertz)):
        jumps = JUMP * np.abs(octaves[t - 1][:, None] - octaves[t][None])
        both = voiced[t - 1][:, None] & voiced[t][None]
        cost = np.where(both, jumps, CHANGE * (voiced[t - 1][:, None] != voiced[t][None]))
        paths = score[:, None] - cost  # (from, to)
        back[t] = paths.argmax(0)
        score = paths.max(0) + strength[t]
    path = np.zeros(len(hertz), np.int64)
    path[-1] = int(score.argmax())
    for t in range(len(hertz) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def periodicity(samples: np.ndarray, sample_rate: int, hop: int, hertz: np.ndarray, bands: int) -> np.ndarray:
    """Samples (n,) float, Hz (T,) in the middle of each hop (T = n // hop), 0 for no voice -> (T, bands) in [0, 1]."""
    found = np.zeros((len(hertz), bands), np.float32)
    voiced = np.flatnonzero(hertz > 0)
    choice = np.searchsorted(WINDOWS, 3 / np.maximum(hertz[voiced], 1.0)).clip(max=len(WINDOWS) - 1)
    for which in np.unique(choice):
        at = voiced[choice == which]
        found[at] = _fractions(samples, sample_rate, at * hop + hop // 2, hertz[at], bands, WINDOWS[which])
    return found


def _fractions(
    samples: np.ndarray, rate: int, middles: np.ndarray, hertz: np.ndarray, bands: int, seconds: float
) -> np.ndarray:
    """(F,) samples and Hz -> (F, bands), all in windows of so many seconds."""
    window = round(seconds * rate)
    size = 1 << int(np.ceil(np.log2(1.5 * window)))
    taper = np.hanning(window + 2)[1:-1].astype(np.float32)
    padded = np.pad(np.asarray(samples, np.float32), window)
    cut = np.lib.stride_tricks.sliding_window_view(padded, window)[middles + window - window // 2]  # (F, window)
    power = np.abs(np.fft.rfft((cut - cut.mean(1, keepdims=True)) * taper, size, axis=1)) ** 2  # (F, bins)
    own = np.abs(np.fft.rfft(taper, size)) ** 2
    edges = np.linspace(0, size // 2 + 1, bands + 1).round().astype(int)
    turns = np.arange(size // 2 + 1) / size * rate  # Hz of each bin
    whole = np.add.reduceat(power, edges[:-1], axis=1)
    best = np.full((len(middles), bands), -np.inf, np.float32)
    total = np.full(len(middles), -np.inf)
    for factor in LAGS:
        lag = factor / hertz[:, None]  # (F, 1) s
        waves = np.cos(2 * np.pi * turns * lag)  # (F, bins)
        exact = (own * waves)[:, 1:-1].sum(1) * 2 + own[0] + own[-1] * waves[:, -1]
        exact /= 2 * own[1:-1].sum() + own[0] + own[-1]
        here = np.add.reduceat(power * waves, edges[:-1], axis=1) / np.maximum(whole * exact[:, None], 1e-12)
        better = here.sum(1) > total  # the lag at which most bands repeat
        best[better], total[better] = here[better], here.sum(1)[better]
    return best.clip(0, 1)
