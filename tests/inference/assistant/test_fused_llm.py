"""`lm=`: the model's own language model, or the folder of another, decides where the sounds do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_model import tiny_llm
from tiny_words import tones, words_assistant

from duologue.inference.assistant.assistant import Assistant
from duologue.inference.assistant.transcribe import transcribe
from duologue.inference.assistant.word_lists import decoder_of
from duologue.model.decoding.decoder import DecoderConfig
from duologue.model.decoding.ngrams.backoff import END, MARKS
from duologue.model.errors import DuologueError
from duologue.model.language_model.word_scores import LLMWords

SAID = "the capital of France"
WEIGHT, BONUS = 30.0, 180.0  # of models that know nothing: each word has about as many nats


def check(assistant: Assistant, lm: LLMWords) -> None:
    """The beam's scores are CTC's and the language model's."""
    model: Any = assistant.model
    found = model.n_best(torch.from_numpy(tones(SAID))[None])
    texts = [assistant.tokenizer.decode([token.token for token in each.tokens]).strip() for each in found]
    for each, text in zip(found, texts, strict=True):
        state, score = lm.begin(), 0.0
        for number in [*lm.ids(text.split()), MARKS.index(END)]:
            one, state = lm.advance(state, np.array([number]))
            score += float(one[0])
        assert each.score == pytest.approx(each.ctc + WEIGHT * score + BONUS * len(text.split()), abs=1e-2)
    assert len(texts) > 4 and transcribe(assistant, tones(SAID))


def test_the_language_model_of_the_model_itself() -> None:
    assistant = words_assistant(vague=True)
    own = assistant.with_decoder(decoder_of(lm=Path("own"), lm_weight=WEIGHT, lm_bonus=BONUS))
    fused = own.model.decoder.lm
    assert isinstance(fused, LLMWords) and fused.llm is assistant.model.llm
    check(own, fused)
    more = own.expecting(["France"])
    assert more.model.decoder.lm is fused, "with other hot words what it has read is known"


def test_a_folder_is_a_language_model(tmp_path: Path) -> None:
    imported = Path(tiny_llm(tmp_path))
    for folder in (imported, tmp_path / "theirs_llama"):  # as transformers writes it
        config = decoder_of(lm=folder, lm_weight=WEIGHT, lm_bonus=BONUS)
        assert config is not None and isinstance(config.lm, LLMWords)
        check(words_assistant(vague=True).with_decoder(config), config.lm)


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="lm is 'theirs'; it must be a language model, or 'own'"):
        DecoderConfig(lm="theirs")
    with pytest.raises(DuologueError, match=str(tmp_path)):
        decoder_of(lm=tmp_path)
