"""Speech as a file of any of the API's formats, encoded while it is made: what a few samples bring can be sent at once.

    samples (n,) float32 at the model's rate -> bytes of mp3, opus (in Ogg), aac (ADTS), flac, wav, or bare 24 kHz pcm

The lengths that a header would hold are not known when a stream begins: wav and flac say so, and readers read to the
end.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import IO, Any

import av
import numpy as np
from av.container import OutputContainer

from ..protocol.formats import AudioFormat, Resampler, encode

# (container, codec, sample format, media type)
_FORMATS = {
    "mp3": ("mp3", "libmp3lame", "fltp", "audio/mpeg"),
    "opus": ("ogg", "libopus", "flt", "audio/ogg"),
    "aac": ("adts", "aac", "fltp", "audio/aac"),
    "flac": ("flac", "flac", "s16", "audio/flac"),
    "wav": ("wav", "pcm_s16le", "s16", "audio/wav"),
}
FORMATS = (*_FORMATS, "pcm")
MEDIA = {**{name: each[3] for name, each in _FORMATS.items()}, "pcm": "audio/pcm"}
_RATE = 24_000  # Hz, which all of them have
_AT_ONCE = {"flush_packets": "1"}  # what a packet brings is written with it
_OGG = {**_AT_ONCE, "page_duration": "100000"}  # µs: an Ogg page is otherwise sent once it holds a second


class SoundFile:
    """A file under way.

    Args:
        format_: one of FORMATS. rate: of the samples, Hz.
        file: is written to; where it can go back, a header gets the length once it is known.
    """

    def __init__(self, format_: str, rate: int, file: IO[bytes]) -> None:
        self._resampler, self._file, self._samples = Resampler(rate, _RATE), file, 0
        self._container: OutputContainer | None = None
        if format_ == "pcm":
            return
        container, codec, self._layout, _ = _FORMATS[format_]
        options = _OGG if container == "ogg" else _AT_ONCE
        self._container = av.open(file, "w", format=container, options=options, buffer_size=1024)
        stream = self._container.add_stream(codec, rate=_RATE, layout="mono", format=self._layout)
        assert isinstance(stream, av.AudioStream)
        self._stream = stream

    def push(self, pcm: np.ndarray, last: bool = False) -> None:
        """Write more samples (n,), as far as they can be encoded already; ``last``: there are no more."""
        pcm = np.clip(self._resampler.push(pcm, last=last), -1, 1)
        if self._container is None:
            self._file.write(encode(pcm, AudioFormat.PCM))
            return
        if last and not self._samples + len(pcm):
            pcm = np.zeros(_RATE // 100, np.float32)  # a file of no sound at all is none that can be read
        if len(pcm):
            samples = encode(pcm, AudioFormat.PCM) if self._layout == "s16" else pcm.astype(np.float32).tobytes()
            frame = av.AudioFrame(format=self._layout, layout="mono", samples=len(pcm))
            frame.planes[0].update(samples.ljust(frame.planes[0].buffer_size, b"\0"))
            frame.sample_rate, frame.pts, frame.time_base = _RATE, self._samples, Fraction(1, _RATE)
            self._samples += len(pcm)
            self._container.mux(self._stream.encode(frame))
        if last:
            self._container.mux(self._stream.encode(None))
            self._container.close()


class _Written(io.RawIOBase):
    """Bytes that were written, until they are taken; it cannot go back."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        taken, self._bytes = bytes(self._bytes), bytearray()
        return taken


class SoundStream:
    """A file that is sent while it is made."""

    def __init__(self, format_: str, rate: int) -> None:
        self._written = _Written()
        self._file = SoundFile(format_, rate, self._written)  # type: ignore[arg-type]

    def push(self, pcm: np.ndarray, last: bool = False) -> bytes:
        """The bytes that more samples (n,) bring, perhaps none; ``last``: there are no more."""
        self._file.push(pcm, last)
        return self._written.take()


def sound_file(pcm: np.ndarray, rate: int, format_: str) -> bytes:
    """A whole sound (n,) as a file."""
    file = io.BytesIO()
    SoundFile(format_, rate, file).push(pcm, last=True)
    return file.getvalue()
