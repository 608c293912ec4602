"""CTC adaptor: it hears tokens of the language model's own vocabulary, and gives one embedding for each.

    frames (1, T, D) at 50 Hz -> layer norm, transformer at 25 Hz -> scores of V tokens and of the blank, every 40 ms
    frames in a row whose best token is the same -> one embedding: the language model's input embeddings, averaged with
    the tokens' probabilities as weights; blanks become nothing

The score of a token is the cosine between the frame and the token's input embedding, times a learnt scale. The
embeddings stay the language model's own (:meth:`CTCAdaptor.bind`): it can be frozen, and reads what it knows. The
tokens heard are the transcript, with times and probabilities, for nothing.

The language model reads a word as its own tokenizer writes it: where it was heard in other pieces, because the V tokens
have no better ones, the embeddings are those of the tokenizer's tokens, and each has the times of the whole word.

It streams: the transformer sees whole chunks and a bounded past, and a word is given out once another one begins or
160 ms bring nothing. Without a tokenizer (:meth:`CTCAdaptor.spelt_by`) a token is a word by itself, and is given out
once another label follows. With a decoder (:meth:`CTCAdaptor.decoded_by`) the tokens are those of the best text that a
search finds, of each part between two pauses of 320 ms, with what was said before it in mind (of a grammar those of the
whole stream); where that overrules the frames, a token's embedding is its own.

Sources: LegoSLM (arXiv 2505.11352), section 3: CTC over the language model's vocabulary, and its posteriors as weights;
Soundwave (arXiv 2502.12900), section 3: one embedding for each run of frames.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig, WhisperEncoderState
from ..decoding.decoder import Decoder
from ..decoding.labels import Labels
from ..decoding.token_times import aligned, best_path
from ..errors import DuologueError
from ..streaming import State
from .adaptor import Adaptor, HeardClips, HeardText, HeardToken

STRIDE = 2  # frames at 50 Hz for each frame with scores
_PAUSE = 4  # blanks in a row, 160 ms, behind which a word is over
_SEARCHED = 8  # the same, 320 ms, behind which a decoder decides: behind 160 ms, between any two words, it erred more
SCALE = 20.0  # of the cosines, untrained


@dataclass(frozen=True, kw_only=True)
class CTCAdaptorConfig:
    """Sizes of the adaptor. Which V tokens it hears is in its tensor ``tokens``."""

    in_dim: int  # D, the encoder's width
    dim: int = 256  # of the transformer
    layers: int = 4
    heads: int = 4
    chunk: int = 10  # frames at 25 Hz that see each other, which is the look-ahead
    left_context: int = 250  # frames before its chunk that a frame sees; a multiple of the chunk
    positions: int = 1500  # frames that training covers: 60 s
    out_dim: int = 896  # D_llm
    vocab: int = 2048  # V
    temperature: float = 1.0  # of the probabilities by which embeddings are averaged; near 0: the best token's alone

    def build(self) -> CTCAdaptor:
        """The adaptor of these sizes, untrained, with a vocabulary of V times token 0."""
        return CTCAdaptor(self)

    def transformer(self) -> WhisperEncoderConfig:
        """What stands between the frames and the scores, as an encoder of D "bands"."""
        return WhisperEncoderConfig(
            n_mels=self.in_dim, n_audio_ctx=self.positions, n_audio_state=self.dim, n_audio_head=self.heads,
            n_audio_layer=self.layers, chunk=self.chunk, left_context=self.left_context,
        )  # fmt: skip

    def __post_init__(self) -> None:
        if self.vocab < 1:
            raise DuologueError(f"adaptor vocab is {self.vocab}; it must be at least 1")
        if not self.temperature > 0:
            raise DuologueError(f"adaptor temperature is {self.temperature}; it must be above 0")
        try:
            self.transformer()
        except DuologueError as error:
            raise DuologueError(str(error).replace("encoder", "adaptor", 1)) from None


@dataclass
class WordsState(State):
    """What is heard of one stream.

    frames: at 25 Hz so far. kept: log-probabilities (t, V + 1) each of the last frames, whose tokens are not known yet.
    heard: the tokens so far. searched: a decoder, and what it knows behind them; speaks: whether the kept frames have
    more than blanks; quiet: how many blanks there have been in a row.
    """

    frames: int = 0
    kept: list[Tensor] = field(default_factory=list)
    heard: list[HeardToken] = field(default_factory=list)
    searched: tuple[Decoder, list[np.ndarray]] | None = None
    speaks: bool = False
    quiet: int = 0

    def clone(self) -> WordsState:
        """The tensors are shared: they no longer change."""
        return replace(self, kept=list(self.kept), heard=list(self.heard))


@dataclass(frozen=True)
class _Word:
    """known: after how many of the frames at 25 Hz that were read with it it is over. tokens: with their places in the
    stream."""

    known: int
    tokens: tuple[HeardToken, ...]


@dataclass
class CTCState(State):
    """Of one stream."""

    transformer: WhisperEncoderState
    words: WordsState = field(default_factory=WordsState)


class CTCAdaptor(Adaptor):
    """(1, T, D) -> (1, tokens, D_llm)."""

    even = False
    transcribes = True
    rate = Fraction(0)  # how many embeddings come out is up to what is said
    most = Fraction(1, STRIDE)

    def __init__(self, config: CTCAdaptorConfig) -> None:
        super().__init__()
        self.config: CTCAdaptorConfig = config
        self.norm = nn.LayerNorm(config.in_dim)
        self.transformer = WhisperEncoder(config.transformer())
        self.project = nn.Linear(config.dim, config.out_dim)
        self.blank = nn.Linear(config.dim, 1)
        nn.init.constant_(self.blank.bias, math.log(config.vocab) + 2)  # nine frames in ten are blanks, untrained
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))
        self.tokens: Tensor
        self.register_buffer("tokens", torch.zeros(config.vocab, dtype=torch.long))  # ids of the language model
        self.latency = self.transformer.latency
        self._embed: Callable[[Tensor], Tensor] | None = None
        self._labels: Callable[[], Labels] | None = None
        self._decoder: Decoder | None = None

    def bind(self, embed: Callable[[Tensor], Tensor]) -> None:
        self._embed = embed  # a function, which does not register: names and tensors stay the adaptor's own

    def vocabulary(self) -> list[int]:
        return [int(token) for token in self.tokens]

    def spelt_by(self, labels: Callable[[], Labels]) -> None:
        self._labels = labels

    def decoded_by(self, decoder: Decoder | None) -> Self:
        view = copy.copy(self)
        view._decoder = decoder
        return view

    def tokens_of(self, state: CTCState) -> list[HeardToken]:
        return state.words.heard

    def hidden(self, x: Tensor, lengths: Tensor | None = None, offsets: Tensor | None = None) -> Tensor:
        """Frames (B, T, D) of whole clips -> (B, ceil(T / 2), dim); lengths: (B,) real frames; offsets: (B,) first
        position of each clip, at 25 Hz."""
        return self.transformer(self._normed(x), lengths=lengths, offsets=offsets)

    def scores(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        """(B, U, dim), and the tokens' input embeddings (V, D_llm) -> logits (B, U, V + 1), the blank's last."""
        cosines = F.normalize(self.project(hidden).float(), dim=-1) @ F.normalize(vectors.float(), dim=-1).T
        return torch.cat([cosines * self.log_scale.exp().float(), self.blank(hidden).float()], dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        self._check_batch(x.shape[0])
        return self._embeddings(self.hidden(x), WordsState(), last=True)

    def clips(self, x: Tensor, lengths: Tensor) -> HeardClips:
        rows, given = list[Tensor](), list[Tensor]()
        chunk = self.config.chunk
        for clip, length in zip(self.hidden(x, lengths), ((lengths + 1) // STRIDE).tolist(), strict=True):
            row, words = self._read(clip[None, :length], WordsState(), last=True)
            rows.append(row[0])
            known = [word.known for word in words for _ in word.tokens]
            given.append(torch.tensor([STRIDE * chunk * -(-frames // chunk) for frames in known]).long())
        counts = torch.tensor([len(row) for row in rows], device=x.device)
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, N, D_llm)
        return HeardClips(padded, counts, nn.utils.rnn.pad_sequence(given, batch_first=True).to(x.device))

    def n_best(self, x: Tensor) -> list[HeardText]:
        assert self._decoder is not None and self._embed is not None
        vectors = self._embed(self.tokens).to(x.device)
        log_probs = self.scores(self.hidden(x), vectors)[0].log_softmax(-1)  # (U, V + 1)
        texts = []
        for found in self._decoder(log_probs.float().cpu().numpy()):
            groups = self._grouped(aligned(log_probs, self.config.vocab, 1, found.labels))
            tokens = [token for group in groups for token in self._written(group, 0)]
            texts.append(HeardText(tokens=tokens, score=found.score, ctc=found.ctc))
        return texts

    def init_state(self, batch_size: int = 1) -> CTCState:
        self._check_batch(batch_size)
        return CTCState(transformer=self.transformer.init_state())

    def step(self, x: Tensor, state: CTCState) -> Tensor:
        return self._embeddings(self.transformer.step(self._normed(x), state.transformer), state.words, last=False)

    def flush(self, state: CTCState) -> Tensor:
        return self._embeddings(self.transformer.flush(state.transformer), state.words, last=True)

    def _normed(self, x: Tensor) -> Tensor:
        return self.norm(x.to(self.norm.weight.dtype)).transpose(1, 2)  # (B, D, T)

    def _check_batch(self, size: int) -> None:
        if size != 1:
            raise DuologueError(f"a ctc adaptor hears one clip at a time, for each has other words; got {size}")

    def _embeddings(self, hidden: Tensor, state: WordsState, last: bool) -> Tensor:
        """The next (1, U, dim) -> embeddings (1, tokens, D_llm) of the words that are known by now; ``last``: all."""
        embeddings, words = self._read(hidden, state, last)
        state.heard += [token for word in words for token in word.tokens]
        return embeddings

    def _read(self, hidden: Tensor, state: WordsState, last: bool) -> tuple[Tensor, list[_Word]]:
        if self._embed is None:
            raise DuologueError("a ctc adaptor needs a language model's embeddings: make a SpeechLM of it, or bind it")
        if not hidden.shape[1] and not (last and state.kept):
            return self._embed(self.tokens[:0])[None].to(hidden.device), []
        vectors = self._embed(self.tokens).to(hidden.device)  # (V, D_llm)
        first = state.frames - sum(map(len, state.kept))
        new = self.scores(hidden, vectors)[0].log_softmax(-1)
        if self._decoder is None:
            parts = [(first, self._final(new, state, last))]
        else:
            parts = self._parts(new, state, last)
        state.frames += len(new)
        rows, words = [vectors.new_zeros(0, self.config.out_dim)], list[_Word]()
        for at, (begins, log_probs) in enumerate(parts):  # (t, V + 1)
            tokens = self._tokens(log_probs, state, last and at == len(parts) - 1)
            groups = self._grouped(tokens)
            averaged = self._averaged(log_probs, tokens, vectors) if tokens else rows[0]
            for heard, known in zip(groups, self._known(groups, len(log_probs)), strict=True):
                labels = tuple(token.token for token in heard)
                row, averaged = averaged.tensor_split((len(labels),))
                written = self._written(heard, begins)
                own = [token.token for token in written]
                if own != self.tokens[list(labels)].tolist():
                    row = self._embed(torch.tensor(own, device=self.tokens.device)).to(row)
                rows.append(row)
                words.append(_Word(begins - first + known, written))
        return torch.cat(rows)[None], words

    def _known(self, groups: list[list[HeardToken]], frames: int) -> list[int]:
        """After how many of the frames that were read with it each word is over."""
        if self._decoder is not None:
            return [frames] * len(groups)
        follows = [*(group[0].start + 1 for group in groups[1:]), math.inf][: len(groups)]
        ends = [heard[-1].end + self._pause for heard in groups]
        return [int(min(end, following)) for end, following in zip(ends, follows, strict=True)]

    def _written(self, heard: list[HeardToken], first: int) -> tuple[HeardToken, ...]:
        """A word, heard as labels at frames of 25 Hz behind the ``first``, as the language model's tokenizer writes it,
        with places in the stream."""
        labels = tuple(token.token for token in heard)
        ids = own = tuple(self.tokens[list(labels)].tolist())
        if self._labels is not None and (own := self._labels().own(labels)) != ids:
            sure = sum(token.confidence for token in heard) / len(heard)
            heard = [HeardToken(token=0, start=heard[0].start, end=heard[-1].end, confidence=sure)] * len(own)
        return tuple(
            replace(token, token=id_, start=STRIDE * (first + token.start), end=STRIDE * (first + token.end))
            for token, id_ in zip(heard, own, strict=True)
        )

    @property
    def _pause(self) -> int:
        return 1 if self._labels is None else _PAUSE

    def _grouped(self, tokens: list[HeardToken]) -> list[list[HeardToken]]:
        """Tokens in words. Without a tokenizer nothing tells where one begins, and each is by itself."""
        groups = list[list[HeardToken]]()
        for token in tokens:
            near = groups and token.start - groups[-1][-1].end < self._pause
            if near and self._labels is not None and self._labels().goes_on[token.token]:
                groups[-1].append(token)
            else:
                groups.append([token])
        return groups

    def _final(self, new: Tensor, state: WordsState, last: bool) -> Tensor:
        """New frames (U, V + 1) have come: those (t, V + 1), kept ones first, whose words are over."""
        frames, state.kept = torch.cat([*state.kept, new]), []
        if last or not (tokens := best_path(frames)) or len(frames) - tokens[-1].end >= self._pause:
            return frames
        begins = int(self._grouped(tokens)[-1][0].start)
        state.kept = [frames[begins:]]
        return frames[:begins]

    def _parts(self, new: Tensor, state: WordsState, last: bool) -> list[tuple[int, Tensor]]:
        """The same, for a decoder: what was said between two pauses, (t, V + 1) each, with the pause behind it and no
        more than that of a pause before it; and behind how many frames of the stream it begins."""
        parts, begins = list[tuple[int, Tensor]](), 0
        assert self._decoder is not None

        def taken(end: int) -> Tensor:
            return torch.cat([*state.kept, new[begins:end]])

        for at, blank in enumerate((new.argmax(-1) == self.config.vocab).tolist()):
            if not blank and not state.speaks:
                state.kept, begins, state.speaks = [taken(at)[-_SEARCHED:]], at, True
            state.quiet = state.quiet + 1 if blank else 0
            if state.speaks and state.quiet == _SEARCHED and not self._decoder.whole:
                part = taken(at + 1)
                parts.append((state.frames + at + 1 - len(part), part))
                state.kept, state.speaks, begins = [], False, at + 1
        if not state.speaks:
            state.kept, begins = [taken(len(new))[-_SEARCHED:]], len(new)
        if last:
            rest = taken(len(new))
            parts.append((state.frames + len(new) - len(rest), rest))
        state.kept = [] if last else [*state.kept, new[begins:]]
        return parts

    def _tokens(self, log_probs: Tensor, state: WordsState, last: bool) -> list[HeardToken]:
        """What (t, V + 1) say, as labels with the frames from first to last."""
        if self._decoder is None:
            return best_path(log_probs) if len(log_probs) else []
        before = state.searched[1] if state.searched and state.searched[0] is self._decoder else None
        labels, found = self._decoder.part(log_probs.float().cpu().numpy(), before, last)
        state.searched = self._decoder, found
        return aligned(log_probs, self.config.vocab, 1, labels)

    def _averaged(self, log_probs: Tensor, tokens: list[HeardToken], vectors: Tensor) -> Tensor:
        """(tokens, D_llm). The mean of a token's frames says by which probabilities embeddings are averaged, if the
        token is the likeliest there; otherwise a decoder knew better, and the embedding is the token's own."""
        weights = (log_probs[:, :-1] / self.config.temperature).softmax(-1)  # (t, V): blank left out
        means = torch.stack([weights[int(token.start) : int(token.end)].mean(0) for token in tokens])  # (tokens, V)
        labels = torch.tensor([token.token for token in tokens], device=means.device)
        overruled = means.argmax(-1) != labels
        means[overruled] = F.one_hot(labels[overruled], means.shape[1]).to(means)
        return (means @ vectors.to(means)).to(vectors.dtype)
