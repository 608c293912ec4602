"""`duologue chat --terminal`: the voice chat without a browser. A client of /v1/realtime, like the page.

The microphone stays open; what is said is heard while the answer plays, and an answer that is spoken over stops. A
typed line is a question too. The loudspeaker's echo is taken out of the microphone (docs/echo.md).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ..model.errors import DuologueError
from .sound import Loudspeaker, SoundDevice

_MOST_WAITING = 100  # blocks of 40 ms; more are lost, for a conversation that is seconds late is none
_SESSION = {
    "type": "realtime",
    "audio": {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "turn_detection": {"type": "semantic_vad"},
            "transcription": {"model": "local"},
        },
        "output": {"format": {"type": "audio/pcm", "rate": 24000}},
    },
}


def chat(url: str, key: str | None, write: Callable[[str], None]) -> None:
    """Converse until Ctrl-C, or until the server hangs up.

    Args:
        url: of the server, http://host:port. key: its API key, if it wants one.
        write: what is to be shown, piece by piece; line ends are in it.

    Raises:
        DuologueError: no sound here, no server there, or it does not let us in or hangs up.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a script are deaf to Ctrl-C
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_connect(url, key, write))


@contextlib.contextmanager
def own_server(config: Any) -> Iterator[str]:
    """A server of one's own, on a free port of this machine; gives its address."""
    from ..inference.serving.progress import Progress

    with Progress() as progress:
        progress(f"loading {config.model}")
        from ..inference.serving.app import create_app
        from ..inference.serving.run import loaded, prepare

        server, listening = prepare(config, "127.0.0.1", 0, create_app(config, loaded(config)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise DuologueError("the server did not start; see the message above")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


async def _connect(url: str, key: str | None, write: Callable[[str], None]) -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

    address = f"{url.rstrip('/').removesuffix('/v1').replace('http', 'ws', 1)}/v1/realtime"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with connect(address, additional_headers=headers, max_size=None) as socket:
            await _Chat(socket, write).run()
    except ConnectionClosed as closed:
        reason = "has shut down" if closed.rcvd is not None and closed.rcvd.code == 1001 else "hung up"
        raise DuologueError(f"{url} {reason}") from None
    except InvalidStatus as refusal:
        raise DuologueError(f"{url} refuses: {_reason(refusal.response)}") from None
    except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise DuologueError(f"{url} cannot be reached: {error or type(error).__name__}") from None


def _reason(response: Any) -> str:
    try:
        return str(json.loads(response.body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {response.status_code}"


class _Chat:
    """One conversation: sound to and from the device, and text to the terminal."""

    def __init__(self, socket: Any, write: Callable[[str], None]) -> None:
        self._socket, self._write = socket, write
        self._loudspeaker = Loudspeaker()
        self._heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._typed: asyncio.Queue[str] = asyncio.Queue()
        self._answering = False
        self._name = "it"

    async def run(self) -> None:
        """Until the server hangs up, or the terminal's input ends."""
        loop = asyncio.get_running_loop()

        def heard(sound: bytes) -> None:
            if self._heard.qsize() < _MOST_WAITING:
                loop.call_soon_threadsafe(self._heard.put_nowait, sound)

        with SoundDevice(heard, self._loudspeaker):
            await self._send("session.update", session=_SESSION)
            threading.Thread(target=self._type, args=(loop,), daemon=True).start()
            tasks = [asyncio.create_task(each) for each in (self._speak(), self._ask(), self._listen())]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, kind: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": kind, **fields}))

    async def _speak(self) -> None:
        """What the microphone hears."""
        while True:
            sound = await self._heard.get()
            await self._send("input_audio_buffer.append", audio=base64.b64encode(sound).decode())

    def _type(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread of its own: what is typed. Where nobody can type, the end of the input ends nothing."""
        with contextlib.suppress(RuntimeError, ValueError):  # the loop is closed, or the input
            for line in sys.stdin:
                loop.call_soon_threadsafe(self._typed.put_nowait, line.strip())
            if sys.stdin.isatty():
                loop.call_soon_threadsafe(self._typed.put_nowait, "\x04")

    async def _ask(self) -> None:
        """What was typed is a question; an answer under way is cut off by it."""
        while (text := await self._typed.get()) != "\x04":
            if not text:
                continue
            if self._answering:
                self._loudspeaker.clear()
                await self._send("response.cancel")
            content = [{"type": "input_text", "text": text}]
            item = {"type": "message", "role": "user", "content": content}
            await self._send("conversation.item.create", item=item)
            await self._send("response.create")

    async def _listen(self) -> None:
        """What the server tells."""
        async for message in self._socket:
            event = json.loads(message)
            kind = event["type"]
            if kind == "session.created":
                self._name = event["session"]["model"].rstrip("/").rpartition("/")[2]
                self._line("", f"listening to you, as {self._name}: speak, or write a line; Ctrl-C ends it")
            elif kind == "input_audio_buffer.speech_started":
                self._loudspeaker.clear()
            elif kind == "conversation.item.input_audio_transcription.completed":
                self._line("you", event["transcript"] or "(nothing)")
            elif kind == "response.created":
                self._answering = True
            elif kind == "response.content_part.added":
                self._write(f"{self._name:<10}")
            elif kind == "response.output_audio_transcript.delta":
                self._write(event["delta"])
            elif kind == "response.output_audio.delta":
                self._loudspeaker.put(event["item_id"], base64.b64decode(event["delta"]))
            elif kind == "response.output_audio.done":
                self._loudspeaker.end()
            elif kind == "response.done":
                await self._done(event["response"])
            elif kind == "conversation.item.retrieved":
                words = " ".join(part.get("transcript") or "" for part in event["item"]["content"])
                self._line("", f"of which you heard: {words or 'nothing'}")
            elif kind == "error":
                self._line("", event["error"]["message"])

    async def _done(self, response: dict[str, Any]) -> None:
        self._answering = False
        output = response["output"]
        cut = response["status"] == "cancelled"
        if output:
            self._write(" —\n" if cut else "\n")
        if output and cut:  # the server knows what it sent; only the device knows what was played of it
            self._loudspeaker.clear()
            item = output[0]["id"]
            played = self._loudspeaker.played_ms(item)
            await self._send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=played)
            await self._send("conversation.item.retrieve", item_id=item)
        timings = response.get("timings")
        if timings:
            first, endpoint, compute = (round(timings[f"{name}_ms"]) for name in ("first", "endpoint", "compute"))
            self._line("", f"first audio after {first} ms: endpoint {endpoint}, compute {compute}")

    def _line(self, who: str, text: str) -> None:
        self._write(f"{who:<10}{text}\n")
