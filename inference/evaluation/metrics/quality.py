"""How speech sounds, by the field's own packages: without a reference, against one, and whose voice it is.

    unreferenced    DNSMOS (P.835 and P.808) and PLCMOS, both with their models bundled; UTMOS where weights are given
    against one     PESQ (wide band), STOI, voicing F1, F0 correlation, mel distance
    speaker         cosine similarity of Resemblyzer's embeddings

All take (n,) float32 in [-1, 1] at 16 kHz. What needs a reference wants the two aligned: they are cut to the shorter.

Sources: Reddy et al. (arXiv 2110.01763); Diener et al. (arXiv 2305.15127); ITU-T P.862.2; Taal et al. (TASLP 2011);
pYIN, Mauch and Dixon (ICASSP 2014); Wan et al. (arXiv 1710.10467).
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import numpy as np

from ....model.errors import DuologueError
from .statistics import Better, Metric

RATE = 16_000  # Hz
SILENT = 1e-4  # a waveform that never exceeds -80 dBFS
_HOP, _MELS = 160, 80  # samples; bands
_FLOOR = 1e-5  # of a mel band, before the logarithm
_SHORT_S = 0.25  # PESQ wants a quarter of a second
_SHORTEST_S = 0.1  # PLCMOS and STOI cannot measure less
_VOICED, _FLAT = 10, 1e-6  # a correlation wants so many voiced frames; below it pitches (log) are one
_UNEVEN_S = 0.1  # more than this between the lengths of a pair is no codec's padding

DNSMOS = Metric(key="dnsmos", name="DNSMOS, overall", unit="MOS")
UNREFERENCED = (
    DNSMOS,
    Metric(key="dnsmos_signal", name="DNSMOS, speech", unit="MOS"),
    Metric(key="dnsmos_background", name="DNSMOS, background", unit="MOS"),
    Metric(key="dnsmos_p808", name="DNSMOS P.808", unit="MOS"),
    Metric(key="plcmos", name="PLCMOS", unit="MOS"),
)
UTMOS = Metric(key="utmos", name="UTMOS", unit="MOS", reference=(3.93, "LLaMA-Omni-8B's own replies"))
REFERENCED = (
    Metric(key="pesq", name="PESQ, wide band", unit="MOS"),
    Metric(key="stoi", name="STOI"),
    Metric(key="voicing_f1", name="Voicing F1"),
    Metric(key="f0_correlation", name="F0 correlation"),
    Metric(key="mel_distance", name="Mel distance", better=Better.LOWER),
)
SIMILARITY = Metric(key="similarity", name="Speaker similarity")


def unreferenced(waveform: np.ndarray) -> dict[str, list[float]]:
    """Measures of UNREFERENCED, without those for which the recording is too short (PLCMOS: 0.1 s).

    A second run gives the same (PLCMOS draws its raters; here from a fixed seed).

    Raises:
        DuologueError: silence, samples that are not finite, or speechmos is not installed.
    """
    _check(waveform)
    waveform = np.clip(waveform, -1.0, 1.0)
    dnsmos, plcmos = _speechmos()
    before = np.random.get_state()
    np.random.seed(0)
    try:
        found = dnsmos.run(waveform, sr=RATE)
        if len(waveform) >= _SHORTEST_S * RATE:
            found["plcmos"] = plcmos.run(waveform, sr=RATE)["plcmos"]
    finally:
        np.random.set_state(before)
    names = {
        "dnsmos": "ovrl_mos",
        "dnsmos_signal": "sig_mos",
        "dnsmos_background": "bak_mos",
        "dnsmos_p808": "p808_mos",
        "plcmos": "plcmos",
    }
    measured = {key: float(found[name]) for key, name in names.items() if name in found}
    return {key: [value, 1.0] for key, value in measured.items() if math.isfinite(value)}


def referenced(decoded: np.ndarray, reference: np.ndarray) -> dict[str, list[float]]:
    """Measures of REFERENCED; PESQ, STOI and F0 correlation are left out where they are not defined (no speech, or too
    little).

    Raises:
        DuologueError: silence, samples that are not finite, lengths that are not a pair's, or a package that is not
            installed.
    """
    if abs(len(decoded) - len(reference)) > _UNEVEN_S * RATE:
        raise DuologueError(
            f"the decoded signal lasts {len(decoded) / RATE:.2f} s, its reference {len(reference) / RATE:.2f} s: "
            "they must be as long as each other"
        )
    _check(reference, "the reference")
    length = min(len(decoded), len(reference))
    if not length or not np.isfinite(decoded).all():
        raise DuologueError("the decoded signal has no samples, or some that are not finite")
    decoded, reference = decoded[:length], reference[:length]
    found = {"mel_distance": [mel_distance(decoded, reference), 1.0]}
    pitches = hertz(decoded), hertz(reference)
    found["voicing_f1"] = _f1(pitches[0] > 0, pitches[1] > 0)
    score = f0_correlation(*pitches)
    if score is not None:
        found["f0_correlation"] = [score, 1.0]
    score = pesq(decoded, reference)
    if score is not None:
        found["pesq"] = [score, 1.0]
    score = stoi(decoded, reference)
    return found if score is None else found | {"stoi": [score, 1.0]}


def pesq(decoded: np.ndarray, reference: np.ndarray) -> float | None:
    """None where the package finds no utterance or less than a quarter of a second."""
    try:
        from pesq import NoUtterancesError
        from pesq import pesq as measure
    except ImportError:
        raise DuologueError("pesq is not installed: pip install 'duologue[quality]'") from None
    if len(reference) < _SHORT_S * RATE or np.abs(decoded).max() < SILENT:
        return None
    try:
        return float(measure(RATE, reference, decoded, "wb"))
    except NoUtterancesError:
        return None


def stoi(decoded: np.ndarray, reference: np.ndarray) -> float | None:
    """None where less than 30 frames (0.4 s) of speech are left: pystoi would answer 1e-5."""
    from pystoi import stoi as measure

    if len(reference) < _SHORTEST_S * RATE:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Not enough STFT frames")
        try:
            return float(measure(reference, decoded, RATE))
        except RuntimeWarning:
            return None


def mel_distance(decoded: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute difference of log10-mels, 80 bands, window 64 ms, hop 10 ms: 0.05 is 1 dB in power."""
    a, b = (_log_mel(wave) for wave in (decoded, reference))
    return float(np.abs(a - b).mean())


