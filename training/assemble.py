"""Put what the stages learnt together: nano's sizes, each part from the run that made it, one checkpoint folder.

    python -m duologue.training.assemble OUT encoder=runs/asr_pretrain adaptor=runs/speech_to_text \
        llm=runs/speech_to_text unit_decoder=runs/unit_decoder vocoder=runs/unit_vocoder \
        monitor=runs/duplex word_monitor=runs/word_monitor
    python -m duologue.training.assemble OUT … codec=FOLDER            instead of vocoder=…: a codec as the voice
    python -m duologue.training.assemble OUT codec=runs/codec          a codec, in the sizes of its run

A part may be a mean of the weights of several runs that began alike: llm=runs/a+runs/b, or llm=0.3*runs/a+0.7*runs/b.
The language model's and the unit decoder's sizes are those of their runs, or of the checkpoint that they come from.
Where the adaptor's run joined a language model from elsewhere, sizes, tokens and prompt are that run's, and a mouth is
optional: OUT encoder=RUN adaptor=RUN llm=RUN [unit_decoder=RUN vocoder=FOLDER].
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoints import store
from ..checkpoints.config_io import config_from_dict
from ..checkpoints.files import expanded, read_object, with_home
from ..checkpoints.outputs import keep_apart
from ..checkpoints.parts import load_part, read_part, save_part
from ..checkpoints.program import program
from ..checkpoints.source import CONFIG, resolve
from ..data_prep.nano.vocabulary import save_tokenizer
from ..model.audio_encoder.mel import LogMelConfig
from ..model.codec.codec import Codec, CodecConfig
from ..model.codec.codec_vocoder import CodecVoice
from ..model.errors import DuologueError
from ..model.speech_decoder.unit_decoder import UnitDecoderConfig
from ..model.speech_decoder.unit_vocoder import UnitVocoderConfig
from ..model.speech_lm import SpeechLM
from ..model.speech_lm_config import AdaptorConfig, EncoderConfig, SpeechLMConfig, VoiceConfig
from .data.chat_tokens import joined_config
from .loop.run_folder import load_parts, weighted_runs
from .presets.nano import NANO_UNIT_DECODER, NANO_VOCODER, nano_config

RECIPE = "recipe.json"
PARTS = ("encoder", "adaptor", "llm", "unit_decoder", "vocoder", "monitor")  # and, where there is one, word_monitor


def assemble(out: str | Path, sources: tuple[str, ...]) -> Path:
    """Write nano from ``PART=RUN`` entries, one for every part; weights are stored as float16.

    It can do without a word monitor.

    The voice is a vocoder, or with ``codec=FOLDER`` (a run of recipe ``codec`` or a codec alone) a codec's decoder.

    Raises:
        DuologueError: a part without a run, a run without that part, tensors that do not fit.
    """
    sources = tuple(map(with_home, sources))
    given = dict(entry.partition("=")[::2] for entry in sources)
    keep_apart({"the folder": out}, {part: _all(source) for part, source in given.items()}, replaces=True)
    if "codec" in given and "vocoder" in given:
        raise DuologueError("vocoder=… and codec=… are two voices: give one of them")
    voice = CodecVoice.of(read_codec(given["codec"])) if "codec" in given else None
    run = read_run(_first(given["adaptor"])) if "adaptor" in given else {}
    joined = run.get("tokenizer")
    wanted = ["encoder", "adaptor", "llm"] if joined else [part for part in PARTS if voice is None or part != "vocoder"]
    if missing := [part for part in wanted if part not in given]:
        raise DuologueError(f"no run given for {', '.join(missing)}; each of {', '.join(wanted)} needs PART=FOLDER")
    if joined:
        config = _joined_config(run, given, None if voice is None else voice.config)
    else:
        config = nano_config(NANO_VOCODER if voice is None else voice.config, _unit_decoder_of(given["unit_decoder"]))
        config = replace(config, llm=_llm_of(given["llm"], config.llm))
        if "word_monitor" not in given:
            config = replace(config, word_monitor=None)
    model = SpeechLM(config).eval()
    if voice is not None:
        model.vocoder = voice
    parts = {name: module for name, module in model.named_children()}
    load_parts(parts, tuple(entry for entry in sources if not entry.startswith("codec=")))
    if joined:
        return store.save(out, model, resolve(joined), half=True)
    with tempfile.TemporaryDirectory() as tokenizer:
        save_tokenizer(tokenizer)
        return store.save(out, model, store.load_tokenizer(Path(tokenizer)), half=True)


def read_run(folder: str | Path) -> dict[str, Any]:
    """The recipe that a run was made by; nothing where the folder is no run's."""
    path = expanded(folder) / RECIPE
    return read_object(path) if path.is_file() else {}


