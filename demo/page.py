"""The page: a live conversation with the microphone open, and recordings to ask and to be asked about.

The live tab is a client of the service's own Realtime protocol (assets/live.js), which this page is mounted beside; it
has nothing that another client could not have. In the other tab recordings are uploaded, recorded or chosen, answered
one at a time, and remembered for each browser tab until they are cleared. Everything comes from this machine: system
fonts, no analytics, no request to any other host.

The example questions in assets/ are synthetic speech in voices of the training set, made by
    duologue.data_prep.synthesis.synthesise(text, voice)    with the texts and voices of EXAMPLES
and written as FLAC by soundfile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import quote

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from ..inference.assistant import Assistant, Conversation, Reply, Turn, load
from ..inference.serving.app import ServeConfig, create_app
from ..inference.serving.run import serve
from ..model.errors import DuologueError
from .player import ASSETS, SpeechFeed, player

# what the button says, the file in assets/, what it says, its voice
EXAMPLES = (
    ("What is 47 plus 12?", "plus.flac", "what is forty seven plus twelve", "flite:rms"),
    ("What is the capital of France?", "capital.flac", "what is the capital of france", "espeak:en-us+f3"),
    ("What day comes after Friday?", "day.flac", "what day comes after friday", "flite:kal16"),
    ("How do you spell water?", "spell.flac", "how do you spell water", "espeak:en-gb+m3"),
    ("Which is larger, 18 or 80?", "larger.flac", "which is larger eighteen or eighty", "espeak:en-us+Andy"),
    ("How are you?", "hello.flac", "how are you", "espeak:en-gb-scotland+f2"),
)
UPDATE_S = 0.06  # the texts are refreshed at most this often while a reply is made
PRIVATE = {"api_visibility": "private"}
_POLICY = "(value) => { window.duologue.detection = value; window.duologue.configure(); }"
Chat = list[dict[str, str]]
Update = tuple[
    Chat, Conversation | None, str, str, str
]  # chat, conversation, question's replay, player's turn, figures


def create_page(config: ServeConfig, assistant: Assistant, vad: Any = None) -> FastAPI:
    """The service, with the page at its root."""
    app = create_app(config, assistant, vad)
    app.mount("/page-assets", StaticFiles(directory=ASSETS))
    return cast(
        FastAPI,
        gr.mount_gradio_app(
            app,
            build(assistant, config.model).queue(),
            path="/",
            footer_links=[],
            run_history=False,
            show_error=True,
            ssr_mode=False,
            max_file_size="100mb",
            allowed_paths=[str(ASSETS)],
            theme=_theme(),
            css_paths=ASSETS / "page.css",
            head='<script type="module" src="/page-assets/live.js"></script>',
        ),
    )


def launch(config: ServeConfig, host: str = "127.0.0.1", port: int = 7860, assistant: Assistant | None = None) -> None:
    """Serve the page until interrupted, and print its address.

    Args:
        port: 0 takes any free port.
        assistant: one that is loaded already, instead of the config's model.

    Raises:
        DuologueError: an unknown model, or a port that is taken.
    """
    if assistant is None:
        assistant = load(config.model)
    assistant.warm_up()
    app = create_page(config, assistant)
    serve(
        config,
        host,
        port,
        app=app,
        say=lambda url: print(f"Duologue is listening: {url}   (Ctrl-C ends it)", flush=True),
    )


def build(assistant: Assistant, name: str) -> gr.Blocks:
    """The page for one loaded model."""
    feed = SpeechFeed(assistant.output_rate)

    def answer(question: str | None, chat: Chat, conversation: Conversation | None, *, typed: bool) -> Iterator[Update]:
        """One turn: a recording's path or a typed text in. It is remembered once it is whole."""
        if not question or not question.strip():
            yield chat, conversation, "", "", _figures(None, None)
            return
        conversation = conversation or assistant.converse()
        speech = feed.open()
        replay = "" if typed else _replay(question)

        def update(turn: Turn, reply: Reply | None) -> Update:
            so_far = turn.reply()
            heard = question if typed else so_far.transcript or ("(nothing)" if reply else "…")
            said = so_far.text or ("(no words)" if reply else "…")
            messages = [{"role": "user", "content": heard}, {"role": "assistant", "content": said}]
            return [*chat, *messages], conversation, replay, speech, _figures(reply, turn)

        try:
            turn = conversation.stream(text=question) if typed else conversation.stream(audio=question)
            yield update(turn, None)
            shown = time.monotonic()
            for chunk in turn:
                feed.push(speech, chunk.pcm)
                if time.monotonic() - shown > UPDATE_S:
                    yield update(turn, None)
                    shown = time.monotonic()
        except DuologueError as error:
            raise gr.Error(str(error), title="That did not work", print_exception=False) from None
        finally:
            feed.close(speech)
        reply = turn.reply()
        if reply.warning:
            gr.Warning(reply.warning)
        yield update(turn, reply)

    def hear(path: str | None, chat: Chat, conversation: Conversation | None) -> Iterator[Update]:
        yield from answer(path, chat, conversation, typed=False)

    def read(text: str, chat: Chat, conversation: Conversation | None) -> Iterator[Update]:
        yield from answer(text, chat, conversation, typed=True)

    with gr.Blocks(title=f"Duologue: talk to {name}", analytics_enabled=False) as page:
        conversation = gr.State(None)
        gr.HTML(
            f'<header class="masthead"><h1>Duologue</h1><p>Talk to <b>{name}</b>. It runs on this machine; '
            "nothing you say leaves it.</p></header>"
        )
        with gr.Tab("Conversation"):
            with gr.Row(elem_classes="choices"):
                gr.Dropdown([name], value=name, label="Model", interactive=True)
                policy = gr.Dropdown(
                    [("balanced", "auto"), ("responsive", "high"), ("patient", "low")],
                    value="auto",
                    label="How soon it answers",
                    interactive=True,
                )
            gr.HTML((ASSETS / "live.html").read_text(encoding="utf-8"))
        with gr.Tab("Audio analysis"), gr.Row():
            with gr.Column(scale=2, min_width=300):
                microphone = gr.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label="Your question",
                    elem_id="question",
                    editable=False,
                    buttons=[],
                )
                gr.HTML('<p class="hint">Press <b>Record</b>, speak, press <b>Stop</b>: the answer begins at once.</p>')
                written = gr.Textbox(
                    label="Or write it",
                    placeholder="What is 3 plus 4?",
                    submit_btn=True,
                    elem_id="written",
                    max_lines=1,
                )
                gr.HTML('<p class="hint">Or try one of these recordings:</p>')
                with gr.Row(elem_classes="examples"):
                    examples = [
                        (gr.Button(label, size="sm", elem_classes="example"), str(ASSETS / file))
                        for label, file, _, _ in EXAMPLES
                    ]
            with gr.Column(scale=3, min_width=320):
                chat = gr.Chatbot(
                    label="Conversation",
                    elem_id="conversation",
                    height=440,
                    buttons=[],
                    render_markdown=False,
                    feedback_options=None,
                    placeholder="What it hears and what it says appear here.",
                )
                asked = gr.HTML("", elem_id="asked")
                voice = player(feed)
                figures = gr.HTML(_figures(None, None), elem_id="figures")
                clear = gr.Button("Clear conversation", size="sm", elem_id="clear")

        memory, outputs = [chat, conversation], [chat, conversation, asked, voice, figures]
        # One reply at a time; the others wait their turn.
        turn: dict[str, Any] = {"concurrency_id": "turn", "concurrency_limit": 1, "show_progress": "hidden", **PRIVATE}
        at_once: dict[str, Any] = {"queue": False, **PRIVATE}
        for finished in (microphone.stop_recording, microphone.upload):
            finished(hear, [microphone, *memory], outputs, **turn).then(lambda: None, outputs=microphone, **at_once)
        microphone.start_recording(lambda: "", outputs=voice, **at_once)
        written.submit(read, [written, *memory], outputs, **turn).then(lambda: "", outputs=written, **at_once)
        for button, path in examples:
            button.click(hear, [gr.State(path), *memory], outputs, **turn)
        for forget in (clear.click, chat.clear):
            forget(lambda: ([], None, "", "", _figures(None, None)), outputs=outputs, **at_once)
        policy.change(None, policy, js=_POLICY, **PRIVATE)
    return page


