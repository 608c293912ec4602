"""A reply's speech on its way into the browser: samples are pushed here as the model makes them, the page pulls them.

Gradio's own streamed audio is re-encoded by ffmpeg and played from a playlist, a second or more behind. Here 16-bit
samples go to Web Audio as they are (assets/player.js): no other program is needed, and little time is lost.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent / "assets"
KEPT = 64  # turns; the oldest is dropped, so a tab that was closed leaves little behind
PATIENCE = 10.0  # s that one pull waits for samples


class SpeechFeed:
    """The speech of the last turns, by their names; many writers and readers at a time."""

    def __init__(self, rate: int) -> None:
        self.rate = rate  # Hz
        self._turns: OrderedDict[str, tuple[bytearray, threading.Event]] = OrderedDict()
        self._changed = threading.Condition()

    def open(self) -> str:
        """A new turn; its name cannot be guessed, so one visitor does not hear another's."""
        name = secrets.token_urlsafe(16)
        with self._changed:
            self._turns[name] = (bytearray(), threading.Event())
            while len(self._turns) > KEPT:
                self._turns.popitem(last=False)[1][1].set()
            self._changed.notify_all()
        return name

    def push(self, name: str, data: bytes) -> None:
        """Add 16-bit samples."""
        with self._changed:
            if name in self._turns:
                self._turns[name][0].extend(data)
            self._changed.notify_all()

    def close(self, name: str) -> None:
        """Nothing more will come."""
        with self._changed:
            if name in self._turns:
                self._turns[name][1].set()
            self._changed.notify_all()

    def pull(self, name: str, have: int) -> dict[str, Any]:
        """What has come after the first ``have`` bytes, base64; waits for it, but not for ever."""
        with self._changed:
            data, ended = self._turns.get(name) or (bytearray(), _ENDED)
            self._changed.wait_for(lambda: len(data) > have or ended.is_set(), timeout=PATIENCE)
            new = bytes(data[have:])
            done = ended.is_set()
        return {"pcm": base64.b64encode(new).decode(), "have": have + len(new), "done": done, "rate": self.rate}


_ENDED = threading.Event()
_ENDED.set()


def player(feed: SpeechFeed) -> gr.HTML:
    """The component: set its value to a turn's name and it speaks; set it to "" and it is silent."""

    def pull(wanted: dict[str, Any]) -> dict[str, Any]:
        return feed.pull(str(wanted["turn"]), max(0, int(wanted["have"])))

    return gr.HTML(
        "",
        elem_id="reply-speech",
        html_template=(
            '<div class="player speech" data-state="empty"><span>Reply</span>'
            '<audio controls aria-label="The reply"></audio>'
            '<a class="save" download="reply.wav" title="Save the reply as a WAV file">Save</a></div>'
        ),
        js_on_load=(ASSETS / "player.js").read_text(encoding="utf-8"),
        server_functions=[pull],
    )
