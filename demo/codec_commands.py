"""The commands ``duologue codec …``: recordings to codes and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..checkpoints.outputs import keep_apart, model_path
from ..model.errors import DuologueError
from .home import Commands

SOUND_FILES = "WAV, FLAC, Ogg, MP3, M4A, AAC or WebM at any rate"  # the formats of data_prep/audio
codec_commands = Commands(no_args_is_help=True, rich_markup_mode=None)
CodecModel = Annotated[
    str, typer.Option("--model", "-m", help="A bundled name (nano-codec), a folder (duologue import), or a hub id.")
]


@codec_commands.command("encode")
def codec_encode(
    recording: Annotated[Path, typer.Argument(help=f"{SOUND_FILES}, of any length; - for standard input.")],
    codes: Annotated[Path, typer.Argument(help="The file of codes to write (safetensors).")],
    model: CodecModel = "nano-codec",
    codebooks: Annotated[int | None, typer.Option(min=1, help="How many of the codec's codebooks; all.")] = None,
    kbps: Annotated[float | None, typer.Option(help="Instead: as many codebooks as this bit rate allows.")] = None,
) -> None:
    """Write a recording as codes, in constant memory.

    \b
    duologue codec encode speech.wav speech.codes                      the bundled codec: speech at 0.89 kbit/s
    duologue codec encode speech.wav speech.codes -m FOLDER            an imported or a trained codec
    duologue codec encode speech.wav speech.codes -m encodec --kbps 3  one with several codebooks: a bit rate
    """
    if codebooks is not None and kbps is not None:
        raise DuologueError("give --codebooks or --kbps, and not both")
    keep_apart({"CODES": codes}, {"RECORDING": recording, "--model": model_path(model)})
    from ..data_prep.audio import from_argument
    from ..inference.codec.files import encode, load_codec

    source = from_argument(recording)
    codec = load_codec(model)
    codebooks = codebooks if kbps is None else codec.config.codebooks_for(kbps)
    info = encode(codec, source, codes, codebooks)
    rate = codec.config.bit_rate(info.codebooks) / 1000
    typer.echo(f"{codes}: {info.samples / info.sample_rate:.2f} s in {info.frames} frames, {rate:.2f} kbit/s", err=True)


@codec_commands.command("decode")
def codec_decode(
    codes: Annotated[Path, typer.Argument(help="A file of codes that `duologue codec encode` wrote.")],
    output: Annotated[Path, typer.Argument(help="The sound to write (.wav).")],
    model: CodecModel = "nano-codec",
) -> None:
    """Write codes as sound, in constant memory. The codec must be the one that they were written with.

    \b
    duologue codec decode speech.codes speech.wav
    """
    keep_apart({"OUTPUT": output}, {"CODES": codes, "--model": model_path(model)})
    from ..inference.codec.files import decode, load_codec

    info = decode(load_codec(model), codes, output)
    typer.echo(f"{output}: {info.samples / info.sample_rate:.2f} s", err=True)


@codec_commands.command("pairs")
def codec_pairs(
    data: Annotated[Path, typer.Argument(help="A data set that `duologue prepare` made.")],
    output: Annotated[Path, typer.Argument(help="Folder for reference/, decoded/ and codes/.")],
    model: CodecModel = "nano-codec",
    limit: Annotated[int | None, typer.Option(min=1, help="So many clips, spread over the set.")] = None,
    codebooks: Annotated[int | None, typer.Option(min=1, help="How many of the codec's codebooks; all.")] = None,
) -> None:
    """Write clips of a data set beside what the codec makes of them, to be listened to and judged.

    \b
    duologue codec pairs data/speech_held_out pairs --limit 100
    """
    keep_apart({"OUTPUT": output}, {"DATA": data, "--model": model_path(model)})
    from ..checkpoints.cards.facts import digest
    from ..checkpoints.source import resolve
    from ..inference.codec.files import load_codec
    from ..inference.codec.pairs import write_pairs

    codec = load_codec(model)
    found = write_pairs(codec, data, output, limit, codebooks=codebooks, weights=digest(resolve(model)))
    typer.echo(
        f"{output}: {found['clips']} clips, {found['seconds']:.0f} s at {found['real_time_factor']:.3f} of real time, "
        f"{found['used']} entries used",
        err=True,
    )
