"""Files read and written in one way, by all of Duologue: each is written whole or not at all; text is UTF-8.

Writing follows links, keeps a file's permissions, and never replaces a device, a FIFO or a socket. Reading takes a
byte-order mark, and lines end at a line feed, a carriage return, or both: U+2028 and its like are letters of a text.
What cannot be read is one line that names the file and the place.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..model.errors import DuologueError

_DESCRIPTORS = ("/dev/fd", f"/proc/{os.getpid()}/fd")  # where /dev/stdout leads to
_MARKS = (  # the longer first: UTF-32 begins as UTF-16 does
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path whose ``~`` is the home folder; ``~name`` of nobody known here is a file of that name."""
    return Path(os.path.expanduser(path))


def with_home(text: str) -> str:
    """``out=~/a``, ``data=~/a,~/b:2``, ``start=llm=~/a+~/b``: each ``~`` that begins a path made the home folder.

    Shells do so at the beginning of a word alone.
    """
    return re.sub(r"(?<![^=,+*:\s])~[^/,+*=:\s]*(?=[/,+]|$)", lambda found: os.path.expanduser(found[0]), text)


@contextmanager
def appearing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into, which becomes ``path`` once it is whole; until then, and if it fails, that is as it was.

    A link stays, and what it leads to is written. A file that is there keeps its permissions; further hard links to it
    keep what they had. A FIFO or a character device (/dev/null, /dev/stdout) is written into at the end.

    Raises:
        DuologueError: it cannot be written, as on a full disk; nothing is left of it then. Or it is a folder, a socket,
            a block device, or a file that may not be written.
    """
    path = expanded(path)
    try:
        with _stream(path) or _replacement(path) as file:
            yield file
    except OSError as error:
        whole = "; what was saved before is whole" if error.errno else ""
        raise DuologueError(f"cannot write {path}: {error.strerror or error}{whole}") from None


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` so that ``path`` either has all of it or is as it was before. Raises as :func:`appearing`."""
    with appearing(path) as file:
        file.write(data)


def append_whole(path: Path, data: bytes) -> None:
    """Add bytes to the end of a file, which is made if need be: all of them or, where the disk is full, none.

    Raises:
        DuologueError: they cannot be written.
    """
    size = path.stat().st_size if path.exists() else 0
    try:
        with open(path, "ab") as file:
            file.write(data)
    except OSError as error:
        if path.exists():
            os.truncate(path, size)
        raise DuologueError(f"cannot write {path}: {error.strerror or error}") from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8. Half a surrogate pair is written as its escape, as JSON has it. Raises as :func:`appearing`."""
    write_atomically(path, encoded(text))


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> None:
    """Write a JSON value and a line end. Raises as :func:`appearing`."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def write_json_lines(path: str | os.PathLike[str], objects: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line. Raises as :func:`appearing`."""
    write_text(path, "".join(json.dumps(obj, ensure_ascii=False, sort_keys=True) + "\n" for obj in objects))


def encoded(text: str) -> bytes:
    """UTF-8; half a surrogate pair, which no file may hold, becomes ``\\udXXX``: the same text where it is in JSON."""
    return text.encode("utf-8", "backslashreplace")


