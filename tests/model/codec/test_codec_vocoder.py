"""A codec as the voice: it says what the codec decodes, a model that has it answers, and the store brings it back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_assistant import HEARD, SAID, tiny_assistant, tiny_config

from duologue.checkpoints import store
from duologue.model.codec.codec import Codec, CodecConfig, published
from duologue.model.codec.codec_vocoder import CodecVoice, CodecVoiceConfig
from duologue.model.codec.quantiser import QuantiserConfig
from duologue.model.codec.seanet import SEANetConfig
from duologue.model.codec.vocos import VocosConfig
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import SpeechLM

UNITS = 24
CODEC = CodecConfig(
    sample_rate=16000,
    encoder=SEANetConfig(dim=8, filters=4, ratios=(5, 4, 4, 3), lstm_layers=1, causal=True, reflect=False),
    quantiser=QuantiserConfig(dim=8, size=UNITS),
    decoder=VocosConfig(in_dim=8, dim=16, ffn_dim=24, layers=2, residual_blocks=1, groups=4, n_fft=960, hop=240,
                        causal=True, chunk=3, left_context=6),
)  # fmt: skip


def speaking(seed: int = 0) -> SpeechLM:
    """The tiny model of the other tests with a codec's decoder in the place of its vocoder."""
    torch.manual_seed(seed)
    config = tiny_config()
    voice = CodecVoiceConfig.of(CODEC)
    decoder = replace(config.unit_decoder, units=UNITS)
    return SpeechLM(replace(config, vocoder=voice, unit_decoder=decoder, layout=replace(config.layout, units=UNITS)))


@torch.inference_mode()
def test_it_says_what_the_codec_decodes() -> None:
    torch.manual_seed(0)
    codec = Codec(CODEC).eval()
    voice = CodecVoice.of(codec)
    codes = codec.encode(0.1 * torch.randn(1, 5000))  # (1, 1, T)
    assert torch.equal(voice(codes[:, 0]), codec.decode(codes))
    assert (voice.config.units, voice.config.hop, voice.config.sample_rate) == (UNITS, 240, 16000)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(CODEC, quantiser=QuantiserConfig(dim=8, size=UNITS, codebooks=2)), "2 codebooks cannot be a voice"),
        (replace(CODEC, decoder=None), "mirrors its encoder"),
        (published(75), "take a causal codec"),
    ],
)
def test_what_cannot_be_a_voice_is_refused(config: CodecConfig, message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        CodecVoiceConfig.of(config)


def test_a_model_answers_with_it() -> None:
    """Turn and session speak with it; every token that was written is heard as one frame."""
    assistant = tiny_assistant()
    model = speaking()
    for name in ("mel", "encoder", "adaptor", "llm"):
        getattr(model, name).load_state_dict(getattr(assistant.model, name).state_dict())
    with torch.no_grad():
        model.unit_decoder.sub_position.normal_()
        model.unit_decoder.output_proj.weight.normal_()
    speaker = type(assistant)(model, assistant.tokenizer)
    reply = speaker.ask(text=HEARD)
    assert reply.text == SAID and reply.sample_rate == 16000
    assert len(reply.units) > 10 and len(reply.waveform) == 240 * len(reply.units)
    with torch.inference_mode():
        whole = model.vocoder(torch.tensor([reply.units]))[0].clamp(-1, 1).numpy()
    assert np.abs(whole - reply.waveform).max() < 1e-5


def test_the_store_brings_it_back(tmp_path: Path) -> None:
    model = speaking().eval()
    store.save(tmp_path / "model", model, tiny_assistant().tokenizer)
    again = store.load(tmp_path / "model").model
    assert again.config == model.config and isinstance(again.vocoder, CodecVoice)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
