"""The API's three HTTP endpoints, as far as the loaded model can serve them; its answers are the ``openai`` package's.

A request waits for a session slot (admission.py) and has it for as long as it lasts (questioner.py), or until its
client hangs up (answering.py).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from openai.types.audio import Transcription, TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.formparsers import MultiPartParser

from ....data_prep.audio import resampled
from ....model.errors import DuologueError
from ....model.speech_lm import Sampling
from ...assistant.one_shot import RequestStep
from ..app import Service
from ..protocol.errors import RequestError
from ..protocol.formats import AudioFormat, Resampler, encode
from ..protocol.items import new_id
from ..realtime.answering import Stream, while_there
from ..realtime.questioner import Questioner
from . import openapi
from .body import decoded, read_body
from .limits import check_texts

_FILES = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "mp3": ("MP3", None), "opus": ("OGG", "OPUS")}
_MEDIA = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "opus": "audio/ogg", "pcm": "audio/pcm"}


def add_routes(app: FastAPI, service: Service) -> None:
    """The endpoints."""
    MultiPartParser.spool_max_size = service.config.access.request_bytes  # no recording goes to disk

    limits = service.config.limits

    @app.post("/v1/audio/transcriptions")
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()] = "",
        response_format: Annotated[str, Form()] = "json",
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        if response_format not in ("json", "text"):
            _unsupported(f"response_format {response_format[:40]!r}: this model gives json or text", "response_format")
        if not service.assistant.model.transcribes:
            _unsupported("this model does not write down what it hears", "model")
        recording = await file.read()
        asker = await while_there(request, _queued(service, request), service.metrics)
        words = asker.dictation(recording)
        if stream:
            return Stream(_transcript_events(asker, words), asker, "text/event-stream")
        try:
            text = await while_there(request, _joined(words), service.metrics)
        finally:
            asker.leave()
        if response_format == "text":
            return Response(text + "\n", media_type="text/plain; charset=utf-8")
        return JSONResponse(Transcription(text=text).model_dump(exclude_unset=True))

    @app.post("/v1/audio/speech", openapi_extra=openapi.SPEECH)
    async def speech(request: Request) -> Response:
        body = await read_body(await request.body(), limits)
        check_texts(body, limits)
        text, format_ = body.get("input"), body.get("response_format", "mp3")
        if not isinstance(text, str) or not 1 <= len(text) <= 4096:
            raise RequestError("input must be a text of 1 to 4096 characters", "invalid_value", "input")
        if not isinstance(format_, str) or format_ not in _MEDIA:
            _unsupported(f"response_format {str(format_)[:40]!r}: there are {', '.join(_MEDIA)}", "response_format")
        if body.get("speed", 1) != 1:
            _unsupported("this model speaks at one speed: 1", "speed")
        if body.get("stream_format", "audio") != "audio":
            _unsupported("stream_format must be audio", "stream_format")
        _needs_voice(service)
        asker = await while_there(request, _queued(service, request), service.metrics)
        try:
            await while_there(request, asker.ask("dictate", text), service.metrics)
            if format_ == "pcm":
                return Stream(_speech(asker, service), asker, _MEDIA[format_])
            pcm = [step.pcm for step in await while_there(request, _steps(asker, Sampling()), service.metrics)]
        except DuologueError as error:
            asker.leave()
            raise error if isinstance(error, RequestError) else RequestError(str(error), param="input") from None
        except BaseException:
            asker.leave()
            raise
        asker.leave()
        sound = await asyncio.to_thread(_file, np.concatenate(pcm), service.assistant.output_rate, format_)
        return Response(sound, media_type=_MEDIA[format_])

    @app.post("/v1/chat/completions", openapi_extra=openapi.COMPLETIONS)
    async def completions(request: Request) -> Response:
        body = await read_body(await request.body(), limits)
        check_texts(body, limits, "data")
        _check_completion(body)
        spoken = "audio" in (body.get("modalities") or ["text"])
        if spoken:
            _needs_voice(service)
        instructions, past, question, about = _messages(body.get("messages"), limits.messages)
        warnings = service.assistant.not_followed(instructions, ())
        told = {"warnings": list(warnings)} if warnings else {}  # a field beside those that the API's objects have
        recording = None if isinstance(question, str) else await decoded(question.data)
        sampling = _sampling(body)

        async def read(asker: Questioner) -> None:
            if instructions:
                await asker.ask("instruct", instructions)
            for asked, answer in past:
                await asker.ask("recall", asked, answer)
            if recording is not None:
                await asker.hear(recording, about)
            else:
                await asker.ask("read", question)

        asker = await while_there(request, _queued(service, request), service.metrics)
        try:
            await while_there(request, read(asker), service.metrics)
        except BaseException:
            asker.leave()
            raise
        if body.get("stream"):
            return Stream(_chunks(asker, service, sampling, spoken, told), asker, "text/event-stream")
        try:
            steps = await while_there(request, _steps(asker, sampling), service.metrics)
        finally:
            asker.leave()
        message: dict[str, Any] = {"role": "assistant", "content": "".join(step.text for step in steps).strip()}
        if spoken:
            pcm, rate = np.concatenate([step.pcm for step in steps]), service.assistant.output_rate
            format_ = body["audio"]["format"]
            sound = await asyncio.to_thread(_file, pcm, rate, "pcm" if format_ == "pcm16" else format_)
            message["audio"] = {
                "id": new_id("audio"),
                "data": base64.b64encode(sound).decode(),
                "expires_at": int(time.time()),  # it is not kept
                "transcript": message["content"],
            }
            message["content"] = None
        completion = ChatCompletion.model_validate(
            {
                "id": new_id("chatcmpl"),
                "object": "chat.completion",
                "created": int(time.time()),
                "model": service.config.model,
                "choices": [{"index": 0, "message": message, "finish_reason": _finish(steps[-1]), "logprobs": None}],
                **told,
            }
        )
        return JSONResponse(completion.model_dump(exclude_unset=True))


async def _queued(service: Service, request: Request) -> Questioner:
    """A session slot, as soon as there is one."""
    return await service.queued(request.scope.get("key", -1))


async def _steps(asker: Questioner, sampling: Sampling) -> list[RequestStep]:
    return [step async for step in asker.steps(sampling)]


async def _joined(words: AsyncIterator[str]) -> str:
    return "".join([word async for word in words])


def _unsupported(message: str, param: str) -> None:
    raise RequestError(message, "unsupported_value", param)


def _needs_voice(service: Service) -> None:
    if not service.assistant.model.speaks:
        _unsupported("this model has no voice", "model")


async def _transcript_events(asker: Questioner, words: AsyncIterator[str]) -> AsyncIterator[str]:
    text = ""
    try:
        async for word in words:
            text += word
            yield _line(TranscriptionTextDeltaEvent(type="transcript.text.delta", delta=word))
        yield _line(TranscriptionTextDoneEvent(type="transcript.text.done", text=text))
    except DuologueError as error:
        yield _error_line(error)
    finally:
        asker.leave()


async def _speech(asker: Questioner, service: Service) -> AsyncIterator[bytes]:
    """16-bit samples at 24 kHz as they are made."""
    resampler = Resampler(service.assistant.output_rate, AudioFormat.PCM.rate)
    try:
        async for step in asker.steps(Sampling()):
            if len(step.pcm) or step.ended:
                yield encode(resampler.push(step.pcm, last=step.ended), AudioFormat.PCM)
    finally:
        asker.leave()


def _file(pcm: np.ndarray, rate: int, format_: str) -> bytes:
    """A whole recording as a file; pcm: 16-bit samples at 24 kHz."""
    import soundfile

    if format_ == "pcm":
        return encode(resampled(pcm, rate, AudioFormat.PCM.rate), AudioFormat.PCM)
    kind, subtype = _FILES[format_]
    file = io.BytesIO()
    soundfile.write(file, np.clip(pcm, -1, 1), rate, format=kind, subtype=subtype)
    return file.getvalue()


def _check_completion(body: dict[str, Any]) -> None:
    for name in ("tools", "functions", "response_format", "logprobs", "web_search_options"):
        if body.get(name) and body[name] != {"type": "text"}:
            _unsupported(f"this model has no use for {name}", name)
    if body.get("n", 1) not in (1, None):
        _unsupported("n must be 1", "n")
    modalities = body.get("modalities") or ["text"]
    if not isinstance(modalities, list) or not modalities or not set(map(str, modalities)) <= {"text", "audio"}:
        raise RequestError("modalities are ['text'] or ['text', 'audio']", "invalid_value", "modalities")
    if "audio" in modalities:
        audio = body.get("audio")
        known = ("pcm16", *_FILES)
        if not isinstance(audio, dict) or audio.get("format") not in known:
            raise RequestError(f"audio.format must be one of {', '.join(known)}", "invalid_value", "audio.format")
        if body.get("stream") and audio["format"] != "pcm16":
            raise RequestError("streamed audio is pcm16", "unsupported_value", "audio.format")


def _sampling(body: dict[str, Any]) -> Sampling:
    def number(name: str, usual: float) -> float:
        value = body.get(name)
        if value is None:
            return usual
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RequestError(f"{name} must be a number", "invalid_type", name)
        return value

    most, temperature = number("max_completion_tokens", number("max_tokens", 256)), number("temperature", 0.0)
    top_p = number("top_p", 1.0)
    try:
        return Sampling(temperature=temperature, top_p=top_p, max_tokens=int(min(most, 256)))
    except (DuologueError, ValueError, OverflowError) as error:
        raise RequestError(str(error)) from None


def _messages(messages: Any, most: int) -> tuple[str, list[tuple[str, str]], str | _Sound, str]:
    """The system prompt, what was said before, the question (a text or a recording), and what is asked in writing about
    a recording.

    Raises:
        RequestError: another shape, or no question at the end.
    """
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list of at least one message", "invalid_value", "messages")
    if len(messages) > most:
        raise RequestError(f"there are {len(messages)} messages; at most {most} are read", "invalid_value", "messages")
    past: list[tuple[str, str]] = []
    system: list[str] = []
    asked: list[str] = []
    for i, message in enumerate(messages):
        where = f"messages.{i}"
        role = message.get("role") if isinstance(message, dict) else None
        if role in ("system", "developer"):
            system.append(_content(message, where)[0])
            continue
        if role not in ("user", "assistant"):
            raise RequestError(f"{where}.role must be user, assistant or system", "invalid_value", f"{where}.role")
        last = i == len(messages) - 1
        text, sound = _content(message, where)
        if role == "assistant":
            past.append((" ".join(asked), text))
            asked = []
        elif sound is not None:
            if not last:
                _unsupported("only the last message may hold audio: give earlier ones as text", f"{where}.content")
            return "\n\n".join(system), past, sound, " ".join([*asked, text])
        else:
            asked.append(text)
    if not asked:
        raise RequestError("the last message must be the user's", "invalid_value", "messages")
    return "\n\n".join(system), past, " ".join(asked), ""


@dataclass(frozen=True)
class _Sound:
    """A recording, in base64."""

    data: str | memoryview


def _content(message: dict[str, Any], where: str) -> tuple[str, _Sound | None]:
    """A message's texts, joined, and its recording."""
    content = message.get("content")
    if content is None and message.get("role") == "assistant":
        audio = message.get("audio")
        if isinstance(audio, dict):
            _unsupported("earlier answers are not kept: give their text", f"{where}.audio")
        return "", None
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise RequestError(f"{where}.content must be a text or a list of parts", "invalid_value", f"{where}.content")
    texts: list[str] = []
    sound: _Sound | None = None
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "input_audio" and message["role"] == "user" and sound is None:
            audio = part.get("input_audio")
            if not isinstance(audio, dict) or not isinstance(audio.get("data"), (str, memoryview)):
                raise RequestError(f"{where}: input_audio needs data", "invalid_value", f"{where}.content")
            sound = _Sound(audio["data"])
        else:
            _unsupported(f"content of type {str(kind)[:40]!r} is not served here", f"{where}.content")
    return " ".join(texts), sound


