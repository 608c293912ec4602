"""The command ``duologue``: one function a command, each a thin edge over a function that Python can call as well.

Nothing heavy is imported until a command runs, so ``--help`` answers at once. A :class:`DuologueError` becomes one line
on stderr and exit status 2, never a traceback; Ctrl-C becomes status 130 (typer does that).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from ..checkpoints.outputs import keep_apart, model_path
from ..checkpoints.program import program, say
from ..checkpoints.settings import Catalogue, read_settings, settings_of
from ..data_prep.prepare import RECIPES as PREPARE_RECIPES
from ..inference.assistant.quiet import quieten
from ..inference.evaluation.main import SUITES
from ..model.errors import DuologueError
from ..training.main import RECIPES as TRAIN_RECIPES
from .codec_commands import SOUND_FILES, codec_commands
from .feedback.commands import feedback_commands
from .home import Commands
from .importing import IMPORTERS
from .lm_commands import lm_commands
from .serve_commands import Instructions, Model, Voice, VoiceFrom, chat, serve, voice_asked

app = Commands(
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
    "accelerate": "train",
    "tensorboard": "train",
    "sklearn": "train",
    "jiwer": "eval",
    "pocketsphinx": "eval",
    "whisper_normalizer": "eval",
    "librosa": "eval",
    "pystoi": "eval",
    "scipy": "eval",
    "openai": "serve",
    "fastapi": "serve",
    "uvicorn": "serve",
    "websockets": "serve",
    "prometheus_client": "serve",
    "sounddevice": "terminal",
}

BENCHES = Catalogue("inference/bench", "bench")
Settings = Annotated[
    list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings; a wrong one lists what there is.")
]


Beam = Annotated[
    int,
    typer.Option("--beam", min=0, help="Width of the beam that looks for the words of speech; 0: the model's own, "
                 "1: none."),
]  # fmt: skip
HotWordList = Annotated[
    str, typer.Option("--hotwords", help="Words that are likely: a file, a phrase a line, or phrases with commas.")
]
LM = Annotated[
    Path | None, typer.Option("--lm", help="What may be said: an .arpa file, a language model's folder, or own.")
]
GrammarFile = Annotated[Path | None, typer.Option("--grammar", help="All that may be said, as rules (JSGF).")]

Manner = Annotated[
    bool, typer.Option("--manner", help="Say how the user speaks (calm, whisper …), with a model that tells it.")
]

SSML = Annotated[
    bool, typer.Option("--ssml", help="Replies may say in SSML how they are spoken: pauses, emphasis, rate.")
]


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from .. import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def ask(
    question: Annotated[Path | None, typer.Argument(help=f"A recording: {SOUND_FILES}; - for standard input.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the spoken reply here (.wav).")] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Ask in writing: instead of a recording, or about it.")
    ] = None,
    model: Model = "nano",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
    dtype: Annotated[str, typer.Option(help="Of the weights: float32, bfloat16, float16 or auto.")] = "float32",
    int8: Annotated[
        bool, typer.Option("--int8", help="Keep the language model's matrices in 8 bits (torchao).")
    ] = False,
    encoder: Annotated[
        str, typer.Option(help="offline: an imported encoder's own numbers; windowed: it hears while the user speaks.")
    ] = "offline",
    instructions: Instructions = "",
    voice: Voice = "",
    voice_from: VoiceFrom = None,
    manner: Manner = False,
    ssml: SSML = False,
    beam: Beam = 0,
    hotwords: HotWordList = "",
    lm: LM = None,
    grammar: GrammarFile = None,
) -> None:
    """Ask one question; print the reply and write its speech.

    \b
    duologue ask question.wav                       print the reply
    duologue ask question.wav -o reply.wav          and write its speech
    sox -d -t wav - | duologue ask -                a recording from a pipe
    duologue ask --text "what is two plus three"    ask in writing
    duologue ask question.wav -o reply.wav --voice deep                 in another of the model's voices
    duologue ask question.wav --json | jq .text     for scripts
    duologue ask clip.wav --text "what sound is this?"                  about a recording, which may be a sound
    duologue ask question.wav -m omni --instructions "Answer in one sentence."
    duologue ask --text "calm me down" -m mini -o reply.wav --ssml --instructions 'A pause is <break time="1s"/>.'
    duologue ask question.wav -m mini --hotwords "Evanescence, Asiana Airlines" --lm questions.arpa
    duologue ask order.wav -m mini --grammar orders.jsgf
    duologue ask question.wav -m omni --device cuda --dtype bfloat16    an imported model
    """
    if question is None and text is None:
        raise DuologueError("give a recording (duologue ask question.wav) or --text")
    if encoder not in ("offline", "windowed"):
        raise DuologueError(f"--encoder is {encoder!r}; it must be offline or windowed")
    spoken_in = voice_asked(voice, voice_from)
    keep_apart({"-o": output}, {"the question": question, "--voice-from": voice_from, "--model": model_path(model)})
    from ..data_prep.audio import from_argument, require_wav
    from ..inference.assistant.assistant import limit_threads
    from ..inference.assistant.loading import load
    from ..inference.assistant.word_lists import beside_its_own, decoder_of

    if output is not None:
        require_wav(output)
    recording = None if question is None else from_argument(question)
    config = decoder_of(beam if beam > 1 else 0, lm, hotwords, grammar)
    assistant = load(model, device, dtype, int8, windowed=encoder == "windowed")
    assistant = assistant.with_decoder(beside_its_own(config, assistant.model.decoder, beam))
    limit_threads(assistant)
    reply = assistant.ask(
        recording, text, instructions=instructions, voice=spoken_in or None, manner=manner, ssml=ssml
    )
    seconds = len(reply.waveform) / reply.sample_rate
    if output is not None and len(reply.waveform):
        from ..data_prep.audio import write_wav

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
            **({"manner": reply.manner} if manner else {}),
        }
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        if reply.transcript and question is not None:
            typer.echo(f"heard: {reply.transcript}", err=True)
        if reply.manner:
            said = max(reply.manner, key=reply.manner.__getitem__)
            typer.echo(f"manner: {said} ({reply.manner[said]:.0%})", err=True)
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
    recording: Annotated[Path, typer.Argument(help=f"What the microphone hears: {SOUND_FILES}; - too.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="What the loudspeaker says meanwhile (.wav).")],
    events: Annotated[
        Path | None, typer.Option("--events", help="Write what happened here, a JSON object a line.")
    ] = None,
    preset: Annotated[str, typer.Option("--preset", help="responsive, balanced or patient.")] = "balanced",
    model: Model = "nano",
    instructions: Instructions = "",
    voice: Voice = "",
    manner: Manner = False,
    ssml: SSML = False,
    beam: Beam = 0,
    hotwords: HotWordList = "",
    lm: LM = None,
    grammar: GrammarFile = None,
) -> None:
    """Converse in full duplex with a recording: the output is as long as it, and says when it was spoken to.

    \b
    duologue listen talk.wav -o replies.wav                        print what was heard and answered, and when
    duologue listen talk.wav -o replies.wav --events events.jsonl  for scripts
    duologue listen talk.wav -o replies.wav --preset patient       wait longer before answering
    """
    from ..inference.session.policy import PRESETS
    from ..inference.session.state import SessionConfig

    if preset not in PRESETS:
        raise DuologueError(f"there is no preset {preset!r}; it must be {', '.join(PRESETS)}")
    keep_apart({"-o": output, "--events": events}, {"the recording": recording, "--model": model_path(model)})
    from ..data_prep.audio import from_argument, read_audio, require_wav
    from ..inference.assistant.assistant import limit_threads
    from ..inference.assistant.loading import load
    from ..inference.assistant.word_lists import beside_its_own, decoder_of
    from ..inference.session.listen import converse
    from ..inference.session.notes import notes

    require_wav(output)
    source = from_argument(recording)
    decoder = decoder_of(beam if beam > 1 else 0, lm, hotwords, grammar)
    assistant = load(model)
    assistant = assistant.with_decoder(beside_its_own(decoder, assistant.model.decoder, beam))
    limit_threads(assistant)
    heard = read_audio(source, assistant.input_rate)
    for note in notes(assistant.model):
        typer.echo(f"duologue: {model}: {note}", err=True)
    config = SessionConfig(
        duplex=PRESETS[preset], instructions=instructions, voice=voice or None, manner=manner, ssml=ssml
    )
    converse(assistant, (assistant.input_rate, heard), output, events, config, say)


app.command()(chat)
app.command()(serve)


@app.command(
    help="Build a data set in shards that the trainer reads. A broken-off run goes on where it stopped.\n\n"
    "\b\nduologue prepare questions out=data/questions n=9000            synthetic questions in many voices\n"
    "duologue prepare replies out=data/replies                       answers in the voice of the reply\n"
    "duologue prepare units data=data/replies quantiser=data/units   the speech units of replies; or codec=FOLDER\n"
    "duologue prepare recordings source=folder out=data/recordings   real speech, listed in a manifest.jsonl\n"
    "duologue prepare turns source=folder out=data/mine              one's own conversations: docs/train.md\n"
    "duologue prepare questions                                      what is missing; a wrong key: what there is\n\n"
    "Speech is made by Debian's espeak-ng, flite and festival, which must be installed; with voices=espeak by "
    "espeak-ng alone, which pip brings too (duologue[voices]); with voices=more by RHVoice and ttspico; with "
    'voices=neural by Kokoro; or by a command of yours: tts_command="my-tts --text {text} --out {wav}". Recipes:\n\n'
    + PREPARE_RECIPES.help()
)
def prepare(
    recipe: Annotated[str, typer.Argument(help="One of the recipes below.")],
    settings: Settings = None,
) -> None:
    from ..data_prep.prepare import main as run

    counts = run(recipe, settings or [])
    typer.echo(", ".join(f"{name}: {count}" for name, count in counts.items()))


@app.command(
    help="Train one stage. A broken-off run goes on where it stopped.\n\n"
    "\b\nduologue train asr_pretrain                          nano's own settings\n"
    "duologue train asr_pretrain steps=2000 lr=5e-4       changes; also within: encoder.n_audio_layer=4\n"
    "duologue train asr_pretrain preset=tiny              a minute on a laptop, to see it run\n"
    "accelerate launch -m duologue train asr_pretrain     several GPUs\n\n"
    "A language model and a Whisper of yours, imported (duologue import) or on the hub, joined by an adaptor:\n\n"
    "\b\nduologue train speech_to_text preset=llama-omni llm=LLM encoder=ENCODER data=data/mine out=runs/adaptor\n"
    "duologue train unit_decoder preset=llama-omni llm=runs/adaptor data=data/mine_replies out=runs/decoder\n"
    "duologue assemble MODEL encoder=runs/adaptor adaptor=runs/adaptor llm=runs/adaptor "
    "unit_decoder=runs/decoder vocoder=VOICE\n\n"
    "Recipes:\n\n" + TRAIN_RECIPES.help()
)
def train(
    recipe: Annotated[str, typer.Argument(help="One of the recipes below.")],
    settings: Settings = None,
) -> None:
    from ..training.main import run

    run(recipe, settings or [])


@app.command()
def assemble(
    output: Annotated[Path, typer.Argument(help="The folder of the model to write.")], settings: Settings = None
) -> None:
    """Put the parts that stages have trained into one model.

    \b
    duologue assemble mine encoder=runs/a adaptor=runs/a llm=runs/a unit_decoder=runs/decoder vocoder=VOICE
    duologue assemble mine encoder=runs/a+runs/b …        a part may be the mean of runs that began alike
    duologue assemble mine … codec=FOLDER                 a codec as the voice, in the place of a vocoder
    duologue assemble my-codec codec=runs/codec           a codec by itself
    """
    from ..training.assemble import Config, run

    typer.echo(run(output, read_settings(Config, settings or [], "assemble")))


@app.command()
def grow(
    output: Annotated[Path, typer.Argument(help="The folder of the part to write.")], settings: Settings = None
) -> None:
    """Make a trained part larger; at first it does what it did. For start=PART=FOLDER of a stage.

    \b
    duologue grow runs/grown llm=checkpoints/nano                             more layers
    duologue grow runs/grown unit_decoder=checkpoints/nano codec=nano-codec   a decoder of a codec's tokens
    duologue grow runs/narrow vocoder=nano                                    a vocoder of mini's width
    """
    from ..training.grow import Config, run

    typer.echo(run(output, read_settings(Config, settings or [], "grow")))


@app.command()
def card(
    folder: Annotated[Path, typer.Argument(help="The folder of a checkpoint.")],
    settings: Settings = None,
) -> None:
    """Write the card of a checkpoint: its facts to card.json, and README.md from them.

    \b
    duologue card runs/mine data=data/q,data/r runs=runs/a,runs/b machine="two CPU cores"   what it was trained on
    duologue card runs/mine reports=figures/report.json licence=Apache-2.0                  what it was measured to do
    duologue card runs/mine before=nano                                                     it was trained on from nano
    duologue card runs/mine                                 README.md anew, after card.json was edited

    Each call adds to the card. Metrics must be about these weights; a wrong key lists all.
    """
    from ..checkpoints.cards.collect import CardConfig, run

    run(read_settings(CardConfig, [f"folder={folder}", *(settings or [])], "card"))


@app.command(
    "import",
    help="Turn weights from elsewhere into a folder of ours. What does not fit is named, and nothing is written.\n\n"
    "\b\nduologue import llama-omni Llama-3.1-8B-Omni omni whisper=large-v3.pt vocoder=g_00500000\n"
    "duologue import whisper large-v3.pt encoder              or a folder of transformers; also below\n"
    "duologue import llm Qwen/Qwen3-0.6B qwen\n"
    "duologue import hubert-kmeans mhubert.pt units kmeans=km1000.bin layer=11\n\n"
    "Pickles are read without running what is in them; fairseq is not needed. Kinds:\n\n" + IMPORTERS.help(),
)
def import_(
    kind: Annotated[str, typer.Argument(help="One of the kinds below.")],
    source: Annotated[str, typer.Argument(help="A file, a folder, or a hub id.")],
    dest: Annotated[Path, typer.Argument(help="The folder to write.")],
    settings: Settings = None,
) -> None:
    from .importing import run

    typer.echo(f"{run(kind, source, dest, settings or [])}: imported")


@app.command(
    context_settings={"ignore_unknown_options": True},  # so that --profile is told to be profile=… now
    help="Measure a model, or what any system said: report.html, report.json and summary.md in a folder.\n\n"
    "\b\nduologue evaluate s2s -o figures                                    the bundled model, quickly\n"
    "duologue evaluate s2s -m runs/mine profile=card -o figures          as in a model card\n"
    "duologue evaluate s2s --outputs folder -o figures                   another system's ID.wav and ID.txt\n"
    "duologue evaluate asr --data LibriSpeech/test-clean -o figures      a lhotse manifest, AISHELL, Fleurs\n"
    "duologue evaluate duplex --data Full-Duplex-Bench -o figures        or --outputs: its output.wav files\n"
    "duologue evaluate s2s judge.url=http://localhost:8000/v1 judge.model=NAME -o figures\n"
    "duologue evaluate compare figures-a figures-b -o compared\n\n"
    "A broken-off run goes on where it stopped. Suites:\n\n" + SUITES.help(),
)
def evaluate(
    suite: Annotated[str, typer.Argument(help="One of the suites below.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the reports.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[REPORT]... [KEY=VALUE]...", help="Settings; compare: reports too.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A bundled name (nano, mini), folder or hub id.")
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option("--outputs", help="Judge what another system said; no model is loaded.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="What is heard: recordings, pairs, a benchmark's files.")] = None,
) -> None:
    from ..inference.evaluation.main import run

    run(suite, settings or [], output, model=model, outputs=outputs, data=data)


@app.command(
    context_settings={"ignore_unknown_options": True},
    help="Measure what something costs, here and now.\n\n"
    "\b\nduologue bench streaming                                    nano's sizes\n"
    "duologue bench streaming widths=256,1024 -o figures         unit decoders of other widths\n"
    "duologue bench streaming preset=llama-omni-8b device=cuda dtype=bfloat16\n"
    "duologue bench encoder model=FOLDER data=work/dev_questions     --encoder windowed, before it is relied on\n\n"
    "Benches:\n\n" + BENCHES.help(),
)
def bench(
    name: Annotated[str, typer.Argument(help="One of the benches below.")],
    settings: Settings = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the figures and the plot.")] = None,
) -> None:
    if name in (renamed := {"ear": "encoder", "lanes": "workers"}):
        raise DuologueError(f"bench {name} is called {renamed[name]} now")
    run = BENCHES.module(name).run
    given = vars(read_settings(settings_of(run, ("out", "say")), settings or [], f"bench {name}"))
    model = [model_path(given["model"])] if "model" in given else []
    keep_apart({"-o": output}, {"data=": given.get("data"), "model=": model})
    run(out=output, say=say, **given)


app.add_typer(
    codec_commands,
    name="codec",
    help="Recordings to a codec's codes and back, at any length.\n\n\b\n"
    "duologue codec encode speech.wav speech.codes -m FOLDER\n"
    "duologue codec decode speech.codes again.wav -m FOLDER",
)
app.add_typer(
    feedback_commands,
    name="feedback",
    help="A model's own answers, what they are worth, and rounds of learning from them.\n\n\b\n"
    "duologue feedback rounds out=runs/brief reward=brief measure=right\n"
    "duologue feedback talks out=talks.jsonl model=mine",
)
app.add_typer(
    lm_commands,
    name="lm",
    help="N-gram language models of text, in ARPA files.\n\n\b\n"
    "duologue lm train questions.txt -o questions.arpa\n"
    "duologue lm perplexity questions.arpa dev.txt",
)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends in :class:`SystemExit`."""
    quieten()
    program(lambda: _run(arguments))


def _run(arguments: list[str] | None) -> None:
    try:
        app(args=arguments, prog_name="duologue")
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _EXTRAS:
            raise
        raise DuologueError(f"this command needs {library}: pip install 'duologue[{_EXTRAS[library]}]'") from None
