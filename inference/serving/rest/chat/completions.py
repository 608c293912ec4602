"""POST /v1/chat/completions: messages, sound among them -> text, and speech; its answers are the ``openai`` package's.

A request waits for a session slot (admission.py) and has it for as long as it lasts (questioner.py), or until its
client hangs up (answering.py). Several answers to one request are made one after the other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .....model.dialogue_model import DialogueModel
from .....model.dialogue_state import Sampling
from .....model.errors import DuologueError
from .....model.language_model.tool_calls import CallPiece
from ...app import Service
from ...http.body import decoded, read_body
from ...http.limits import check_texts
from ...protocol.items import new_id
from ...protocol.usage import frames
from ...requests.answering import Stream, while_there
from ...requests.questioner import Questioner
from .. import openapi
from ..dictation import Dictation
from ..events import error_line, line
from ..fields import unsupported
from ..sound_files import SoundStream, sound_file
from ..speech import needs_voice, ssml_of, voice_of
from .choices import Choice
from .kept_replies import KeptReplies
from .messages import Said, Talk, read_messages
from .params import Params
from .tools import as_messages

PATH = "/v1/chat/completions"


@dataclass
class _Read:
    """What was read and heard. samples: of all recordings."""

    text_tokens: int = 0
    samples: int = 0


@dataclass
class _Answers:
    """The answers to one request, under way.

    told: more fields of what is sent. read: of the question. choices: those that were made, and the one under way.
    """

    asker: Questioner
    service: Service
    params: Params
    key: int
    kept: KeptReplies
    told: dict[str, Any]
    read: _Read
    choices: list[Choice] = field(default_factory=list)

    async def made(self) -> AsyncIterator[Choice]:
        """Each, before it is made."""
        for number in range(self.params.n):
            if number:
                await self.asker.ask("again")
            await self.asker.ask("seed", self.params.seed + number)
            params, calls = self.params, self.service.assistant.model.calls if self.params.tools else None
            choice = Choice(self.asker, params.sampling, params.stops, params.spoken, calls, params.one_call)
            self.choices.append(choice)
            yield self.choices[-1]

    def leave(self) -> None:
        """All is said, or nobody wants more."""
        self.asker.leave()
        model, samples = self.service.assistant.model, sum(choice.samples for choice in self.choices)
        self.service.metrics.sound(PATH, self.read.samples / model.input_rate, samples / model.output_rate)

    def usage(self) -> dict[str, Any]:
        """Tokens of text are the model's own; one of sound is 80 ms."""
        model, read = self.service.assistant.model, self.read
        heard = frames(read.samples, model.input_rate)
        written = sum(choice.tokens for choice in self.choices)
        spoken = sum(frames(choice.samples, model.output_rate) for choice in self.choices)
        return {
            "prompt_tokens": read.text_tokens + heard,
            "completion_tokens": written + spoken,
            "total_tokens": read.text_tokens + heard + written + spoken,
            "prompt_tokens_details": {"audio_tokens": heard, "cached_tokens": 0},
            "completion_tokens_details": {"audio_tokens": spoken, "reasoning_tokens": 0},
        }

    def head(self, kind: str) -> dict[str, Any]:
        """What all that is sent has in common."""
        return {
            "id": new_id("chatcmpl"), "object": kind, "created": int(time.time()), "model": self.service.config.model,
            **self.told,
        }  # fmt: skip


