"""Several answers to each question of a set, written or spoken; what was answered before is not answered again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np
import torch

from ...checkpoints.recognisers.recogniser import Recogniser
from ...data_prep.datasets.question_sets import Dialogue
from ...data_prep.text.journal import Journal, key_of
from ...model.decoding.reply import reply
from ...model.dialogue_state import DialogueState, Sampling
from ..assistant.assistant import Assistant
from ..assistant.text_stream import ReplyText, ids_of, samples_of, words_of

RECOGNISER_RATE = 16_000


@dataclass(frozen=True, kw_only=True)
class Answer:
    """text: of an answer. heard: what a recogniser hears in its speech; None: it was not spoken aloud."""

    text: str
    heard: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How often and how a question is answered.

    samples: answers to each question, each of a seed of its own.
    temperature, top_p, max_tokens: of the answers (see :class:`Sampling`).
    """

    samples: int = 4
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int = 0

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.max_tokens)


def answer_all(
    assistant: Callable[[], Assistant],
    questions: Sequence[Dialogue],
    sampler: Sampler,
    journal: Journal,
    about: str,
    recogniser: Recogniser | None = None,
) -> Iterator[tuple[Dialogue, list[Answer]]]:
    """Each question with its answers, which ``journal`` keeps.

    Args:
        assistant: what answers; called where something is not in the journal. about: its name.
        recogniser: hears the speech of each answer; None: nothing is spoken.
    Raises:
        DuologueError: a question without words, or with too many.
    """
    loaded: Assistant | None = None
    for question in questions:
        asked = {"question": question.question, "history": question.history, "system": question.system}
        key = key_of({**asked, **asdict(sampler), "model": about, "aloud": recogniser is not None})
        if key not in journal:
            loaded = loaded or assistant()
            answers = [asdict(answer) for answer in _answers(loaded, question, sampler, recogniser)]
            journal.add({key: json.dumps(answers, ensure_ascii=False)})
        yield question, [Answer(**answer) for answer in json.loads(journal[key])]


@torch.inference_mode()
def _answers(
    assistant: Assistant, question: Dialogue, sampler: Sampler, recogniser: Recogniser | None
) -> Iterator[Answer]:
    """The question is read once; each answer goes on from a clone of the state."""
    model, tokenizer = assistant.model, assistant.tokenizer
    state: Any = model.init_state(0, question.system or "", ())
    for asked, said in question.history:
        before = [words_of(tokenizer, model.layout, text) for text in (asked, said)]
        model.recall(before[0], before[1], state)
    model.read_text(ids_of(tokenizer, model.layout, question.question)[0], state)
    for number in range(sampler.samples):
        other = state.clone()
        other.rng.manual_seed(crc32(f"{sampler.seed} {number} {question.question}".encode()))
        yield _answer(assistant, other, sampler, recogniser)


def _answer(assistant: Assistant, state: DialogueState, sampler: Sampler, recogniser: Recogniser | None) -> Answer:
    text, pcm = ReplyText(assistant.tokenizer), [np.zeros(0, np.float32)]
    for step in reply(assistant.model, state, sampler.sampling, aloud=recogniser is not None):
        text.push(step)
        pcm.append(samples_of(step.pcm))
    said = text.reply.text.strip()
    if recogniser is None:
        return Answer(text=said)
    from ...data_prep.audio import read_audio

    wave = np.concatenate(pcm)
    heard = recogniser(read_audio((assistant.output_rate, wave), RECOGNISER_RATE)) if len(wave) else ""
    return Answer(text=said, heard=heard)
