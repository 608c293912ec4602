"""Unit decoder that reads spelling: the characters of a reply's tokens beside the language model's states.

    tokens -> text -> words as they are spoken -> characters (B, N) --------\
                                                                             + -> convolutions -> frames -> logits
    states (B, T, D) of those tokens, each at the characters of its token --/     (B, N, dim)     (B, λN, units + 1)

A character, not a token, becomes λ frames, so that a long word has room for its sounds, and a word that was never
trained on is pronounced by its letters. A word is spoken once it is complete (see spoken_form.py): its first sounds
depend on its last letters ("photograph", "photography"), and "1969" is a year only where no digit follows. So the
decoder looks ahead to the end of a word, which is mostly one token, and at most LONGEST characters.

The convolutions see what was said before, and the characters of the word to its end. The frames are those of
:class:`~.unit_decoder.UnitDecoder`, with a character in the place of a token: causal, over a band of characters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DuologueError
from ..layers.transformer import RMSNorm
from ..streaming import State, Streaming
from .spoken_form import LONGEST, SYMBOLS, reading
from .unit_decoder import UnitDecoder, UnitDecoderConfig, UnitDecoderState

_CODE = {symbol: code for code, symbol in enumerate(SYMBOLS)}


@dataclass(frozen=True, kw_only=True)
class SpellingDecoderConfig:
    """Sizes of the decoder."""

    in_dim: int  # D, width of the language model's states
    dim: int
    convs: int = 4  # convolutions over characters
    kernel: int = 7  # characters that each of them sees
    layers: int = 2  # of attention over frames
    heads: int = 4
    ffn_dim: int
    units: int  # the blank is class number ``units``, the last
    upsample: int = 4  # λ, frames a character
    band: int = 32  # characters that a frame sees, its own included
    blank_bias: float | None = None  # start of the blank's output bias
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.in_dim < 1 or self.convs < 1:
            raise DuologueError(f"in_dim is {self.in_dim} and convs {self.convs}; each must be at least 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise DuologueError(f"kernel is {self.kernel}; it must be an odd number of characters")
        self.frames()

    def frames(self) -> UnitDecoderConfig:
        """Sizes of what comes behind the characters."""
        return UnitDecoderConfig(
            in_dim=self.dim, dim=self.dim, layers=self.layers, heads=self.heads, ffn_dim=self.ffn_dim, units=self.units,
            upsample=self.upsample, band=self.band, sub_position=True, blank_bias=self.blank_bias,
            norm_eps=self.norm_eps,
        )  # fmt: skip

    def build(self) -> SpellingDecoder:
        """A decoder of these sizes."""
        return SpellingDecoder(self)


class Spelling:
    """The text of tokens. ``decode``: of a tokenizer, ids to text."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._pieces: dict[int, str] = {}

    def piece(self, token: int) -> str:
        """What a token adds to a text; a part of a character adds nothing."""
        if token not in self._pieces:
            twice, once = self._decode([token, token]), self._decode([token])
            # Behind another token: some tokenizers leave out the space before the first word of a text.
            self._pieces[token] = twice[len(once) :].replace("\N{REPLACEMENT CHARACTER}", "")
        return self._pieces[token]

    def text(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """The text of tokens, and for each of its characters the number of its token."""
        return joined([self.piece(token) for token in tokens])


def joined(pieces: Sequence[str]) -> tuple[str, list[int]]:
    """Pieces as one text, and for each of its characters the number of its piece."""
    return "".join(pieces), [at for at, piece in enumerate(pieces) for _ in piece]


class _Read(NamedTuple):
    """Symbols of a text: their codes, the characters of the text that they stand for, the number of their chunk."""

    codes: list[int]
    places: list[int]
    chunks: list[int]


@dataclass(frozen=True)
class _Unread:
    """The text that waits for the end of its word, and the last words before it."""

    text: str = ""
    before: str = ""


def _read(unread: _Unread, last: bool) -> tuple[_Read, _Unread]:
    """What can be read, and what is left. A chunk that is longer in symbols, or shorter, is spread evenly."""
    read, before, at = _Read([], [], []), unread.before, 0
    for number, (start, end, said) in enumerate(reading(unread.text, before, last)):
        read.codes.extend(_CODE[symbol] for symbol in said)
        read.places.extend(start + i * (end - start) // len(said) for i in range(len(said)))
        read.chunks.extend([number] * len(said))
        before, at = (before + said)[-LONGEST:], end
    return read, _Unread(unread.text[at:], before)


class CharacterConv(nn.Module):
    """A depthwise convolution and a feed-forward layer around a residual path, (B, N, dim) both ways.

    After ConvNeXt's block (Liu et al. 2022, arXiv 2201.03545). To the left it sees across words, to the right to the
    end of the word.
    """

    def __init__(self, dim: int, kernel: int, norm_eps: float) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.weight = nn.Parameter(torch.randn(dim, kernel) * kernel**-0.5)
        self.norm = RMSNorm(dim, norm_eps)
        self.up_proj = nn.Linear(dim, 2 * dim)
        self.down_proj = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, left: Tensor, seen: Tensor) -> Tensor:
        """left: (B, kernel // 2, dim), what is before x. seen: (B, N, kernel), which neighbours a character sees."""
        windows = F.pad(torch.cat([left, x], dim=1), (0, 0, 0, self.reach)).unfold(1, 2 * self.reach + 1, 1)
        mixed = (windows * seen[:, :, None] * self.weight).sum(dim=-1)  # (B, N, dim)
        return x + self.down_proj(F.gelu(self.up_proj(self.norm(mixed))))


@dataclass
class SpellingState(State):
    """What a reply under way has accumulated.

    hidden: (1, n, D), the state of each character of ``unread``. read: the characters that the last step's symbols
        stand for, counted from the first that was unread then. pieces: how many characters each of the last tokens
        has, of those that have some in ``unread``.
    lefts: of each convolution the last characters (1, kernel // 2, dim). frames: of the attention over frames.
    """

    unread: _Unread
    hidden: Tensor
    pieces: list[int]
    lefts: list[Tensor]
    frames: UnitDecoderState
    read: list[int] = field(default_factory=list)


class SpellingDecoder(Streaming):
    """States (B, T, D) and the ids of the tokens that they predicted (B, T) -> logits (B, λN, units + 1).

    :meth:`read_by` gives it the tokenizer.
    """

    time_in, time_out = 1, 1
    rate = Fraction(0)  # how many characters tokens have is up to them

    def __init__(self, config: SpellingDecoderConfig) -> None:
        super().__init__()
        c = self.config = config
        self.blank = c.units
        self.norm = RMSNorm(c.in_dim, c.norm_eps)
        self.state_proj = nn.Linear(c.in_dim, c.dim, bias=False)
        nn.init.zeros_(self.state_proj.weight)  # states add to the spelling what they learn to, perhaps nothing
        self.characters = nn.Embedding(len(SYMBOLS), c.dim)
        self.convs = nn.ModuleList(CharacterConv(c.dim, c.kernel, c.norm_eps) for _ in range(c.convs))
        self.frames = UnitDecoder(c.frames())
        self._spelling: Spelling | None = None

    def read_by(self, decode: Callable[[list[int]], str]) -> None:
        """Take the tokens' text from a tokenizer: ids to text, nothing for special tokens."""
        self._spelling = Spelling(decode)

    @property
    def spelling(self) -> Spelling:
        """How the tokens are spelt.

        Raises:
            DuologueError: :meth:`read_by` has not been called.
        """
        if self._spelling is None:
            raise DuologueError("this unit decoder reads spelling: give the model its tokenizer with read_by")
        return self._spelling

    def beside(self, ids: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """What it reads beside states: the ids (B, T) of the tokens that they predicted."""
        return ids

    def positions(self, replies: Sequence[Sequence[int]]) -> list[int]:
        """Characters of each reply, given as ids: it has λ frames for each."""
        return [len(self._whole(reply)[0].codes) for reply in replies]

    def forward(
        self, hidden: Tensor, ids: Tensor, lengths: Tensor | None = None, frames: Tensor | None = None
    ) -> Tensor:
        """Whole replies, as in training.

        Args:
            hidden: (B, T, D) states that predicted the reply's tokens.
            ids: (B, T) those tokens.
            lengths: (B,) real tokens of each reply, padding to their right. ``None``: T.
            frames: (B,) frames of each reply, where its characters are too few for its speech. ``None``: λ each.

        Returns:
            (B, F, units + 1), F = λN of the longest reply, or the largest of ``frames``. Frames of padding mean
            nothing.
        """
        counts = [ids.shape[1]] * len(ids) if lengths is None else lengths.tolist()
        rows = [self._whole(row[:count]) for row, count in zip(ids.tolist(), counts, strict=True)]
        longest = max((len(read.codes) for read, _ in rows), default=0)

        def padded(values: list[list[int]], by: int) -> Tensor:
            rows = [row + [by] * (longest - len(row)) for row in values]
            return torch.tensor(rows, dtype=torch.long, device=hidden.device)

        codes, chunks = padded([read.codes for read, _ in rows], 0), padded([read.chunks for read, _ in rows], -1)
        tokens = padded([[owners[place] for place in read.places] for read, owners in rows], 0)
        x = self.state_proj(self.norm(hidden))
        x = x.gather(1, tokens[..., None].expand(-1, -1, x.shape[2])) + self.characters(codes)
        if longest:
            seen = self._seen(chunks)
            for conv, left in zip(self.convs, self._lefts(len(ids)), strict=True):
                x = conv(x, left, seen)
        if frames is None:
            return self.frames(x)
        return self.frames(x, lengths=frames.new_tensor([len(read.codes) for read, _ in rows]), frames=frames)

    def init_state(self, batch_size: int = 1) -> SpellingState:
        if batch_size != 1:
            raise DuologueError(f"replies are spelt one by one: batch_size is {batch_size}, it must be 1")
        hidden = self.characters.weight.new_zeros(1, 0, self.config.in_dim)
        return SpellingState(_Unread(), hidden, [], self._lefts(1), self.frames.init_state(1))

    @torch.no_grad()
    def step(self, x: Tensor, state: SpellingState, ids: Tensor | Sequence[str] | None = None) -> Tensor:
        """The next states (1, t, D) and the tokens that they predicted (1, t), or what is spoken of each -> (1, λn,
        units + 1) of the words that are complete with them."""
        if ids is None:
            raise DuologueError("this unit decoder reads spelling: give it the ids of the tokens beside their states")
        pieces = [self.spelling.piece(token) for token in ids[0].tolist()] if isinstance(ids, Tensor) else ids
        text, owners = joined(pieces)
        state.hidden = torch.cat([state.hidden.to(x), x[:, owners]], dim=1)
        state.pieces += [owners.count(token) for token in range(x.shape[1])]
        state.unread = _Unread(state.unread.text + text, state.unread.before)
        return self._advance(state, last=False)

    @torch.no_grad()
    def flush(self, state: SpellingState) -> Tensor:
        """The last word. Flushed again, nothing."""
        return self._advance(state, last=True)

    def held(self, state: SpellingState) -> int:
        """How many of the last tokens have speech to come."""
        return len(state.pieces)

    def places(self, state: SpellingState, tokens: int) -> tuple[list[int], int]:
        """Of the last step, to which ``tokens`` came: for each λ of its frames the character that they speak, counted
        from the first that was unread before; and how many are unread now."""
        return state.read, len(state.unread.text)

    def _advance(self, state: SpellingState, last: bool) -> Tensor:
        held = len(state.unread.text)
        read, state.unread = _read(state.unread, last)
        state.read = read.places
        device = state.hidden.device
        x = self.state_proj(self.norm(state.hidden[:, read.places]))
        x = x + self.characters(torch.tensor([read.codes], dtype=torch.long, device=device))
        # A copy, or the state would keep alive what has been read.
        state.hidden = state.hidden[:, held - len(state.unread.text) :].clone()
        while sum(state.pieces[1:]) >= len(state.unread.text) and state.pieces:
            state.pieces.pop(0)
        if read.codes:
            seen = self._seen(torch.tensor([read.chunks], device=device))
            for at, conv in enumerate(self.convs):
                left = state.lefts[at].to(x)
                state.lefts[at] = torch.cat([left, x], dim=1)[:, x.shape[1] :].clone()
                x = conv(x, left, seen)
        return self.frames.step(x, state.frames)

    def _whole(self, tokens: Sequence[int]) -> tuple[_Read, list[int]]:
        text, owners = self.spelling.text(tokens)
        return _read(_Unread(text), last=True)[0], owners

    def _lefts(self, batch: int) -> list[Tensor]:
        c = self.config
        return [self.characters.weight.new_zeros(batch, c.kernel // 2, c.dim) for _ in range(c.convs)]

    def _seen(self, chunks: Tensor) -> Tensor:
        """(B, N) chunk of each character -> (B, N, kernel), whether it sees each of its neighbours: all to the left."""
        half = self.config.kernel // 2
        right = F.pad(chunks, (0, half), value=-1).unfold(1, half + 1, 1) == chunks[..., None]  # (B, N, half + 1)
        return F.pad(right, (half, 0), value=True)