def _all(source: str) -> list[str]:
    """The folders of a mean."""
    return [folder for _, folder in weighted_runs(source)]


def _first(source: str) -> str:
    """The folder that tells the sizes: of a mean, its first."""
    return weighted_runs(source)[0][1]


def _llm_of(source: str, usual: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a run's language model, or of a checkpoint's; the usual ones, if neither says."""
    folder = _first(source)
    if (Path(folder) / CONFIG).is_file():
        return store.read_model_config(folder).llm
    return read_run(folder).get("llm") or usual


def _unit_decoder_of(source: str) -> UnitDecoderConfig:
    """The sizes of a run's unit decoder; nano's, if it does not say."""
    sizes = read_run(_first(source)).get("unit_decoder")
    return NANO_UNIT_DECODER if sizes is None else config_from_dict(UnitDecoderConfig, sizes)


def read_codec(folder: str | Path) -> Codec:
    """The codec of a run of recipe ``codec``, or of a folder that holds one by itself.

    Raises:
        DuologueError: neither, or its weights do not fit its sizes.
    """
    if not (recipe := read_run(folder)):
        return load_part(folder, "codec", CodecConfig, Codec)
    codec = Codec(config_from_dict(CodecConfig, recipe.get("codec"))).eval()
    load_parts({"codec": codec}, (f"codec={folder}",))
    return codec


def _joined_config(run: dict[str, Any], given: dict[str, str], voice: VoiceConfig | None) -> SpeechLMConfig:
    """The sizes of what a run joined, and of the mouth that is given."""
    decoder = _unit_decoder_of(given["unit_decoder"]) if "unit_decoder" in given else None
    if "vocoder" in given:
        folder = _first(given["vocoder"])
        values = read_run(folder).get("vocoder") or read_part(folder, "vocoder")
        voice = config_from_dict(UnitVocoderConfig, values)
    mel = config_from_dict(LogMelConfig, run["mel"])
    encoder = config_from_dict(EncoderConfig, run["encoder"])
    adaptor = config_from_dict(AdaptorConfig, run["adaptor"])
    return joined_config(mel, encoder, adaptor, run["llm"], run["tokenizer"], decoder, voice)


def assemble_codec(out: str | Path, run: str | Path) -> Path:
    """Write the codec of a run of recipe ``codec``, its weights as float16, with a card of its sizes.

    Raises:
        DuologueError: no such run, or its weights do not fit its recipe.
    """
    out, run = expanded(out), expanded(run)
    keep_apart({"the folder": out}, {"codec": run}, replaces=True)
    if not read_run(run):
        raise DuologueError(f"{run} is no run of the recipe codec: it has no {RECIPE}")
    codec = read_codec(run)
    config = codec.config
    size, books = sum(parameter.numel() for parameter in codec.parameters()), config.quantiser
    lag = f", {codec.delay_ms:g} ms behind the microphone" if codec.exact else ""
    card = (
        f"---\nlibrary_name: duologue\n---\n# {Path(out).name}\n\nA codec of {size:,} parameters: "
        f"{config.sample_rate} Hz, {config.frame_rate:.1f} frames a second, {books.codebooks} codebook(s) of "
        f"{books.size}, {config.bit_rate() / 1000:.2f} kbit/s{lag}.\n"
    )
    return save_part(out, "codec", codec.half(), config, card)


def main() -> None:
    """The command line."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    if len(sys.argv) == 3 and sys.argv[2].startswith("codec="):
        print(assemble_codec(sys.argv[1], sys.argv[2].removeprefix("codec=")))
    else:
        print(assemble(sys.argv[1], tuple(sys.argv[2:])))


if __name__ == "__main__":
    program(main)
