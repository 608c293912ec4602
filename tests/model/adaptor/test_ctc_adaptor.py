"""The CTC adaptor: one embedding for each run of frames, its weights, its tokens and their times, what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from duologue.model.adaptor.ctc import CTCAdaptor, CTCAdaptorConfig, WordsState
from duologue.model.decoding.ctc_beam import search
from duologue.model.decoding.fusions import HotWordFusion
from duologue.model.decoding.hot_words import HotPhrase, HotWords
from duologue.model.errors import DuologueError

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
    adaptor, state = scripted().decoded_by(lambda frames: search(frames, fusions=[HotWordFusion(words)])), WordsState()
    for part in scores.split(2, dim=1):
        assert adaptor._embeddings(part, state, last=False).shape == (1, 0, DIM)
    out = adaptor._embeddings(scores[:, :0], state, last=True)
    assert [token.token for token in before.heard] == [20, 9] and [token.token for token in state.heard] == [11, 9]
    assert torch.equal(out[0, 0], VECTORS[11]) and torch.allclose(out[0, 1], greedy[0, 1])
    assert [token.start for token in state.heard] == [2, 8], "in frames at 50 Hz"
    assert state.heard[0].confidence == pytest.approx(scores[0].softmax(-1)[1, 4].item(), abs=1e-6)


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
