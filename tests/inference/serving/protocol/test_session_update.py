"""``session.update`` field by field: what holds, what is said of the rest; nothing is lost with anything else."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("openai")
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import RealtimeSessionCreateRequest, RealtimeTranscriptionSessionCreateRequest

from duologue.inference.serving.protocol.errors import RequestError
from duologue.inference.serving.protocol.formats import AudioFormat
from duologue.inference.serving.protocol.response_params import ResponseParams
from duologue.inference.serving.protocol.session_update import Update, update
from duologue.inference.serving.protocol.settings import Abilities, Settings

ABLE = Abilities(calls=True, speeds=(0.8, 1.25), voices=("default", "deep"), ssml=True, history=1000)
TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
INPUT, OUTPUT = "audio.input", "audio.output"


def fresh(abilities: Abilities = ABLE) -> Settings:
    return Settings.initial("tiny", "sess_1", abilities)


def nested(path: str, value: Any) -> dict[str, Any]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def at(settings: Settings, path: str) -> Any:
    value: Any = settings.session
    for name in path.split("."):
        value = value.get(name)
    return value


def test_what_a_model_that_looks_for_words_is_told() -> None:
    told = fresh(Abilities(spells=lambda text: "ë" not in text))
    names = {"model": "m", "prompt": "Ann met Zoë. Then Bob came.", "keywords": ["olly"]}
    change = nested(f"{INPUT}.transcription", names)
    done = update(told, change)
    assert not done.errors and not done.warnings
    assert done.settings.config().keywords == ("olly", "Bob"), "a sentence's first word is no name"
    assert update(done.settings, nested(f"{INPUT}.transcription", None)).settings.config().keywords == ()
    (error,) = update(told, nested(f"{INPUT}.transcription", {"keywords": ["Zoë"]})).errors
    assert error.param == f"session.{INPUT}.transcription.keywords" and "'Zoë' cannot be spelt" in str(error)
    deaf = update(fresh(), change)
    assert "keywords, prompt" in deaf.warnings[0] and deaf.settings.config().keywords == ()


def test_the_manner_of_speaking_is_told_by_a_model_that_knows_it() -> None:
    on, off = nested(f"{INPUT}.manner", True), nested(f"{INPUT}.manner", False)
    told = update(fresh(Abilities(manners=("calm", "shout"))), on)
    assert not told.errors and told.settings.config().manner
    assert not update(told.settings, off).settings.config().manner and not fresh().config().manner
    (error,) = update(fresh(), on).errors
    assert error.param == f"session.{INPUT}.manner" and "no head for the manner of speaking" in str(error)
    assert not update(fresh(), off).errors
    (error,) = update(fresh(), nested(f"{INPUT}.manner", "loud")).errors
    assert "manner must be true or false" in str(error)


# path, value, what holds then, and a word of the warning (None: it holds as it was sent)
SERVED: list[tuple[str, Any, Any, str | None]] = [
    ("instructions", "be brief", "be brief", None),
    ("tools", [TOOL], [TOOL], None),
    ("tools", [TOOL, {"type": "mcp", "server_label": "s"}], [TOOL], "mcp"),
    ("tool_choice", "none", "none", None),
    ("max_output_tokens", 7, 7, None),
    ("output_modalities", ["text"], ["text"], None),
    ("truncation", "auto", "auto", None),
    ("truncation", "disabled", "auto", "oldest turns"),
    ("truncation", {"type": "retention_ratio", "retention_ratio": 0.8}, "auto", "oldest turns"),
    (
        "truncation",
        {"type": "retention_ratio", "retention_ratio": 0.8, "token_limits": {"post_instructions": 99}},
        {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": 99}},
        "0.5",
    ),
    ("include", ["item.input_audio_transcription.logprobs"], None, "log probabilities"),
    ("prompt", {"id": "p"}, None, "templates"),
    ("reasoning", {"effort": "low"}, None, "reason"),
    ("tracing", "auto", "auto", None),
    ("tracing", {"workflow_name": "w"}, None, "traces"),
    ("parallel_tool_calls", False, None, "up to the model"),
    (f"{INPUT}.noise_reduction", {"type": "far_field"}, {"type": "far_field"}, None),
    (f"{INPUT}.noise_reduction", {"type": "near_field", "strength": 0.5}, {"type": "near_field"}, "strength"),
    (f"{INPUT}.transcription", {"model": "m"}, {"model": "m"}, None),
    (f"{INPUT}.transcription", {"model": "m", "language": "de"}, {"model": "m"}, "language"),
    (f"{INPUT}.turn_detection", None, None, None),
    (f"{OUTPUT}.voice", "marin", "default", None),
    (f"{OUTPUT}.voice", "deep", "deep", None),
    (f"{OUTPUT}.voice", {"id": "deep"}, "deep", None),
    (f"{OUTPUT}.voice", "loud", "default", "no voice 'loud'; this model has: default, deep"),
    (f"{OUTPUT}.speed", 1.2, 1.2, None),
    (f"{OUTPUT}.speed", 1.5, 1.25, "1.25"),
    (f"{OUTPUT}.format", {"type": "audio/pcmu"}, {"type": "audio/pcmu"}, None),
]
WRONG: list[tuple[dict[str, Any], str]] = [
    (nested("instrutions", "x"), "session.instrutions"),
    (nested("audio.inptu", {}), "session.audio.inptu"),
    (nested(f"{INPUT}.fromat", {}), f"session.{INPUT}.fromat"),
    (nested(f"{INPUT}.transcription", {"modle": "m"}), f"session.{INPUT}.transcription.modle"),
    (nested(f"{INPUT}.turn_detection", {"type": "server_vad", "treshold": 1}), f"session.{INPUT}.turn_detection.tr"),
    (nested(f"{INPUT}.turn_detection", {"type": "server_vad", "threshold": 7}), f"session.{INPUT}.turn_detection.th"),
    (nested(f"{INPUT}.noise_reduction", {"typ": "far_field"}), f"session.{INPUT}.noise_reduction.typ"),
    (nested(f"{OUTPUT}.format", {"type": "audio/pcmu", "rat": 8000}), f"session.{OUTPUT}.format"),
    (nested(f"{INPUT}.format", {"rate": 24000}), f"session.{INPUT}.format.type"),
    (nested(f"{OUTPUT}.speed", 9.0), f"session.{OUTPUT}.speed"),
    (nested(f"{OUTPUT}.ssml", "yes"), f"session.{OUTPUT}.ssml"),
    (nested("instructions", 3), "session.instructions"),
    (nested("max_output_tokens", 0), "session.max_output_tokens"),
    (nested("tools", [{"type": "function"}]), "session.tools.0.name"),
    (nested("tools", [TOOL, TOOL]), "session.tools.1.name"),
    (nested("tool_choice", {"type": "function", "name": "other"}), "session.tool_choice"),
    (nested("type", "other"), "session.type"),
    ({"input_audio_format": "mp3"}, f"session.{INPUT}.format"),
]


@pytest.mark.parametrize(("path", "value", "holds", "warning"), SERVED)
def test_each_field(path: str, value: Any, holds: Any, warning: str | None) -> None:
    done = update(fresh(), nested(path, value))
    assert done.errors == [] and at(done.settings, path) == holds
    if warning is None:
        assert done.warnings == [] and done.held == [path]
    else:
        (said,) = done.warnings
        assert said.startswith(f"session.{path}: ") and warning in said
    RealtimeSessionCreateRequest.model_validate(done.settings.seen(), strict=True)


@pytest.mark.parametrize(("change", "param"), WRONG, ids=[param for _, param in WRONG])
def test_what_is_wrong_is_named_and_the_rest_holds(change: dict[str, Any], param: str) -> None:
    done = update(fresh(), {**change, "max_output_tokens": change.get("max_output_tokens", 5)})
    (error,) = done.errors
    assert (error.param or "").startswith(param), error.param
    if "max_output_tokens" not in change:
        assert at(done.settings, "max_output_tokens") == 5


@given(st.lists(st.sampled_from(range(len(SERVED))), unique_by=lambda i: SERVED[i][0]), st.sampled_from(WRONG))
def test_nothing_is_lost_with_anything_else(which: list[int], wrong: tuple[dict[str, Any], str]) -> None:
    """Any fields together, with something wrong among them, are what each is by itself."""
    change: dict[str, Any] = {}

    def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
        for name, value in more.items():
            if isinstance(value, dict) and isinstance(into.get(name), dict) and name in ("audio", "input", "output"):
                merge(into[name], value)
            else:
                into.setdefault(name, value)

    taken = [SERVED[i] for i in which if not wrong[1].startswith(f"session.{SERVED[i][0]}")]
    merge(change, copy.deepcopy(wrong[0]))
    for path, value, _, _ in taken:
        merge(change, copy.deepcopy(nested(path, value)))
    done = update(fresh(), change)
    for path, _, holds, _ in taken:
        assert at(done.settings, path) == holds
    assert len(done.warnings) == sum(warning is not None for *_, warning in taken) and len(done.errors) == 1


def test_flat_fields_of_the_beta_are_read() -> None:
    done = update(
        fresh(),
        {
            "modalities": ["text", "audio"], "voice": "alloy", "input_audio_format": "g711_ulaw", "speed": 0.9,
            "output_audio_format": "g711_alaw", "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": {"type": "server_vad", "threshold": 0.4}, "max_response_output_tokens": 9,
            "input_audio_noise_reduction": {"type": "near_field"}, "temperature": 0.8,
        },
    )  # fmt: skip
    assert done.errors == [] and [said.partition(":")[0] for said in done.warnings] == ["session.temperature"]
    settings = done.settings
    assert (settings.input, settings.output) == (AudioFormat.MU_LAW, AudioFormat.A_LAW)
    assert settings.detection is not None and settings.detection["threshold"] == 0.4
    assert at(settings, "max_output_tokens") == 9 and at(settings, f"{OUTPUT}.speed") == 0.9
    assert "modalities" not in settings.session and settings.transcribes


def test_what_is_set_reaches_the_session() -> None:
    settings = update(fresh(), {"tools": [TOOL], "tool_choice": "required", "max_output_tokens": 4}).settings
    config = settings.config()
    assert config.tools[0]["function"]["name"] == "weather"  # type: ignore[index]
    assert config.sampling.must_call == "weather", "the only one"
    assert config.sampling.max_tokens == 4 and config.sampling.may_call
    assert not update(settings, {"tool_choice": "none"}).settings.config().sampling.may_call
    far = update(fresh(), nested(f"{INPUT}.noise_reduction", {"type": "far_field"})).settings.config()
    assert (far.loudness.far_db, fresh().config().loudness.far_db > 0) == (0, True)
    assert update(fresh(), nested(f"{OUTPUT}.speed", 0.8)).settings.config().speed == 0.8
    assert update(fresh(), nested(f"{OUTPUT}.voice", "deep")).settings.config().voice == "deep"
    assert update(fresh(), nested(f"{OUTPUT}.ssml", True)).settings.config().ssml and not fresh().config().ssml
    (refused,) = update(fresh(Abilities()), nested(f"{OUTPUT}.ssml", True)).errors
    assert "renders no SSML" in str(refused)
    limits = {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": {"post_instructions": 5000}}
    assert update(fresh(), {"truncation": limits}).settings.config().history == 1000, "no more than it has learnt"
    mute = update(fresh(Abilities(instructions=False)), {"tools": [TOOL], "instructions": "x"}).settings
    assert mute.config().tools == () and len(mute.warnings["warnings"]) == 2


def test_a_transcription_session() -> None:
    done = update(fresh(), {"type": "transcription", **nested(f"{INPUT}.transcription", {"model": "m"})})
    assert done.errors == done.warnings == [] and done.settings.transcription_only and done.settings.transcribes
    seen = done.settings.seen()
    RealtimeTranscriptionSessionCreateRequest.model_validate(seen, strict=True)
    assert seen["type"] == "transcription" and "instructions" not in seen
    assert done.settings.config().on_request, "nothing is answered"
    with pytest.raises(RequestError, match="has no responses"):
        ResponseParams.checked({}, done.settings)


def test_a_response_has_its_own_and_leaves_the_session() -> None:
    settings = update(fresh(), {"tools": [TOOL], "instructions": "a"}).settings
    params = ResponseParams.checked(
        {"instructions": "b", "tool_choice": "none", "prompt": {"id": "p"}, "metadata": {"k": "v"}}, settings
    )
    assert params.instructions == "b" and params.own_instructions and params.metadata == {"k": "v"}
    assert not params.settings.sampling().may_call and settings.session["instructions"] == "a"
    assert params.warnings == ["response.prompt: no prompt templates are stored here"]
    with pytest.raises(RequestError) as caught:
        ResponseParams.checked({"tool_choice": "required"}, fresh())
    assert caught.value.param == "response.tool_choice"
    with pytest.raises(RequestError) as caught:
        ResponseParams.checked({"instrutions": "b"}, fresh())
    assert caught.value.param == "response.instrutions"


def test_an_empty_update_holds() -> None:
    assert update(fresh(), {}) == Update(fresh())
