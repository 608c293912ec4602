"""What a model is made of: its parts, each declared once, and the sizes at which they join. Written into checkpoints.

A part is a field of :class:`SpeechLMConfig` that holds its config, declared by :func:`part`. The field's name is the
part's name everywhere: in config.json and recipe.json, as the prefix of its tensors, in ``start=`` and ``learn=`` of a
recipe, in ``assemble``. Building, loading, saving, training, assembling and cards read :func:`parts_of`, so that a new
part is a file with its config and its class, and a field here.

A part that comes in several kinds has a union of their configs, each with a method ``build``: one more encoder, adaptor
or voice is a file with its config and its class, and an entry in the union (docs/extend.md).
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter, methodcaller
from typing import Any, Literal

from torch import nn

from .adaptor.ctc import CTCAdaptorConfig
from .adaptor.stack import StackConfig
from .audio_encoder.manner import MannerConfig, MannerHead
from .audio_encoder.mel import LogMel, LogMelConfig
from .audio_encoder.whisper import WhisperEncoderConfig
from .audio_encoder.windowed import WindowConfig
from .codec.codec_vocoder import CodecVoice, CodecVoiceConfig
from .duplex.monitor import Monitor, MonitorConfig
from .errors import DuologueError
from .language_model.causal_lm import LLM
from .speech_decoder.spelling_decoder import SpellingDecoder, SpellingDecoderConfig
from .speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from .speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from .tokens import TokenLayout

# The kinds of a part; "encoder.kind=whisper" names one by its config's file. They tell each other by their fields.
EncoderConfig = WhisperEncoderConfig
AdaptorConfig = StackConfig | CTCAdaptorConfig
AnyUnitDecoderConfig = UnitDecoderConfig | SpellingDecoderConfig
VoiceConfig = UnitVocoderConfig | CodecVoiceConfig
AnyUnitDecoder = UnitDecoder | SpellingDecoder
Voice = UnitVocoder | CodecVoice
build = methodcaller("build")


@dataclass(frozen=True, kw_only=True)
class Part:
    """How a part is declared; see :func:`part`."""

    name: str
    kind: Any  # the type of its config, None included where it is optional
    build: Callable[[Any], nn.Module]
    does: str
    beside: tuple[str, ...]
    needs: tuple[str, ...]
    fits: Mapping[str, str]

    @property
    def optional(self) -> bool:
        """Whether a model can do without it."""
        return type(None) in typing.get_args(self.kind)


def part(
    build: Callable[[Any], nn.Module],
    does: str,
    *,
    beside: tuple[str, ...] = (),
    needs: tuple[str, ...] = (),
    **fits: str,
) -> dict[str, Any]:
    """The metadata of a field that declares a part. An optional part's field has the default None.

    Args:
        build: the module, from the part's config.
        does: what it does, as the model card says it.
        beside: parts without weights that go with it wherever it goes: an encoder means nothing without the
            spectrogram that it was trained on.
        needs: parts without which it cannot be.
        fits: a size of its config, and the size that it must equal: ``in_dim="adaptor.out_dim"``.
    """
    return {"part": {"build": build, "does": does, "beside": beside, "needs": needs, "fits": fits}}


def parts_of(config: type[Any]) -> dict[str, Part]:
    """The parts that a model's config declares, by name, in their order."""
    kinds = typing.get_type_hints(config)
    declared = ((each.name, each.metadata["part"]) for each in fields(config) if "part" in each.metadata)
    return {name: Part(name=name, kind=kinds[name], **about) for name, about in declared}


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """The token ids around the user's speech.

    A turn is ``prefix, speech embeddings, suffix``, then what the model generates, ``<eos>`` left out. If training puts
    an ``<eos>`` between a reply and the next turn, ``next_prefix_ids`` must begin with it.
    """

    prefix_ids: tuple[int, ...]  # before the first turn
    suffix_ids: tuple[int, ...] = ()  # after the speech of every turn
    next_prefix_ids: tuple[int, ...]  # before each later turn