def broken(text: str) -> bool:
    """Whether it holds half a surrogate pair, which is no character: ``"\\ud83d"`` in JSON, a name that is no UTF-8."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file: UTF-8, or by its byte-order mark UTF-16 or UTF-32. The mark is left out.

    Raises:
        DuologueError: no such file, it cannot be read, or it is in another encoding, with the place of the first byte.
    """
    path = expanded(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DuologueError(f"no such file: {path}") from None
    except ValueError as error:  # a name that no file system takes
        raise DuologueError(f"cannot read {str(path)!r}: {error}") from None
    except OSError as error:
        raise DuologueError(f"cannot read {path}: {error.strerror or error}") from None
    return decoded(data, path)


def decoded(data: bytes, name: str | os.PathLike[str]) -> str:
    """The text of a file's bytes, as :func:`read_text`; ``name`` is for the error."""
    mark, encoding = next(((mark, kind) for mark, kind in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        raise DuologueError(
            f"{os.fspath(name)} is not {encoding.upper()}: byte {at} is 0x{data[at]:02x}; save it as UTF-8"
        ) from None
    if "\0" in text:
        at = len(mark) + len(text[: text.index("\0")].encode(encoding))
        raise DuologueError(f"{os.fspath(name)} is no text: byte {at} is zero (is it UTF-16? save it as UTF-8)")
    return text


def lines(text: str) -> list[str]:
    """Lines without their ends, LF, CR LF or CR and nothing else; a mark where files were joined is left out."""
    found = [line.removeprefix("\ufeff") for line in re.split("\r\n|\n|\r", text)]
    return found if found[-1] else found[:-1]


def read_json(path: str | os.PathLike[str]) -> Any:
    """Raises DuologueError naming a file that is missing, cannot be read, or is not JSON."""
    return parsed(read_text(path), os.fspath(path))


def read_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A JSON object. Raises DuologueError as :func:`read_json`, and where the file holds something else."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise DuologueError(f"{os.fspath(path)} holds no JSON object")
    return found


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """One object a line; blank lines are passed over.

    Raises:
        DuologueError: it cannot be read, or a line is not a JSON object, with its number.
    """
    return [obj for _, obj in numbered_json_lines(path)]


def numbered_json_lines(path: str | os.PathLike[str]) -> list[tuple[int, dict[str, Any]]]:
    """As :func:`read_json_lines`, each with the number of its line, from 1."""
    objects = []
    for number, line in enumerate(lines(read_text(path)), start=1):
        if not line.strip():
            continue
        obj = parsed(line, f"{os.fspath(path)}, line {number}")
        if not isinstance(obj, dict):
            raise DuologueError(f"{os.fspath(path)}, line {number}: expected a JSON object, found {type(obj).__name__}")
        objects.append((number, obj))
    return objects


def text_of(obj: Mapping[str, Any], field: str, where: str) -> str:
    """A field that must be text. Raises DuologueError that says where it is missing, null, or a number."""
    if not isinstance(obj.get(field), str):
        found = repr(obj[field])[:40] if field in obj else "missing"
        raise DuologueError(f"{where}: the field {field!r} is {found}, and must be text")
    return str(obj[field])


def name_of(obj: Mapping[str, Any], field: str, where: str) -> str:
    """A field that names something: text, or a whole number. Raises as :func:`text_of`."""
    value = obj.get(field)
    return str(value) if type(value) is int else text_of(obj, field, where)


def texts_by_id(path: str | os.PathLike[str], field: str) -> dict[str, str]:
    """``{"id": …, field: …}`` a line. Raises DuologueError as the readers above, and for an id that comes twice."""
    found: dict[str, str] = {}
    for number, entry in numbered_json_lines(path):
        where = f"{os.fspath(path)}, line {number}"
        name = name_of(entry, "id", where)
        if name in found:
            raise DuologueError(f"{where}: the id {name!r} is there more than once")
        found[name] = text_of(entry, field, where)
    return found


def parsed(text: str, where: str) -> Any:
    """The value of a JSON text; ``where`` names it in the error."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{where}, line {error.lineno}" if "\n" in text.strip() else where
        raise DuologueError(f"{place} is not JSON ({error.msg})") from None
    except (ValueError, RecursionError):  # Python's limits
        raise DuologueError(f"{where} is not JSON that can be read: a number too long, or too many brackets") from None


@contextmanager
def _replacement(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside what ``path`` leads to, which takes its place at the end."""
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OSError(None, f"there is no folder {target.parent}")
    known = target.stat() if target.exists() else None
    if known is not None and not os.access(target, os.W_OK):
        raise OSError(None, "the file is there and may not be written")
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if known is not None:
            with contextlib.suppress(OSError):  # only root gives files away
                os.chown(temporary, known.st_uid, known.st_gid)
            temporary.chmod(stat.S_IMODE(known.st_mode))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _stream(path: Path) -> contextlib.AbstractContextManager[BinaryIO] | None:
    """A file that is copied into ``path`` at the end, where that is a stream; None: it is a regular file, or none."""
    number = _descriptor(path)
    if number is not None:
        return _spooled(os.dup(number))
    try:
        kind = path.stat().st_mode  # of what a link leads to
    except FileNotFoundError:
        return None
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        return _spooled(os.open(path, os.O_WRONLY))  # opened first, so that whoever reads it sees an end in any case
    if not stat.S_ISREG(kind):
        names = ((stat.S_ISDIR, "a folder"), (stat.S_ISSOCK, "a socket"), (stat.S_ISBLK, "a block device"))
        raise OSError(None, f"it is {next((name for test, name in names if test(kind)), 'no file')}")
    return None


def _descriptor(path: Path) -> int | None:
    """The number of the open file of this process that is meant (/dev/stdout: 1); others write to it behind this."""
    for _ in range(40):  # as many links as Linux follows
        if path.name.isdigit() and os.path.realpath(path.parent) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(path.name)
        if not os.path.islink(path):
            return None
        path = path.parent / os.readlink(path)
    return None


@contextmanager
def _spooled(descriptor: int) -> Iterator[BinaryIO]:
    """A file that can be sought in, copied at the end into a stream that cannot."""
    with open(descriptor, "wb") as target, tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        shutil.copyfileobj(file, target)
