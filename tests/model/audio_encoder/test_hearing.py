"""Hearing of whole clips, and what clones share. Streams are under the streaming law (tests/test_streaming_law.py)."""

from __future__ import annotations

import pytest
import torch

from duologue.model.adaptor.stack import StackAdaptor, StackConfig
from duologue.model.audio_encoder.hearing import Hearing
from duologue.model.audio_encoder.mel import LogMel, LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig


def of_whole_clips(clip_s: float | None, tail_s: float = 0.0) -> Hearing:
    torch.manual_seed(0)
    encoder = WhisperEncoder(WhisperEncoderConfig(n_mels=16, n_audio_ctx=200, n_audio_state=16, n_audio_head=2,
                                                  n_audio_layer=1))  # fmt: skip
    adaptor = StackAdaptor(StackConfig(in_dim=16, hidden_dim=16, out_dim=8, stack=2))
    mel = LogMel(LogMelConfig(n_mels=16, norm="whisper"))
    return Hearing(mel, encoder, adaptor, streams=False, clip_s=clip_s, tail_s=tail_s).eval()


@pytest.mark.parametrize(("clip_s", "tail_s"), [(None, 0.0), (None, 0.3), (1.0, 0.0), (0.2, 0.3)])
@torch.inference_mode()
def test_a_whole_clip_is_heard_at_its_end(clip_s: float | None, tail_s: float) -> None:
    hearing = of_whole_clips(clip_s, tail_s)
    pcm = 0.1 * torch.randn(1, 7000)
    state = hearing.init_state()
    assert all(hearing.step(piece, state).shape == (1, 0, 8) for piece in pcm.split(999, dim=1))
    heard = hearing.flush(state)
    assert torch.equal(heard, hearing(pcm)) and heard.shape[1] <= hearing.embeddings_of(7000 + hearing.tail)
    if clip_s is not None:
        assert heard.shape[1] == int(clip_s * 25)
    assert hearing.longest_s == (200 / 50 if clip_s is None else clip_s)


def test_clones_share_what_was_heard_and_go_their_own_ways() -> None:
    hearing = of_whole_clips(None)
    state = hearing.init_state()
    hearing.step(torch.ones(1, 500), state)
    twin = state.clone()
    hearing.step(torch.ones(1, 300), twin)
    assert twin.clip[0] is state.clip[0] and [len(each.clip) for each in (state, twin)] == [1, 2]