def hertz(waveform: np.ndarray) -> np.ndarray:
    """(T,) Hz in frames of 10 ms, of the voice that pYIN hears between 60 and 400 Hz; 0: none."""
    import librosa

    window = 1_024
    padded = np.pad(waveform, (0, max(0, window - len(waveform))))
    f0, flags, _ = librosa.pyin(padded, fmin=60, fmax=400, sr=RATE, frame_length=window, hop_length=_HOP)
    return np.where(flags, f0, 0.0)


def f0_correlation(decoded: np.ndarray, reference: np.ndarray) -> float | None:
    """Pearson's correlation of the logarithms of two pitches (T,) in Hz, over the frames that are voiced in both.

    None where the reference has fewer than 10 voiced frames, or one pitch: there is nothing to follow. 0 where the
    decoded signal follows nothing: it is voiced in fewer than 10 of them, or keeps one pitch.
    """
    voiced = reference > 0
    if voiced.sum() < _VOICED or np.ptp(np.log(reference[voiced])) < _FLAT:
        return None
    both = voiced & (decoded > 0)
    logs = np.log(decoded[both]), np.log(reference[both])
    if both.sum() < _VOICED or min(map(np.ptp, logs)) < _FLAT:
        return 0.0
    return float(np.corrcoef(*logs)[0, 1])


class SpeakerEncoder:
    """Whose voice it is: (n,) at 16 kHz -> (256,) of length 1."""

    def __init__(self) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # webrtcvad asks setuptools something old
                from resemblyzer import VoiceEncoder
        except ImportError:
            raise DuologueError("Resemblyzer is not installed: pip install 'duologue[quality]'") from None
        self._encoder = VoiceEncoder("cpu", verbose=False)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        _check(waveform)
        level = 0.03 / float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))  # -30 dBFS, as in its training
        return np.asarray(self._encoder.embed_utterance((waveform * level).astype(np.float32)))


def speaker_encoder() -> SpeakerEncoder | None:
    """None where Resemblyzer is not installed: then there is no figure of similarity."""
    try:
        return SpeakerEncoder()
    except DuologueError:
        return None


def audible(waveform: np.ndarray) -> bool:
    """Whether it can be measured: it has samples, all of them finite, and not only silence."""
    return len(waveform) > 0 and bool(np.isfinite(waveform).all()) and float(np.abs(waveform).max()) >= SILENT


def _check(waveform: np.ndarray, name: str = "the recording") -> None:
    if not np.isfinite(waveform).all():
        raise DuologueError(f"{name} has samples that are not finite")
    if not audible(waveform):
        raise DuologueError(f"{name} is silent: it has no quality to measure")


@functools.cache
def _speechmos() -> tuple[Any, Any]:
    try:
        from speechmos import dnsmos, plcmos
    except ImportError:
        raise DuologueError("speechmos is not installed: pip install 'duologue[eval]'") from None
    return dnsmos, plcmos


def _log_mel(waveform: np.ndarray) -> np.ndarray:
    import librosa

    mel = librosa.feature.melspectrogram(y=waveform, sr=RATE, n_fft=1_024, hop_length=_HOP, n_mels=_MELS, power=1.0)
    return np.asarray(np.log10(np.maximum(mel, _FLOOR)))


def _f1(found: np.ndarray, truth: np.ndarray) -> list[float]:
    """2 · both / (found + truth), as [amount, weight], so that files add up frame by frame."""
    return [2.0 * float(np.sum(found & truth)), float(np.sum(found) + np.sum(truth))]
