"""The law of every streaming stage: for any chunking, ``cat(step(chunk_i)) + flush() == forward(whole)``.

Also: the declared latency is kept, a cloned state is independent, a state is bounded. One entry in ``STAGES`` puts a
stage under all of it.
"""

from __future__ import annotations

import copy
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from fused import Fused
from torch import Tensor

from duologue.model.adaptor.adaptor import Adaptor
from duologue.model.adaptor.ctc import CTCAdaptor, CTCAdaptorConfig
from duologue.model.adaptor.stack import StackAdaptor, StackConfig
from duologue.model.audio_encoder.hearing import Hearing
from duologue.model.audio_encoder.manner import Pooling
from duologue.model.audio_encoder.mel import LogMel, LogMelConfig
from duologue.model.audio_encoder.voice_features import VoiceFeatures
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from duologue.model.codec.codec import Codec, CodecConfig, CodecDecoding, CodecEncoding
from duologue.model.codec.codec_vocoder import CodecVoice
from duologue.model.codec.quantiser import QuantiserConfig
from duologue.model.codec.seanet import SEANetConfig, SEANetDecoder, SEANetEncoder
from duologue.model.codec.spectral_encoder import SpectralEncoder, SpectralEncoderConfig
from duologue.model.codec.vocos import VocosConfig, VocosDecoder
from duologue.model.decoding.decoder import Decoder
from duologue.model.decoding.fusions import HotWordFusion
from duologue.model.decoding.hot_words import HotPhrase, HotWords
from duologue.model.duplex.vad import VAD
from duologue.model.language_model.causal_lm import LLM, LLMState
from duologue.model.layers.conv import StreamingConv1d, StreamingConvTranspose1d
from duologue.model.layers.framed_conv import FramedConv1d, FramedConvTranspose1d, ResidualLSTM
from duologue.model.layers.istft import ISTFT
from duologue.model.layers.kv_cache import KVBuffer
from duologue.model.speech_decoder.duration import DurationPredictor
from duologue.model.speech_decoder.hifigan import Fusion, Generator, ResidualBlock
from duologue.model.speech_decoder.source_filter import SourceFilter, SourceFilterConfig
from duologue.model.speech_decoder.speech_decoder import SpeechDecoder
from duologue.model.speech_decoder.spelling_decoder import SpellingDecoder, SpellingDecoderConfig
from duologue.model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.model.speech_lm_config import AdaptorConfig, EncoderConfig
from duologue.model.streaming import Chain, Streaming


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage under the law."""

    name: str
    make: Callable[[], Streaming]
    input: Callable[[int], Tensor]  # so many frames of input, time in the stage's time_in dimension
    frames: int = 61  # length of the whole signal
    tolerance: float = 1e-5
    slack: float = 1.0  # how much a bounded state may vary with where chunks fall on a stage's own grid
    bounded: bool = True  # False: full attention, whose cache grows with the stream


def features(channels: int, batch: int = 2) -> Callable[[int], Tensor]:
    """Random features (B, C, T)."""
    return lambda frames: torch.randn(batch, channels, frames)


def integers(limit: int) -> Callable[[int], Tensor]:
    """Random integers (1, T)."""
    return lambda frames: torch.randint(limit, (1, frames))


def samples(frames: int) -> Tensor:
    """Noise (2, n), as loud as speech."""
    return 0.1 * torch.randn(2, frames)


def tiny_encoder(causal_conv: bool) -> WhisperEncoder:
    return WhisperEncoder(
        WhisperEncoderConfig(
            n_mels=20, n_audio_state=16, n_audio_head=2, n_audio_layer=2, chunk=4, left_context=12,
            causal_conv=causal_conv,
        )
    )  # fmt: skip


def tiny_adaptor() -> StackAdaptor:
    return StackAdaptor(StackConfig(in_dim=16, hidden_dim=24, out_dim=12, stack=4))


def tiny_ctc() -> CTCAdaptor:
    """It hears another of eleven tokens, or none, every few frames."""
    adaptor = CTCAdaptor(CTCAdaptorConfig(in_dim=16, dim=16, layers=2, heads=2, chunk=4, left_context=8, out_dim=12,
                                          vocab=11, temperature=0.7))  # fmt: skip
    vectors = torch.randn(40, 12)
    adaptor.tokens.copy_(torch.randperm(40)[:11])
    adaptor.blank.bias.data.fill_(6.0)
    adaptor.bind(lambda ids: vectors[ids])
    return adaptor


def hot() -> Decoder:
    """A search in which two of the eleven are likelier than they sound."""
    return Fused(HotWordFusion(HotWords([HotPhrase((3,), (2.0,)), HotPhrase((5, 7), (1.0, 1.0))], 11)))


def kinds(union: Any) -> tuple[Any, ...]:
    """The configs of a part that comes in several kinds."""
    return typing.get_args(union) or (union,)


def tiny_hearing(tail_s: float, adaptor: Adaptor | None = None) -> Hearing:
    mel, encoder = LogMel(LogMelConfig(n_mels=20)), tiny_encoder(causal_conv=True)
    return Hearing(mel, encoder, adaptor or tiny_adaptor(), streams=True, tail_s=tail_s)


TINY_SOURCE_FILTER = SourceFilterConfig(
    dim=8, ffn_dim=16, layers=2, kernel=3, ahead=2, hop=80, pieces=2, cepstrum=12, noise_cepstrum=6, n_fft=128
)


def tiny_source_filter(pitch_dim: int | None = None, bands: int | None = None) -> SourceFilter:
    generator = SourceFilter(8, replace(TINY_SOURCE_FILTER, pitch_dim=pitch_dim, bands=bands), 16000)
    with torch.no_grad():
        weight = generator.head.weight.view(2, -1, 8).mul_(3)
        if generator.pitch is not None:
            weight = generator.pitch.head.weight.view(2, 2, -1).mul_(3)
        weight[:, :2] *= 7  # a voice that comes and goes, at all pitches
    return generator


def tiny_vocoder(source_filter: SourceFilterConfig | None = None) -> UnitVocoder:
    config = UnitVocoderConfig(
        units=10, embedding_dim=8, channels=32, upsample_rates=(4, 2), upsample_kernels=(8, 4),
        resblock_kernels=(3, 7), resblock_dilations=(1, 3), duration_hidden=8, source_filter=source_filter,
    )  # fmt: skip
    vocoder = UnitVocoder(config)
    with torch.no_grad():
        vocoder.duration.proj.bias.fill_(1.0)  # durations of one to four frames rather than all one
    return vocoder


def tiny_unit_decoder(band: int | None, units: int = 9) -> UnitDecoder:
    return UnitDecoder(
        UnitDecoderConfig(in_dim=8, dim=16, heads=2, ffn_dim=24, units=units, upsample=4, band=band, sub_position=True)
    )


PIECES = (" a", " photo", "graph", "y", "'s", ",", " $", "1", "9", ".", " million", "\n", " Dr", "😀", " U", " e")


class SpeltReply(Streaming):
    """A decoder that reads spelling: states (1, T, D) with the tokens' ids behind them, (1, T, D + 1), -> logits."""

    time_in, time_out, rate = 1, 1, Fraction(0)

    def __init__(self) -> None:
        super().__init__()
        config = SpellingDecoderConfig(in_dim=8, dim=16, layers=2, heads=2, ffn_dim=24, units=9, upsample=2, band=12)
        self.decoder = SpellingDecoder(config)
        torch.nn.init.normal_(self.decoder.state_proj.weight)
        self.decoder.read_by(lambda ids: "".join(PIECES[id_] for id_ in ids))
        self.init_state, self.flush = self.decoder.init_state, self.decoder.flush  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x[..., :8], x[..., 8].long())

    def step(self, x: Tensor, state: Any) -> Tensor:
        return self.decoder.step(x[..., :8], state, x[..., 8].long())

    @staticmethod
    def tokens(frames: int) -> Tensor:
        ids = torch.randint(len(PIECES), (1, frames, 1))
        return torch.cat([torch.randn(1, frames, 8), ids], dim=2)