def add(app: FastAPI, service: Service) -> None:
    """The endpoint."""
    limits, kept = service.config.limits, KeptReplies()

    @app.post(PATH, openapi_extra=openapi.COMPLETIONS)
    async def completions(request: Request) -> Response:
        def there(work: Coroutine[Any, Any, Any]) -> Any:
            return while_there(request, work, service.metrics)

        body = await read_body(await request.body(), limits)
        check_texts(body, limits, "data")
        service.check_model(body.get("model"))
        params, key = Params.checked(body), request.scope.get("key", -1)
        if params.spoken:
            needs_voice(service)
        voice = voice_of(service, body["audio"], "audio.voice") if params.spoken else None
        ssml = params.spoken and ssml_of(service, body["audio"], "audio.ssml")
        if ssml and params.stops:
            unsupported("a spoken reply in SSML has no stop: leave one of them out", "audio.ssml")
        talk = read_messages(body.get("messages"), limits.messages, partial(kept.recall, key))
        assistant = service.assistant
        for sound in () if assistant.model.transcribes or talk.calls else talk.sounds_before():
            unsupported("this model writes nothing down: give earlier audio as text", sound.where)
        if (params.tools and params.sampling.may_call) or talk.calls:
            for why in assistant.not_followed("", params.tools or ({},)):
                unsupported(why, "tools")
        warnings = (*assistant.not_followed(talk.instructions, ()), *params.warnings)
        told = {"warnings": list(warnings)} if warnings else {}  # a field beside those that the API's objects have
        asker = await there(service.queued(key))
        answers = _Answers(asker, service, params, key, kept, told, _Read())
        try:
            answers.read = await there(_read(asker, talk, assistant.model, params, voice, ssml))
        except BaseException:
            asker.leave()
            raise
        if params.stream:
            return Stream(_chunks(answers), asker, "text/event-stream")
        try:
            choices = await there(_choices(answers))
        finally:
            answers.leave()
        usage = answers.usage()
        completion = {**answers.head("chat.completion"), "choices": choices, "usage": usage}
        return JSONResponse(ChatCompletion.model_validate(completion).model_dump(exclude_unset=True))


async def _read(
    asker: Questioner, talk: Talk, model: DialogueModel, params: Params, voice: str | None, ssml: bool
) -> _Read:
    """Read and hear the talk."""
    read, rate = _Read(), model.input_rate
    if talk.instructions or params.tools or ssml:
        await asker.ask("instruct", talk.instructions, params.tools, ssml)
    if voice is not None:
        await asker.ask("speak_in", voice)
    if talk.calls and not model.transcribes:
        await _hear_again(asker, talk, read)
        return await _counted(asker, read, params)
    if talk.calls:
        turns = [entry for entry in talk.entries if isinstance(entry, Said)]
        words = [await _in_words(asker, said, rate, read) for said in turns]
        await asker.ask("messages", as_messages(talk, words))
        return await _counted(asker, read, params)
    for asked, answer in talk.past:
        await asker.ask("recall", await _in_words(asker, asked, rate, read), answer)
    if sounds := talk.question.sounds:
        read.samples += await asker.hear([await decoded(sound.data) for sound in sounds], talk.question.text)
    else:
        await asker.ask("read", talk.question.text)
    return await _counted(asker, read, params)


async def _hear_again(asker: Questioner, talk: Talk, read: _Read) -> None:
    """A talk in which functions were called, for a model that writes nothing down: recordings are heard where they
    stand."""
    messages = as_messages(talk, [entry.text for entry in talk.entries if isinstance(entry, Said)])
    unread = list[dict[str, Any]]()
    for entry, message in zip(talk.entries, messages, strict=True):
        if isinstance(entry, Said) and entry.sounds:
            if unread:
                await asker.ask("messages", unread)
            read.samples += await asker.hear([await decoded(sound.data) for sound in entry.sounds], entry.text)
            unread = []
        else:
            unread.append(message)
    if unread:
        await asker.ask("messages", unread)


async def _counted(asker: Questioner, read: _Read, params: Params) -> _Read:
    """Once all is read."""
    read.text_tokens = await asker.ask("read_so_far")
    if params.again:
        await asker.ask("keep")
    return read


async def _in_words(asker: Questioner, said: Said, rate: int, read: _Read) -> str:
    """An earlier turn, its recordings written down."""
    words = list[str]()
    for part in said.parts:
        if not isinstance(part, str):
            dictation = Dictation(asker, await decoded(part.data), Sampling(), rate)
            await dictation.finish()
            read.samples += round(dictation.seconds * rate)
            part = dictation.text
        words.append(part)
    return " ".join(filter(None, words))


