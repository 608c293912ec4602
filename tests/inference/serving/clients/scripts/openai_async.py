"""openai-python, asynchronous."""

from __future__ import annotations

import asyncio
import base64

from dialogue import Dialogue
from openai import AsyncOpenAI
from raw_events import GREETING, SESSION, note


async def main() -> None:
    dialogue = Dialogue()
    client = AsyncOpenAI(api_key="none", base_url=dialogue.url)
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(session=SESSION[dialogue.task])
        if dialogue.task == "functions":
            await connection.response.create(response=GREETING)

        async def speak() -> None:
            async for block in dialogue.blocks():
                await connection.input_audio_buffer.append(audio=base64.b64encode(block).decode())
            await connection.close()

        speaking = asyncio.create_task(speak())
        async for event in connection:
            for answer in note(event.model_dump(), dialogue):
                await connection.send(answer)
        await speaking
    dialogue.report()


asyncio.run(main())
