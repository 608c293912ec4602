"""One question to the service over its own Realtime protocol: a recording, a text, or a text about a recording.

It is a client like any other, in a connection of its own: what was said before is told in words, then the question.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from ..data_prep.audio import AudioSource, read_audio
from ..model.errors import DuologueError

RATE = 24_000  # Hz, of the protocol's sound
LONGEST_S = 60.0  # of a recording: what fits into one message
_SESSION = {
    "type": "realtime",
    "audio": {"input": {"turn_detection": None, "transcription": {"model": "local"}}},
}


@dataclass
class Answered:
    """A question, and how far its answer has come.

    heard: what was heard in the recording. said: the answer. heard_s, said_s: how long they are. first_ms: from the
    question's last byte to the answer's first sample. sound: what came since the last time, 16-bit samples at RATE.
    """

    heard: str = ""
    said: str = ""
    heard_s: float = 0.0
    said_s: float = 0.0
    first_ms: float | None = None
    sound: bytes = b""


def sound_of(recording: AudioSource) -> np.ndarray:
    """A recording as samples (n,) at RATE.

    Raises:
        DuologueError: it cannot be read, or is too long.
    """
    sound = read_audio(recording, 16_000)
    seconds = len(sound) / 16_000
    if seconds > LONGEST_S:
        raise DuologueError(f"the recording lasts {seconds:.0f} s; at most {LONGEST_S:.0f} s can be asked about")
    return np.asarray(soxr.resample(sound, 16_000, RATE))


async def ask(
    url: str, recording: AudioSource | None, text: str, past: list[tuple[str, str]]
) -> AsyncIterator[Answered]:
    """The answer as it comes.

    Args:
        url: of the service, http://host:port.
        recording: what is asked, or asked about. text: the question in writing; "" if the recording asks it.
        past: questions and answers before this one.

    Raises:
        DuologueError: a recording that cannot be used, no words, or a service that does not let us in or fails.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidStatus

    found, content = Answered(), []
    if recording is not None:
        sound = sound_of(recording)
        found.heard_s = len(sound) / RATE
        pcm = (np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes()
        content.append({"type": "input_audio", "audio": base64.b64encode(pcm).decode()})
    if text.strip():
        content.append({"type": "input_text", "text": text})
    items = [
        {"type": "message", "role": role, "content": [{"type": kind, "text": words}]}
        for turn in past
        for role, kind, words in zip(("user", "assistant"), ("input_text", "output_text"), turn, strict=True)
    ]
    try:
        async with connect(f"{url.replace('http', 'ws', 1)}/v1/realtime", max_size=None) as socket:

            async def send(kind: str, **fields: Any) -> None:
                await socket.send(json.dumps({"type": kind, **fields}))

            await send("session.update", session=_SESSION)
            for item in [*items, {"type": "message", "role": "user", "content": content}]:
                await send("conversation.item.create", item=item)
            await send("response.create")
            asked = time.monotonic()
            async for message in socket:
                event = json.loads(message)
                kind = event["type"]
                if kind == "error":
                    raise DuologueError(event["error"]["message"])
                if kind == "conversation.item.input_audio_transcription.delta":
                    found.heard += event["delta"]
                elif kind == "response.output_audio_transcript.delta":
                    found.said += event["delta"]
                elif kind == "response.output_audio.delta":
                    found.first_ms = found.first_ms or 1e3 * (time.monotonic() - asked)
                    found.sound = base64.b64decode(event["delta"])
                    found.said_s += len(found.sound) / 2 / RATE
                elif kind != "response.done":
                    continue
                yield found
                found.sound = b""
                if kind == "response.done":
                    return
    except InvalidStatus as refusal:
        raise DuologueError(json.loads(refusal.response.body)["error"]["message"]) from None
    except ConnectionClosed:
        raise DuologueError("the service hung up before the answer was whole") from None
