"""livekit: an agent session with its RealtimeModel, a loudspeaker that plays in real time, and a function; it speaks
first as ``generate_reply(instructions=…)`` asks."""
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from dialogue import GREET, TOOL, Dialogue
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool
from livekit.agents.voice import io
from livekit.plugins import openai


class Microphone(io.AudioInput):
    """What the user says; over when the last answer is."""

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(label="microphone")
        self._dialogue, self._blocks = dialogue, dialogue.blocks()
        self.over = asyncio.Event()

    async def __anext__(self) -> rtc.AudioFrame:
        try:
            block = await anext(self._blocks)
        except StopAsyncIteration:
            self.over.set()
            raise
        return rtc.AudioFrame(block, self._dialogue.rate, 1, len(block) // 2)


class Speaker(io.AudioOutput):
    """Plays in real time; what was played until it was cleared is what was heard."""

    def __init__(self, dialogue: Dialogue) -> None:
        super().__init__(label="speaker", capabilities=io.AudioOutputCapabilities(pause=False))
        self._dialogue = dialogue
        self._began, self._captured_s = 0.0, 0.0
        self._playing: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._captured_s:
            self._began = time.monotonic()
            self.on_playback_started(created_at=time.time())
        self._captured_s += frame.duration
        self._dialogue.sound(frame.duration)

    def flush(self) -> None:
        super().flush()
        if self._captured_s:
            left_s = self._began + self._captured_s - time.monotonic()
            self._playing = asyncio.get_running_loop().call_later(max(0.0, left_s), self._end, False)

    def clear_buffer(self) -> None:
        if self._captured_s:
            self._end(True)

    def _end(self, interrupted: bool) -> None:
        if self._playing is not None:
            self._playing.cancel()
        played_s = min(self._captured_s, time.monotonic() - self._began)
        self._playing, self._captured_s = None, 0.0
        self.on_playback_finished(playback_position=played_s, interrupted=interrupted)


async def main() -> None:
    dialogue = Dialogue()

    @function_tool(raw_schema=TOOL)
    async def weather(raw_arguments: dict[str, Any]) -> str:
        return dialogue.call(TOOL["name"], json.dumps(raw_arguments))

    functions = dialogue.task == "functions"
    model = openai.realtime.RealtimeModel(
        base_url=dialogue.url, api_key="none", input_audio_noise_reduction="near_field"
    )
    session: AgentSession[None] = AgentSession(
        llm=model, vad=None, aec_warmup_duration=None, turn_handling={"turn_detection": "realtime_llm"}
    )
    microphone = Microphone(dialogue)
    session.input.audio, session.output.audio = microphone, Speaker(dialogue)

    @session.on("user_input_transcribed")
    def heard(event: Any) -> None:
        if event.is_final:
            dialogue.hear(event.transcript)

    @session.on("conversation_item_added")
    def said(event: Any) -> None:
        if event.item.type == "message" and event.item.role == "assistant":
            dialogue.say(event.item.text_content or "")
            dialogue.end()

    @session.on("error")
    def failed(event: Any) -> None:
        dialogue.fail(event.error)

    await session.start(Agent(instructions="", tools=[weather] if functions else []))
    if functions:
        session.generate_reply(instructions=GREET)
    await microphone.over.wait()
    await session.aclose()
    dialogue.report()


asyncio.run(main())
