"""Put what the stages learnt together: nano's sizes, each part from the run that made it, one checkpoint folder.

    python -m duologue.training.assemble OUT encoder=runs/asr_pretrain adaptor=runs/speech_to_text \
        llm=runs/speech_to_text unit_decoder=runs/unit_decoder vocoder=runs/unit_vocoder \
        monitor=runs/duplex
    python -m duologue.training.assemble OUT codec=runs/codec          a codec, in the sizes of its run
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from ..checkpoints import store
from ..checkpoints.config_io import config_from_dict
from ..checkpoints.parts import save_part
from ..data_prep.vocabulary import save_tokenizer
from ..model.codec import Codec, CodecConfig
from ..model.errors import DuologueError
from ..model.speech_lm import SpeechLM
from .recipes.nano import nano_config
from .run_folder import load_parts

PARTS = ("encoder", "adaptor", "llm", "unit_decoder", "vocoder", "monitor")


def assemble(out: str | Path, sources: tuple[str, ...]) -> Path:
    """Write nano from ``PART=RUN`` entries, one for every part; weights are stored as float16.

    Raises:
        DuologueError: a part without a run, a run without that part, tensors that do not fit.
    """
    given = [entry.partition("=")[0] for entry in sources]
    missing = [part for part in PARTS if part not in given]
    if missing:
        raise DuologueError(f"no run given for {', '.join(missing)}; each of {', '.join(PARTS)} needs PART=FOLDER")
    model = SpeechLM(nano_config()).eval()
    load_parts({name: module for name, module in model.named_children()}, sources)
    with tempfile.TemporaryDirectory() as tokenizer:
        save_tokenizer(tokenizer)
        return store.save(out, model, store.load_tokenizer(Path(tokenizer)), half=True)


def assemble_codec(out: str | Path, run: str | Path) -> Path:
    """Write the codec of a run of recipe ``codec``, its weights as float16, with a card of its sizes.

    Raises:
        DuologueError: no such run, or its weights do not fit its recipe.
    """
    path = Path(run) / "recipe.json"
    if not path.is_file():
        raise DuologueError(f"{run} is no run of the recipe codec: it has no {path.name}")
    config = config_from_dict(CodecConfig, json.loads(path.read_text(encoding="utf-8")).get("codec"))
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
