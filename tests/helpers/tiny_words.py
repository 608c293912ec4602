"""A model with a chat template whose adaptor hears words by itself, as the CTC adaptor does: each word is a tone.

Of a vague one, which is a CTC adaptor, two tones may each be another word as well (CONFUSED).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from tiny_assistant import Loudness
from tiny_chat import chat_tokenizer
from torch import Tensor, nn

from duologue.inference.assistant.assistant import Assistant
from duologue.model.adaptor.adaptor import Adaptor, HeardToken
from duologue.model.adaptor.ctc import CTCAdaptor, CTCAdaptorConfig, CTCState
from duologue.model.audio_encoder.encoder import Encoder
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.speech_lm import SpeechLM, SpeechLMConfig
from duologue.model.streaming import State
from duologue.model.tokens import TokenLayout

RATE = 16_000
WORDS = (" the", " capital", " of", " France", " is")
BANDS = 40
CONFUSED = {" of": " is", " capital": " France"}  # the first is a little likelier
LOUD = 0.5  # how far a tone's band stands above the mean


def tones(text: str, before: float = 0.0, behind: float = 0.0) -> np.ndarray:
    """WORDS as sound (n,) float32, 240 ms and a pause of 80 ms each, with so many seconds of silence around them."""
    time = np.arange(RATE * 6 // 25) / RATE
    parts = [np.zeros(int(before * RATE))]
    for word in text.split():
        hertz = 300 * 1.7 ** WORDS.index(f" {word}")
        parts += [0.25 * np.sin(2 * np.pi * hertz * time), np.zeros(RATE * 2 // 25)]
    return np.concatenate([*parts, np.zeros(int(behind * RATE))]).astype(np.float32)


def noise(seconds: float) -> np.ndarray:
    """A sound that is no word, as loud as the tones."""
    return (0.2 * np.random.default_rng(1).standard_normal(int(seconds * RATE))).astype(np.float32)


@dataclass
class Pending(State):
    """Frames that wait for another."""

    frames: Tensor
    count: int = 0
    label: int = -1
    start: int = 0
    heard: list[HeardToken] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Every two mel frames' mean, as an encoder."""

    n_mels: int = BANDS
    width: int = BANDS
    heads: int = 1
    positions: int = 1500
    chunk: int | None = 1

    def build(self) -> PairsEncoder:
        return PairsEncoder(self)


class PairsEncoder(Encoder):
    def __init__(self, config: Pairs) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList()

    def init_state(self, batch_size: int = 1) -> Pending:
        return Pending(torch.zeros(batch_size, BANDS, 0))

    def forward(self, mel: Tensor, *_: Any, **__: Any) -> Tensor:
        return self.step(mel, self.init_state(len(mel)))

    def step(self, x: Tensor, state: Pending) -> Tensor:
        x = torch.cat([state.frames, x], dim=2)
        whole = x.shape[2] // 2 * 2
        state.frames = x[..., whole:]
        return x[..., :whole].unflatten(2, (-1, 2)).mean(3).transpose(1, 2)

    def flush(self, state: Pending) -> Tensor:
        return state.frames.transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class TonesConfig:
    """Which tokens the tones are."""

    in_dim: int = BANDS
    out_dim: int = 32
    tokens: tuple[int, ...]

    def build(self) -> Tones:
        return Tones(self)


class Tones(Adaptor):
    """The input embedding of each word, once it is over."""

    even, transcribes = False, True
    rate, most = Fraction(0), Fraction(1)

    def __init__(self, config: TonesConfig) -> None:
        super().__init__()
        self.config: TonesConfig = config
        self.weight = nn.Parameter(torch.zeros(1))

    def bind(self, embed: Callable[[Tensor], Tensor]) -> None:
        self.embed = embed

    def tokens_of(self, state: Pending) -> list[HeardToken]:
        return state.heard

    def init_state(self, batch_size: int = 1) -> Pending:
        return Pending(torch.zeros(batch_size, 0))

    def forward(self, x: Tensor) -> Tensor:
        state = self.init_state()
        return torch.cat([self.step(x, state), self.flush(state)], dim=1)

    def step(self, x: Tensor, state: Pending) -> Tensor:
        before = len(state.heard)
        for frame in x[0]:
            peak = int(frame.argmax())
            self._next(BAND_OF.get(peak, -1) if frame.max() - frame.mean() > LOUD else -1, state)
            state.count += 1
        return self._embedded(state, before)

    def flush(self, state: Pending) -> Tensor:
        before = len(state.heard)
        self._next(-1, state)
        return self._embedded(state, before)

    def _next(self, label: int, state: Pending) -> None:
        if label != state.label:
            if state.label >= 0:
                token = self.config.tokens[state.label]
                state.heard.append(HeardToken(token=token, start=state.start, end=state.count, confidence=0.9))
            state.label, state.start = label, state.count

    def _embedded(self, state: Pending, before: int) -> Tensor:
        return self.embed(torch.tensor([[token.token for token in state.heard[before:]]], dtype=torch.long))


