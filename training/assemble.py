"""Put what the stages learnt together: nano's sizes, each part from the run that made it, one checkpoint folder.

    python -m duologue.training.assemble OUT encoder=runs/asr_pretrain adaptor=runs/speech_to_text \
        llm=runs/speech_to_text unit_decoder=runs/unit_decoder vocoder=runs/unit_vocoder \
        monitor=runs/duplex
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ..checkpoints import store
from ..data_prep.vocabulary import save_tokenizer
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


if __name__ == "__main__":
    try:
        print(assemble(sys.argv[1], tuple(sys.argv[2:])))
    except (DuologueError, IndexError) as error:
        raise SystemExit(f"duologue: error: {error if str(error) else __doc__}") from None
