"""The head for the manner of speaking: in chunks as at once, padding is not heard, one line for what is wrong."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from tiny_assistant import tiny_assistant
from torch import Tensor

from duologue.checkpoints.config_io import config_from_dict, config_to_dict
from duologue.model.adaptor.stack import StackAdaptor, StackConfig
from duologue.model.audio_encoder.hearing import Hearing, HearingState
from duologue.model.audio_encoder.manner import MannerConfig, MannerHead
from duologue.model.audio_encoder.mel import LogMel, LogMelConfig
from duologue.model.audio_encoder.voice_features import BANDS, FEATURES, VoiceFeatures
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from duologue.model.errors import DuologueError
from duologue.model.layers.batching import kind_of, together
from duologue.model.speech_lm import SpeechLM, SpeechLMConfig

SIZES = WhisperEncoderConfig(n_mels=20, n_audio_state=16, n_audio_head=2, n_audio_layer=1, chunk=4, left_context=12)


def head_of(dim: int, sound: bool = True) -> MannerHead:
    torch.manual_seed(1)
    return MannerHead(MannerConfig(in_dim=dim, classes=("calm", "shout"), hidden_dim=8, sound=sound)).eval()


def hearing(streams: bool, clip_s: float | None = None, sound: bool = True) -> Hearing:
    torch.manual_seed(0)
    mel = LogMel(LogMelConfig(n_mels=20))
    encoder = WhisperEncoder(SIZES if streams else replace(SIZES, chunk=None)).eval()
    adaptor = StackAdaptor(StackConfig(in_dim=16, hidden_dim=24, out_dim=12, stack=4))
    return Hearing(mel, encoder, adaptor, streams=streams, clip_s=clip_s, manner=head_of(16, sound))


def told(stage: Hearing, state: HearingState) -> Tensor:
    gathered = stage.manner_of(state)
    assert gathered is not None and stage.manner is not None
    found = stage.manner.probabilities(gathered)
    assert found is not None
    return found


def offline(stage: Hearing, frames: Tensor, pcm: Tensor) -> Tensor:
    assert stage.manner is not None
    return stage.manner(frames, stage.manner.features(pcm, frames.shape[1]))[:, -1].softmax(-1)


def test_an_opinion_weighs_all_frames_so_far() -> None:
    pooling, x = head_of(4).frames, torch.randn(1, 9, 4)
    pooled = pooling(x)
    assert pooled.shape == (1, 9, 16)
    torch.testing.assert_close(pooling(x[:, :5])[:, -1], pooled[:, 4])
    order = torch.randperm(9)
    torch.testing.assert_close(pooling(x[:, order])[:, -1], pooled[:, -1])  # of a whole turn the order does not matter
    again = torch.cat([x, x], dim=1)
    torch.testing.assert_close(pooling(again)[:, -1], pooled[:, -1])  # nor how long it is
    hidden = torch.relu(pooling.project(pooling.norm(x)))[0]
    weight = (4 * pooling.score(hidden).tanh()).exp()
    mean = (weight * hidden).sum(0) / weight.sum()
    deviation = ((weight * (hidden - mean).square()).sum(0) / weight.sum()).clamp(min=1e-3).sqrt()
    torch.testing.assert_close(pooled[0, -1], torch.cat([mean, deviation]))


@pytest.mark.parametrize("sound", [True, False])
def test_hearing_brings_the_same_in_chunks_and_the_adaptor_hears_what_it_did(sound: bool) -> None:
    stage, pcm = hearing(streams=True, sound=sound), 0.1 * torch.randn(1, 16_000)
    state, pieces = stage.init_state(), []
    assert stage.manner is not None and (stage.manner.voice is not None) == sound
    assert stage.manner.probabilities(stage.manner_of(state)) is None  # type: ignore[arg-type]
    for piece in pcm.split(1111, dim=1):
        pieces.append(stage.step(piece, state))
    pieces.append(stage.flush(state))
    torch.testing.assert_close(torch.cat(pieces, dim=1), stage(pcm))
    torch.testing.assert_close(told(stage, state), offline(stage, stage.frames(pcm), pcm))
    stage.manner = None
    assert stage.manner_of(stage.init_state()) is None


def test_what_a_clip_is_padded_with_is_not_heard() -> None:
    pcm = 0.1 * torch.randn(1, 8_000)
    stage = hearing(streams=False, clip_s=2.0)
    state = stage.init_state()
    stage.step(pcm, state)
    assert stage.manner_of(state) is None
    stage.flush(state)
    whole = stage.frames(torch.nn.functional.pad(pcm, (0, 24_000)))
    torch.testing.assert_close(told(stage, state), offline(stage, whole[:, :25], pcm))


def test_features_of_the_sound_tell_voice_pitch_and_nothing_of_what_is_to_come() -> None:
    features, t = VoiceFeatures(), torch.arange(16_000) / 16_000
    for hertz in (90.0, 150.0, 320.0):
        pulses = sum(torch.sin(2 * torch.pi * hertz * k * t) / k for k in range(1, 9))
        found = features(0.1 * pulses[None])[0, 5:]  # type: ignore[index]
        assert (found[:, BANDS] > 0.8).all()
        torch.testing.assert_close((found[:, BANDS + 1] / found[:, BANDS]).median(), torch.tensor(200 / hertz).log2(),
                                   atol=0.05, rtol=0)  # fmt: skip
    noise = 0.1 * torch.randn(1, 16_000)
    assert features(noise)[0, :, BANDS].mean() < 0.5
    louder = features(10 * noise) - features(noise)
    torch.testing.assert_close(louder[..., :BANDS], torch.full_like(louder[..., :BANDS], 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(louder[..., BANDS:], torch.zeros_like(louder[..., BANDS:]), atol=0.01, rtol=0)
    torch.testing.assert_close(features(noise)[:, :20], features(noise[:, : 20 * 320]))
    assert head_of(4).features(torch.zeros(1, 100), 3).shape == (1, 3, FEATURES)  # type: ignore[union-attr]


def test_conversations_share_its_steps() -> None:
    stage = hearing(streams=True)
    sounds = [0.1 * torch.randn(1, 3200) for _ in range(2)]
    alone, shared = ([stage.init_state() for _ in sounds] for _ in range(2))
    for sound, state in zip(sounds, alone, strict=True):
        stage.step(sound, state)
    assert len({kind_of(state) for state in shared}) == 1
    together(stage.step, list(zip(sounds, shared, strict=True)))
    for one, other in zip(alone, shared, strict=True):
        torch.testing.assert_close(told(stage, one), told(stage, other))


def test_a_model_tells_it_of_the_last_turn_that_it_heard() -> None:
    plain = tiny_assistant().model
    assert isinstance(plain, SpeechLM) and plain.manners == () and plain.config.manner is None
    assert "manner" not in config_to_dict(plain.config, newer=False)  # files of models without it are as before
    model = tiny_assistant(manners=("calm", "shout")).model
    assert isinstance(model, SpeechLM)
    config, sizes = model.config, model.config.manner
    assert sizes is not None and config_from_dict(SpeechLMConfig, config_to_dict(config)) == config
    state = model.init_state()
    assert model.manners == ("calm", "shout") and model.manner_of(state) is None
    model.begin_turn(state)
    assert model.manner_of(state) is None
    model.listen(0.1 * torch.randn(1, 16_000), state)
    early = model.manner_of(state)
    model.end_turn(state)
    told = model.manner_of(state)
    assert early is not None and told is not None and sum(told.values()) == pytest.approx(1) and early != told
    assert model.manner_of(state.clone()) == told
    state.phase = type(state.phase).ENDED
    model.read_text([model.layout.text[0]], state)
    assert model.manner_of(state) is None
    with pytest.raises(DuologueError, match=r"manner\.in_dim is 3; it must be \d+, as encoder\.width"):
        replace(config, manner=replace(sizes, in_dim=3))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"classes": ("calm",)}, "manner classes are 'calm'; expected different names, two or more"),
        ({"classes": ("calm", "calm")}, "expected different names, two or more"),
        ({"classes": ("calm", "")}, "expected different names, two or more"),
        ({"hidden_dim": 0}, "manner widths are 4 and 0; they must be at least 1"),
        ({"dropout": 1.0}, "manner dropout is 1.0; it must be 0 to below 1"),
    ],
)
def test_sizes_that_cannot_be(change: dict[str, object], reason: str) -> None:
    with pytest.raises(DuologueError, match=re.escape(reason)):
        replace(MannerConfig(in_dim=4, classes=("calm", "shout")), **change)  # type: ignore[arg-type]
