"""The sound files that are read, known by their first bytes and never by their names.

libsndfile knows its own (WAV, FLAC, Ogg, MP3, AIFF, AU and others). What it does not read goes to FFmpeg with the one
demuxer that the first bytes call for, so that no playlist or other list of files is ever taken for a recording.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import IO

FORMATS = "WAV, FLAC, Ogg, MP3, M4A, AAC or WebM"
_MOV = ("ftyp", "moov", "mdat", "wide", "free", "skip")
_GSM_FRAME, _GSM_FRAMES = 33, 5  # bytes; frames that must agree, for a byte alone says little
_EBML = b"\x1aE\xdf\xa3"  # begins a WebM
_OGG_HEADER = 27 + 255  # bytes of a page at most, before what it holds
_MOST_BOXES, _BLOCK = 2**17, 2**20  # of an MP4, at its top; bytes
MOST_LINKS = 1000  # recordings in one file


def demuxer(file: IO[bytes]) -> str | None:
    """FFmpeg's demuxer for a file, by its first bytes; None for what is no sound file."""
    file.seek(0)
    head = file.read(256)
    if tagged := head[:3] == b"ID3" and len(head) >= 10:  # the tag may stand before MP3, AAC and FLAC
        file.seek(10 + sum(byte << 7 * place for place, byte in enumerate(reversed(head[6:10]))))
        head = file.read(256)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return "wav"
    if head.startswith(_EBML):
        return "matroska"
    if head[4:8].decode("latin-1") in _MOV:
        return "mov"
    for magic, name in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"caff", "caf")):
        if head.startswith(magic):
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] >= 0xE0:
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"
    if len(head) >= _GSM_FRAME * _GSM_FRAMES and all(byte >> 4 == 0xD for byte in head[::_GSM_FRAME]):
        return "gsm"
    return "mp3" if tagged else None


def links(file: IO[bytes], size: int, kind: str | None) -> list[int]:
    """Where the recordings begin that `cat`, or a radio station, joined to one file: offsets in bytes, 0 the first.

    kind: the demuxer. MP3 and AAC are streams, which may be joined; of joined FLAC, libsndfile says that it is damaged.
    At most MOST_LINKS + 1 are sought.
    """
    seek = {"ogg": _ogg_links, "wav": _wav_links, "mov": _mov_links, "matroska": _matroska_links}.get(kind or "")
    return [0, *itertools.islice(seek(file, size), MOST_LINKS)] if seek is not None else [0]


def _wav_links(file: IO[bytes], size: int) -> Iterator[int]:
    at = 0
    while True:
        file.seek(at + 4)
        length = int.from_bytes(file.read(4), "little")
        at += 8 + length + length % 2
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return
        yield at


def _mov_links(file: IO[bytes], size: int) -> Iterator[int]:
    for at, kind, _ in _boxes(file, size):
        if at and kind == b"ftyp":
            yield at


def _boxes(file: IO[bytes], size: int) -> Iterator[tuple[int, bytes, int]]:
    """(begin, kind, end) of what an MP4 has at its top; the last one may be unreadable."""
    at = 0
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        end = at + length if length >= 8 else size
        yield at, head[4:8], end
        if end >= size:
            return
        at = end


def mov_samples(file: IO[bytes], size: int) -> int:
    """How many samples an MP4 says that it has. FFmpeg makes room for all of them before it reads any."""
    found = 0
    for at, kind, end in _boxes(file, size):
        if kind == b"mdat":
            continue
        while at < min(end, size):
            file.seek(at)
            block = file.read(min(_BLOCK + 16, end - at))
            for where in re.finditer(rb"stsz....(....)(....)|stz2....(....)(....)|trun....(....)", block, re.DOTALL):
                if where.start() < _BLOCK:
                    found += int.from_bytes(where[2] or where[4] or where[5], "big")
            at += _BLOCK
    return found


def _matroska_links(file: IO[bytes], size: int) -> Iterator[int]:
    at = 0
    while (at := _find(file, _EBML, at + len(_EBML))) >= 0:
        file.seek(at)
        if re.search(rb"\x42\x82.(webm|matroska)", file.read(80), re.DOTALL):  # the header's DocType
            yield at


def _ogg_links(file: IO[bytes], size: int) -> Iterator[int]:
    """Each begins with the pages that are marked as the first ones of its streams (RFC 3533, 6)."""
    at, page_at, begins, lost = 0, 0, True, 0
    while at < size and lost <= MOST_LINKS:
        file.seek(at)
        header = file.read(_OGG_HEADER)
        if header[:4] != b"OggS" or len(header) < 27:  # the page before is cut short
            at, lost = _find(file, b"OggS", page_at + 4), lost + 1
            if at < 0:
                return
            continue
        first = bool(header[5] & 2)
        if first and not begins:
            yield at
        begins, page_at = first, at
        at += 27 + header[26] + sum(header[27 : 27 + header[26]])


def _find(file: IO[bytes], wanted: bytes, at: int) -> int:
    """Where ``wanted`` stands next, from ``at`` on; -1 for nowhere."""
    size = 4096
    while True:
        file.seek(at)
        block = file.read(size)
        if (found := block.find(wanted)) >= 0:
            return at + found
        if len(block) <= len(wanted):
            return -1
        at, size = at + len(block) - len(wanted) + 1, 2**16
