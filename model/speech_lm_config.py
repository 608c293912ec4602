"""What a checkpoint says about its model: the sizes of its parts, its tokens and its prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .adaptor.stack import AdaptorConfig
from .audio_encoder.mel import LogMelConfig
from .audio_encoder.whisper import WhisperEncoderConfig
from .codec.codec_vocoder import CodecVoiceConfig
from .duplex.monitor import MonitorConfig
from .errors import DuologueError
from .speech_decoder.unit_decoder import UnitDecoderConfig
from .speech_decoder.unit_vocoder import UnitVocoderConfig
from .tokens import TokenLayout

VoiceConfig = UnitVocoderConfig | CodecVoiceConfig


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

    mel: LogMelConfig
    encoder: WhisperEncoderConfig
    adaptor: AdaptorConfig
    llm: dict[str, Any]  # a transformers config as a dictionary, "model_type" included
    unit_decoder: UnitDecoderConfig | None = None  # None: text replies only
    # What turns units into samples: a vocoder of semantic units, or a codec's decoder. None: units are the last output.
    vocoder: VoiceConfig | None = None
    monitor: MonitorConfig | None = None  # None: it cannot tell what is to be answered
    word_monitor: MonitorConfig | None = None  # the same, behind what it has written down of the turn
    layout: TokenLayout
    prompt: PromptConfig
    # Seconds that an encoder of whole clips is given, padded with silence or cut (Whisper: 30). None: the clip itself.
    listen_s: float | None = None
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
    def streams(self) -> bool:
        """Whether speech is encoded while it comes in, and not at the end of the turn."""
        return self.mel.norm == "causal" and self.encoder.chunk is not None

    def __post_init__(self) -> None:
        if self.mel.n_mels != self.encoder.n_mels:
            raise DuologueError(f"mel has {self.mel.n_mels} bands, the encoder takes {self.encoder.n_mels}")
        if self.encoder.n_audio_state != self.adaptor.in_dim:
            raise DuologueError(
                f"encoder width is {self.encoder.n_audio_state}, the adaptor takes {self.adaptor.in_dim}"
            )
        if self.unit_decoder is not None and self.unit_decoder.in_dim != self.adaptor.out_dim:
            raise DuologueError(
                f"the unit decoder takes width {self.unit_decoder.in_dim}, the adaptor gives {self.adaptor.out_dim}; "
                "both must be the language model's"
            )
        for name, monitor in (("monitor", self.monitor), ("word monitor", self.word_monitor)):
            if monitor is not None and monitor.in_dim != self.adaptor.out_dim:
                widths = f"width {monitor.in_dim}, the adaptor gives {self.adaptor.out_dim}"
                raise DuologueError(f"the {name} takes {widths}")
        for name, part in (("unit decoder", self.unit_decoder), ("vocoder", self.vocoder)):
            if part is not None and part.units != self.layout.units:
                raise DuologueError(f"the {name} has {part.units} units, the token layout {self.layout.units}")
        if self.vocoder is not None and self.unit_decoder is None:
            raise DuologueError("a model with a vocoder needs a unit decoder")
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
        if self.word_monitor is not None and self.layout.reply is None:
            raise DuologueError("a word monitor judges a transcript, but the layout has none; it must be null")
        if self.past_in_words and self.layout.transcript is None:
            raise DuologueError("past_in_words is true, but the layout has no transcript to remember; it must be false")
        if self.listen_s is not None and self.streams:
            raise DuologueError(f"listen_s is {self.listen_s}, but this ear streams; it must be None")
