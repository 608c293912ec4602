"""A telephone line: µ-law at 8 kHz, in frames of 20 ms, as media gateways send them; spoken over, it plays no further.

What has not been played when the user begins to speak is dropped, and the server is told how much was played.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct

from dialogue import Dialogue
from raw_events import GREETING, SESSION, note
from websockets.asyncio.client import connect

RATE = 8_000
LINE = {"format": {"type": "audio/pcmu"}}


def mu_law(sample: int) -> int:
    """ITU-T G.711."""
    sign, magnitude = (0x80, -sample) if sample < 0 else (0, sample)
    magnitude = min(magnitude, 32_635) + 132
    exponent = magnitude.bit_length() - 8
    return ~(sign | exponent << 4 | magnitude >> exponent + 3 & 15) & 0xFF


async def main() -> None:
    dialogue = Dialogue(RATE)
    url = f"{dialogue.url.replace('http', 'ws')}/realtime?model=gpt-realtime"
    async with connect(url, additional_headers={"Authorization": "Bearer none"}) as line:

        async def send(event: dict) -> None:
            await line.send(json.dumps(event))

        session = SESSION[dialogue.task]
        hears = {**session.get("audio", {}).get("input", {}), **LINE, "turn_detection": {"type": "server_vad"}}
        await send({"type": "session.update", "session": {**session, "audio": {"input": hears, "output": LINE}}})
        if dialogue.task == "functions":
            await send({"type": "response.create", "response": GREETING})
        received, played, item = b"", 0, ""

        async def speak() -> None:
            nonlocal played
            async for block in dialogue.blocks():
                played = min(played + 160, len(received))  # the line plays while it listens
                frame = bytes(map(mu_law, struct.unpack(f"<{len(block) // 2}h", block)))
                assert len(frame) == 160
                await send({"type": "input_audio_buffer.append", "audio": base64.b64encode(frame).decode()})
            await line.close()

        speaking = asyncio.create_task(speak())
        async for message in line:
            event = json.loads(message)
            if event["type"] == "response.output_audio.delta":
                if event["item_id"] != item:
                    received, played, item = b"", 0, event["item_id"]
                received += base64.b64decode(event["delta"])
            elif event["type"] == "input_audio_buffer.speech_started" and played < len(received):
                ms = played // 8
                await send({"type": "conversation.item.truncate", "item_id": item, "content_index": 0,
                            "audio_end_ms": ms})  # fmt: skip
                received = received[:played]
            for answer in note(event, dialogue, RATE):
                await send(answer)
        await speaking
    dialogue.report()


asyncio.run(main())
