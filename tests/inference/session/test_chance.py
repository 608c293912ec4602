"""Nothing but the model answers: with random weights in the language model, questions are answered at chance.

All else stays as it is: nano's trained encoder and speech decoder where nano is bundled, else a tiny random model.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_assistant import tiny_assistant

from duologue.data_prep.nano.dialogues import Dialogue, Split, generate
from duologue.inference.assistant.assistant import Assistant, Sampling, load
from duologue.inference.evaluation.judges.slots import is_right

WRITTEN, SPOKEN = 20, 8
SHORT = Sampling(max_tokens=16)  # longer than most right replies


@pytest.fixture(scope="module")
def assistant(root: Path) -> Assistant:
    """An assistant whose language model knows nothing."""
    bundled = (root / "checkpoints" / "nano" / "config.json").is_file()
    found = load("nano") if bundled else tiny_assistant(scripted=False)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in found.model.llm.parameters():
            if weight.ndim > 1:
                weight.normal_(std=0.05)
    return found


def test_written_questions(assistant: Assistant) -> None:
    asked = [generate(11, index, Split.TRAIN) for index in range(WRITTEN)]
    replies = [assistant.ask(text=dialogue.question, sampling=SHORT).text for dialogue in asked]
    assert right(asked, replies) <= 1
    assert any(replies), "it does say something"
    assert right(asked, [dialogue.answer for dialogue in asked]) == WRITTEN


def test_spoken_questions(assistant: Assistant, speech: Callable[..., np.ndarray]) -> None:
    asked = [generate(12, index, Split.TRAIN) for index in range(SPOKEN)]
    heard = [speech(dialogue.question) for dialogue in asked]
    replies = [assistant.ask((16_000, pcm), sampling=SHORT) for pcm in heard]
    assert right(asked, [reply.text for reply in replies]) <= 1
    assert sum(reply.transcript == dialogue.question for reply, dialogue in zip(replies, asked, strict=True)) == 0
    assert all(np.isfinite(reply.waveform).all() for reply in replies)


def right(asked: list[Dialogue], replies: list[str]) -> int:
    return sum(is_right(reply, dialogue.answer, dialogue.slot) for dialogue, reply in zip(asked, replies, strict=True))
