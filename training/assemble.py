"""Put what the stages learnt together: nano's sizes, each part from the run that made it, one checkpoint folder.

    python -m duologue.training.assemble OUT encoder=runs/asr_pretrain adaptor=runs/speech_to_text \
        llm=runs/speech_to_text unit_decoder=runs/unit_decoder vocoder=runs/unit_vocoder \
        monitor=runs/duplex
    python -m duologue.training.assemble OUT codec=runs/codec          a codec, in the sizes of its run

Where the adaptor's run joined a language model from elsewhere, sizes, tokens and prompt are that run's, and a mouth is
optional: OUT encoder=RUN adaptor=RUN llm=RUN [unit_decoder=RUN vocoder=FOLDER].
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..checkpoints import store
from ..checkpoints.config_io import config_from_dict
from ..checkpoints.parts import read_part, save_part
from ..checkpoints.source import resolve
from ..data_prep.vocabulary import save_tokenizer
from ..model.adaptor import AdaptorConfig
from ..model.codec import Codec, CodecConfig
from ..model.encoder import WhisperEncoderConfig
from ..model.errors import DuologueError
from ..model.mel import LogMelConfig
from ..model.speech_lm import SpeechLM, SpeechLMConfig
from ..model.unit_decoder import UnitDecoderConfig
from ..model.vocoder import UnitVocoderConfig
from .chat_tokens import joined_config
from .recipes.nano import nano_config
from .run_folder import load_parts

PARTS = ("encoder", "adaptor", "llm", "unit_decoder", "vocoder", "monitor")


def assemble(out: str | Path, sources: tuple[str, ...]) -> Path:
    """Write nano from ``PART=RUN`` entries, one for every part; weights are stored as float16.

    Raises:
        DuologueError: a part without a run, a run without that part, tensors that do not fit.
    """
    given = {part: folder for part, _, folder in (entry.partition("=") for entry in sources)}
    run = read_run(given["adaptor"]) if "adaptor" in given else {}
    joined = run.get("tokenizer")
    wanted = ("encoder", "adaptor", "llm") if joined else PARTS
    if missing := [part for part in wanted if part not in given]:
        raise DuologueError(f"no run given for {', '.join(missing)}; each of {', '.join(wanted)} needs PART=FOLDER")
    model = SpeechLM(_joined_config(run, given) if joined else nano_config()).eval()
    load_parts({name: module for name, module in model.named_children()}, sources)
    if joined:
        return store.save(out, model, resolve(joined), half=True)
    with tempfile.TemporaryDirectory() as tokenizer:
        save_tokenizer(tokenizer)
        return store.save(out, model, store.load_tokenizer(Path(tokenizer)), half=True)


def read_run(folder: str | Path) -> dict[str, Any]:
    """The recipe that a run was made by; nothing where the folder is no run's."""
    path = Path(folder) / "recipe.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _joined_config(run: dict[str, Any], given: dict[str, str]) -> SpeechLMConfig:
    """The sizes of what a run joined, and of the mouth that is given."""
    decoder, vocoder = None, None
    if "unit_decoder" in given:
        decoder = config_from_dict(UnitDecoderConfig, read_run(given["unit_decoder"]).get("unit_decoder"))
    if "vocoder" in given:
        values = read_run(given["vocoder"]).get("vocoder") or read_part(given["vocoder"], "vocoder")
        vocoder = config_from_dict(UnitVocoderConfig, values)
    mel = config_from_dict(LogMelConfig, run["mel"])
    encoder = config_from_dict(WhisperEncoderConfig, run["encoder"])
    adaptor = config_from_dict(AdaptorConfig, run["adaptor"])
    return joined_config(mel, encoder, adaptor, run["llm"], run["tokenizer"], decoder, vocoder)


def assemble_codec(out: str | Path, run: str | Path) -> Path:
    """Write the codec of a run of recipe ``codec``, its weights as float16, with a card of its sizes.

    Raises:
        DuologueError: no such run, or its weights do not fit its recipe.
    """
    if not (recipe := read_run(run)):
        raise DuologueError(f"{run} is no run of the recipe codec: it has no recipe.json")
    config = config_from_dict(CodecConfig, recipe.get("codec"))
    codec = Codec(config).eval()
    load_parts({"codec": codec}, (f"codec={run}",))
    size, books = sum(parameter.numel() for parameter in codec.parameters()), config.quantiser
    lag = f", {codec.delay_ms:g} ms behind the microphone" if codec.exact else ""
    card = (
        f"---\nlibrary_name: duologue\n---\n# {Path(out).name}\n\nA codec of {size:,} parameters: "
        f"{config.sample_rate} Hz, {config.frame_rate:.1f} frames a second, {books.codebooks} codebook(s) of "
        f"{books.size}, {config.bit_rate() / 1000:.2f} kbit/s{lag}.\n"
    )
    return save_part(out, "codec", codec.half(), config, card)


if __name__ == "__main__":
    try:
        if len(sys.argv) == 3 and sys.argv[2].startswith("codec="):
            print(assemble_codec(sys.argv[1], sys.argv[2].removeprefix("codec=")))
        else:
            print(assemble(sys.argv[1], tuple(sys.argv[2:])))
    except (DuologueError, IndexError) as error:
        raise SystemExit(f"duologue: error: {error if str(error) else __doc__}") from None
