"""What a model says, and the unit of each frame: the clusters of its units are found from it where nobody kept them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ...checkpoints.store import Checkpoint
from ...model.speech_decoder.unit_vocoder import UnitVocoder
from ...model.speech_lm import SpeechLM


def own_speech(checkpoint: Checkpoint, texts: Iterable[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each text read aloud: samples (T * 320,) at 16 kHz, units (T,). Texts with words that the tokenizer does not know
    are left out. Of a model with a unit vocoder."""
    model = checkpoint.model
    vocoder = model.vocoder
    assert isinstance(vocoder, UnitVocoder)
    for text in texts:
        ids = checkpoint.tokenizer.encode(text, add_special_tokens=False)
        if ids and all(map(model.layout.is_text, ids)):
            units = _units(model, ids)  # (1, U)
            durations = vocoder.predict_durations(units)
            yield vocoder(units, durations)[0], units[0].repeat_interleave(durations[0])


def _units(model: SpeechLM, ids: list[int]) -> Tensor:
    """The units (1, U) of a reply of these tokens, behind the same words as a question."""
    state, speech = model.init_state(), model.speech
    model.read_text(ids, state)
    assert speech is not None and state.hidden is not None
    reply, spoken = torch.tensor([ids]), speech.init_state()
    states = model.llm.extend(model.llm.embed(reply), state.llm)
    states = torch.cat([state.hidden, states[:, :-1]], dim=1)  # those that predict the tokens
    units = speech.units(states, spoken, speech.beside(reply, model.llm.embed))
    return torch.cat([units, speech.last_units(spoken)], dim=1)
