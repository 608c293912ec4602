"""Segments of a transcript as captions: SubRip (srt) and WebVTT (https://www.w3.org/TR/webvtt1/, section 4).

A segment whose words have times becomes captions of at most two lines of 42 characters; another stays one caption.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .dictation import Segment

_LONGEST = 84  # characters


@dataclass
class _Caption:
    text: str
    start: float
    end: float


def srt(segments: Iterable[Segment]) -> str:
    """SubRip."""
    blocks = (
        f"{number}\n{_time(each.start, ',')} --> {_time(each.end, ',')}\n{each.text}\n"
        for number, each in enumerate(_captions(segments), 1)
    )
    return "\n".join(blocks)


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT."""
    blocks = (
        f"{_time(each.start, '.')} --> {_time(each.end, '.')}\n{html.escape(each.text, quote=False)}\n"
        for each in _captions(segments)
    )
    return "\n".join(["WEBVTT\n", *blocks])


def _captions(segments: Iterable[Segment]) -> Iterator[_Caption]:
    for segment in segments:
        if not segment.words or len(segment.text) <= _LONGEST:
            yield _Caption(segment.text, segment.start, segment.end)
            continue
        caption: _Caption | None = None
        for word in segment.words:
            if caption is not None and len(caption.text) + 1 + len(word.text) <= _LONGEST:
                caption.text, caption.end = f"{caption.text} {word.text}", word.end_s
                continue
            if caption is not None:
                yield caption
            caption = _Caption(word.text, word.start_s, word.end_s)
        if caption is not None:
            yield caption


def _time(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
