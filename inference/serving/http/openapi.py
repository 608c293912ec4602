"""What /openapi.json says of the endpoints whose bodies are checked by hand: what is served of the API's own fields."""

from __future__ import annotations

from typing import Any


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


_FILES = ["wav", "flac", "mp3", "opus"]
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_TEXT = _object({"type": {"const": "text"}, "text": {"type": "string"}}, "type", "text")
_SOUND = _object(
    {
        "type": {"const": "input_audio"},
        "input_audio": _object({"data": {"type": "string", "contentEncoding": "base64"}}, "data"),
    },
    "type",
    "input_audio",
)
_MESSAGE = _object(
    {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {
            "oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"oneOf": [_TEXT, _SOUND]}}]
        },
    },
    "role",
    "content",
)

SPEECH = _body(
    _object(
        {
            "model": {"type": "string"},
            "input": {"type": "string", "minLength": 1, "maxLength": 4096},
            "voice": {"type": "string"},
            "response_format": {"enum": [*_FILES, "pcm"], "default": "mp3"},
            "speed": {"const": 1},
            "stream_format": {"const": "audio"},
        },
        "input",
    ),
    {kind: _BYTES for kind in ("audio/mpeg", "audio/wav", "audio/flac", "audio/ogg", "audio/pcm")},
)
COMPLETIONS = _body(
    _object(
        {
            "model": {"type": "string"},
            "messages": {"type": "array", "minItems": 1, "items": _MESSAGE},
            "modalities": {"type": "array", "minItems": 1, "items": {"enum": ["text", "audio"]}},
            "audio": _object({"voice": {"type": "string"}, "format": {"enum": ["pcm16", *_FILES]}}, "format"),
            "stream": {"type": "boolean"},
            "max_completion_tokens": {"type": "integer", "minimum": 1},
            "temperature": {"type": "number", "minimum": 0},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "n": {"const": 1},
        },
        "messages",
    ),
    {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}},
)