class LanguageModel(Streaming):
    """An LLM as a stage: embeddings (B, T, D) -> logits and states side by side (B, T, V + D)."""

    time_in, time_out = 1, 1

    def __init__(self) -> None:
        super().__init__()
        sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2}
        self.llm = LLM({"model_type": "llama", **sizes, "num_attention_heads": 2, "num_key_value_heads": 1})

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.llm(x), dim=-1)

    def init_state(self, batch_size: int = 1) -> LLMState:
        return self.llm.init_state(batch_size)

    def step(self, x: Tensor, state: LLMState) -> Tensor:
        return torch.cat(self.llm.step(x, state), dim=-1)

    def flush(self, state: LLMState) -> Tensor:
        return torch.zeros(2, 0, 11 + 8)


def tiny_seanet(causal: bool, reflect: bool) -> SEANetConfig:
    return SEANetConfig(
        dim=8, filters=4, ratios=(2, 5), residual_kernel=5 if causal else 3, conv_shortcut=reflect, lstm_layers=2,
        causal=causal, reflect=reflect,
    )  # fmt: skip


def tiny_vocos() -> VocosConfig:
    return VocosConfig(
        in_dim=8, dim=16, ffn_dim=24, layers=2, residual_blocks=1, groups=4, n_fft=40, hop=10, causal=True, chunk=2,
        left_context=6,
    )  # fmt: skip


