"""The page: a live conversation with the microphone open, and recordings to ask and to be asked about.

Both tabs are clients of the service's own Realtime protocol, which this page is mounted beside, and have nothing that
another client could not have: the live one in the browser (assets/live.js), the other by way of Gradio (question.py).
There, recordings are made or uploaded and asked about, by voice or in writing, and what was said is remembered for each
browser tab until it is cleared. Everything comes from this machine: system fonts, no analytics, no request to any other
host.

The example questions in assets/ are synthetic speech in voices of the training set, made by
    duologue.data_prep.synthesis.synthesise(text, voice)    with the texts and voices of EXAMPLES
and written as FLAC by soundfile.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import quote

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from ..inference.assistant import Assistant, load
from ..inference.serving.app import ServeConfig, create_app
from ..inference.serving.run import serve
from ..model.errors import DuologueError
from .player import ASSETS, SpeechFeed, player
from .question import RATE, Answered, ask, sound_of

# what the button says, the file in assets/, what it says, its voice
EXAMPLES = (
    ("What is 47 plus 12?", "plus.flac", "what is forty seven plus twelve", "flite:rms"),
    ("What is the capital of France?", "capital.flac", "what is the capital of france", "espeak:en-us+f3"),
    ("What day comes after Friday?", "day.flac", "what day comes after friday", "flite:kal16"),
    ("How do you spell water?", "spell.flac", "how do you spell water", "espeak:en-gb+m3"),
    ("Which is larger, 18 or 80?", "larger.flac", "which is larger eighteen or eighty", "espeak:en-us+Andy"),
    ("How are you?", "hello.flac", "how are you", "espeak:en-gb-scotland+f2"),
)
FORGET_S = (60, 600)  # what was uploaded is on disk for so long (looked after each minute), and until the server ends
UPDATE_S = 0.06  # the texts are refreshed at most this often while a reply is made
PRIVATE = {"api_visibility": "private"}
_POLICY = "(value) => { window.duologue.detection = value; window.duologue.configure(); }"
Past = list[tuple[str, str]]  # questions and answers
Update = tuple[list[dict[str, str]], Past, str, str, str]  # chat, past, question's replay, player's turn, figures


def create_page(config: ServeConfig, assistant: Assistant, vad: Any = None) -> FastAPI:
    """The service, with the page at its root."""
    app = create_app(config, assistant, vad)
    app.mount("/page-assets", StaticFiles(directory=ASSETS))
    return cast(
        FastAPI,
        gr.mount_gradio_app(
            app,
            build(config.model).queue(),
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


def build(name: str) -> gr.Blocks:
    """The page for one model, by its name."""
    feed = SpeechFeed(RATE)

    async def answer(recording: str | None, text: str, past: Past, request: gr.Request) -> AsyncIterator[Update]:
        """One turn: a recording's path, or a text, or both. It is remembered once it is whole."""
        if recording is None and not text.strip():
            yield _messages(past), past, "", "", _figures(Answered())
            return
        host, port = request.request.scope["server"]  # where this very page was asked for
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        speech = feed.open()
        replay = "" if recording is None else _replay(recording)
        told, found = 0.0, Answered()

        def update(ended: bool) -> Update:
            turn = (found.heard or text, found.said)  # what is asked in writing about a sound ends what was heard
            shown = _messages([*past, turn], *(("(nothing)", "(no words)") if ended else ("…", "…")))
            return shown, [*past, turn] if ended else past, replay, speech, _figures(found)

        try:
            yield update(False)
            async for found in ask(url, recording, text, past):
                feed.push(speech, found.sound)
                if time.monotonic() - told > UPDATE_S:
                    yield update(False)
                    told = time.monotonic()
        except DuologueError as error:
            raise gr.Error(str(error), title="That did not work", print_exception=False) from None
        finally:
            feed.close(speech)
        yield update(True)

    async def hear(recording: str | None, past: Past, request: gr.Request) -> AsyncIterator[Update]:
        async for each in answer(recording, "", past, request):
            yield each

    async def read(text: str, recording: str | None, past: Past, request: gr.Request) -> AsyncIterator[Update]:
        async for each in answer(recording, text, past, request):
            yield each

    def check(recording: str | None) -> None:
        """What was uploaded can be asked about; otherwise that is said at once."""
        try:
            if recording is not None:
                sound_of(recording)
        except DuologueError as error:
            raise gr.Error(str(error), title="That did not work", print_exception=False) from None

    with gr.Blocks(title=f"Duologue: talk to {name}", analytics_enabled=False, delete_cache=FORGET_S) as page:
        past = gr.State([])
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
                    label="A recording",
                    elem_id="question",
                    editable=False,
                    buttons=[],
                )
                gr.HTML(
                    '<p class="hint">Press <b>Record</b>, speak, press <b>Stop</b>: the answer begins at once. '
                    "Or upload a sound, and ask about it below.</p>"
                )
                written = gr.Textbox(
                    label="Ask in writing",
                    placeholder="What sound is this?",
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
                figures = gr.HTML(_figures(Answered()), elem_id="figures")
                clear = gr.Button("Clear conversation", size="sm", elem_id="clear")

        outputs = [chat, past, asked, voice, figures]
        turn: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", **PRIVATE}
        asking = {"trigger_mode": "always_last", **turn}  # what is asked meanwhile is answered next, not dropped
        at_once: dict[str, Any] = {"queue": False, **PRIVATE}
        recorded, question = gr.State(None), gr.State("")  # taken at once: the next can be asked before the answer ends
        microphone.stop_recording(lambda path: (None, path), microphone, [microphone, recorded], **at_once).then(
            hear, [recorded, past], outputs, **asking
        )
        microphone.upload(check, microphone, **turn)  # queued: only then is an error shown in its own words
        microphone.start_recording(lambda: "", outputs=voice, **at_once)
        written.submit(lambda text: ("", text), written, [written, question], **at_once).then(
            read, [question, microphone, past], outputs, **asking
        )
        for button, path in examples:
            button.click(hear, [gr.State(path), past], outputs, **turn)
        for forget in (clear.click, chat.clear):
            forget(lambda: ([], [], "", "", _figures(Answered())), outputs=outputs, **at_once)
        policy.change(None, policy, js=_POLICY, **PRIVATE)
    return page


def _replay(path: str) -> str:
    """The question as it was recorded, to be heard again."""
    source = f"gradio_api/file={quote(path)}"
    audio = f'<audio controls src="{source}" aria-label="The question"></audio>'
    return f'<div class="speech"><span>Question</span>{audio}</div>'


def _messages(past: Past, nothing: str = "(nothing)", no_words: str = "(no words)") -> list[dict[str, str]]:
    turns = [(("user", asked or nothing), ("assistant", said or no_words)) for asked, said in past]
    return [{"role": role, "content": text} for turn in turns for role, text in turn]


def _figures(found: Answered) -> str:
    """The line of figures: the first as soon as it is known, the others as the turn goes on."""
    first, heard, said = found.first_ms, found.heard_s, found.said_s
    parts = [
        ("First audio", f"{first:.0f} ms" if first is not None else "–", "question sent to first sample of the answer"),
        ("Heard", f"{heard:.1f} s" if heard else "–", "length of the recording"),
        ("Spoken", f"{said:.1f} s" if said else "–", "length of the answer"),
    ]
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
        block_label_background_fill_dark="*primary_800",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
    )
