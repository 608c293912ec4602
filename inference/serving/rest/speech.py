"""POST /v1/audio/speech: a text, said word by word, as a file or as events, sent while it is made.

A text is said sentence by sentence, each by itself: the first words come as soon as the first sentence is read, and no
text is too long for the model's context. With ``ssml``, a field of ours, it may say how it is said (docs/ssml.md), and
is said in one piece.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response

from ....model.dialogue_state import Sampling
from ....model.errors import DuologueError
from ....model.speech_decoder.spoken_form import read_aloud
from ...assistant.voices import voices_of
from ..app import Service
from ..http.body import read_body
from ..http.limits import check_texts
from ..protocol.errors import RequestError
from ..protocol.settings import served_voice
from ..protocol.usage import frames
from ..requests.answering import Stream, while_there
from ..requests.questioner import Questioner
from . import openapi
from .events import error_line, line
from .fields import Fields, number, unsupported
from .sound_files import FORMATS, MEDIA, SoundStream

PATH = "/v1/audio/speech"
FIELDS = Fields(
    served=frozenset({"model", "input", "voice", "response_format", "speed", "stream_format", "ssml"}),
    refused={"instructions": ("",)},
)
_LONGEST = 240  # characters that are said at once
_SHORTEST = 40  # that are said by themselves, where more follows
_PAUSE_S = 0.2  # between two sentences
# The end of a sentence: a mark with a space behind it, a mark of a script without spaces, or a new line.
_END = re.compile(r"[.!?…;:]+[\"'”’)\]]*\s+|[。！？；]+[”’」』]*|\n+")


def add(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post(PATH, openapi_extra=openapi.SPEECH)
    async def speech(request: Request) -> Response:
        body = await read_body(await request.body(), service.config.limits)
        check_texts(body, service.config.limits)
        FIELDS.check(body.items())
        service.check_model(body.get("model"))
        text, format_ = body.get("input"), body.get("response_format", "mp3")
        if not isinstance(text, str) or not 1 <= len(text) <= 4096:
            raise RequestError("input must be a text of 1 to 4096 characters", "invalid_value", "input")
        if not isinstance(format_, str) or format_ not in FORMATS:
            unsupported(f"response_format {str(format_)[:40]!r}: there are {', '.join(FORMATS)}", "response_format")
        as_events = body.get("stream_format", "audio")
        if as_events not in ("audio", "sse"):
            unsupported(f"stream_format {str(as_events)[:40]!r}: there are audio and sse", "stream_format")
        speed, voice = _speed(service, body), voice_of(service, body)
        ssml = ssml_of(service, body)
        if not (said := [text] if ssml else list(sentences(text))):  # an element may hold several sentences
            raise RequestError(f"the input {text[:80]!r} has no words", "invalid_value", "input")
        asker = await while_there(request, service.queued(request.scope.get("key", -1)), service.metrics)
        try:
            tokens = await while_there(request, asker.ask("sayable", text, ssml), service.metrics)
            await while_there(request, asker.ask("dictate", said[0], speed, voice, ssml), service.metrics)
        except DuologueError as error:
            asker.leave()
            raise error if isinstance(error, RequestError) else RequestError(str(error), param="input") from None
        except BaseException:
            asker.leave()
            raise
        sound = _sound(asker, service.assistant.output_rate, said[1:], speed, voice)
        if as_events == "sse":
            return Stream(_events(sound, service, format_, tokens), asker, "text/event-stream")
        return Stream(_file(sound, service, format_), asker, MEDIA[format_])


def needs_voice(service: Service) -> None:
    """Raises RequestError where the model has none."""
    if not service.assistant.model.speaks:
        unsupported("this model has no voice", "model")


def voice_of(service: Service, said: dict[str, Any], where: str = "voice") -> str:
    """The voice that an object asks for. Raises RequestError where the model has no such voice."""
    try:
        return served_voice(said.get("voice"), tuple(voices_of(service.assistant.model)))
    except RequestError as error:
        unsupported(str(error), where)


def _speed(service: Service, body: dict[str, Any]) -> float:
    speed = number(body, "speed", 1.0, 0.25, 4.0)
    needs_voice(service)
    decoder = service.assistant.model.speech
    slowest, fastest = (1.0, 1.0) if decoder is None else decoder.speeds
    if not slowest <= speed <= fastest:
        range_ = "1 alone" if slowest == fastest else f"{slowest:g} to {fastest:g}"
        unsupported(f"speed is {speed:g}; this model speaks at {range_}", "speed")
    return speed


def ssml_of(service: Service, said: dict[str, Any], where: str = "ssml") -> bool:
    """Whether an object asks for SSML. Raises RequestError where the model renders none."""
    ssml = False if said.get("ssml") is None else said["ssml"]
    if not isinstance(ssml, bool):
        raise RequestError(f"{where} is {str(ssml)[:40]!r}; it must be true or false", "invalid_type", where)
    if ssml and not service.assistant.model.renders_ssml:
        unsupported("this model renders no SSML", where)
    return ssml


def sentences(text: str) -> Iterator[str]:
    """A text as what is said at once: sentences, short ones together, long ones cut at a space; without those of which
    nothing is said."""
    start = 0
    while (rest := text[start:]).strip():
        ends = (found.end() for found in _END.finditer(rest[:_LONGEST]))
        cut = next((end for end in ends if len(rest[:end].strip()) >= _SHORTEST), len(rest))
        if cut > _LONGEST:
            cut = rest.rfind(" ", 1, _LONGEST) + 1 or _LONGEST
        if read_aloud(rest[:cut]).strip(" .,?!"):
            yield rest[:cut].strip()
        start += cut


async def _sound(
    asker: Questioner, rate: int, more: list[str], speed: float, voice: str
) -> AsyncIterator[np.ndarray]:
    """Samples (n,) of the sentence that is dictated already and of those behind it, as they are made."""
    try:
        async for step in asker.steps(Sampling()):
            yield step.pcm
        for sentence in more:
            await asker.ask("dictate", sentence, speed, voice)
            yield np.zeros(round(_PAUSE_S * rate), np.float32)
            async for step in asker.steps(Sampling()):
                yield step.pcm
    finally:
        asker.leave()


async def _file(sound: AsyncIterator[np.ndarray], service: Service, format_: str) -> AsyncIterator[bytes]:
    file = SoundStream(format_, service.assistant.output_rate)
    async for pcm in sound:
        service.metrics.sound(PATH, spoken_s=len(pcm) / service.assistant.output_rate)
        if len(pcm) and (data := file.push(pcm)):
            yield data
    if data := file.push(np.zeros(0, np.float32), last=True):
        yield data


async def _events(sound: AsyncIterator[np.ndarray], service: Service, format_: str, tokens: int) -> AsyncIterator[str]:
    rate, samples = service.assistant.output_rate, 0

    async def counted() -> AsyncIterator[np.ndarray]:
        nonlocal samples
        async for pcm in sound:
            samples += len(pcm)
            yield pcm

    try:
        async for data in _file(counted(), service, format_):
            yield line({"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()})
        spoken = frames(samples, rate)
        usage = {"input_tokens": tokens, "output_tokens": spoken, "total_tokens": tokens + spoken}
        yield line({"type": "speech.audio.done", "usage": usage})
    except DuologueError as error:
        yield error_line(error)
