"""``session.update``, field by field: each holds, or is named with what is wrong with it; none is lost with another.

A field of the protocol that the loaded model cannot serve is a warning (``warnings`` of ``session.updated``) and stays
as it was: clients that know nothing of warnings go on. A field that is none of the protocol's, or has a value that it
cannot have, is an error. ``audio.output.ssml`` is a field of ours. Flat fields of the API's beta are read as those that
have taken their place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openai.types.realtime import (
    AudioTranscription,
    RealtimeSessionCreateRequest,
    RealtimeTranscriptionSessionCreateRequest,
)
from openai.types.realtime.realtime_audio_config_input import NoiseReduction
from pydantic import ValidationError

from ....model.audio_encoder.manner import NO_HEAD
from ....model.errors import DuologueError
from ...assistant.word_lists import expected
from .errors import RequestError, field_error
from .settings import DETECTION, SEMANTIC, SERVER, Settings, output_tokens, served_voice
from .tools import check_choice, choice, functions

_KEPT = ("object", "id", "model", "expires_at", "client_secret")  # what clients send back as they got it
_BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
_BETA = {
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "turn_detection": "audio.input.turn_detection",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "input_audio_format": "audio.input.format",
    "output_audio_format": "audio.output.format",
    "modalities": "output_modalities",
    "max_response_output_tokens": "max_output_tokens",
}
_SLOWEST, _FASTEST = 0.25, 1.5  # that the protocol allows


class Unserved(Exception):
    """A field of the protocol that has no effect here. value: what holds instead, if not what was."""

    def __init__(self, why: str, value: Any = None) -> None:
        super().__init__(why)
        self.value = value


@dataclass
class Update:
    """What becomes of an update. held: fields that are as the client wants them."""

    settings: Settings
    held: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[RequestError] = field(default_factory=list)


def update(settings: Settings, change: dict[str, Any]) -> Update:
    """The settings with each field of a client's session object that holds."""
    done = Update(settings)
    for path, value in _fields(change, done):
        try:
            before, done.settings = done.settings, _with(done.settings, path, value)
            done.held += [path] if path != "type" or before.session["type"] != value else []
        except Unserved as unserved:
            done.warnings.append(f"session.{path}: {unserved}")
            if unserved.value is not None:
                done.settings = _with(done.settings, path, unserved.value)
        except RequestError as error:
            done.errors.append(error)
    return done


def _fields(change: dict[str, Any], done: Update) -> list[tuple[str, Any]]:
    """The fields of a session object by their paths; those that the protocol has not become errors."""
    found: list[tuple[str, Any]] = []

    def walk(inside: dict[str, Any], prefix: str) -> None:
        for name, value in inside.items():
            path = f"{prefix}{name}"
            if path in _PARENTS:
                if isinstance(value, dict):
                    walk(value, f"{path}.")
                elif value is not None:
                    done.errors.append(RequestError(f"{name} must be an object", "invalid_type", f"session.{path}"))
            elif path in _CHECKS or path == "type":
                found.append((path, value))
            elif path == "temperature":
                done.warnings.append("session.temperature: answers are the model's likeliest words")
            elif path in _BETA:
                found.append(_of_beta(path, value))
            elif path not in _KEPT:
                done.errors.append(
                    RequestError(f"a session has no field {path[:80]!r}", "unknown_parameter", f"session.{path[:80]}")
                )

    walk(change, "")
    first = ("type", "tools")  # what kind of session it is, and what others refer to
    return sorted(found, key=lambda each: first.index(each[0]) if each[0] in first else len(first))