@dataclass(frozen=True, kw_only=True)
class SpeechLMConfig:
    """Everything that a checkpoint says about its model."""

    mel: LogMelConfig = field(metadata=part(LogMel, "filter bank; nothing is trained"))
    encoder: EncoderConfig = field(
        metadata=part(build, "log-mel spectrogram to frames", beside=("mel",), n_mels="mel.n_mels")
    )
    adaptor: AdaptorConfig = field(
        metadata=part(build, "frames to embeddings of the language model", in_dim="encoder.width")
    )
    # A transformers config as a dictionary, "model_type" included.
    llm: dict[str, Any] = field(metadata=part(LLM, "language model"))
    # None: text replies only.
    unit_decoder: AnyUnitDecoderConfig | None = field(
        default=None,
        metadata=part(build, "states of the language model to speech units", in_dim="adaptor.out_dim",
                      units="layout.units"),
    )  # fmt: skip
    # None: units are the last output.
    vocoder: VoiceConfig | None = field(
        default=None,
        metadata=part(build, "speech units to a waveform", needs=("unit_decoder",), units="layout.units"),
    )
    # None: it cannot tell what is to be answered.
    monitor: MonitorConfig | None = field(
        default=None, metadata=part(Monitor, "turn-state probabilities while the user speaks", in_dim="adaptor.out_dim")
    )
    # The same, behind what it has written down of the turn.
    word_monitor: MonitorConfig | None = field(
        default=None, metadata=part(Monitor, "the same, after the transcript", in_dim="adaptor.out_dim")
    )
    # None: it says nothing of the manner in which the user speaks.
    manner: MannerConfig | None = field(
        default=None,
        metadata={"newer": True} | part(MannerHead, "the manner in which the user speaks", in_dim="encoder.width"),
    )
    layout: TokenLayout
    # None: turns are written by the chat template of the tokenizer.
    prompt: PromptConfig | None
    # Seconds that an encoder of whole clips is given, padded with silence or cut (Whisper: 30). None: the clip itself.
    listen_s: float | None = None
    # How an encoder that was made for whole clips is run while the user speaks; None: as WindowConfig has it.
    window: WindowConfig | None = field(default=None, metadata={"newer": True})
    # What the language model's weights are loaded as and computed in, where the model is loaded in float32.
    llm_dtype: Literal["float32", "bfloat16", "float16", "auto"] = field(default="float32", metadata={"newer": True})
    # The system prompt of a conversation that is given none. "": the chat template's own.
    instructions: str = field(default="", metadata={"newer": True})
    # Seconds of silence heard behind a turn: in training no question ended with the last sound of it.
    tail_s: float = 0.0
    # Weight of CTC in choosing the transcript's words (see decoding/transcript.py): the language model has learnt to
    # predict them at the positions of speech, and <pad> between them. 0: it has not.
    transcript_ctc: float = 0.0
    # Positions of past turns that a turn may follow. Far beyond what it was trained with, a model may take every
    # question for noise.
    history: int = 1024
    # Past turns stay in writing alone: where the next turn begins, the last one's speech is forgotten, and its
    # transcript and answer stay. Otherwise the past stays as it was heard.
    past_in_words: bool = False

    @property
    def replies_at_once(self) -> bool:
        """Whether a reply to speech begins without a transcript."""
        suffix = () if self.prompt is None else self.prompt.suffix_ids
        return self.layout.reply is None or self.layout.reply in suffix

    @property
    def streams(self) -> bool:
        """Whether speech is encoded while it comes in, and not at the end of the turn."""
        return self.mel.norm == "causal" and self.encoder.chunk is not None

    def parts(self) -> dict[str, Part]:
        """The parts that this model has, by name."""
        return {name: each for name, each in parts_of(type(self)).items() if getattr(self, name) is not None}

    def __post_init__(self) -> None:
        if self.instructions and self.prompt is not None:
            raise DuologueError(
                f"instructions is {self.instructions!r}, but prompt says already what stands before the first turn"
            )
        for name, each in self.parts().items():
            for needed in each.needs:
                if getattr(self, needed) is None:
                    raise DuologueError(f"a model with a {name} needs a {needed}")
            for size, path in each.fits.items():
                found, wanted = getattr(getattr(self, name), size), attrgetter(path)(self)
                if found != wanted:
                    raise DuologueError(f"{name}.{size} is {found}; it must be {wanted}, as {path}")
        if self.tail_s < 0:
            raise DuologueError(f"tail_s is {self.tail_s}; it must be 0 or more seconds")
        if self.history < 1:
            raise DuologueError(f"history is {self.history}; it must be at least 1")
        if not 0 <= self.transcript_ctc < 1:
            raise DuologueError(f"transcript_ctc is {self.transcript_ctc}; it must be at least 0 and below 1")
        if self.transcript_ctc and self.layout.transcript is None:
            raise DuologueError(
                f"transcript_ctc is {self.transcript_ctc}, but the layout has no transcript; it must be 0"
            )
        if isinstance(self.adaptor, CTCAdaptorConfig) and self.layout.transcript is not None:
            raise DuologueError("an adaptor of kind ctc writes the transcript: the layout's must be null")
        if self.prompt is None and self.layout.transcript is not None:
            raise DuologueError("a chat template has no place for a transcript: the layout's must be null")
        if self.word_monitor is not None and self.layout.reply is None:
            raise DuologueError("a word monitor judges a transcript, but the layout has none; it must be null")
        if self.past_in_words and self.layout.transcript is None:
            raise DuologueError("past_in_words is true, but the layout has no transcript to remember; it must be false")
        if self.listen_s is not None and self.streams:
            raise DuologueError(f"listen_s is {self.listen_s}, but this encoder streams; it must be None")
