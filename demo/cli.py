"""The command ``duologue``: one function a command, each a thin edge over a function that Python can call as well.

Nothing heavy is imported until a command runs, so ``--help`` answers at once. A :class:`DuologueError` becomes one line
on stderr and exit status 2, never a traceback; Ctrl-C becomes status 130 (typer does that).
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..model.errors import DuologueError

app = typer.Typer(
    name="duologue",
    help="Speech-interaction models: audio in, audio out.\n\n"
    "\b\nTalk to the bundled model in a browser:   duologue chat\n"
    "Ask it one recorded question:             duologue ask question.wav -o reply.wav\n"
    "Let it converse with a recording:         duologue listen talk.wav -o replies.wav\n"
    "Train a stage:                            duologue train asr_pretrain\n\n"
    "Every command explains itself: duologue COMMAND --help",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# The extra that brings a library which the core does without.
_EXTRAS = {
    "gradio": "demo",
    "accelerate": "train",
    "tensorboard": "train",
    "sklearn": "train",
    "jiwer": "eval",
    "pocketsphinx": "eval",
    "openai": "serve",
    "fastapi": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
    "prometheus_client": "serve",
}

Model = Annotated[str, typer.Option("--model", "-m", help="A bundled name (nano), a folder, or a hub id.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe.")]


def _modules(folder: str, names: tuple[str, ...]) -> str:
    """A help paragraph: each module of a folder with the first sentence of its docstring, read without importing it."""
    lines = []
    for name in names:
        path = Path(__file__).parent.parent / folder / f"{name}.py"
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) if path.is_file() else None
        lines.append(f"  {name:<16}{(doc or '').splitlines()[0] if doc else ''}".rstrip())
    return "\b\n" + "\n".join(lines)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def ask(
    question: Annotated[Path | None, typer.Argument(help="A recording: WAV, FLAC, Ogg or MP3 at any rate.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the spoken reply here (.wav).")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Ask in writing instead of a recording.")] = None,
    model: Model = "nano",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Ask one question; print the reply and write its speech.

    \b
    duologue ask question.wav                       print the reply
    duologue ask question.wav -o reply.wav          and write its speech
    duologue ask --text "what is two plus three"    ask in writing
    duologue ask question.wav --json | jq .text     for scripts
    """
    if (question is None) == (text is None):
        raise DuologueError("give either a recording (duologue ask question.wav) or --text, and not both")
    from ..inference.assistant import load

    reply = load(model).ask(question, text)
    seconds = len(reply.waveform) / reply.sample_rate
    if output is not None and len(reply.waveform):
        from ..inference.audio import write_wav

        write_wav(output, reply.waveform, reply.sample_rate)
    if as_json:
        facts = {
            "text": reply.text,
            "transcript": reply.transcript,
            "output": str(output) if output is not None else None,
            "sample_rate": reply.sample_rate,
            "units": reply.units,
            "timings": dataclasses.asdict(reply.timings),
            "warning": reply.warning,
        }
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        if reply.transcript and question is not None:
            typer.echo(f"heard: {reply.transcript}", err=True)
        typer.echo(reply.text)
        if reply.warning:
            typer.echo(f"duologue: warning: {reply.warning}", err=True)
    if output is not None and not len(reply.waveform):
        raise DuologueError(f"the reply has no speech, so {output} was not written")
    if output is not None and not as_json:
        delay = reply.timings.compute_delay_ms
        typer.echo(f"{output}: {seconds:.2f} s of speech, ready to start {delay:.0f} ms after the question", err=True)


