"""What /openapi.json says of the endpoints whose bodies are checked by hand: what is served of the API's own fields."""

from __future__ import annotations

from typing import Any

from .sound_files import MEDIA


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _body(schema: dict[str, Any], answers: dict[str, Any]) -> dict[str, Any]:
    error = _object(
        {"type": {"type": "string"}, "code": {"type": "string"}, "message": {"type": "string"}, "param": {}}, "message"
    )
    wrong = {"application/json": {"schema": _object({"error": error}, "error")}}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {"description": "as asked", "content": answers},
            "400": {"description": "it cannot be done, and why", "content": wrong},
            "503": {"description": "no room now, or shutting down", "content": wrong},
        },
    }


_FILES = ["mp3", "opus", "aac", "flac", "wav"]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_STRING, _BASE64 = {"type": "string"}, {"type": "string", "contentEncoding": "base64"}
_TEXT = _object({"type": {"const": "text"}, "text": _STRING}, "type", "text")
_SOUND = _object(
    {"type": {"const": "input_audio"}, "input_audio": _object({"data": _BASE64}, "data")}, "type", "input_audio"
)
_PARTS = {"type": "array", "minItems": 1, "items": {"oneOf": [_TEXT, _SOUND]}}
_ROLE = {"enum": ["system", "developer", "user", "assistant", "tool"]}
_FUNCTION = _object({"name": _STRING, "description": _STRING, "parameters": {"type": "object"}}, "name")
_TOOL = _object({"type": {"const": "function"}, "function": _FUNCTION}, "type", "function")
_MESSAGE = _object({"role": _ROLE, "content": {"oneOf": [_STRING, _PARTS]}}, "role", "content")

SPEECH = _body(
    _object({
        "model": _STRING, "input": {"type": "string", "minLength": 1, "maxLength": 4096}, "voice": _STRING,
        "response_format": {"enum": [*_FILES, "pcm"], "default": "mp3"},
        "speed": {"type": "number", "minimum": 0.25, "maximum": 4, "default": 1},
        "ssml": {"type": "boolean", "default": False},
        "stream_format": {"enum": ["audio", "sse"], "default": "audio"},
    }, "input"),
    {**{kind: _BYTES for kind in sorted(MEDIA.values())}, "text/event-stream": {"schema": _STRING}},
)  # fmt: skip
COMPLETIONS = _body(
    _object({
        "model": _STRING, "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
        "modalities": {"type": "array", "minItems": 1, "items": {"enum": ["text", "audio"]}},
        "audio": _object(
            {"voice": _STRING, "format": {"enum": ["pcm16", *_FILES]}, "ssml": {"type": "boolean"}}, "format"
        ),
        "stream": {"type": "boolean"}, "max_completion_tokens": {"type": "integer", "minimum": 1},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 8}, "seed": {"type": "integer"},
        "stop": {"oneOf": [_STRING, {"type": "array", "maxItems": 4, "items": _STRING}]},
        "tools": {"type": "array", "items": _TOOL}, "tool_choice": {}, "parallel_tool_calls": {"type": "boolean"},
        "stream_options": _object({"include_usage": {"type": "boolean"}}),
    }, "messages"),
    {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": _STRING}},
)  # fmt: skip
