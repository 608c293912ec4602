"""A causal language model in the beam: scored word by word as its whole texts are, with caches shared and forgotten."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from any_model import tiny_llm

from duologue.checkpoints.parts import load_llm
from duologue.model.decoding.beam import BeamConfig
from duologue.model.decoding.ctc_beam import search
from duologue.model.decoding.fusions import WordFusion
from duologue.model.decoding.ngrams.backoff import END, MARKS
from duologue.model.errors import DuologueError
from duologue.model.language_model import word_scores
from duologue.model.language_model.causal_lm import LLM
from duologue.model.language_model.word_scores import LLMWords

TEXTS = (" the", " capital", " pa", "ris")
WEIGHT, BONUS = 0.7, 0.4


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> tuple[LLM, object]:
    return load_llm(tiny_llm(tmp_path_factory.mktemp("llm"), pad_token_id=0))


def brute(model: LLMWords, words: list[str], end: bool = True) -> float:
    """The log-probability of words by one pass of the language model over all of their tokens."""
    ids = list(model._start)
    first = len(ids)
    for at, word in enumerate(words):
        ids += model._pieces.word(word) if at or model.prompt else model._pieces.encoded(word)
    with torch.no_grad():
        log_probs = model.llm(model.llm.embed(torch.tensor([ids]))).logits[0].log_softmax(-1)
    score = sum(float(log_probs[at - 1, ids[at]]) for at in range(first, len(ids)))
    return score + (float(log_probs[-1, model._ends].logsumexp(0)) if end else 0.0)


@pytest.mark.parametrize("prompt", ["", "what is it ?\n"])
@pytest.mark.parametrize("kept", [word_scores.KEPT, 2])
def test_a_beam_finds_what_rescoring_all_texts_finds(
    llm: tuple[LLM, object], prompt: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_scores, "KEPT", kept)  # few: what was forgotten is fed again
    model = LLMWords(*llm, prompt=prompt)
    rng = np.random.default_rng(0)
    scores = 1.5 * rng.standard_normal((4, len(TEXTS) + 1))
    log_probs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    whole = BeamConfig(width=2000, margin=np.inf, sure=1.0)
    ctc = {found.labels: found.ctc for found in search(log_probs, whole)}
    assert len(ctc) > 100
    wanted = {}
    for labels, score in ctc.items():
        words = "".join(TEXTS[label] for label in labels).split()
        wanted[labels] = score + WEIGHT * brute(model, words) + BONUS * len(words)
    found = search(log_probs, whole, [WordFusion(model, TEXTS, WEIGHT, BONUS)])
    assert [each.labels for each in found] == sorted(wanted, key=lambda labels: -wanted[labels])
    assert [each.score for each in found] == pytest.approx([wanted[each.labels] for each in found], abs=1e-4)
    assert len(model._fed) <= kept


def test_texts_share_what_they_have_in_common(llm: tuple[LLM, object], monkeypatch: pytest.MonkeyPatch) -> None:
    model, fed = LLMWords(*llm), []
    extend = model.llm.extend
    monkeypatch.setattr(model.llm, "extend", lambda embeds, state: fed.append(len(embeds)) or extend(embeds, state))
    words = model.ids(["the", "capital", "is"])
    score, states = model.advance(model.begin(), words[:1])
    assert fed == [1], "one token is scored by what stands before it"
    scores, states = model.advance(np.repeat(states, 2, 0), words[1:])
    count = len(fed)
    assert np.array_equal(model.advance(model.begin(), words[:1])[0], score) and len(fed) == count, "known"
    ends = np.full(2, MARKS.index(END))
    total = score + scores + model.advance(states, ends)[0]
    assert total == pytest.approx([brute(model, ["the", word]) for word in ("capital", "is")], abs=1e-4)
    assert max(fed) == 2, "both in one batch"


def test_what_was_remembered_long_ago_is_forgotten(llm: tuple[LLM, object], monkeypatch: pytest.MonkeyPatch) -> None:
    model = LLMWords(*llm)
    state, total = model.begin(), 0.0
    for word in ("the", "capital"):
        score, state = model.advance(state, model.ids([word]))
        total += float(score[0])
    assert total == pytest.approx(brute(model, ["the", "capital"], end=False), abs=1e-4)
    last = model._next
    monkeypatch.setattr(word_scores, "MOST", 1)
    model.begin()
    assert not model._parents, "a text of before is scored as if it began now; a new one as it is"
    again, after = model.advance(np.concatenate([state, model.begin()]), model.ids(["is", "is"]))
    assert again == pytest.approx([brute(model, ["is"], end=False)] * 2, abs=1e-4)
    assert after.min() >= last, "no number stands for two nodes"


def test_words_of_several_tokens(llm: tuple[LLM, object]) -> None:
    model = LLMWords(*llm)
    for words in product(("paris", "assistant"), repeat=2):
        state, total = model.begin(), 0.0
        for word in words:
            score, state = model.advance(state, model.ids([word]))
            total += float(score[0])
        assert total == pytest.approx(brute(model, list(words), end=False), abs=1e-4)


def test_a_tokenizer_without_a_beginning_needs_a_prompt(llm: tuple[LLM, object], tmp_path: Path) -> None:
    import copy

    tokenizer = copy.deepcopy(llm[1])
    tokenizer.bos_token = tokenizer.eos_token = None  # type: ignore[attr-defined]
    with pytest.raises(DuologueError, match="no token that begins or ends a document"):
        LLMWords(llm[0], tokenizer)
    assert LLMWords(llm[0], tokenizer, "what ?").begin().shape == (1, 1)
