"""What holds of a client's session, and what that means for ours. (:mod:`.session_update` changes it.)

The protocol's session object is kept as it was sent. Its voice is one of the model's: the first where a client sends a
name of OpenAI's own. Instructions are the system prompt of a model that has learnt to follow one, and tools are
functions that one which has learnt to may call; of any other, the session and its responses say in ``warnings`` that
they have no effect.

``semantic_vad`` is our monitor with all its judgement: noise, and somebody across the room, are not answered.
``server_vad`` is what the API says it is, speech and silence alone: whoever asks for it wants every utterance answered,
the faint ones too (``threshold`` is what it has against noise). ``noise_reduction`` filters nothing: ``far_field`` says
that the user is far from the microphone, so that faint speech is the user's too.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....model.speech_decoder.voices import DEFAULT
from ....model.speech_lm import Sampling
from ...assistant.word_lists import expected
from ...front_end.loudness import LoudnessConfig
from ...front_end.speech_gate import GateConfig
from ...session.policy import PRESETS, DuplexConfig
from ...session.state import SessionConfig
from .errors import RequestError
from .formats import AudioFormat
from .tools import CALLS_NONE, ToolChoice, choice, schemas

_EAGER = {"low": "patient", "medium": "balanced", "high": "responsive", "auto": "balanced"}
SEMANTIC = {"type": "semantic_vad", "eagerness": "auto", "create_response": True, "interrupt_response": True}
SERVER = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
          "idle_timeout_ms": None, "create_response": True, "interrupt_response": True}  # fmt: skip
DETECTION = "session.audio.input.turn_detection"
# The voices of OpenAI's APIs.
STOCK_VOICES = ("alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer",
                "verse")  # fmt: skip
NOT_FOLLOWED = "this model follows no instructions: it has learnt none"


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What the loaded model can do.

    instructions: a system prompt reaches it. calls: it calls functions. transcribes: it writes down what it hears.
    spells: whether a hot word can be looked for in what it hears; None: none can.
    manners: those of speaking that it tells apart.
    speeds: the slowest and the fastest that it speaks. voices: their names, the usual one first.
    ssml: it renders SSML. history: positions that past turns may fill.
    """

    instructions: bool = True
    calls: bool = False
    transcribes: bool = True
    spells: Callable[[str], bool] | None = None
    manners: tuple[str, ...] = ()
    speeds: tuple[float, float] = (1.0, 1.0)
    voices: tuple[str, ...] = (DEFAULT,)
    ssml: bool = False
    history: int = 1 << 30