def loud(stage: Streaming) -> Streaming:
    """Random weights large enough for every layer to be heard in the output."""
    for parameter in stage.parameters():
        parameter.data.mul_(3)
    return stage


def tiny_codec(causal: bool, codebooks: int = 2) -> Codec:
    """A causal Vocos codec, or one after EnCodec, whose mirrored decoder streams as well."""
    encoder = tiny_seanet(causal, reflect=not causal)
    quantiser = QuantiserConfig(dim=8, size=32, codebooks=codebooks)
    return Codec(CodecConfig(encoder=encoder, quantiser=quantiser, decoder=tiny_vocos() if causal else None))


TINY_SPECTRAL = SpectralEncoderConfig(dim=8, width=16, ffn_dim=24, layers=2, kernel=3, n_fft=50, hop=20)


def tiny_spectral_codec() -> Codec:
    """A codec that reads spectra and speaks by pulses and noise."""
    decoder = replace(TINY_SOURCE_FILTER, hop=20, n_fft=64, pitch_dim=4, bands=3)
    codec = Codec(
        CodecConfig(
            sample_rate=16000, encoder=TINY_SPECTRAL, quantiser=QuantiserConfig(dim=8, size=32), decoder=decoder
        )
    )
    with torch.no_grad():
        assert isinstance(codec.decoder, SourceFilter) and codec.decoder.pitch is not None
        codec.decoder.pitch.head.weight.mul_(20)
        codec.encoder.head.weight.mul_(3)  # type: ignore[union-attr, operator]
    return codec


class Spectrum(Streaming):
    """The inverse transform with real numbers at its input: (B, n_fft + 2, T) -> samples."""

    def __init__(self) -> None:
        super().__init__()
        self.istft = ISTFT(20, 6)
        self.rate, self.latency = self.istft.rate, self.istft.latency
        self.init_state, self.flush = self.istft.init_state, self.istft.flush  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return self.istft(torch.complex(*x.chunk(2, dim=1)))

    def step(self, x: Tensor, state: object) -> Tensor:
        return self.istft.step(torch.complex(*x.chunk(2, dim=1)), state)  # type: ignore[arg-type]


