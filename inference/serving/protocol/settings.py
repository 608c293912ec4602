"""What a client may set of its session (``session.update``), and what that means for ours.

The protocol's session object is kept as it was sent, checked by the ``openai`` package's own model. What the loaded
model cannot do is refused by name. Its voice is the model's own, whatever voice was asked for, and ``session.updated``
says so. Instructions are the system prompt of a model that has learnt to follow one; of any other, the session and its
responses say in ``warnings`` that they have no effect.

``semantic_vad`` is our monitor with all its judgement: noise, and somebody across the room, are not answered.
``server_vad`` is what the API says it is, speech and silence alone: whoever asks for it wants every utterance answered,
the faint ones too (``threshold`` is what it has against noise).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from openai.types.realtime import RealtimeSessionCreateRequest
from pydantic import ValidationError

from ....model.speech_lm import Sampling
from ...front_end.speech_gate import GateConfig
from ...session.policy import PRESETS, DuplexConfig
from ...session.state import SessionConfig
from .errors import RequestError, field_error
from .formats import AudioFormat

_EAGER = {"low": "patient", "medium": "balanced", "high": "responsive", "auto": "balanced"}
_SEMANTIC = {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
_SERVER = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
           "idle_timeout_ms": None, "create_response": True, "interrupt_response": True}  # fmt: skip
_DETECTION = "session.audio.input.turn_detection"
# What is part of the protocol and would have no effect is refused, but for what leaves things as they are.
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "tool_choice": (None, "auto", "none"),
    "prompt": (None,),
    "reasoning": (None,),
    "tracing": (None, "auto"),
    "include": (None, []),
    "truncation": (None, "auto"),
}


@dataclass
class Settings:
    """The effective session object, and what follows from it."""

    session: dict[str, Any]
    follows_instructions: bool = True

    @classmethod
    def initial(cls, model: str, id_: str, follows_instructions: bool = True) -> Settings:
        """What a session begins with; turn detection is the model's own monitor's."""
        return cls(
            {
                "type": "realtime", "object": "realtime.session", "id": id_, "model": model,
                "output_modalities": ["audio"], "instructions": "", "tools": [], "tool_choice": "auto",
                "max_output_tokens": "inf", "tracing": None, "prompt": None, "include": None,
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000}, "transcription": None,
                        "noise_reduction": None, "turn_detection": dict(_SEMANTIC),
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": model, "speed": 1.0},
                },
            },
            follows_instructions,
        )  # fmt: skip

    def updated(self, change: dict[str, Any]) -> Settings:
        """With the fields that are there replaced.

        Raises:
            RequestError: a wrong field, or something that the model cannot do.
        """
        if change.get("type", "realtime") != "realtime":
            raise RequestError("only sessions of type 'realtime' are served", "unsupported_value", "session.type")
        session = _merged(self.session, change)
        session["model"], session["id"] = self.session["model"], self.session["id"]
        session["audio"]["output"]["voice"] = self.session["model"]
        detection = session["audio"]["input"].get("turn_detection")
        if detection is not None:
            kind = detection.get("type", "server_vad") if isinstance(detection, dict) else None
            if kind not in ("server_vad", "semantic_vad"):
                raise RequestError(
                    "turn_detection must be null, server_vad or semantic_vad", "invalid_value", _DETECTION
                )
            usual = _SERVER if kind == "server_vad" else _SEMANTIC
            known = {name: value for name, value in detection.items() if value is not None}
            if strange := sorted(set(known) - set(usual)):
                name = strange[0][:80]
                what = f"{kind} has no {name}; it has {', '.join(usual)}"
                raise RequestError(what, "unknown_parameter", f"{_DETECTION}.{name}")
            session["audio"]["input"]["turn_detection"] = {**usual, **known}
        try:
            RealtimeSessionCreateRequest.model_validate(session, strict=True)
        except ValidationError as error:
            raise field_error(error, "session") from None
        settings = Settings(session, self.follows_instructions)
        settings._refuse_what_cannot_be()
        settings.config()
        return settings

    def _refuse_what_cannot_be(self) -> None:
        session, audio = self.session, self.session["audio"]
        refuse_what_has_no_use(session, "session")
        if audio["input"].get("noise_reduction") is not None:
            what = "noise is not filtered out of what is heard: noise_reduction must be null"
            raise RequestError(what, "unsupported_value", "session.audio.input.noise_reduction")
        if audio["output"].get("speed", 1.0) not in (1, None):
            raise RequestError("this model speaks at one speed: 1", "unsupported_value", "session.audio.output.speed")
        modalities = session.get("output_modalities")
        if modalities not in (["audio"], ["text"]):
            what = f"output_modalities is {modalities}; it must be ['audio'] or ['text']"
            raise RequestError(what, "invalid_value", "session.output_modalities")
        output_tokens(session.get("max_output_tokens"), "session")

    @property
    def warnings(self) -> dict[str, list[str]]:
        """What is set and has no effect, as a field beside those that the API's objects have; none: no field."""
        if self.follows_instructions or not self.session["instructions"]:
            return {}
        return {"warnings": ["this model follows no instructions: it has learnt none"]}

    @property
    def input(self) -> AudioFormat:
        """Of the client's audio."""
        return _format(self.session["audio"]["input"])

    @property
    def output(self) -> AudioFormat:
        """Of ours."""
        return _format(self.session["audio"]["output"])

    @property
    def detection(self) -> dict[str, Any] | None:
        """How turns are detected; None: the client says where they end."""
        found: dict[str, Any] | None = self.session["audio"]["input"].get("turn_detection")
        return found

    @property
    def transcribes(self) -> bool:
        """Whether the client wants to read what was heard."""
        return self.session["audio"]["input"].get("transcription") is not None

    def sampling(self, max_output_tokens: int | str | None = None) -> Sampling:
        """How an answer is chosen; ``max_output_tokens``: of this one."""
        tokens = max_output_tokens or self.session.get("max_output_tokens")
        return Sampling() if tokens in ("inf", None) else Sampling(max_tokens=min(int(tokens), Sampling().max_tokens))

    def config(self, max_output_tokens: int | str | None = None) -> SessionConfig:
        """How the session is to behave.

        Raises:
            RequestError: numbers out of range.
        """
        sampling = self.sampling(max_output_tokens)
        detection = self.detection
        base = SessionConfig(sampling=sampling, instructions=self.session["instructions"] or "")
        if detection is None:
            duplex = DuplexConfig(shortest_turn_ms=0)
            return dataclasses.replace(base, duplex=duplex, monitor=False, on_request=True)
        base = dataclasses.replace(
            base, interruptible=bool(detection["interrupt_response"]), on_request=not detection["create_response"]
        )
        if detection["type"] == "semantic_vad":
            return dataclasses.replace(base, duplex=PRESETS[_EAGER[detection["eagerness"]]])
        threshold, silence, padding = (
            detection[name] for name in ("threshold", "silence_duration_ms", "prefix_padding_ms")
        )
        for name, value, low, high in (
            ("threshold", threshold, 0.0, 1.0),
            ("silence_duration_ms", silence, 0, 10_000),
            ("prefix_padding_ms", padding, 0, 2_000),
            ("idle_timeout_ms", detection["idle_timeout_ms"] or 5_000, 1_000, 600_000),
        ):
            if not low <= value <= high:
                what = f"{name} is {value}; it must be {low} to {high}"
                raise RequestError(what, "invalid_value", f"{_DETECTION}.{name}")
        waits = dict.fromkeys(("endpoint_ms", "query_endpoint_ms", "wait_endpoint_ms"), silence)
        duplex = DuplexConfig(**waits, speculate_ms=min(160, silence), before_ms=padding)
        gate = GateConfig(threshold=threshold, release=max(0.0, threshold - 0.2))
        return dataclasses.replace(base, duplex=duplex, gate=gate, monitor=False)