def _replay(path: str) -> str:
    """The question as it was recorded, to be heard again."""
    source = f"gradio_api/file={quote(path)}"
    audio = f'<audio controls src="{source}" aria-label="The question"></audio>'
    return f'<div class="speech"><span>Question</span>{audio}</div>'


def _figures(reply: Reply | None, turn: Turn | None) -> str:
    """The line of figures: compute delay as soon as it is known, the rest when the reply is whole."""
    delay = turn.compute_delay_ms if turn is not None else None
    spoken = reply is not None and reply.timings.audio_s > 0
    parts = [
        ("Compute delay", f"{delay:.0f} ms" if delay is not None else "–", "last sample heard to first sample ready"),
        ("Heard", f"{reply.timings.audio_s:.1f} s" if reply and spoken else "–", "length of the question"),
        ("Spoken", f"{reply.timings.reply_s:.1f} s" if reply else "–", "length of the reply"),
        ("Real-time factor", f"{reply.timings.real_time_factor:.2f}" if reply else "–",
         "computing time of the whole turn over its duration: below 1 the model keeps up"),
    ]  # fmt: skip
    cells = "".join(f'<div title="{hint}"><dt>{label}</dt><dd>{value}</dd></div>' for label, value, hint in parts)
    return f'<dl class="figures" aria-live="polite">{cells}</dl>'


def _theme() -> gr.themes.Base:
    system = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    return gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        font=system,
        font_mono=["ui-monospace", "monospace"],
    ).set(  # legible enough for everybody: 4.5 to 1 and more
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_label_text_color="*body_text_color",
        block_label_text_color_dark="*body_text_color",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )
