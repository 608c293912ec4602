"""The windowed encoder: with a window over the whole clip it is the offline one; it streams; it keeps its promises."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch

from duologue.model.audio_encoder.mel import LogMel, LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from duologue.model.audio_encoder.windowed import WindowConfig, WindowedEncoder, interior_error
from duologue.model.errors import DuologueError


def audio_encoder(norm: Literal["whisper", "causal"] = "whisper", **window: int) -> WindowedEncoder:
    torch.manual_seed(0)
    mel = LogMel(LogMelConfig(n_mels=20, norm=norm))
    encoder = WhisperEncoder(WhisperEncoderConfig(n_mels=20, n_audio_state=16, n_audio_head=2, n_audio_layer=2)).eval()
    return WindowedEncoder(mel, encoder, WindowConfig(**window))


def speech(n: int) -> torch.Tensor:
    """Noise that swells and fades, loudest at the start, so that the floor is known from then on."""
    t = torch.arange(n) / 16_000
    return (
        torch.randn(1, n, generator=torch.Generator().manual_seed(1)) * (0.02 + 0.3 * torch.cos(t).abs() ** 3)
    ).clamp(-1, 1)


def stream(stage: WindowedEncoder, x: torch.Tensor, size: int) -> list[torch.Tensor]:
    state = stage.init_state()
    return [*(stage.step(piece, state) for piece in x.split(size, dim=1)), stage.flush(state)]


@torch.no_grad()
@pytest.mark.parametrize("size", [1600, 1234, 32_000])
@pytest.mark.parametrize("n", [32_000, 24_321])
@pytest.mark.parametrize("norm", ["whisper", "causal"])
def test_a_window_over_all_is_the_offline_encoder(size: int, n: int, norm: Any) -> None:
    """All right context, all left: only the mel's frames and the positions are left to get wrong."""
    stage = audio_encoder(norm, left_ms=4000, chunk_ms=100, right_ms=4000)
    whole = stage(speech(n))
    found = torch.cat(stream(stage, speech(n), size), dim=1)
    assert found.shape == whole.shape
    assert (found - whole).norm() / whole.norm() < 1e-5


@torch.no_grad()
def test_the_left_context_moves_along_at_its_place() -> None:
    """Without attention, three mel frames decide a frame: any window that holds them gives the offline numbers."""
    stage = audio_encoder(left_ms=200, chunk_ms=100, right_ms=100)
    for block in stage.parts[1].blocks:
        block.attn.out.weight.zero_()
    x = speech(48_000)
    whole, found = stage(x), torch.cat(stream(stage, x, 800), dim=1)
    assert found.shape == whole.shape
    assert (found - whole).abs().max() < 1e-4
    assert interior_error(stage, x) < 1e-5


@torch.no_grad()
def test_it_streams_and_its_state_is_bounded() -> None:
    stage, x = audio_encoder(left_ms=400, chunk_ms=100, right_ms=60), speech(80_000)
    state, out = stage.init_state(), 0
    for n, piece in enumerate(x.split(400, dim=1), 1):
        out += stage.step(piece, state).shape[1]
        assert out >= (400 * n - stage.latency) * stage.rate - 1
        assert state.power.shape[2] <= stage.left + 2 * stage.chunk + stage.right + 4
    assert out > 0


@torch.no_grad()
def test_more_context_is_nearer() -> None:
    errors = [
        interior_error(audio_encoder(left_ms=left, chunk_ms=100, right_ms=100), speech(64_000)) for left in (200, 3800)
    ]
    assert errors[1] < errors[0]


@torch.no_grad()
def test_windows_keep_to_the_chunks_of_an_encoder_that_has_them() -> None:
    """Its own chunks and left context, of one layer, lie within the window: then the window changes nothing."""
    torch.manual_seed(0)
    sizes = WhisperEncoderConfig(
        n_mels=20, n_audio_state=16, n_audio_head=2, n_audio_layer=1, chunk=8, left_context=40, causal_conv=True
    )
    stage = WindowedEncoder(
        LogMel(LogMelConfig(n_mels=20)),
        WhisperEncoder(sizes).eval(),
        WindowConfig(left_ms=1000, chunk_ms=400, right_ms=0),
    )
    assert (stage.left, stage.chunk, stage.right) == (112, 48, 0)
    assert interior_error(stage, speech(96_000)) < 1e-5


def test_what_it_refuses() -> None:
    with pytest.raises(DuologueError, match="window chunk_ms is 0"):
        WindowConfig(chunk_ms=0)
    with pytest.raises(DuologueError, match="window left_ms is 30"):
        WindowConfig(left_ms=30)


def test_very_short_clips_give_what_the_offline_encoder_gives() -> None:
    stage = audio_encoder()
    for n in (0, 100):
        assert sum(piece.shape[1] for piece in stream(stage, torch.zeros(1, n), 50)) == 0
    assert sum(piece.shape[1] for piece in stream(stage, torch.zeros(1, 400), 50)) == 1