def refuse_what_has_no_use(given: dict[str, Any], where: str) -> None:
    """What neither a session nor one response can have.

    Raises:
        RequestError: it is named.
    """
    for name, allowed in _ALLOWED.items():
        if given.get(name) not in allowed:
            raise RequestError(f"this model has no use for {name}", "unsupported_value", f"{where}.{name}")


def output_tokens(given: Any, where: str) -> int | str | None:
    """A checked ``max_output_tokens``.

    Raises:
        RequestError: out of range.
    """
    if not (given in ("inf", None) or (isinstance(given, int) and 1 <= given <= 4096)):
        raise RequestError(
            "max_output_tokens must be 1 to 4096, or 'inf'", "invalid_value", f"{where}.max_output_tokens"
        )
    tokens: int | str | None = given
    return tokens


def _format(side: dict[str, Any]) -> AudioFormat:
    found = side.get("format") or {}
    return AudioFormat(found.get("type") or "audio/pcm")


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """``old`` with what is in ``new``; objects field by field, other values whole."""
    merged = dict(old)
    for name, value in new.items():
        inside = merged.get(name)
        if name in ("audio", "input", "output") and not isinstance(value, dict):
            if value is None:
                continue
            raise RequestError(f"{name} must be an object", "invalid_type", f"session.{name}")
        if name == "format" and value is None:
            continue
        if (
            isinstance(value, dict)
            and isinstance(inside, dict)
            and name != "format"
            and (name != "turn_detection" or value.get("type", inside["type"]) == inside["type"])
        ):
            value = _merged(inside, value)
        merged[name] = value
    return merged
