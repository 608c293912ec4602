"""What a model says, and the unit of each frame: the clusters of its units are found from it where nobody kept them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from ...checkpoints.store import Checkpoint
from ...model.decoding.reply import units_of
from ...model.speech_decoder.unit_vocoder import UnitVocoder


def own_speech(checkpoint: Checkpoint, texts: Iterable[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each text read aloud: samples (T * 320,) at 16 kHz, units (T,). Texts with words that the tokenizer does not know
    are left out. Of a model with a unit vocoder."""
    model = checkpoint.model
    vocoder = model.vocoder
    assert isinstance(vocoder, UnitVocoder)
    for text in texts:
        ids = checkpoint.tokenizer.encode(text, add_special_tokens=False)
        if ids and all(map(model.layout.is_text, ids)):
            units = units_of(model, ids)  # (1, U)
            durations = vocoder.predict_durations(units)
            yield vocoder(units, durations)[0], units[0].repeat_interleave(durations[0])
