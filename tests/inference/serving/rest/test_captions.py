"""Captions, and the fields of requests."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fastapi")
from openai.types.audio import speech_create_params, transcription_create_params

from duologue.checkpoints.recognisers.recogniser import TimedWord
from duologue.inference.serving.protocol.errors import RequestError
from duologue.inference.serving.rest import speech, transcriptions
from duologue.inference.serving.rest.captions import srt, vtt
from duologue.inference.serving.rest.dictation import Segment
from duologue.inference.serving.rest.fields import Fields

PLAIN = Segment("a < b & c", 0.5, 3_725.0625, 0.9, [1])


def test_a_segment_is_a_caption() -> None:
    both = [PLAIN, Segment("end", 3_726.0, 3_727.0, 0.9, [2])]
    assert srt(both) == ("1\n00:00:00,500 --> 01:02:05,062\na < b & c\n\n2\n01:02:06,000 --> 01:02:07,000\nend\n")
    assert vtt(both) == (
        "WEBVTT\n\n00:00:00.500 --> 01:02:05.062\na &lt; b &amp; c\n\n01:02:06.000 --> 01:02:07.000\nend\n"
    )
    assert srt([]) == "" and vtt([]) == "WEBVTT\n"


def test_a_long_segment_is_cut_at_its_words() -> None:
    words = [TimedWord(f"word{at:02}", float(at), at + 0.5) for at in range(30)]
    segment = Segment(" ".join(word.text for word in words), 0.0, 30.0, 1.0, [], -0.1, words)
    blocks = srt([segment]).split("\n\n")
    texts = [block.splitlines()[2] for block in blocks]
    assert " ".join(texts) == segment.text and all(40 < len(text) <= 84 for text in texts[:-1])
    first = [int(re.findall(r"word(\d\d)", text)[0]) for text in texts]
    assert [block.splitlines()[1][6:8] for block in blocks] == [f"{at:02}" for at in first]


def test_every_field_of_the_api_is_known() -> None:
    """Served, without effect on the answer, or refused by name: a field that is none of these would be ignored."""
    for fields, params, ours in (
        (speech.FIELDS, speech_create_params.SpeechCreateParams, {"ssml"}),
        (transcriptions.FIELDS, transcription_create_params.TranscriptionCreateParamsStreaming, set()),
    ):
        known = fields.served | fields.neutral | set(fields.refused)
        assert known == set(params.__annotations__) | ours
        assert len(known) == len(fields.served) + len(fields.neutral) + len(fields.refused)


def test_a_field_that_would_be_ignored_is_refused() -> None:
    fields = Fields(served=frozenset({"a"}), neutral=frozenset({"who"}), refused={"b": ("auto",)})
    fields.check([("a", 1), ("who", "me"), ("b", None), ("b", "auto")])
    for name, code in (("b", "unsupported_value"), ("c", "unknown_parameter")):
        with pytest.raises(RequestError, match=name) as refused:
            fields.check([(name, 1)])
        assert (refused.value.code, refused.value.param) == (code, name)
