"""Samples in memory, from numpy, torch or a list, with their rate, in the forms in which people have them."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ...model.errors import DuologueError
from .track import BLOCK, Track

_LAYOUT = "(samples,), (samples, channels) or (channels, samples)"


@runtime_checkable
class _Decoder(Protocol):
    """torchcodec's AudioDecoder, as which a data set of Hugging Face has its recordings."""

    def get_all_samples(self) -> Any:
        """All samples, with .sample_rate and .data (channels, samples)."""


def pair_of(source: Any) -> tuple[Any, Any] | None:
    """(rate, samples) of such a pair in either order, or of {"array": samples, "sampling_rate": rate}; else None.

    Raises:
        DuologueError: a tuple or a mapping that is none of these.
    """
    if isinstance(source, _Decoder):
        found = source.get_all_samples()
        return found.sample_rate, found.data
    if isinstance(source, tuple):
        if len(source) == 2 and _is_number(source[0]) != _is_number(source[1]):
            return source if _is_number(source[0]) else (source[1], source[0])
        kinds = ", ".join(type(each).__name__ for each in source)
        raise DuologueError(f"a recording is (rate in Hz, samples) or (samples, rate), not ({kinds})")
    if isinstance(source, Mapping):
        if "array" in source and "sampling_rate" in source:
            return source["sampling_rate"], source["array"]
        names = ", ".join(map(repr, source))[:80]
        raise DuologueError(
            f"a recording is {{'array': samples, 'sampling_rate': rate}}; the mapping has {names or 'nothing'}"
        )
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) or getattr(value, "shape", None) == ()


def array_track(rate: Any, samples: Any) -> Track:
    """Samples as a track. Of two dimensions the shorter one is the channels; integers are at full scale.

    Raises:
        DuologueError: they are no sound, or the rate is no whole number.
    """
    try:
        hertz = float(rate)
    except (TypeError, ValueError, OverflowError):
        hertz = math.nan
    if not hertz.is_integer() or isinstance(rate, bool):
        raise DuologueError(f"the recording has a sample rate of {rate} Hz: a whole number is expected")
    array = _array(samples)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise DuologueError(f"a recording has the shape {_LAYOUT}, not {np.shape(samples)}")
    if array.shape[0] < array.shape[1] and array.shape[0]:
        array = array.T
    if not array.size:
        array = array.reshape(0, 1)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(array), BLOCK):
            yield as_floats(array[start : start + BLOCK])

    return Track(rate=int(hertz), channels=array.shape[1], announced=len(array), blocks=blocks)


def mono(samples: Any) -> np.ndarray:
    """(n,) or whatever shape it has, of numpy, torch or a list, as float32; integers are at full scale.

    Raises:
        DuologueError: they are no sound.
    """
    return as_floats(_array(samples))


def _array(samples: Any) -> np.ndarray:
    """Anything that holds numbers as an array of numpy's, of a kind that ``as_floats`` takes."""
    torch = sys.modules.get("torch")  # without it, nothing is a tensor
    try:
        if torch is not None and isinstance(samples, torch.Tensor):
            samples = samples.detach().cpu()
            if samples.is_floating_point():
                samples = samples.float()
            samples = samples.numpy()
        array = np.asarray(samples)
    except Exception as error:  # whatever a foreign array raises
        reason = " ".join(str(error).split())[:200]
        raise DuologueError(
            f"samples are an array of integers or floats, not {type(samples).__name__}: {reason}"
        ) from None
    if array.size and (array.dtype.kind not in "fiu" or array.dtype.name in ("int64", "uint64")):
        hint = "; what is full scale in 64 bits?" if array.dtype.kind in "iu" else ""
        raise DuologueError(f"samples are floats or integers of 8, 16 or 32 bits, not {array.dtype}{hint}")
    return array


def resampled(waveform: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """(n,) float32 at ``rate`` -> (m,) float32 at ``wanted``, in one piece."""
    if rate == wanted or not len(waveform):
        return waveform
    import soxr

    return np.asarray(soxr.resample(waveform, rate, wanted), np.float32)


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples of any shape as float32 in [-1, 1]; floats stay as they are."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    full = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = full if samples.dtype.kind == "u" else 0.0
    return ((samples - middle) / full).astype(np.float32)
