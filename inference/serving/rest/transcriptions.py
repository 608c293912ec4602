"""POST /v1/audio/transcriptions: a recording -> its words, plain, with times, as captions, or as they are heard."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, Response
from openai.types.audio import (
    Transcription,
    TranscriptionSegment,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
    TranscriptionWord,
)

from ....model.dialogue_state import Sampling
from ....model.errors import DuologueError
from ...assistant.transcribe import generates
from ...assistant.word_lists import expected
from ..app import Service
from ..protocol.errors import RequestError
from ..requests.answering import Stream, while_there
from ..requests.questioner import Questioner
from .captions import srt, vtt
from .dictation import Dictation, Segment
from .events import error_line, line
from .fields import Fields, unsupported
from .languages import check_language, name_of

PATH = "/v1/audio/transcriptions"
FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
GRANULARITIES = ("segment", "word")
FIELDS = Fields(
    served=frozenset({
        "file", "model", "response_format", "stream", "language", "prompt", "temperature", "timestamp_granularities",
        "keywords",
    }),
    refused={
        "include": (), "known_speaker_names": (), "known_speaker_references": (), "languages": (),
        "chunking_strategy": ("auto",),  # speech is cut at its pauses anyway
    },
)  # fmt: skip


def add(app: FastAPI, service: Service) -> None:
    """The endpoint."""

    @app.post(PATH)
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File()],
        model: Annotated[str, Form()] = "",
        response_format: Annotated[str, Form()] = "json",
        stream: Annotated[bool, Form()] = False,
        language: Annotated[str, Form()] = "",
        prompt: Annotated[str, Form()] = "",
        temperature: Annotated[float, Form()] = 0.0,
    ) -> Response:
        form = [(name.removesuffix("[]"), value) for name, value in (await request.form()).multi_items()]
        FIELDS.check(form)
        service.check_model(model)
        wanted = [value for name, value in form if name == "timestamp_granularities"]
        _check(service, response_format, stream, temperature, wanted)
        phrases = _phrases(service, prompt, [str(value) for name, value in form if name == "keywords"])
        check_language(language, service.config.language)
        recording = await file.read()
        asker = await while_there(request, service.queued(request.scope.get("key", -1)), service.metrics)
        sampling = Sampling(temperature=temperature)
        dictation = Dictation(asker, recording, sampling, service.assistant.input_rate, phrases)
        if stream:
            return Stream(_events(asker, dictation, service), asker, "text/event-stream")
        try:
            await while_there(request, dictation.finish(), service.metrics)
        finally:
            asker.leave()
            service.metrics.sound(PATH, heard_s=dictation.seconds)
        return _answer(dictation, response_format, wanted, name_of(language or service.config.language), temperature)


def _phrases(service: Service, prompt: str, keywords: list[str]) -> list[str]:
    """What is likely to be said. Raises RequestError where the model cannot be told, or cannot spell it."""
    for name, given in (("prompt", prompt.strip()), ("keywords", keywords)):
        if given and not service.assistant.model.takes_decoder:
            unsupported(f"{name}: this model's transcripts cannot be prompted; leave it out", name)
    try:
        return expected(prompt, keywords, service.assistant.model.spells)
    except DuologueError as error:
        raise RequestError(str(error), "invalid_value", "keywords") from None


def _check(service: Service, response_format: str, stream: bool, temperature: float, wanted: list[Any]) -> None:
    """Raises RequestError, which names the field, where something cannot be met."""
    model = service.assistant.model
    if not model.transcribes:
        unsupported("this model does not write down what it hears", "model")
    if response_format not in FORMATS:
        unsupported(f"response_format {response_format[:40]!r}: there are {', '.join(FORMATS)}", "response_format")
    if stream and response_format not in ("json", "text"):
        unsupported(f"a stream is json or text, not {response_format}", "response_format")
    if not 0 <= temperature <= 1:
        raise RequestError(f"temperature is {temperature}; it must be 0 to 1", "invalid_value", "temperature")
    if temperature and not generates(model):
        unsupported("temperature: this model's transcripts are not sampled; it must be 0", "temperature")
    for each in wanted:
        if each not in GRANULARITIES:
            unsupported(f"{str(each)[:40]!r}: there are {' and '.join(GRANULARITIES)}", "timestamp_granularities")
    if wanted and response_format != "verbose_json":
        unsupported("timestamp_granularities go with response_format verbose_json", "timestamp_granularities")
    if "word" in wanted and not model.times_words:
        unsupported("this model does not know when each word was said: ask for segment", "timestamp_granularities")


def _answer(
    dictation: Dictation, response_format: str, wanted: list[Any], language: str, temperature: float
) -> Response:
    text, plain = dictation.text.strip(), "text/plain; charset=utf-8"
    if response_format == "text":
        return Response(text + "\n", media_type=plain)
    if response_format == "srt":
        return Response(srt(dictation.segments), media_type=plain)
    if response_format == "vtt":
        return Response(vtt(dictation.segments), media_type="text/vtt; charset=utf-8")
    usage = {"type": "duration", "seconds": round(dictation.seconds, 2)}
    if response_format == "json":
        said = Transcription.model_validate({"text": text, "usage": usage})
        return JSONResponse(said.model_dump(exclude_unset=True))
    fields: dict[str, Any] = {
        "duration": round(dictation.seconds, 3), "language": language, "text": text, "usage": usage,
    }  # fmt: skip
    answer = TranscriptionVerbose.model_validate(fields).model_dump(exclude_unset=True)
    if "segment" in wanted or not wanted:
        answer["segments"] = [_segment(at, each, temperature) for at, each in enumerate(dictation.segments)]
    if "word" in wanted:
        answer["words"] = [
            TranscriptionWord(word=word.text, start=word.start_s, end=word.end_s).model_dump()
            for segment in dictation.segments
            for word in segment.words
        ]
    return JSONResponse({"task": "transcribe", **answer})


def _segment(at: int, segment: Segment, temperature: float) -> dict[str, Any]:
    """Without ``avg_logprob`` where the model does not know how sure it is."""
    text = segment.text.encode()
    fields = TranscriptionSegment(
        id=at, start=segment.start, end=segment.end, text=segment.text, tokens=segment.tokens,
        seek=round(100 * segment.start), temperature=temperature,
        avg_logprob=segment.confidence or 0.0, no_speech_prob=round(1 - segment.speech, 4),
        compression_ratio=round(len(text) / len(zlib.compress(text)), 4),
    ).model_dump()  # fmt: skip
    if segment.confidence is None:
        del fields["avg_logprob"]
    return fields


async def _events(asker: Questioner, dictation: Dictation, service: Service) -> AsyncIterator[str]:
    try:
        async for delta in dictation.deltas():
            yield line(TranscriptionTextDeltaEvent(type="transcript.text.delta", delta=delta))
        yield line(TranscriptionTextDoneEvent(type="transcript.text.done", text=dictation.text))
    except DuologueError as error:
        yield error_line(error)
    finally:
        asker.leave()
        service.metrics.sound(PATH, heard_s=dictation.seconds)