@app.command()
def listen(
    recording: Annotated[Path, typer.Argument(help="What the microphone hears: WAV, FLAC, Ogg or MP3 at any rate.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="What the loudspeaker says meanwhile (.wav).")],
    events: Annotated[
        Path | None, typer.Option("--events", help="Write what happened here, a JSON object a line.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="responsive, balanced or patient.")] = "balanced",
    model: Model = "nano",
) -> None:
    """Converse in full duplex with a recording: the output is as long as it, and says when it was spoken to.

    \b
    duologue listen talk.wav -o replies.wav                        print what was heard and answered, and when
    duologue listen talk.wav -o replies.wav --events events.jsonl  for scripts
    duologue listen talk.wav -o replies.wav --preset patient       wait longer before answering
    """
    from ..inference.duplex import PRESETS

    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    from ..inference.assistant import load
    from ..inference.listen import converse

    converse(load(model), recording, output, events, PRESETS[preset], typer.echo)


@app.command()
def chat(
    model: Model = "nano",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 7860,
    lanes: Annotated[int, typer.Option(min=0, help="Processes that compute; 0: a thread of this one.")] = 0,
) -> None:
    """Open the voice-chat page: talk, interrupt, write, or ask about a recording. It serves programs too, at /v1.

    \b
    duologue chat                     http://127.0.0.1:7860
    duologue chat --port 8000
    duologue chat --host 0.0.0.0      reachable from other machines (their browsers want https for a microphone)
    """
    from ..inference.engine import EngineConfig
    from ..inference.serving.app import ServeConfig
    from .page import launch

    launch(ServeConfig(model=model, engine=EngineConfig(lanes=lanes)), host, port)


@app.command()
def serve(
    model: Model = "nano",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(envvar="DUOLOGUE_API_KEY", help="Let in only who has it. May be given several times."),
    ] = None,
    origin: Annotated[
        list[str] | None, typer.Option(help="Pages of this origin may use the service too (https://example.org).")
    ] = None,
    lanes: Annotated[int, typer.Option(min=0, help="Processes that compute; 0: a thread of this one.")] = 0,
    sessions: Annotated[int | None, typer.Option(min=1, help="Conversations at most, instead of what fits.")] = None,
    sessions_per_key: Annotated[int | None, typer.Option(min=1, help="Conversations at a time of each key.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="That a conversation may last.")] = 60.0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for answers to finish in when it is ended.")] = 30.0,
) -> None:
    """Serve conversations to programs: OpenAI's Realtime API over WebSocket, and its audio endpoints over HTTP.

    \b
    duologue serve                                     http://127.0.0.1:8000/v1, for OpenAI's clients
    duologue serve --lanes 2                           two processes compute
    duologue serve --host 0.0.0.0 --api-key SECRET     only who has the key (or: DUOLOGUE_API_KEY=SECRET)
    """
    from ..inference.engine import EngineConfig
    from ..inference.serving.access import AccessConfig
    from ..inference.serving.app import ServeConfig
    from ..inference.serving.run import serve as run

    access = AccessConfig(
        keys=tuple(api_key or ()),
        origins=tuple(origin or ()),
        sessions_per_key=sessions_per_key,
        session_s=60 * minutes,
    )
    engine = EngineConfig(lanes=lanes, sessions=sessions)
    config = ServeConfig(model=model, engine=engine, access=access, grace_s=grace)
    run(config, host, port, say=lambda address: typer.echo(f"Duologue serves {address}/v1   (Ctrl-C ends it)"))


@app.command()
def prepare(
    recipe: Annotated[str, typer.Argument(help="One of the recipes in the examples below.")],
    overrides: Overrides = None,
) -> None:
    """Build a data set in shards that the trainer reads. A broken-off run goes on where it stopped.

    \b
    duologue prepare questions out=data/questions n=9000            synthetic questions in many voices
    duologue prepare replies out=data/replies                       answers in the voice of the reply
    duologue prepare asides out=data/asides                         what needs no answer, for the duplex monitor
    duologue prepare recordings source=folder out=data/recordings   real speech, listed in a manifest.jsonl
    duologue prepare spliced source=data/recordings out=data/mixed  questions with recorded words in them
    duologue prepare units data=data/replies quantiser=data/units   the speech units of replies
    duologue prepare turns source=folder out=data/mine              one's own conversations, listed in a turns.jsonl
    duologue prepare rewrite source=alpaca.json out=spoken.jsonl endpoint=http://localhost:8000/v1 model=NAME
                                                                    instructions as people say them, by a chat model
    duologue prepare instructions source=spoken.jsonl out=data/mine instructions and answers, spoken
    duologue prepare questions                                      lists what is missing; a wrong key, what there is

    Speech is made by Debian's espeak-ng, flite and festival, which must be installed; with voices=more by RHVoice and
    ttspico; or by a command of yours: tts_command="my-tts --text {text} --out {wav}".
    """
    from ..data_prep.prepare import main as run

    counts = run(recipe, overrides or [])
    typer.echo(", ".join(f"{name}: {count}" for name, count in counts.items()))


STAGES = ("asr_pretrain", "text_sft", "speech_to_text", "unit_decoder", "unit_vocoder", "duplex")


@app.command(
    help="Train one stage. A broken-off run goes on where it stopped.\n\n"
    "\b\nduologue train asr_pretrain                          nano's own settings\n"
    "duologue train asr_pretrain steps=2000 lr=5e-4       changes\n"
    "duologue train asr_pretrain preset=tiny              a minute on a laptop, to see it run\n"
    "accelerate launch -m duologue train asr_pretrain     several GPUs\n\n"
    "Recipes:\n\n" + _modules("training/recipes", STAGES)
)
def train(
    recipe: Annotated[str, typer.Argument(help="One of the recipes above.")],
    overrides: Overrides = None,
) -> None:
    from ..training.main import run

    run(recipe, overrides or [])


@app.command()
def evaluate(
    suite: Annotated[
        str, typer.Argument(help="s2s (spoken questions, spoken answers) or duplex (scripted dialogues).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the figures (JSON).")],
    model: Model = "nano",
    profile: Annotated[str, typer.Option(help="quick: minutes; card: the figures of a model card.")] = "quick",
    voices: Annotated[str | None, typer.Option(help="Who asks, with commas between, instead of the profile's.")] = None,
    questions: Annotated[int | None, typer.Option(min=1, help="How many (duplex: scenes of each kind).")] = None,
    preset: Annotated[str, typer.Option("--preset", help="duplex: responsive, balanced or patient.")] = "balanced",
    outputs: Annotated[bool, typer.Option("--outputs", help="duplex: judge what another system said.")] = False,
) -> None:
    """Measure a model with generated questions or dialogues in synthetic voices; write report.json in a folder.

    s2s: a reply is judged by its text and by what an independent recogniser hears in its speech.
    duplex: pauses, noise, back-channels, interruptions, echo. With --outputs no model is run: any system may have
    played each SCENE/input.wav of the folder and written SCENE/output.wav beside it. A broken-off run goes on.

    \b
    duologue evaluate s2s -o figures                                    the bundled model, quickly
    duologue evaluate s2s --profile card -o figures                     as in its model card
    duologue evaluate s2s -m runs/mine --voices flite:slt -o figures    one's own model, one voice
    duologue evaluate duplex -o figures --preset responsive             who speaks when
    """
    if suite == "duplex":
        from ..inference import duplex_suite

        duplex_suite.run(model=model, out=output, profile=profile, voices=voices, scenes=questions, preset=preset,
                         outputs=outputs)  # fmt: skip
        return
    from ..inference.evaluate import run

    run(model=model, out=output, suite=suite, profile=profile, voices=voices, questions=questions)


def _say(message: Any) -> None:
    """An error as one line on stderr."""
    print(f"duologue: error: {' '.join(str(message).split())}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends in :class:`SystemExit`."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its advice to programmers is noise to a user
    try:
        app(args=arguments, prog_name="duologue")
    except DuologueError as error:
        _say(error)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        _say(f"this command needs {library}: pip install 'duologue[{_EXTRAS[library]}]'")
    except OSError as error:  # a full disk, a folder without permission, a port that is taken
        _say(f"{error.filename}: {error.strerror}" if error.filename else error)
    sys.exit(2)
