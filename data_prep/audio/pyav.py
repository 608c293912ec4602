"""Sound files by FFmpeg, through PyAV: M4A, WebM, AAC, GSM and what libsndfile does not read of WAV, MP3, FLAC and CAF.

FFmpeg reads far more than recordings: playlists that name other files and addresses, images, networks. So it gets an
opened file without a name, the one demuxer that the file's first bytes call for, no way to open anything else, and
decoders of sound alone; and it may not read without end.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ...model.errors import DuologueError
from .arrays import as_floats
from .formats import FORMATS, mov_samples
from .sources import File
from .track import Track

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.container import InputContainer

_DECODERS = (
    "aac", "alac", "opus", "libopus", "vorbis", "libvorbis", "flac", "mp3", "mp3float", "mp2", "mp2float", "speex",
    "libspeex", "gsm", "gsm_ms", "amrnb", "amrwb", "adpcm_ms", "adpcm_ima_wav", "adpcm_ima_qt",
)  # fmt: skip
_STREAMS = ("aac", "mp3", "gsm", "ogg")  # they may begin anywhere, and are taken up again after a damage
_READINGS = 8  # of a file: so many times its size may be read, and _MORE bytes
_MORE = 2**26
_SILENT_PACKETS = 10_000  # in a row, of which no sound comes
_INDEXED = 2**22  # samples of an MP4, of 24 bytes in memory each
_LOST_S = 0.2  # that an M4A may lack of the length that it announces


class _Nameless:
    """What FFmpeg sees of a file: its bytes, so many times."""

    def __init__(self, file: File) -> None:
        file.handle.seek(0)
        self._file, self._left = file.handle, _READINGS * file.size + _MORE
        self.seek, self.tell = file.handle.seek, file.handle.tell

    def read(self, count: int) -> bytes:
        """At most ``count`` bytes."""
        self._left -= count
        if self._left < 0:
            raise OSError("it leads back and forth in itself")
        return self._file.read(count)


def av_track(file: File, demuxer: str) -> Track | None:
    """The sound of a file; None if it cannot be read by this demuxer, or has no sound.

    Raises:
        DuologueError: its sound is in a form that is not read.
    """
    import av

    name = file.name
    if demuxer == "mov" and mov_samples(file.handle, file.size) > max(_INDEXED, file.size):
        return None
    try:
        with _open(file, demuxer) as container:
            stream = container.streams.best("audio")
            if stream is None:
                return None
            codec = "unknown" if stream.codec_context is None else stream.codec_context.name
            if not _allowed(codec):
                raise DuologueError(f"{name} has sound of the form {codec}, which is not read: give {FORMATS}")
            seconds = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
            first = next(_frames(container, demuxer), None)
    except DuologueError:
        raise
    except (av.FFmpegError, OSError, ValueError, MemoryError):
        return None
    if first is None:
        return None
    rate, channels = first.sample_rate, first.layout.nb_channels
    announced = round(seconds * rate) if demuxer == "mov" else 0

    def blocks() -> Iterator[np.ndarray]:
        found = 0
        try:
            with _open(file, demuxer) as container:
                for frame in _frames(container, demuxer):
                    if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                        raise DuologueError(
                            f"{name} changes its sample rate or its channels after {found / rate:.2f} s"
                        )
                    samples = as_floats(frame.to_ndarray())  # (channels, n), or (1, n of all channels in turn)
                    block = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
                    found += len(block)
                    yield block
            if found >= announced - _LOST_S * rate:
                return
        except DuologueError:
            raise
        except (av.FFmpegError, OSError, ValueError, MemoryError):
            pass
        of = f" of the {announced / rate:.2f} s that its header announces" if announced else ""
        raise DuologueError(f"{name} is cut short or damaged: at most {found / rate:.2f} s{of} can be read")

    return Track(rate=rate, channels=channels, announced=announced or None, blocks=blocks)


def _open(file: File, demuxer: str) -> InputContainer:
    import av

    options = {"codec_whitelist": _whitelist(), "protocol_whitelist": "none"}
    if demuxer == "mov":  # other files may hold a track's sound
        options |= {"enable_drefs": "0", "use_absolute_path": "0"}
    handle: Any = _Nameless(file)
    return av.open(handle, format=demuxer, container_options=options, io_open=_refuse, metadata_errors="replace")


def _refuse(url: str, flags: int, options: dict[str, str]) -> Any:
    """Nothing else is opened."""
    raise PermissionError("a recording names another file")


def _allowed(codec: str) -> bool:
    return codec in _DECODERS or codec.startswith("pcm_")


@functools.cache
def _whitelist() -> str:
    import av

    return ",".join(sorted(filter(_allowed, av.codecs_available)))


def _frames(container: InputContainer, demuxer: str) -> Iterator[AudioFrame]:
    """The decoded sound.

    Raises:
        ValueError, av.FFmpegError: a packet is damaged. The last ones may be, and of what is a stream by nature, a few.
    """
    import av
    from av.stream import Discard

    stream = container.streams.best("audio")
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    good, damaged, without = 0, 0, 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damaged, frames = damaged + 1, []
        good, without = good + len(frames), 0 if frames else without + 1
        if without > _SILENT_PACKETS or (frames and damaged > (good / 10 + 2 if demuxer in _STREAMS else 0)):
            raise ValueError("packets are damaged")
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            yield frame
