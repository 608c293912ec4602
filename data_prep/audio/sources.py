"""What a user gives as a recording -> an opened file, which can seek, or samples with their rate.

A file reaches the decoders (tracks.py) opened and without its name: by its name a decoder could be led to other files.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ...model.errors import DuologueError
from .formats import FORMATS

AudioSource = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | tuple[Any, Any] | Mapping[str, Any]

TAKEN = (
    "a path, the bytes of a file, a file opened with 'rb', (rate in Hz, samples), (samples, rate) or "
    "{'array': samples, 'sampling_rate': rate}"
)
MAX_PIPED = 2**30  # bytes that are taken from what cannot seek, where a recording is read whole
_IN_MEMORY = 2**26  # bytes of a copy; a larger one is on disk
_AT_ONCE = 2**20  # bytes


@dataclass(frozen=True, kw_only=True)
class File:
    """An opened file. name: for messages. size: bytes. descriptor: where the operating system has the file open."""

    name: str
    handle: IO[bytes]
    size: int
    descriptor: int | None = None


def shown(path: str | os.PathLike[str]) -> str:
    r"""A path for a message: what is no UTF-8, or cannot be printed, as escapes (\xe9)."""
    text = os.fsdecode(path)
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character of UTF-16, which no file can have
        raw = text.encode("utf-8", "surrogatepass")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in raw.decode("utf-8", "backslashreplace"))


def from_argument(path: str | os.PathLike[str]) -> AudioSource:
    """What an argument of a command line means: a path, or "-" for standard input.

    Call it before whatever takes long, such as loading a model: what cannot be opened is refused here.

    Raises:
        DuologueError: there is no such file, it cannot be opened, or nothing but a keyboard is connected to standard
            input.
    """
    if os.fspath(path) != "-":
        if not Path(os.path.expanduser(path)).is_fifo():  # who writes into a pipe would find it closed
            _open(shown(path), path).close()
        return path
    if sys.stdin is None or sys.stdin.isatty():
        raise DuologueError("- is standard input: pipe a recording into it")
    return sys.stdin.buffer


@contextlib.contextmanager
def opened(
    source: Any, known: Callable[[bytes], bool], most: int | None = MAX_PIPED, name: str | None = None
) -> Iterator[File]:
    """A path, bytes or a file -> an opened file that can seek; ``name``: what messages call it.

    What cannot seek (a pipe, a device), and a file object, of which nothing is known, are copied: at most ``most``
    bytes, and no more than a first piece where ``known`` says that what begins so is no recording.

    Raises:
        DuologueError: it is none of these, or cannot be opened or read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        yield File(name=name or "the recording", handle=io.BytesIO(source), size=memoryview(source).nbytes)
    elif isinstance(source, str | os.PathLike):
        name = name or shown(source)
        with _open(name, source) as handle:
            status = os.fstat(handle.fileno())
            if stat.S_ISREG(status.st_mode):
                yield File(name=name, handle=handle, size=status.st_size, descriptor=handle.fileno())
            else:
                with _copy(name, handle, known, most) as file:
                    yield file
    elif hasattr(source, "read"):
        given = getattr(source, "name", None)
        name = name or (shown(given) if isinstance(given, str) and not given.startswith("<") else "the recording")
        with _copy(name, source, known, most) as file:
            yield file
    else:
        raise DuologueError(f"a recording is {TAKEN}, not {_kind(source)}")


def _open(name: str, path: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return open(os.path.expanduser(path), "rb", buffering=0)
    except IsADirectoryError:
        raise DuologueError(f"{name} is a folder, not a recording: give a file ({FORMATS})") from None
    except (FileNotFoundError, ValueError):  # ValueError: a name that no file can have
        raise DuologueError(f"no such file: {name}") from None
    except OSError as error:
        raise DuologueError(f"cannot read {name}: {error.strerror or error}") from None


@contextlib.contextmanager
def _copy(name: str, source: Any, known: Callable[[bytes], bool], most: int | None) -> Iterator[File]:
    """A copy of what a file gives from its beginning, or from where it stands if it cannot seek."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as copy:
        checked = False
        try:
            if hasattr(source, "seekable") and source.seekable():
                source.seek(0)
            while piece := source.read(_AT_ONCE):
                if not isinstance(piece, bytes | bytearray | memoryview):
                    raise DuologueError(f"{name} gives {type(piece).__name__}, not bytes: open it with 'rb'")
                copy.write(piece)
                if not checked and copy.tell() >= _AT_ONCE:
                    copy.seek(0)
                    if not known(copy.read(_AT_ONCE)):  # such as /dev/zero, which has no end
                        raise DuologueError(f"{name} is not a recording that can be read: give {FORMATS}")
                    checked = True
                    copy.seek(0, os.SEEK_END)
                if most is not None and copy.tell() > most:
                    raise DuologueError(f"{name} gives more than {most >> 20} MiB: too much to read at once")
        except DuologueError:
            raise
        except Exception as error:  # whatever a foreign file object raises
            reason = getattr(error, "strerror", None) or error or type(error).__name__
            raise DuologueError(f"cannot read {name}: {' '.join(str(reason).split())[:200]}") from None
        size = copy.tell()
        copy.seek(0)
        yield File(name=name, handle=copy, size=size)


def part_of(file: File, start: int, end: int) -> File:
    """The bytes from ``start`` to ``end`` as a file of their own."""
    return File(name=file.name, handle=cast(IO[bytes], _Part(file.handle, start, end - start)), size=end - start)


class _Part:
    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Never an error, which libsndfile cannot take: of a place that is not there, nothing is read."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, count: int) -> bytes:
        count = min(count, self._size - self._at)
        if count <= 0:
            return b""
        self._file.seek(self._start + self._at)
        piece = self._file.read(count)
        self._at += len(piece)
        return piece


def _kind(source: Any) -> str:
    """What was given instead, for a message."""
    name = type(source).__name__
    return f"{name} without a rate" if hasattr(source, "__array__") else name
