"""The protocol's own events, for clients that hand them on as they come."""

from __future__ import annotations

import base64
from typing import Any

from dialogue import GREET, TOOL, Dialogue

SESSION: dict[str, dict[str, Any]] = {
    "turns": {"type": "realtime", "audio": {"input": {
        "turn_detection": {"type": "semantic_vad"}, "transcription": {"model": "gpt-4o-transcribe"},
    }}},
    "functions": {"type": "realtime", "tools": [{"type": "function", **TOOL}], "tool_choice": "auto"},
}  # fmt: skip
GREETING: dict[str, Any] = {"instructions": GREET}


def note(event: dict[str, Any], dialogue: Dialogue, bytes_a_second: int = 48_000) -> list[dict[str, Any]]:
    """Note an event of the server's; returns the events to answer with."""
    kind = event["type"]
    if kind == "conversation.item.input_audio_transcription.completed":
        dialogue.hear(event["transcript"])
    elif kind == "response.output_audio_transcript.delta":
        dialogue.say(event["delta"])
    elif kind == "response.output_audio.delta":
        dialogue.sound(len(base64.b64decode(event["delta"])) / bytes_a_second)
    elif kind == "response.done":
        calls = [item for item in event["response"]["output"] if item["type"] == "function_call"]
        results = [
            {"type": "function_call_output", "call_id": item["call_id"],
             "output": dialogue.call(item["name"], item["arguments"])}
            for item in calls
        ]  # fmt: skip
        dialogue.end()
        answers = [{"type": "conversation.item.create", "item": result} for result in results]
        return [*answers, {"type": "response.create"}] if answers else []
    elif kind == "error":
        dialogue.fail(event["error"])
    return []