# Every stage stands here.
STAGES = [
    Stage(
        name="pooling",
        make=lambda: Pooling(6, 8),
        input=lambda frames: torch.randn(2, frames, 6),
    ),
    Stage(name="voice-features", make=VoiceFeatures, input=samples, frames=3001),
    Stage(name="conv", make=lambda: StreamingConv1d(3, 4, 5, dilation=2), input=features(3)),
    Stage(name="conv-causal", make=lambda: StreamingConv1d(3, 4, 5, causal=True), input=features(3)),
    Stage(name="conv-strided", make=lambda: StreamingConv1d(3, 4, 3, stride=2), input=features(3)),
    Stage(name="conv-transposed", make=lambda: StreamingConvTranspose1d(3, 4, 11, 5), input=features(3)),
    Stage(
        name="chain",
        make=lambda: Chain(StreamingConvTranspose1d(3, 4, 8, 4), StreamingConv1d(4, 4, 7), StreamingConv1d(4, 2, 3, 2)),
        input=features(3),
    ),
    Stage(name="residual-block", make=lambda: ResidualBlock(4, 3, (1, 3)), input=features(4)),
    Stage(name="fusion", make=lambda: Fusion(4, (3, 7), (1, 3)), input=features(4)),
    Stage(name="hifigan", make=lambda: Generator(8, 32, (5, 4), (11, 8), (3, 7), (1, 3, 5)), input=features(8)),
    Stage(name="duration", make=lambda: DurationPredictor(8, 8, 3), input=features(8)),
    Stage(name="source-filter", make=tiny_source_filter, input=features(8)),
    Stage(name="source-filter-pitch", make=lambda: tiny_source_filter(pitch_dim=4), input=features(8)),
    Stage(name="source-filter-bands", make=lambda: tiny_source_filter(pitch_dim=4, bands=3), input=features(8)),
    Stage(name="vocoder", make=tiny_vocoder, input=integers(10)),
    Stage(name="vocoder-source-filter", make=lambda: tiny_vocoder(TINY_SOURCE_FILTER), input=integers(10)),
    Stage(name="llm", make=LanguageModel, input=lambda frames: torch.randn(2, frames, 8), bounded=False),
    Stage(name="unit-decoder", make=lambda: tiny_unit_decoder(3), input=lambda frames: torch.randn(2, frames, 8)),
    Stage(
        name="unit-decoder-without-band",
        make=lambda: tiny_unit_decoder(None),
        input=lambda frames: torch.randn(2, frames, 8),
        bounded=False,
    ),
    Stage(name="spelling-decoder", make=SpeltReply, input=SpeltReply.tokens, slack=1.5),  # words of different lengths
    Stage(name="mel", make=lambda: LogMel(LogMelConfig(n_mels=20)), input=samples, frames=4000),
    Stage(name="vad", make=VAD, input=samples, frames=8 * 512),
    Stage(name="encoder", make=lambda: tiny_encoder(causal_conv=True), input=features(20), frames=150),
    Stage(name="encoder-centred", make=lambda: tiny_encoder(causal_conv=False), input=features(20), frames=151),
    *(
        Stage(name=f"encoder-{kind.__name__}", make=kind(n_mels=20).build, input=features(20), frames=150)
        for kind in kinds(EncoderConfig)
        if kind().chunk is not None
    ),
    *(
        Stage(
            name=f"adaptor-{kind.__name__}",
            make=kind(in_dim=16, out_dim=12, stack=4).build,
            input=lambda frames: torch.randn(2, frames, 16),
        )
        for kind in kinds(AdaptorConfig)
        if kind is not CTCAdaptorConfig
    ),
    Stage(name="adaptor-ctc", make=tiny_ctc, input=lambda frames: torch.randn(1, frames, 16)),
    Stage(
        name="adaptor-ctc-decoded",
        make=lambda: tiny_ctc().decoded_by(hot()),
        input=lambda frames: torch.randn(1, frames, 16),
        bounded=False,  # what is said up to a pause is decided there, and noise has none
    ),
    Stage(
        name="hearing-ctc",
        make=lambda: tiny_hearing(0.0, tiny_ctc()),
        input=lambda frames: samples(frames)[:1],
        frames=5123,
        slack=1.2,
    ),
    Stage(
        name="hearing",
        make=lambda: tiny_hearing(tail_s=0.0),
        input=samples,
        frames=8123,
        slack=1.1,  # three grids, of 10, 40 and 80 ms: what is pending depends on where a repetition ends
    ),
    Stage(name="hearing-tail", make=lambda: tiny_hearing(tail_s=0.13), input=samples, frames=8123, slack=1.1),
    Stage(
        name="speech-decoder",
        make=lambda: SpeechDecoder(loud(tiny_unit_decoder(3, units=10)), tiny_vocoder()),
        input=lambda frames: torch.randn(1, frames, 8),
    ),
    Stage(
        name="speech-decoder-codec",
        make=lambda: SpeechDecoder(loud(tiny_unit_decoder(3, units=32)), CodecVoice.of(tiny_codec(True, codebooks=1))),
        input=lambda frames: torch.randn(1, frames, 8),
    ),
    Stage(name="framed-conv", make=lambda: FramedConv1d(3, 4, 5, 2), input=features(3)),
    Stage(name="framed-conv-causal", make=lambda: FramedConv1d(3, 4, 8, 4, causal=True), input=features(3)),
    Stage(name="framed-conv-reflect", make=lambda: FramedConv1d(3, 4, 10, 5, reflect=True), input=features(3)),
    Stage(
        name="framed-conv-reflect-causal",
        make=lambda: FramedConv1d(3, 4, 7, 3, causal=True, reflect=True),
        input=features(3),
    ),
    Stage(name="framed-conv-transposed", make=lambda: FramedConvTranspose1d(3, 4, 10, 5), input=features(3)),
    Stage(
        name="framed-conv-transposed-causal",
        make=lambda: FramedConvTranspose1d(3, 4, 8, 4, causal=True),
        input=features(3),
    ),
    Stage(name="lstm", make=lambda: ResidualLSTM(6, 2), input=features(6)),
    Stage(name="istft", make=Spectrum, input=features(22)),
    Stage(
        name="seanet", make=lambda: SEANetEncoder(tiny_seanet(False, True)), input=features(1), frames=203, slack=1.1
    ),
    Stage(
        name="seanet-causal",
        make=lambda: SEANetEncoder(tiny_seanet(True, False)),
        input=features(1),
        frames=203,
        slack=1.1,
    ),
    Stage(
        name="seanet-encodec",
        make=lambda: SEANetEncoder(tiny_seanet(True, True)),
        input=features(1),
        frames=203,
        slack=1.1,
    ),
    Stage(name="seanet-decoder", make=lambda: SEANetDecoder(tiny_seanet(False, True)), input=features(8)),
    Stage(name="seanet-decoder-encodec", make=lambda: SEANetDecoder(tiny_seanet(True, True)), input=features(8)),
    Stage(name="vocos-causal", make=lambda: loud(VocosDecoder(tiny_vocos())), input=features(8)),
    Stage(name="codec-encoding", make=lambda: CodecEncoding(tiny_codec(True)), input=samples, frames=203, slack=1.1),
    Stage(
        name="codec-decoding",
        make=lambda: CodecDecoding(tiny_codec(True)),
        input=lambda frames: torch.randint(32, (2, 2, frames)),
    ),
    Stage(name="codec-voice", make=lambda: CodecVoice.of(tiny_codec(True, codebooks=1)), input=integers(32)),
    Stage(
        name="spectral-encoder", make=lambda: SpectralEncoder(TINY_SPECTRAL), input=features(1), frames=407, slack=1.1
    ),
    Stage(name="codec-spectral", make=tiny_spectral_codec, input=samples, frames=807, slack=1.1),
    Stage(name="codec-voice-source-filter", make=lambda: CodecVoice.of(tiny_spectral_codec()), input=integers(32)),
    Stage(name="codec-causal", make=lambda: tiny_codec(True), input=samples, frames=203, slack=1.1),
    Stage(name="codec-encodec", make=lambda: tiny_codec(False), input=samples, frames=403, slack=1.1),
]

