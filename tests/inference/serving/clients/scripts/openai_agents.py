"""openai-agents: its runner, its own idea of what has been played, its own tools."""
# pyright: reportMissingImports=false

from __future__ import annotations

import asyncio

from agents import FunctionTool
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.realtime.model_inputs import RealtimeModelSendRawMessage
from dialogue import GREET, TOOL, Dialogue


async def main() -> None:
    dialogue = Dialogue()

    async def weather(context: object, arguments: str) -> str:
        return dialogue.call(TOOL["name"], arguments)

    tool = FunctionTool(
        name=TOOL["name"], description=TOOL["description"], params_json_schema=TOOL["parameters"],
        on_invoke_tool=weather, strict_json_schema=False,
    )  # fmt: skip
    agent = RealtimeAgent(name="Duologue", tools=[tool] if dialogue.task == "functions" else [])
    settings = {"audio": {"input": {"noise_reduction": {"type": "near_field"}}}}
    session = await RealtimeRunner(agent, config={"model_settings": settings, "tracing_disabled": True}).run(
        model_config={"api_key": "none", "url": f"{dialogue.url.replace('http', 'ws')}/realtime?model=gpt-realtime"}
    )
    async with session:

        async def speak() -> None:
            if dialogue.task == "functions":
                greeting = {"type": "response.create", "other_data": {"response": {"instructions": GREET}}}
                await session.model.send_event(RealtimeModelSendRawMessage(message=greeting))
            async for block in dialogue.blocks():
                await session.send_audio(block)
            await session.close()

        speaking = asyncio.create_task(speak())
        async for event in session:
            if event.type == "audio":
                dialogue.sound(len(event.audio.data) / 48_000)
            elif event.type == "raw_model_event" and event.data.type == "transcript_delta":
                dialogue.say(event.data.delta)
            elif event.type == "raw_model_event" and event.data.type == "input_audio_transcription_completed":
                dialogue.hear(event.data.transcript)
            elif event.type == "raw_model_event" and event.data.type == "turn_ended":
                dialogue.end()
            elif event.type == "error":
                dialogue.fail(event.error)
            elif event.type == "raw_model_event" and event.data.type == "exception":
                dialogue.fail(event.data.exception)
        await speaking
    dialogue.report()


asyncio.run(main())