def _of_beta(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith("_format") and isinstance(value, str):
        value = {"type": _BETA_FORMATS.get(value, value)}
    elif name == "modalities" and isinstance(value, list) and sorted(map(str, value)) == ["audio", "text"]:
        value = ["audio"]  # which has its transcript with it
    return _BETA[name], value


def _with(settings: Settings, path: str, value: Any) -> Settings:
    """With one field.

    Raises:
        RequestError: a value that it cannot have. Unserved: one that has no effect.
    """
    if path == "type":
        if value not in ("realtime", "transcription"):
            raise RequestError("session.type must be 'realtime' or 'transcription'", "invalid_value", "session.type")
        return settings.with_field("type", value)
    _check_shape(settings, path, value)
    checked = _CHECKS[path](value, settings)
    new = settings.with_field(path, checked)
    new.config()  # numbers in range
    return new


def _check_shape(settings: Settings, path: str, value: Any) -> None:
    """Raises RequestError where the package's own model has no such value."""
    whole: Any = value
    *outer, name = path.split(".")
    whole = {name: value}
    for each in reversed(outer):
        whole = {each: whole}
    model: Any = RealtimeSessionCreateRequest
    if settings.transcription_only and path.startswith(("audio.input", "include")):
        model = RealtimeTranscriptionSessionCreateRequest
    if path == "audio.input.turn_detection":
        return  # is checked by name, with what it was before
    try:
        model.model_validate({"type": settings.session["type"] if model is not RealtimeSessionCreateRequest
                              else "realtime", **whole}, strict=True)  # fmt: skip
    except ValidationError as error:
        raise field_error(error, "session") from None


# What each field may be. They return what is to hold.


def _instructions(value: Any, settings: Settings) -> Any:
    return value or ""


def _modalities(value: Any, settings: Settings) -> Any:
    if value not in (["audio"], ["text"]):
        what = f"output_modalities is {value}; it must be ['audio'] or ['text']"
        raise RequestError(what, "invalid_value", "session.output_modalities")
    return value


def _tokens(value: Any, settings: Settings) -> Any:
    return output_tokens(value, "session") or "inf"


def _tools(value: Any, settings: Settings) -> Any:
    served, strange = functions(value or [], "session")
    if strange:
        raise Unserved(f"no {', '.join(strange)} tools here: functions alone", served)
    return served


def _tool_choice(value: Any, settings: Settings) -> Any:
    given = check_choice(value or "auto", "session")
    choice(given, settings.session["tools"], "session")
    return given


def _nothing(allowed: tuple[Any, ...], why: str) -> Callable[[Any, Settings], Any]:
    """Of a field that has no effect, but for the values that leave things as they are."""

    def check(value: Any, settings: Settings) -> Any:
        if value not in allowed:
            raise Unserved(why)
        return value

    return check


def _truncation(value: Any, settings: Settings) -> Any:
    if value in (None, "auto"):
        return value or "auto"
    limits = value.get("token_limits") if isinstance(value, dict) else None
    if limits and limits.get("post_instructions"):
        kept = {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": limits}
        if value["retention_ratio"] != kept["retention_ratio"]:
            raise Unserved("the oldest turns are forgotten until half is left (retention_ratio 0.5)", kept)
        return kept
    raise Unserved("the oldest turns are forgotten when there are too many, until half is left")


def _format(where: str) -> Callable[[Any, Settings], Any]:
    def check(value: Any, settings: Settings) -> Any:
        if value is None:
            raise Unserved("a format is never null; it stays as it is")
        if strange := sorted(set(value) - {"type", "rate"}):
            raise RequestError(f"a format has no {strange[0][:80]}", "unknown_parameter", where)
        if not value.get("type"):
            raise RequestError("a format has a type", "missing_required_parameter", f"{where}.type")
        return value

    return check


def _transcription(value: Any, settings: Settings) -> Any:
    _known(value, AudioTranscription, "session.audio.input.transcription")
    listened = {"prompt", "keywords"}  # what a model that looks for words is told
    if value is not None and (spells := settings.abilities.spells) is not None:
        try:
            expected(value.get("prompt") or "", value.get("keywords") or (), spells)
        except DuologueError as error:
            where = "session.audio.input.transcription.keywords"
            raise RequestError(str(error), "invalid_value", where) from None
        listened = set()
    if value is not None and (ignored := sorted(set(value) & {"language", "languages", "delay", *listened})):
        kept = {name: each for name, each in value.items() if name not in ignored}
        raise Unserved(f"the model writes down what it hears without {', '.join(ignored)}", kept)
    return value


def _noise(value: Any, settings: Settings) -> Any:
    _known(value, NoiseReduction, "session.audio.input.noise_reduction")
    if value is not None and value.get("strength") not in (None, 1):
        raise Unserved("nothing is filtered: strength has no effect", {"type": value.get("type")})
    return value


def _manner(value: Any, settings: Settings) -> Any:
    where = "session.audio.input.manner"
    if not (value is None or isinstance(value, bool)):
        raise RequestError("manner must be true or false", "invalid_type", where)
    if value and not settings.abilities.manners:
        raise RequestError(NO_HEAD, "invalid_value", where)
    return bool(value)


def _detection(value: Any, settings: Settings) -> Any:
    if value is None:
        return None
    before = settings.detection or {}
    kind = value.get("type", before.get("type", "server_vad")) if isinstance(value, dict) else None
    if kind not in ("server_vad", "semantic_vad"):
        raise RequestError("turn_detection must be null, server_vad or semantic_vad", "invalid_value", DETECTION)
    usual = SERVER if kind == "server_vad" else SEMANTIC
    known = {name: each for name, each in value.items() if each is not None}
    if strange := sorted(set(known) - set(usual)):
        name = strange[0][:80]
        what = f"{kind} has no {name}; it has {', '.join(usual)}"
        raise RequestError(what, "unknown_parameter", f"{DETECTION}.{name}")
    merged = {**usual, **(before if before.get("type") == kind else {}), **known, "type": kind}
    whole = {"type": "realtime", "audio": {"input": {"turn_detection": merged}}}
    try:
        RealtimeSessionCreateRequest.model_validate(whole, strict=True)
    except ValidationError as error:
        raise field_error(error, "session") from None
    return merged


def _voice(value: Any, settings: Settings) -> Any:
    try:
        return served_voice(value, settings.abilities.voices)
    except RequestError as error:
        raise Unserved(str(error)) from None


def _speed(value: Any, settings: Settings) -> Any:
    speed, (slowest, fastest) = 1.0 if value is None else float(value), settings.abilities.speeds
    if not _SLOWEST <= speed <= _FASTEST:
        what = f"speed is {speed:g}; it must be {_SLOWEST} to {_FASTEST}"
        raise RequestError(what, "invalid_value", "session.audio.output.speed")
    if not slowest <= speed <= fastest:
        nearest = min(max(speed, slowest), fastest)
        raise Unserved(f"this model speaks at {slowest:g} to {fastest:g} of its speed: {nearest:g} it is", nearest)
    return speed


def _ssml(value: Any, settings: Settings) -> Any:
    where = "session.audio.output.ssml"
    if not isinstance(value, bool):
        raise RequestError(f"ssml is {str(value)[:40]!r}; it must be true or false", "invalid_type", where)
    if value and not settings.abilities.ssml:
        raise RequestError("this model renders no SSML", "unsupported_value", where)
    return value


def _known(value: Any, model: Any, where: str) -> None:
    """Raises RequestError where an object has a field that the package's model has not."""
    if value is not None and (strange := sorted(set(value) - set(model.model_fields))):
        raise RequestError(f"there is no {strange[0][:80]} there", "unknown_parameter", f"{where}.{strange[0][:80]}")


_CHECKS: dict[str, Callable[[Any, Settings], Any]] = {
    "instructions": _instructions,
    "output_modalities": _modalities,
    "max_output_tokens": _tokens,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": _nothing((None, True), "how many functions a response calls is up to the model"),
    "prompt": _nothing((None,), "no prompt templates are stored here"),
    "reasoning": _nothing((None,), "this model does not reason before it answers"),
    "tracing": _nothing((None, "auto"), "no traces are kept"),
    "include": _nothing((None, []), "no log probabilities are given"),
    "truncation": _truncation,
    "audio.input.format": _format("session.audio.input.format"),
    "audio.input.manner": _manner,  # ours, beside the API's
    "audio.input.noise_reduction": _noise,
    "audio.input.transcription": _transcription,
    "audio.input.turn_detection": _detection,
    "audio.output.format": _format("session.audio.output.format"),
    "audio.output.voice": _voice,
    "audio.output.speed": _speed,
    "audio.output.ssml": _ssml,
}
_PARENTS = {path.rpartition(".")[0] for path in _CHECKS if "." in path} | {"audio"}