# How the signal is cut: chunk lengths, repeated as often as needed.
CHUNKINGS = {
    "one-by-one": [1],
    "whole": [10**9],
    "ragged": [3, 1, 7, 2, 11],
    "with-empties": [0, 4, 0, 0, 1, 9],
    "large-then-small": [40, 1, 1, 2],
    "odd": [5],
}

each_stage = pytest.mark.parametrize("case", STAGES, ids=lambda case: case.name)


def built(case: Stage) -> tuple[Streaming, Tensor]:
    torch.manual_seed(0)
    return case.make().eval(), case.input(case.frames)


def cut(x: Tensor, lengths: list[int], dim: int) -> list[Tensor]:
    """``x`` in chunks of the given lengths, over and over."""
    chunks, begin = [], 0
    while begin < x.shape[dim]:
        length = min(lengths[len(chunks) % len(lengths)], x.shape[dim] - begin)
        chunks.append(x.narrow(dim, begin, length))
        begin += length
    return chunks


def assert_same(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """Equal shapes, and a difference of at most ``tolerance`` relative to the loudest value."""
    assert actual.shape == expected.shape
    if expected.numel():
        scale = expected.abs().max()
        assert scale > 1e-3, "an output this small proves nothing"
        assert (actual - expected).abs().max() <= tolerance * scale


def held(state: object) -> int:
    """Bytes of storage that a state keeps alive."""
    if isinstance(state, Tensor):
        return state.untyped_storage().nbytes()
    if isinstance(state, KVBuffer):
        return held(state.keys) + held(state.values)
    if is_dataclass(state):
        return sum(held(getattr(state, field.name)) for field in fields(state))
    if isinstance(state, (list, tuple)):
        return sum(map(held, state))
    if isinstance(state, dict):
        return sum(map(held, state.values()))
    return 0


@each_stage
@pytest.mark.parametrize("chunking", CHUNKINGS)
@torch.inference_mode()
def test_streamed_equals_whole(case: Stage, chunking: str) -> None:
    stage, x = built(case)
    assert stage.latency < case.frames, "the signal must be longer than the latency, or that proves nothing"
    whole = stage(x)
    state, outputs, fed, ready = stage.init_state(x.shape[0]), [], 0, 0
    for chunk in cut(x, CHUNKINGS[chunking], stage.time_in):
        outputs.append(stage.step(chunk, state))
        fed += chunk.shape[stage.time_in]
        ready += outputs[-1].shape[stage.time_out]
        assert ready >= math.floor((fed - stage.latency) * stage.rate), f"declared latency broken after {fed} frames"
    outputs.append(stage.flush(state))
    assert_same(torch.cat(outputs, dim=stage.time_out), whole, case.tolerance)


@each_stage
@pytest.mark.parametrize("frames", [0, 1, 2, 3])
@torch.inference_mode()
def test_short_signals(case: Stage, frames: int) -> None:
    stage, _ = built(case)
    x = case.input(frames)
    state = stage.init_state(x.shape[0])
    outputs = [stage.step(chunk, state) for chunk in cut(x, [1], stage.time_in)]
    assert_same(torch.cat([*outputs, stage.flush(state)], dim=stage.time_out), stage(x), case.tolerance)


@each_stage
@torch.inference_mode()
def test_a_clone_is_independent(case: Stage) -> None:
    """Two streams that share a past each get their own future; neither sees the other's."""
    stage, x = built(case)
    other = case.input(case.frames)
    split = case.frames // 2
    past, future = x.narrow(stage.time_in, 0, split), x.narrow(stage.time_in, split, case.frames - split)
    elsewhere = other.narrow(stage.time_in, split, case.frames - split)
    state = stage.init_state(x.shape[0])
    head = stage.step(past, state)
    twin = state.clone()
    outputs, forked = [head], [head]
    for mine, theirs in zip(cut(future, [3], stage.time_in), cut(elsewhere, [3], stage.time_in), strict=True):
        outputs.append(stage.step(mine, state))
        forked.append(stage.step(theirs, twin))
    outputs.append(stage.flush(state))
    forked.append(stage.flush(twin))
    assert_same(torch.cat(outputs, dim=stage.time_out), stage(x), case.tolerance)
    joined = stage(torch.cat([past, elsewhere], dim=stage.time_in))
    assert_same(torch.cat(forked, dim=stage.time_out), joined, case.tolerance)


@each_stage
@torch.inference_mode()
def test_the_state_is_bounded(case: Stage) -> None:
    """What a state keeps alive stops growing, and weights are not part of it; stepping changes no weight."""
    stage, x = built(case)
    weights = copy.deepcopy(stage.state_dict())
    state, sizes = stage.init_state(x.shape[0]), []
    for _ in range(12):
        for chunk in cut(x, [7 if case.frames < 400 else 37], stage.time_in):
            stage.step(chunk, state)
        sizes.append(held(state))
    if case.bounded:
        assert max(sizes[6:]) <= case.slack * max(sizes[:6]), f"bytes held after each repetition: {sizes}"
    for name, tensor in stage.state_dict().items():
        assert torch.equal(tensor, weights[name]), f"{name} changed: state belongs in the state"