async def _choices(answers: _Answers) -> list[dict[str, Any]]:
    """All answers, whole."""
    found, rate = list[dict[str, Any]](), answers.service.assistant.output_rate
    async for choice in answers.made():
        pcm = np.concatenate([np.zeros(0, np.float32), *[piece.pcm async for piece in choice.pieces()]])
        text = choice.text.strip()
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if choice.calls else "")}
        if choice.calls:
            message["tool_calls"] = [
                {"id": new_id("call"), "type": "function",
                 "function": {"name": call.name, "arguments": call.arguments}}
                for call in choice.calls
            ]  # fmt: skip
        if answers.params.spoken and (text or not choice.calls):
            sound = await asyncio.to_thread(sound_file, pcm, rate, answers.params.format)
            id_ = new_id("audio")
            message |= {
                "content": None,
                "audio": {
                    "id": id_, "data": base64.b64encode(sound).decode(), "transcript": text,
                    "expires_at": answers.kept.keep(answers.key, id_, text),
                },
            }  # fmt: skip
        found.append({"index": len(found), "message": message, "finish_reason": _finish(choice), "logprobs": None})
    return found


async def _chunks(answers: _Answers) -> AsyncIterator[str]:
    """The answers as they are made, one server-sent event a step."""
    params, head = answers.params, answers.head("chat.completion.chunk")
    usage = {"usage": None} if params.usage else {}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        return line(ChatCompletionChunk.model_validate({**head, "choices": [choice], **usage}))

    try:
        index = 0
        async for choice in answers.made():
            yield chunk(index, {"role": "assistant"} if params.spoken else {"role": "assistant", "content": ""})
            async for delta in _spoken(answers, choice) if params.spoken else _written(choice):
                yield chunk(index, delta)
            yield chunk(index, {}, _finish(choice))
            index += 1
        if params.usage:
            last = {**head, "choices": [], "usage": answers.usage()}
            yield line(ChatCompletionChunk.model_validate(last))
        yield "data: [DONE]\n\n"
    except DuologueError as error:
        yield error_line(error)
    finally:
        with contextlib.suppress(RuntimeError):
            answers.leave()


async def _written(choice: Choice) -> AsyncIterator[dict[str, Any]]:
    async for piece in choice.pieces():
        if piece.text:
            yield {"content": piece.text}
        for call in piece.calls:
            yield _called(call)


def _called(piece: CallPiece) -> dict[str, Any]:
    """A delta of a call."""
    call: dict[str, Any] = {"index": piece.number, "function": {"arguments": piece.arguments}}
    if piece.name:
        call |= {"id": new_id("call"), "type": "function"}
        call["function"]["name"] = piece.name
    return {"tool_calls": [call]}


async def _spoken(answers: _Answers, choice: Choice) -> AsyncIterator[dict[str, Any]]:
    """Deltas of text and of sound, and until when it is kept."""
    id_, file = new_id("audio"), SoundStream("pcm", answers.service.assistant.output_rate)

    def sound(pcm: np.ndarray, last: bool = False) -> Iterator[dict[str, Any]]:
        if data := file.push(pcm, last):
            yield {"audio": {"id": id_, "data": base64.b64encode(data).decode()}}

    async for piece in choice.pieces():
        if piece.text:
            yield {"audio": {"id": id_, "transcript": piece.text}}
        for delta in sound(piece.pcm):
            yield delta
        for call in piece.calls:
            yield _called(call)
    if choice.calls and not choice.text.strip():
        return
    for delta in sound(np.zeros(0, np.float32), last=True):
        yield delta
    yield {"audio": {"id": id_, "expires_at": answers.kept.keep(answers.key, id_, choice.text.strip())}}


def _finish(choice: Choice) -> str:
    """Why an answer ended."""
    return "length" if choice.full else "tool_calls" if choice.calls else "stop"