@dataclass
class Onset(State):
    """Frames that wait for another, and the tone that lasts."""

    frames: Tensor
    label: int = -1


class VagueTones(CTCAdaptor):
    """Each tone's first frame says its word, or the one that it is confused with; all others are blank."""

    def __init__(self, config: TonesConfig) -> None:
        words = len(config.tokens)
        super().__init__(CTCAdaptorConfig(in_dim=BANDS, dim=8, layers=1, heads=1, out_dim=32, vocab=words, chunk=1,
                                          left_context=1, temperature=0.01))  # fmt: skip
        self.tokens.copy_(torch.tensor(config.tokens))

    def init_state(self, batch_size: int = 1) -> CTCState:
        return CTCState(transformer=Onset(torch.zeros(1, 0, BANDS)))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        state = self.init_state()
        return torch.cat([self.step(x, state), self.flush(state)], dim=1)

    def step(self, x: Tensor, state: CTCState) -> Tensor:
        return self._embeddings(self._onsets(x, state.transformer), state.words, last=False)  # type: ignore[arg-type]

    def flush(self, state: CTCState) -> Tensor:
        return self._embeddings(torch.zeros(1, 0, len(WORDS) + 1), state.words, last=True)

    def hidden(self, x: Tensor, lengths: Tensor | None = None, offsets: Tensor | None = None) -> Tensor:
        return self._onsets(x, Onset(torch.zeros(1, 0, BANDS)))

    def scores(self, hidden: Tensor, vectors: Tensor) -> Tensor:
        return hidden

    def _onsets(self, x: Tensor, state: Onset) -> Tensor:
        x = torch.cat([state.frames, x], dim=1)
        whole = x.shape[1] // 2 * 2
        state.frames, rows = x[:, whole:], []
        for frame in x[0, :whole].unflatten(0, (-1, 2)).mean(1):
            label = BAND_OF.get(int(frame.argmax()), -1) if frame.max() - frame.mean() > LOUD else -1
            row = torch.zeros(len(WORDS) + 1)
            if label in (-1, state.label):
                row[-1] = 8.0
            else:
                row[WORDS.index(CONFUSED.get(WORDS[label], WORDS[label]))] = 7.0
                row[label] = 8.0
            rows.append(row)
            state.label = label
        return torch.stack(rows)[None] if rows else torch.zeros(1, 0, len(WORDS) + 1)


@dataclass(frozen=True, kw_only=True)
class VagueConfig(TonesConfig):
    """The same tokens."""

    def build(self) -> VagueTones:  # type: ignore[override]
        return VagueTones(self)


def _band(hertz: float) -> int:
    from duologue.model.audio_encoder.mel import LogMel

    time = np.arange(RATE) / RATE
    mel = LogMel(LogMelConfig(n_mels=BANDS, norm="causal"))
    return int(mel(torch.from_numpy(np.sin(2 * np.pi * hertz * time)).float()[None])[0, :, 50].argmax())


BAND_OF = {_band(300 * 1.7**at) + near: at for at in range(len(WORDS)) for near in (-1, 0, 1)}


def words_assistant(vague: bool = False) -> Assistant:
    """It streams; its replies are random, five tokens at most in a reply by chance."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer("chatml")
    spare = len(tokenizer)
    tokens = [tokenizer.encode(word, add_special_tokens=False) for word in WORDS]
    assert all(len(ids) == 1 for ids in tokens), tokens
    config = SpeechLMConfig(
        mel=LogMelConfig(n_mels=BANDS, norm="causal"),
        encoder=Pairs(),  # type: ignore[arg-type]
        adaptor=(VagueConfig if vague else TonesConfig)(tokens=tuple(ids[0] for ids in tokens)),  # type: ignore[arg-type]
        llm={
            "model_type": "llama", "vocab_size": spare + 2, "hidden_size": 32, "intermediate_size": 48,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        },
        layout=TokenLayout(bos=spare, pad=spare + 1, eos=tokenizer.eos_token_id, units=0,
                           text=(tokenizer.eos_token_id + 1, spare)),
        prompt=None,
    )  # fmt: skip
    return Assistant(SpeechLM(config).read_by(tokenizer), tokenizer, vad=Loudness())
