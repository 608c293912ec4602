"""The whole model: an ear (mel, encoder, adaptor), a language model, a mouth (unit decoder, vocoder).

16 kHz samples in, text tokens and samples out. Everything that a conversation accumulates is in its
:class:`DialogueState`; the model itself holds weights only and serves any number of conversations.

    state = model.init_state()
    model.begin_turn(state)
    for chunk in microphone:            # each chunk is encoded and put into the language model's cache at once
        model.listen(chunk, state)
    model.end_turn(state)
    while (step := model.reply_step(state, sampling)).kind is not TokenKind.END:
        play(step.pcm)
    play(model.reply_flush(state))
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adaptor.stack import Adaptor, AdaptorConfig
from .audio_encoder.mel import LogMel, LogMelConfig
from .audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from .audio_encoder.windowed import WindowConfig, WindowedEncoder
from .codec.codec_vocoder import CodecVoice, CodecVoiceConfig
from .decoding.ctc_prefix import NEVER, CTCPrefix
from .dialogue_state import DialogueState, Phase, ReplyStep, Sampling, pick
from .duplex.monitor import Monitor, MonitorConfig
from .errors import DuologueError
from .language_model.causal_lm import LLM
from .speech_decoder.unit_decoder import CTCCollapse, UnitDecoder, UnitDecoderConfig
from .speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from .streaming import Chain
from .tokens import TokenKind, TokenLayout, check_ids

VoiceConfig = UnitVocoderConfig | CodecVoiceConfig
_HEARD_S = 0.64  # of sound that are encoded in one step

__all__ = [
    "DialogueState",
    "PromptConfig",
    "ReplyStep",
    "Sampling",
    "SpeechLM",
    "SpeechLMConfig",
    "TokenKind",
    "VoiceConfig",
]


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
    # An ear that must have a whole clip hears so much, padded with silence or cut (Whisper: 30). None: the clip itself.
    listen_s: float | None = None
    # Seconds of silence heard behind what was said of a turn: in training no question ended with the last sound of it.
    tail_s: float = 0.0
    # Share of CTC in choosing the transcript's words (see ctc_prefix.py): the language model has learnt to predict them
    # at the places of speech, and <pad> between them. 0: it has not.
    transcript_ctc: float = 0.0
    # Positions of past turns that it has learnt to go on behind. Far beyond what it was trained with a model may take
    # every question for noise.
    history: int = 1024
    # Whether it has learnt to go on behind past turns in writing alone: where the next turn begins, the last one's
    # speech is forgotten, and its transcript and answer stay. Otherwise the past stays as it was heard.
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


def make_voice(config: VoiceConfig) -> UnitVocoder | CodecVoice:
    """The voice that a config describes: a stage from units (B, U) to samples (B, n)."""
    return CodecVoice(config) if isinstance(config, CodecVoiceConfig) else UnitVocoder(config)


class SpeechLM(nn.Module):
    """Speech in, text and speech out."""

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = LogMel(config.mel)
        self.encoder = WhisperEncoder(config.encoder)
        self.adaptor = Adaptor(config.adaptor)
        self.llm = LLM(config.llm)
        self.unit_decoder = None if config.unit_decoder is None else UnitDecoder(config.unit_decoder)
        self.vocoder = None if config.vocoder is None else make_voice(config.vocoder)
        self.monitor = None if config.monitor is None else Monitor(config.monitor)
        self.word_monitor = None if config.word_monitor is None else Monitor(config.word_monitor)
        if self.llm.hidden_size != config.adaptor.out_dim:
            raise DuologueError(
                f"the adaptor gives width {config.adaptor.out_dim}, the llm is {self.llm.hidden_size} wide"
            )
        layout, vocab, prompt = config.layout, self.llm.vocab_size, config.prompt
        check_ids((*layout.markers().values(), layout.text[1] - 1), vocab, "the token layout")
        check_ids((*prompt.prefix_ids, *prompt.suffix_ids, *prompt.next_prefix_ids), vocab, "the prompt")
        # In a tuple, which does not register: the parts are registered above, under their own names.
        self._ear = (Chain(self.mel, self.encoder, self.adaptor),)
        self.streams = config.streams
        self._piece: int | None = None  # positions that the language model is fed in one step; None: any number
        self._collapse = CTCCollapse(layout.units)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.adaptor.linear1.weight.device

    def encode(self, pcm: Tensor) -> Tensor:
        """Whole clips (B, n) at 16 kHz -> embeddings (B, T, D) for the language model."""
        if self.config.listen_s is not None:
            wanted = round(self.config.listen_s * self.config.mel.sample_rate)
            pcm = F.pad(pcm, (0, wanted - pcm.shape[1]))  # negative: cut
        return self._ear[0](pcm)

    def listen_through(self, window: WindowConfig | None) -> None:
        """Encode speech while it comes in, with a window, where the ear was made for whole clips; ``None``: encode the
        whole clip at the end of the turn.

        Through a window its numbers are near those of the offline ear, not the same, and the clip is no longer padded
        to ``listen_s``: the language model hears as many embeddings as were spoken.
        """
        ear = Chain(self.mel, self.encoder, self.adaptor)
        if window is not None:
            ear = Chain(WindowedEncoder(self.mel, self.encoder, window), self.adaptor)
        self._ear = (ear,)
        self.streams = window is not None

    def staged(self, wrap: Callable[[Any, str], Any], piece: int | None = None) -> SpeechLM:
        """A view of the same weights in which ``wrap(stage, name of its step)`` stands for each stage whose steps are
        worth sharing between conversations.

        piece: at most so many positions are fed to the language model in one step, so that no step is long. The result
            is the same.

        The vocoder is not: rows of a batch last differently long, so that they seldom fit together. (Of nano, by
        processor time, it takes 4.3 ms for six units.)
        """
        view = copy.copy(self)
        view._modules = dict(self._modules)
        view._ear, view._piece = (wrap(self._ear[0], "step"),), piece
        for name, method in (("llm", "extend"), ("unit_decoder", "step")):
            if (stage := view._modules.pop(name, None)) is not None:
                view.__dict__[name] = wrap(stage, method)
        return view

    # One conversation: batch 1.

    def init_state(self, seed: int = 0) -> DialogueState:
        """A conversation in which nothing has been said. ``seed`` is for sampling."""
        return DialogueState(llm=self.llm.init_state(), rng=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def begin_turn(self, state: DialogueState) -> None:
        """The user begins to speak. A reply under way ends with the tokens that it has."""
        self._feed_ids(self._prefix(state), state)
        state.turn_at = state.written_at = state.llm.length
        state.phase, state.unwritten, state.judged, state.read = Phase.LISTENING, 0, None, None
        state.spoken, state.asked = [], []
        if self.streams:
            state.ear = self._ear[0].init_state(1)
        else:
            state.heard = []

    @torch.no_grad()
    def listen(self, pcm: Tensor, state: DialogueState) -> None:
        """Hear samples (1, n), any number of them."""
        self._expect(state, Phase.LISTENING, "listen comes between begin_turn and end_turn")
        pcm = pcm.to(self.device)
        if state.heard is not None:
            state.heard.append(pcm)
        else:
            assert state.ear is not None
            for part in pcm.split(round(_HEARD_S * self.config.mel.sample_rate), dim=1):
                self._feed_speech(self._ear[0].step(part, state.ear), state)

    def ask_about(self, ids: list[int], state: DialogueState) -> None:
        """A written question about what is heard: words behind the speech, as if they had been spoken last.

        Where the model writes a transcript, they end it; otherwise they stand between speech and prompt.
        """
        self._expect(state, Phase.LISTENING, "ask_about comes between begin_turn and end_turn")
        check_ids(ids, self.llm.vocab_size, "the question")
        state.asked = list(ids)

    @torch.no_grad()
    def end_turn(self, state: DialogueState) -> None:
        """The user has finished: hear what the ear held back, and get ready to reply."""
        self._expect(state, Phase.LISTENING, "end_turn comes after begin_turn")
        tail = torch.zeros(1, round(self.config.tail_s * self.config.mel.sample_rate), device=self.device)
        if state.heard is not None:
            speech = self.encode(torch.cat([*state.heard, tail], dim=1))
        else:
            assert state.ear is not None
            heard = [self._ear[0].step(tail, state.ear)] if tail.shape[1] else []
            speech = torch.cat([*heard, self._ear[0].flush(state.ear)], dim=1)
        suffix = self.config.prompt.suffix_ids
        speaking = self.config.layout.reply in (None, *suffix)
        if speaking:
            suffix, state.asked = (*state.asked, *suffix), []
        if state.spoken and not speaking:
            best = torch.cat(state.spoken, dim=1)[0].argmax(dim=-1).unique_consecutive()
            self._draft(best.tolist(), state)
        state.written_at, state.written = state.llm.length + speech.shape[1], list(suffix)
        self._feed_speech(speech, state, suffix)
        state.ear = state.heard = None
        self._start_reply(state, speaking)
        if state.spoken and not state.speaking:
            state.ctc = CTCPrefix.begin(torch.cat(state.spoken, dim=1)[0], self.config.layout.pad)
        state.spoken = []

    @torch.no_grad()
    def read_text(self, ids: Tensor, state: DialogueState) -> None:
        """A turn that the user typed, (1, T) ids, instead of begin_turn, listen and end_turn.

        Raises:
            DuologueError: more than fits into the language model's context; nothing has changed then.
        """
        words: list[int] = ids.flatten().tolist()
        check_ids(words, self.llm.vocab_size, "the text")
        self.must_fit(len(words), state)
        layout = self.config.layout
        if layout.transcript is not None and layout.reply is not None:  # as if the model had just written it down
            words = [layout.transcript, *words, layout.reply]
        else:
            words += self.config.prompt.suffix_ids
        self._feed_ids([*self._prefix(state), *words], state)
        state.turn_at, state.written_at, state.written = state.llm.length, state.llm.length, []
        self._start_reply(state, True)

    @torch.no_grad()
    def recall(self, question: list[int], reply: list[int], state: DialogueState) -> None:
        """A turn that is past, as ids of words: as if it had been typed and answered.

        Raises:
            DuologueError: as :meth:`read_text`.
        """
        self.must_fit(len(question) + len(reply), state)
        self.read_text(torch.tensor([question], dtype=torch.long), state)
        check_ids(reply, self.llm.vocab_size, "the reply")
        self._feed_ids(reply, state)
        state.phase = Phase.ENDED

    def must_fit(self, tokens: int, state: DialogueState) -> None:
        """Raises DuologueError where so many more tokens are too many for the language model's context."""
        context = self.llm.context
        if context is not None and state.llm.length + tokens >= context:
            before = f", {state.llm.length} of which are taken" if state.llm.length else ""
            raise DuologueError(f"the text has {tokens} tokens; the model's context has {context} positions{before}")

    @torch.no_grad()
    def next_logits(self, state: DialogueState) -> Tensor:
        """(V,) of the token that the next reply_step picks from: the language model's, or joint with CTC's."""
        self._expect(state, Phase.REPLYING, "next_logits comes after end_turn or read_text, until END")
        self._feed_pending(state)
        if state.hidden is None:
            raise DuologueError("nothing to reply to: the turn had no speech and the prompt no tokens")
        logits = self.llm.head(state.hidden)[0, -1]
        return logits if state.ctc is None else self._joint(logits, state.ctc)

    @torch.no_grad()
    def reply_step(
        self, state: DialogueState, sampling: Sampling, aloud: bool = True, forced: int | None = None
    ) -> ReplyStep:
        """One more token, and the speech that it brings. The last step is of kind END.

        aloud: otherwise it brings units alone, for :meth:`sound` to make speech of when there is time.
        forced: the token, which is otherwise picked from the model's distribution; so a given text is spoken, and
            a beam searched.

        The unit decoder reads the state that *predicted* a token, so the speech of a token is there as soon as the
        token is (LLaMA-Omni's convention at inference). ``<eos>`` is not spoken and not fed. A transcript that has as
        many tokens as there were embeddings of speech ends there, with ``<reply>``: nobody says more words than that
        (nano: 12.5 a second), but a model that has lost its place may write them. With ``transcript_ctc`` it seldom
        comes to that.

        The language model is fed a transcript's words several at once, those that CTC alone would write being the
        draft (speculative decoding, Leviathan et al., arXiv 2211.17192, section 2.1). What is written is the same, to
        rounding.
        """
        self._expect(state, Phase.REPLYING, "reply_step comes after end_turn or read_text, until END")
        layout = self.config.layout
        foreseen = self._feed_pending(state)
        logits = self.next_logits(state)
        hidden = state.hidden
        assert hidden is not None
        if self.word_monitor is not None and state.written[-1:] == [layout.reply]:
            state.read = self.word_monitor(hidden[0, -1]).float().softmax(dim=-1).cpu()
        token = layout.eos
        room = self.llm.context is None or state.llm.length < self.llm.context
        if room and (forced is not None or state.generated < sampling.max_tokens):
            token = pick(logits, sampling, state.rng) if forced is None else forced
            if layout.reply is not None and not state.speaking and layout.is_text(token):
                token = token if state.unwritten > 0 else layout.reply
                state.unwritten -= 1
            if state.asked and token == layout.reply:  # first what was asked in writing, and all of it
                token, state.unwritten, state.ctc = state.asked.pop(0), 0, None
            if state.ctc is not None and layout.is_text(token):
                state.ctc.push(token)
            else:
                state.ctc = None
        position = state.llm.length - len(state.foreseen)
        units, pcm = self._nothing()
        if token == layout.eos:
            state.phase = Phase.ENDED
            self._drop_draft(state)
            return ReplyStep(
                token=token, kind=TokenKind.END, position=position, foreseen=foreseen, units=units, pcm=pcm
            )
        state.pending = token
        state.written.append(token)
        state.generated += 1
        kind = self._kind(token, state)
        if kind is TokenKind.REPLY and self.unit_decoder is not None:
            units = self._units(token, hidden, state)
            pcm = self.sound(units, state) if aloud else pcm
        return ReplyStep(token=token, kind=kind, position=position, foreseen=foreseen, units=units, pcm=pcm)

    @torch.no_grad()
    def sound(self, units: Tensor, state: DialogueState) -> Tensor:
        """The samples (1, n) that the reply's next units (1, U) bring."""
        if self.vocoder is None or units.shape[1] == 0:
            return self._nothing()[1]
        return self.vocoder.step(units, state.vocoder)  # type: ignore[arg-type]

    @torch.no_grad()
    def reply_flush(self, state: DialogueState) -> Tensor:
        """The reply's last samples (1, n), which the vocoder held back; after END, or to stop early."""
        vocoder, state.vocoder = state.vocoder, None
        if vocoder is None or self.vocoder is None:
            return self._nothing()[1]
        return self.vocoder.flush(vocoder)  # type: ignore[arg-type]

    # Parts of the above.

    def _expect(self, state: DialogueState, phase: Phase, rule: str) -> None:
        if state.phase is not phase:
            raise DuologueError(f"{rule}; this conversation is {state.phase.value}")

    def _prefix(self, state: DialogueState) -> list[int]:
        """What the language model is fed before a turn: the last reply's last token, and the prompt's prefix; with
        ``past_in_words`` all that was written of the last turn, whose speech it forgets."""
        if state.phase is Phase.LISTENING:
            raise DuologueError("the user's turn has begun already; end it with end_turn first")
        self._drop_draft(state)
        prompt, rest = self.config.prompt, [] if state.pending is None else [state.pending]
        if self.config.past_in_words and state.written_at > state.turn_at:
            state.llm.truncate(state.turn_at)
            rest = state.written
        prefix = prompt.next_prefix_ids if state.turn else prompt.prefix_ids
        state.turn += 1
        state.pending = state.vocoder = None
        return [*rest, *prefix]

    def _start_reply(self, state: DialogueState, speaking: bool) -> None:
        state.phase, state.speaking, state.generated, state.ctc = Phase.REPLYING, speaking, 0, None
        if self.unit_decoder is not None:
            state.unit = self.unit_decoder.init_state(1)
            state.collapse = self._collapse.init_state(1)
        if self.vocoder is not None:
            state.vocoder = self.vocoder.init_state(1)

    def _joint(self, logits: Tensor, ctc: CTCPrefix) -> Tensor:
        """The language model's logits (V,) and CTC's for a word of the transcript or for its end, ``<reply>``."""
        layout, fraction = self.config.layout, self.config.transcript_ctc
        words, end = ctc.next()
        heard = torch.full_like(words, NEVER)
        heard[slice(*layout.text)] = words[slice(*layout.text)]
        heard[layout.reply] = end
        return (1 - fraction) * logits.double().cpu().log_softmax(-1) + fraction * heard

    def _kind(self, token: int, state: DialogueState) -> TokenKind:
        layout = self.config.layout
        if layout.reply is None:
            return TokenKind.REPLY
        if token in (layout.reply, layout.transcript):
            state.speaking = token == layout.reply
            return TokenKind.CONTROL
        if not layout.is_text(token):
            return TokenKind.CONTROL
        return TokenKind.REPLY if state.speaking else TokenKind.TRANSCRIPT

    def _units(self, token: int, hidden: Tensor, state: DialogueState) -> Tensor:
        """The speech units (1, U) of a word of the reply."""
        assert self.unit_decoder is not None and state.unit is not None and state.collapse is not None
        fused = self._embed((token,)) if self.unit_decoder.config.fuse_token else None
        return self._collapse.step(self.unit_decoder.step(hidden, state.unit, fused), state.collapse)

    def _nothing(self) -> tuple[Tensor, Tensor]:
        """No units, no samples."""
        return torch.zeros(1, 0, dtype=torch.long, device=self.device), torch.zeros(1, 0, device=self.device)

    def _embed(self, ids: tuple[int, ...] | list[int]) -> Tensor:
        return self.llm.embed(torch.tensor([ids], dtype=torch.long, device=self.device))  # (1, T, D)

    def _feed_pending(self, state: DialogueState) -> bool:
        """Feed the last token picked, and behind it those that are expected then. True: there was nothing to feed."""
        if state.pending is None:
            return True
        token, state.pending = state.pending, None
        if state.foreseen and state.draft[0] == token:
            state.draft.pop(0)
            state.hidden = state.foreseen.pop(0)
            return True
        draft = state.draft
        self._drop_draft(state)
        if state.ctc is not None:
            near = draft[:3].index(token) if token in draft[:3] else 0  # CTC has heard too many words, or another one
            self._draft(draft[near + 1 :], state)
        self._feed(self._embed([token, *state.draft]), state)
        return False

    def _draft(self, ids: list[int], state: DialogueState) -> None:
        """The words among these are expected next, and then the reply."""
        layout = self.config.layout
        state.draft = [word for word in ids if layout.is_text(word)]
        state.draft += [] if layout.reply is None else [layout.reply]

    def _drop_draft(self, state: DialogueState) -> None:
        """Nothing is expected any more; the language model forgets what it was fed of that."""
        if state.foreseen:
            state.llm.truncate(state.llm.length - len(state.foreseen))
        state.draft, state.foreseen = [], []

    def _feed_ids(self, ids: list[int], state: DialogueState) -> None:
        self._feed(self._embed(ids), state)

    def _feed_speech(self, speech: Tensor, state: DialogueState, suffix: tuple[int, ...] = ()) -> None:
        """Put embeddings (1, t, D), the tokens that follow them and the draft into the cache; keep what CTC says of the
        first."""
        length, ids = speech.shape[1], [*suffix, *state.draft]
        hidden = self._feed(torch.cat([speech, self._embed(ids)], dim=1) if ids else speech, state)
        state.unwritten += length
        if self.config.transcript_ctc and length:
            state.spoken.append(self.llm.head(hidden[:, :length]))
        if self.monitor is not None and length:
            state.judged = self.monitor(hidden[0, length - 1]).float().softmax(dim=-1).cpu()

    def _feed(self, embeds: Tensor, state: DialogueState) -> Tensor:
        """Put embeddings (1, t, D) into the language model's cache and return their states; keep the last one's, but
        for the draft, if that is what the last of them are."""
        if embeds.shape[1] == 0:
            return embeds
        pieces = embeds.split(self._piece or embeds.shape[1], dim=1)
        hidden = torch.cat([self.llm.extend(piece, state.llm) for piece in pieces], dim=1)
        state.hidden, *state.foreseen = hidden[:, -1 - len(state.draft) :].split(1, dim=1)
        return hidden
