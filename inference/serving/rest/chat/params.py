"""The fields of a chat completion but its messages: what is wanted of the answer."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Self

from .....model.dialogue_state import Sampling
from .....model.errors import DuologueError
from .....model.language_model.messages import Tool
from ...protocol.errors import RequestError
from ..fields import Fields, number, unsupported
from ..sound_files import FORMATS
from .tools import choice, read_tools

FIELDS = Fields(
    served=frozenset({
        "messages", "model", "modalities", "audio", "stream", "stream_options", "max_tokens", "max_completion_tokens",
        "temperature", "top_p", "seed", "n", "stop", "tools", "tool_choice", "parallel_tool_calls",
    }),
    neutral=frozenset({
        "metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention",
    }),
    refused={
        "functions": ([],), "function_call": ("none",),
        "response_format": ({"type": "text"},), "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},),
        "frequency_penalty": (0,), "presence_penalty": (0,), "prediction": (), "web_search_options": (),
        "moderation": (), "reasoning_effort": ("none",), "verbosity": ("medium",), "service_tier": ("auto", "default"),
        "store": (False,),
    },
)  # fmt: skip
SOUNDS = ("pcm16", *FORMATS)
_MOST_TOKENS, _MOST_ANSWERS, _MOST_STOPS, _LONGEST_STOP = 256, 8, 4, 256
_BITS = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Params:
    """What is wanted.

    tools: functions that may be called, as schemas. one_call: at most one in an answer.
    n: answers. stops: strings before which an answer ends.
    format: of its sound, as sound_files.py has it. usage: whether a stream ends with what it took.
    """

    sampling: Sampling
    seed: int
    n: int
    stops: tuple[str, ...]
    spoken: bool
    format: str
    stream: bool
    usage: bool
    tools: tuple[Tool, ...] = ()
    one_call: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def again(self) -> bool:
        """Whether the question is answered more than once."""
        return self.n > 1 or bool(self.stops and self.spoken)

    @classmethod
    def checked(cls, body: dict[str, Any]) -> Self:
        """What was asked for.

        Raises:
            RequestError: something that cannot be, by name.
        """
        FIELDS.check(body.items())
        stream, options = body.get("stream") or False, body.get("stream_options")
        if not isinstance(stream, bool):
            raise RequestError("stream must be true or false", "invalid_type", "stream")
        if options is not None and (not stream or not isinstance(options, dict)):
            raise RequestError("stream_options go with stream, as an object", "invalid_value", "stream_options")
        modalities = body.get("modalities") or ["text"]
        if not isinstance(modalities, list) or not set(map(str, modalities)) <= {"text", "audio"}:
            raise RequestError("modalities are ['text'] or ['text', 'audio']", "invalid_value", "modalities")
        spoken = "audio" in modalities
        tools, warnings = read_tools(body.get("tools"))
        one = body.get("parallel_tool_calls")
        if one not in (None, True, False):
            raise RequestError("parallel_tool_calls must be true or false", "invalid_type", "parallel_tool_calls")
        return cls(
            sampling=replace(_sampling(body), **choice(body.get("tool_choice"), tools)),
            tools=tools,
            one_call=one is False,
            warnings=warnings,
            seed=_whole(body, "seed", secrets.randbits(32), -_BITS, _BITS - 1),
            n=_whole(body, "n", 1, 1, _MOST_ANSWERS),
            stops=_stops(body.get("stop")),
            spoken=spoken,
            format=_format(body.get("audio"), stream) if spoken else "",
            stream=stream,
            usage=bool((options or {}).get("include_usage")),
        )


def _format(audio: Any, stream: bool) -> str:
    if not isinstance(audio, dict) or audio.get("format") not in SOUNDS:
        raise RequestError(f"audio.format must be one of {', '.join(SOUNDS)}", "invalid_value", "audio.format")
    for name in sorted(audio.keys() - {"format", "voice", "ssml"}):
        unsupported("of audio there are format, voice and ssml", f"audio.{name}")
    if stream and audio["format"] != "pcm16":
        unsupported("streamed audio is pcm16", "audio.format")
    return "pcm" if audio["format"] == "pcm16" else str(audio["format"])


def _whole(body: dict[str, Any], name: str, usual: int, least: int, most: int) -> int:
    value = number(body, name, usual, least, most)
    if value != int(value):
        raise RequestError(f"{name} is {value}; it must be a whole number", "invalid_type", name)
    return int(value)


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or len(stops) > _MOST_STOPS or not all(isinstance(each, str) for each in stops):
        raise RequestError(f"stop is a text, or a list of at most {_MOST_STOPS}", "invalid_value", "stop")
    if not all(1 <= len(each) <= _LONGEST_STOP for each in stops):
        raise RequestError(f"a stop has 1 to {_LONGEST_STOP} characters", "invalid_value", "stop")
    return tuple(stops)


def _sampling(body: dict[str, Any]) -> Sampling:
    most = 1 << 31
    tokens = _whole(body, "max_completion_tokens", _whole(body, "max_tokens", _MOST_TOKENS, 1, most), 1, most)
    temperature, top_p = number(body, "temperature", 0.0, 0, 2), number(body, "top_p", 1.0, 0, 1)
    try:
        return Sampling(temperature=temperature, top_p=top_p, max_tokens=min(tokens, _MOST_TOKENS))
    except DuologueError as error:
        raise RequestError(str(error), "invalid_value", "top_p") from None
