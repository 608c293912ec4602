"""A Gradio app: a recording or a text in; what was heard, the answer and its speech out.

For notebooks and for hosts of Gradio apps. A conversation in full duplex is the page of ``duologue chat`` (page.py),
which needs no Gradio.

    python -m duologue.demo.gradio_app nano

    from duologue.demo.gradio_app import build
    build(duologue.load("nano")).launch()

Start it by ``launch()``: an app that is mounted into another application is not protected by Gradio against requests
that name a file of this machine.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr
import numpy as np

from ..inference.assistant.assistant import Assistant, limit_threads
from ..inference.assistant.loading import load
from ..model.errors import DuologueError

_FORGET_S = (60, 600)  # every minute: uploads and answers older than ten


def build(assistant: Assistant, title: str = "Duologue") -> gr.Interface:
    """The app of one assistant. It answers one question at a time; each is asked by itself, without a history."""

    def answer(recording: str | None, text: str) -> tuple[str, str, tuple[int, np.ndarray] | None]:
        if recording is None and not text.strip():
            raise gr.Error("Record or upload a question, or write one.", print_exception=False)
        try:
            reply = assistant.ask(recording, text.strip() or None)
        except DuologueError as error:
            raise gr.Error(str(error), print_exception=False) from None
        if reply.warning:
            gr.Warning(reply.warning)
        speech = np.rint(32_767 * reply.waveform).astype(np.int16)
        return reply.transcript, reply.text, (reply.sample_rate, speech) if len(speech) else None

    return gr.Interface(
        answer,
        [gr.Audio(type="filepath", label="A recording"), gr.Textbox(label="A question in writing")],
        [gr.Textbox(label="Heard"), gr.Textbox(label="Answer"), gr.Audio(label="Speech", autoplay=True)],
        title=title,
        flagging_mode="never",
        delete_cache=_FORGET_S,
        analytics_enabled=False,
        api_name="ask",
    )


def main(arguments: list[Any] | None = None) -> None:
    """The command line: the model's name, folder or hub id."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        assistant = load(given[0] if given else "nano")
        limit_threads(assistant)
        build(assistant).launch()
    except DuologueError as error:
        print(f"duologue: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
