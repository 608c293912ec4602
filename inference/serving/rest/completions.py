"""POST /v1/chat/completions: messages, sound among them -> text, and speech; its answers are the ``openai`` package's.

A request waits for a session slot (admission.py) and has it for as long as it lasts (questioner.py), or until its
client hangs up (answering.py).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ....model.errors import DuologueError
from ....model.speech_lm import Sampling
from ...assistant.one_shot import RequestStep
from ..app import Service
from ..http.body import decoded, read_body
from ..http.limits import check_texts
from ..protocol.errors import RequestError
from ..protocol.formats import AudioFormat, Resampler, encode
from ..protocol.items import new_id
from ..realtime.answering import Stream, while_there
from ..realtime.questioner import Questioner
from . import openapi
from .events import error_line, line
from .fields import unsupported
from .sound_files import FORMATS, sound_file
from .speech import needs_voice


def add(app: FastAPI, service: Service) -> None:
    """The endpoint."""
    limits = service.config.limits

    @app.post("/v1/chat/completions", openapi_extra=openapi.COMPLETIONS)
    async def completions(request: Request) -> Response:
        body = await read_body(await request.body(), limits)
        check_texts(body, limits, "data")
        service.check_model(body.get("model"))
        _check_completion(body)
        spoken = "audio" in (body.get("modalities") or ["text"])
        if spoken:
            needs_voice(service)
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
            sound = await asyncio.to_thread(sound_file, pcm, rate, "pcm" if format_ == "pcm16" else format_)
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


def _check_completion(body: dict[str, Any]) -> None:
    for name in ("tools", "functions", "response_format", "logprobs", "web_search_options"):
        if body.get(name) and body[name] != {"type": "text"}:
            unsupported(f"this model has no use for {name}", name)
    if body.get("n", 1) not in (1, None):
        unsupported("n must be 1", "n")
    modalities = body.get("modalities") or ["text"]
    if not isinstance(modalities, list) or not modalities or not set(map(str, modalities)) <= {"text", "audio"}:
        raise RequestError("modalities are ['text'] or ['text', 'audio']", "invalid_value", "modalities")
    if "audio" in modalities:
        audio = body.get("audio")
        known = ("pcm16", *FORMATS)
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
                unsupported("only the last message may hold audio: give earlier ones as text", f"{where}.content")
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
            unsupported("earlier answers are not kept: give their text", f"{where}.audio")
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
            unsupported(f"content of type {str(kind)[:40]!r} is not served here", f"{where}.content")
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
        return line(ChatCompletionChunk.model_validate({**head, "choices": [choice]}))

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
        yield error_line(error)
    finally:
        with contextlib.suppress(RuntimeError):
            asker.leave()


def _finish(last: RequestStep) -> str:
    """Why a completion ended."""
    return "length" if last.full else "stop"


