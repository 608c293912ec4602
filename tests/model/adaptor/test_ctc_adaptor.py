"""The CTC adaptor: one embedding for each run of frames, its weights, its tokens and their times, what it refuses."""

from __future__ import annotations

import functools

import pytest
import torch
from fused import Fused
from hypothesis import given
from hypothesis import strategies as st
from tiny_chat import chat_tokenizer
from torch import Tensor

from duologue.model.adaptor.ctc import CTCAdaptor, CTCAdaptorConfig, WordsState
from duologue.model.decoding.fusions import HotWordFusion
from duologue.model.decoding.hot_words import HotPhrase, HotWords
from duologue.model.decoding.labels import Labels
from duologue.model.errors import DuologueError
from duologue.training.data.vocabulary import choose_tokens

VOCAB, DIM = 5, 8
VECTORS = torch.eye(30)[:, :DIM] + torch.linspace(0, 1, 30)[:, None]


class Scripted(CTCAdaptor):
    """Scores are what it is given in the place of hidden states."""

    def scores(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        return hidden


def scripted(temperature: float = 1.0) -> Scripted:
    adaptor = Scripted(CTCAdaptorConfig(in_dim=4, dim=8, layers=1, heads=2, out_dim=DIM, vocab=VOCAB, chunk=2,
                                        left_context=4, temperature=temperature))  # fmt: skip
    adaptor.tokens.copy_(torch.tensor([3, 9, 20, 4, 11]))
    adaptor.bind(lambda ids: VECTORS[ids])
    return adaptor


def best(*labels: int, by: float = 4.0) -> Tensor:
    """Scores (1, U, V + 1) whose best labels are these, 5 the blank."""
    torch.manual_seed(0)
    scores = torch.rand(1, len(labels), VOCAB + 1)
    scores[0, range(len(labels)), list(labels)] += by
    return scores


def test_each_run_of_a_token_becomes_one_embedding() -> None:
    adaptor, scores, state = scripted(), best(5, 2, 2, 5, 5, 2, 1, 1, 1, 5), WordsState()
    out = adaptor._embeddings(scores, state, last=True)
    assert [token.token for token in state.heard] == [20, 20, 9], "the same token twice, with blanks between, is two"
    assert [(token.start, token.end) for token in state.heard] == [(2, 6), (10, 12), (12, 18)], "in frames at 50 Hz"
    weights = scores[0, :, :VOCAB].softmax(-1)
    runs = [weights[1:3].mean(0), weights[5], weights[6:9].mean(0)]
    assert torch.allclose(out[0], torch.stack(runs) @ VECTORS[adaptor.tokens])
    sure = scores[0].softmax(-1)[1:3, 2].mean().item()
    assert state.heard[0].confidence == pytest.approx(sure)


def test_a_token_is_final_once_another_label_follows() -> None:
    adaptor, state = scripted(), WordsState()
    assert adaptor._embeddings(best(2, 2), state, last=False).shape == (1, 0, DIM)
    assert adaptor._embeddings(best(2), state, last=False).shape == (1, 0, DIM)
    assert adaptor._embeddings(best(5), state, last=False).shape == (1, 1, DIM)
    assert adaptor._embeddings(best(5, 5), state, last=True).shape == (1, 0, DIM)
    assert [(token.start, token.end) for token in state.heard] == [(0, 6)]


def test_a_low_temperature_gives_the_best_token_alone() -> None:
    out = scripted(0.01)._embeddings(best(1, 1), WordsState(), last=True)
    assert torch.allclose(out[0], VECTORS[[9]], atol=1e-4)


def test_a_decoder_overrules_the_frames() -> None:
    """Once all is heard; the token that the frames do not show has its own embedding, the others have theirs."""
    scores = best(5, 2, 2, 5, 1, 1, 5)
    scores[0, 1, 4] += 3.9  # the first frame may be this one as well
    scores[0, 2, 5] += 3.9
    greedy = scripted()._embeddings(scores, before := WordsState(), last=True)
    words = HotWords([HotPhrase((4,), (3.0,))], VOCAB)
    adaptor, state = scripted().decoded_by(Fused(HotWordFusion(words))), WordsState()
    for part in scores.split(2, dim=1):
        assert adaptor._embeddings(part, state, last=False).shape == (1, 0, DIM)
    out = adaptor._embeddings(scores[:, :0], state, last=True)
    assert [token.token for token in before.heard] == [20, 9] and [token.token for token in state.heard] == [11, 9]
    assert torch.equal(out[0, 0], VECTORS[11]) and torch.allclose(out[0, 1], greedy[0, 1])
    assert [token.start for token in state.heard] == [2, 8], "in frames at 50 Hz"
    assert state.heard[0].confidence == pytest.approx(scores[0].softmax(-1)[1, 4].item(), abs=1e-6)


def test_a_decoder_decides_at_a_pause_with_what_was_said_in_mind() -> None:
    """However the frames come; a phrase goes on behind the pause, and nothing is said of the pause itself."""
    scores = best(5, 2, 2, 5, 1, *[5] * 10, 3, 5)
    scores[0, 15, 4] += 3.9  # behind the pause this one may be said as well
    words = HotWords([HotPhrase((1, 4), (0.0, 1.5))], VOCAB)
    for size in (1, 2, 5, 17):
        adaptor, state, given = scripted().decoded_by(Fused(HotWordFusion(words))), WordsState(), []
        for part in scores.split(size, dim=1):
            given.append(adaptor._embeddings(part, state, last=False).shape[1])
        assert sum(given) == 2 and state.frames == 17
        if size == 1:
            assert given.index(2) == 12, "320 ms behind the word"
        adaptor._embeddings(scores[:, :0], state, last=True)
        assert [(token.token, token.start) for token in state.heard] == [(20, 2), (9, 8), (11, 30)]
    silence = best(*[5] * 500)
    long = torch.cat([silence, scores], dim=1)
    for size in (3, 70, 513):
        adaptor, state, kept = scripted().decoded_by(Fused(HotWordFusion(words))), WordsState(), []
        for part in long.split(size, dim=1):
            adaptor._embeddings(part, state, last=False)
            kept.append(sum(map(len, state.kept)))
        adaptor._embeddings(scores[:, :0], state, last=True)
        assert [(token.token, token.start) for token in state.heard] == [(20, 1002), (9, 1008), (11, 1030)]
        assert max(kept[: 500 // size], default=0) <= 8, "of silence no more than a pause is kept"
    alone, state = scripted().decoded_by(Fused(HotWordFusion(words))), WordsState()
    alone._embeddings(scores[:, 13:], state, last=True)
    assert [token.token for token in state.heard] == [4], "without what was said before, as it sounds"
    state = WordsState()
    for frames, decoder in ((scores[:, :13], Fused(HotWordFusion(words))), (scores[:, 13:], Fused())):
        scripted().decoded_by(decoder)._embeddings(frames, state, last=len(frames[0]) < 13)
    assert state.heard[-1].token == 4, "another decoder knows nothing of what one before it knew"


@functools.cache
def spelling(*words: str) -> tuple[Scripted, Labels, int]:
    """An adaptor whose vocabulary is the letters and these words, how it spells, and its blank."""
    tokenizer = chat_tokenizer()
    tokens = choose_tokens(tokenizer, words * 3, 30 + len(words), rare=3)
    adaptor = Scripted(CTCAdaptorConfig(in_dim=4, dim=8, layers=1, heads=2, out_dim=DIM, vocab=len(tokens), chunk=2,
                                        left_context=4))  # fmt: skip
    adaptor.tokens.copy_(torch.tensor(tokens))
    vectors = torch.randn(len(tokenizer), DIM, generator=torch.Generator().manual_seed(1))
    adaptor.bind(lambda ids: vectors[ids])
    labels = Labels(tokenizer, tokens)
    adaptor.spelt_by(lambda: labels)
    return adaptor, labels, len(tokens)


def frames_of(row: list[int], blank: int) -> Tensor:
    """Scores (1, U, V + 1) whose best labels are these."""
    scores = torch.rand(1, len(row), blank + 1, generator=torch.Generator().manual_seed(2))
    scores[0, range(len(row)), row] += 9.0
    return scores


def test_a_word_is_read_as_its_own_tokenizer_writes_it() -> None:
    adaptor, labels, blank = spelling("the", "is")
    the, capital = labels.encode("the") or [], labels.encode("capital") or []
    own = labels.own(tuple(capital))
    assert len(the) == 1 and len(capital) > len(own) and labels.tokenizer.decode(own).strip() == "capital"
    row = [*the, blank, *(frame for label in capital for frame in (label, blank)), blank, blank, blank]
    out = adaptor._embeddings(frames_of(row, blank), state := WordsState(), last=True)
    assert labels.tokenizer.decode([token.token for token in state.heard]) == " the capital"
    assert [token.token for token in state.heard] == [adaptor.tokens[the[0]], *own]
    assert adaptor._embed is not None and torch.equal(out[0, 1:], adaptor._embed(torch.tensor(own)))
    assert {(token.start, token.end) for token in state.heard[1:]} == {(4, 2 * (2 + 2 * len(capital)) - 2)}


def test_a_pause_ends_a_word() -> None:
    adaptor, labels, blank = spelling("the")
    capital = labels.encode("capital") or []
    row = [*capital[:3], *[blank] * 4, *capital[3:]]
    adaptor._embeddings(frames_of(row, blank), state := WordsState(), last=True)
    text = labels.tokenizer.decode([token.token for token in state.heard])
    assert text.replace(" ", "") == "capital" and len({token.start for token in state.heard}) > 1
    for count, is_over in ((3, False), (4, True)):  # the blanks behind the first half
        adaptor._embeddings(frames_of([*capital[:3], *[blank] * count], blank), state := WordsState(), last=False)
        assert bool(state.heard) is is_over


@given(st.lists(st.integers(0, 40), max_size=24), st.integers(1, 3))
def test_words_come_when_training_says_that_they_do(row: list[int], stay: int) -> None:
    """In a stream, chunk by chunk: the same tokens and embeddings as of the whole, at the places of ``clips``."""
    adaptor, _, blank = spelling("the", "is", "of")
    row = [label if label < blank else blank for label in row for _ in range(stay)]
    scores, whole, chunk = frames_of(row, blank), WordsState(), 2
    embeddings, words = adaptor._read(scores, whole, last=True)
    state, pieces, seen = WordsState(), list[Tensor](), 0
    for part in scores.split(chunk, dim=1):
        pieces.append(adaptor._embeddings(part, state, last=False))
        seen += part.shape[1]
        assert len(state.heard) == sum(len(word.tokens) for word in words if word.known <= seen)
    pieces.append(adaptor._embeddings(scores[:, :0], state, last=True))
    assert state.heard == [token for word in words for token in word.tokens]
    assert torch.allclose(torch.cat(pieces, dim=1), embeddings, atol=1e-6)


def test_it_names_what_it_cannot_do() -> None:
    adaptor = CTCAdaptorConfig(in_dim=4, dim=8, layers=1, heads=2, out_dim=DIM, vocab=VOCAB).build()
    assert not set(adaptor.state_dict()) & {"_embed"} and adaptor.state_dict()["tokens"].dtype == torch.long
    with pytest.raises(DuologueError, match="needs a language model's embeddings"):
        adaptor(torch.randn(1, 8, 4))
    with pytest.raises(DuologueError, match=r"hears one clip at a time.*; got 2"):
        adaptor.init_state(2)
    for wrong, message in (
        ({"vocab": 0}, "vocab is 0"), ({"temperature": 0.0}, "temperature is 0"), ({"heads": 3}, "adaptor width 256"),
        ({"chunk": 7}, "adaptor left_context is 250; it must be a multiple of the chunk"),
    ):  # fmt: skip
        with pytest.raises(DuologueError, match=message):
            CTCAdaptorConfig(in_dim=4, **wrong)