async def _chunks(
    asker: Questioner, service: Service, sampling: Sampling, spoken: bool, told: dict[str, Any]
) -> AsyncIterator[str]:
    """A completion as it is made, one server-sent event a step; ``told``: more fields of each."""
    id_, created, sound = new_id("chatcmpl"), int(time.time()), new_id("audio")
    resampler = Resampler(service.assistant.output_rate, AudioFormat.PCM.rate)

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": id_, "object": "chat.completion.chunk", "created": created, "model": service.config.model, **told}
        return _line(ChatCompletionChunk.model_validate({**head, "choices": [choice]}))

    try:
        yield chunk({"role": "assistant"} if spoken else {"role": "assistant", "content": ""})
        async for step in asker.steps(sampling):
            if step.text:
                yield chunk({"audio": {"id": sound, "transcript": step.text}} if spoken else {"content": step.text})
            pcm = resampler.push(step.pcm, last=step.ended) if spoken else np.zeros(0)
            if len(pcm):
                data = base64.b64encode(encode(pcm, AudioFormat.PCM)).decode()
                yield chunk({"audio": {"id": sound, "data": data}})
        yield chunk({}, _finish(step))
        yield "data: [DONE]\n\n"
    except DuologueError as error:
        yield _error_line(error)
    finally:
        with contextlib.suppress(RuntimeError):
            asker.leave()


def _finish(last: RequestStep) -> str:
    """Why a completion ended."""
    return "length" if last.full else "stop"


def _line(event: Any) -> str:
    return f"data: {event.model_dump_json(exclude_unset=True)}\n\n"


def _error_line(error: DuologueError) -> str:
    known = error if isinstance(error, RequestError) else RequestError(str(error))
    return f"data: {json.dumps({'error': known.body()})}\n\n"