@dataclass(frozen=True)
class Settings:
    """The effective session object, and what follows from it."""

    session: dict[str, Any]
    abilities: Abilities = field(default_factory=Abilities)

    @classmethod
    def initial(cls, model: str, id_: str, abilities: Abilities | None = None) -> Settings:
        """What a session begins with; turn detection is the model's own monitor's."""
        abilities = abilities or Abilities()
        return cls(
            {
                "type": "realtime", "object": "realtime.session", "id": id_, "model": model,
                "output_modalities": ["audio"], "instructions": "", "tools": [], "tool_choice": "auto",
                "max_output_tokens": "inf", "tracing": None, "prompt": None, "include": None, "truncation": "auto",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24000}, "transcription": None,
                        "noise_reduction": None, "turn_detection": dict(SEMANTIC),
                    },
                    "output": {
                        "format": {"type": "audio/pcm", "rate": 24000}, "voice": abilities.voices[0], "speed": 1.0,
                    },
                },
            },
            abilities,
        )  # fmt: skip

    def with_field(self, path: str, value: Any) -> Settings:
        """With another value of the field at a path ("audio.input.format")."""
        session = inside = copy.deepcopy(self.session)
        *outer, name = path.split(".")
        for each in outer:
            inside = inside[each]
        inside[name] = value
        return Settings(session, self.abilities)

    def instructed(self, more: str) -> Settings:
        """With more instructions behind its own."""
        own = self.session["instructions"]
        return self.with_field("instructions", f"{own}\n\n{more}" if own else more) if more else self

    @property
    def transcription_only(self) -> bool:
        """Whether nothing is to be answered."""
        return bool(self.session["type"] == "transcription")

    def seen(self) -> dict[str, Any]:
        """The session object as the client is shown it."""
        if not self.transcription_only:
            return self.session | self.warnings
        return {
            "type": "transcription", "object": "realtime.transcription_session", "id": self.session["id"],
            "audio": {"input": self.session["audio"]["input"]}, "include": self.session["include"],
        }  # fmt: skip

    @property
    def warnings(self) -> dict[str, list[str]]:
        """What is set and has no effect, as a field beside those that the API's objects have; none: no field."""
        found = []
        if self.session["instructions"] and not self.abilities.instructions:
            found.append(NOT_FOLLOWED)
        if self.session["tools"] and not self.abilities.calls:
            found.append(CALLS_NONE)
        return {"warnings": found} if found else {}

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
        return self.transcription_only or self.session["audio"]["input"].get("transcription") is not None

    def sampling(self) -> Sampling:
        """How an answer is chosen."""
        tokens, most, tools = self.session["max_output_tokens"], Sampling().max_tokens, self.session["tools"]
        if tokens not in ("inf", None):
            most = min(int(tokens), most)
        which = choice(self.session["tool_choice"], tools) if self.abilities.calls and tools else ToolChoice()
        return Sampling(max_tokens=most, may_call=which.may_call, must_call=which.must_call)

    @property
    def keywords(self) -> tuple[str, ...]:
        """Phrases that the client says are likely to be said."""
        told = self.session["audio"]["input"].get("transcription") or {}
        if self.abilities.spells is None:
            return ()
        return tuple(expected(told.get("prompt") or "", told.get("keywords") or (), self.abilities.spells))

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """Functions that the model may call, as chat templates take them."""
        return schemas(self.session["tools"]) if self.abilities.calls else ()

    def config(self) -> SessionConfig:
        """How the session is to behave.

        Raises:
            RequestError: numbers out of range.
        """
        detection, session = self.detection, self.session
        truncation = session["truncation"]
        history = None
        if isinstance(truncation, dict):
            history = max(1, min(truncation["token_limits"]["post_instructions"], self.abilities.history))
        noise = session["audio"]["input"]["noise_reduction"] or {}
        base = SessionConfig(
            sampling=self.sampling(), instructions=session["instructions"] or "", tools=self.tools,
            speed=session["audio"]["output"]["speed"], voice=session["audio"]["output"]["voice"],
            ssml=session["audio"]["output"].get("ssml", False), history=history, keywords=self.keywords,
            manner=bool(session["audio"]["input"].get("manner")),
            loudness=LoudnessConfig(far_db=0.0) if noise.get("type") == "far_field" else LoudnessConfig(),
        )  # fmt: skip
        if detection is None:
            duplex = DuplexConfig(shortest_turn_ms=0)
            return dataclasses.replace(base, duplex=duplex, monitor=False, on_request=True)
        base = dataclasses.replace(
            base, interruptible=bool(detection["interrupt_response"]),
            on_request=self.transcription_only or not detection["create_response"],
        )  # fmt: skip
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
                raise RequestError(what, "invalid_value", f"{DETECTION}.{name}")
        waits = dict.fromkeys(("endpoint_ms", "query_endpoint_ms", "wait_endpoint_ms"), silence)
        duplex = DuplexConfig(**waits, speculate_ms=min(160, silence), before_ms=padding)
        gate = GateConfig(threshold=threshold, release=max(0.0, threshold - 0.2))
        return dataclasses.replace(base, duplex=duplex, gate=gate, monitor=False)


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


def served_voice(given: Any, voices: Sequence[str]) -> str:
    """The voice that is meant by what a client sends: a name, or an object with it as its id. None, and the names of
    OpenAI's voices: the usual one.

    Raises:
        RequestError: there is no such voice.
    """
    name = given.get("id") if isinstance(given, dict) else given
    if name in voices:
        return str(name)
    if name is None or name in STOCK_VOICES:
        return voices[0]
    what = f"there is no voice {str(name)[:40]!r}; this model has: {', '.join(voices)}"
    raise RequestError(what, "unsupported_value", "voice")


def _format(side: dict[str, Any]) -> AudioFormat:
    found = side.get("format") or {}
    return AudioFormat(found.get("type") or "audio/pcm")
