"""A speech language model: hearing, a language model that writes transcript and reply, and a speech decoder, joined.

16 kHz samples in, text tokens and samples out. Everything that a conversation accumulates is in its
:class:`DialogueState`; the model itself holds weights only and serves any number of conversations.

    state = model.init_state()
    model.begin_turn(state)
    for chunk in microphone:            # each chunk is encoded and put into the language model's cache at once
        model.listen(chunk, state)
    model.end_turn(state)
    for step in reply(model, state, sampling):      # decoding/reply.py
        play(step.pcm)

The pieces: :mod:`.audio_encoder.hearing`, :mod:`.decoding.transcript`, :mod:`.speech_decoder.speech_decoder`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from .adaptor.adaptor import Adaptor, HeardText, HeardToken
from .audio_encoder.encoder import Encoder
from .audio_encoder.hearing import Hearing
from .audio_encoder.manner import MannerHead
from .audio_encoder.mel import LogMel
from .audio_encoder.windowed import WindowConfig
from .decoding.beam import Found
from .decoding.decoder import NO_DECODER, OWN, Decoder, DecoderConfig, spelt
from .decoding.labels import Labels
from .decoding.token_beam import TokenBeam
from .decoding.token_times import TokenTimes, aligned
from .decoding.transcript import Transcript, TranscriptState
from .dialogue_state import DialogueState, Phase, Picked, ReplyStep, Sampling, pick
from .duplex.monitor import CERTAIN, Monitor
from .errors import DuologueError
from .language_model.causal_lm import LLM, LLMState
from .language_model.chat_template import SPEECH, ChatTemplate, Message, Tool
from .language_model.picking import pick_decided, without_calls
from .language_model.prompt import ChatPrompt, FixedPrompt, Prompt
from .language_model.tool_calls import CallFormat
from .language_model.word_scores import LLMWords
from .speech_decoder.speech_decoder import SpeechDecoder
from .speech_decoder.spelling_decoder import Spelling, SpellingDecoder
from .speech_decoder.voices import Speaker
from .speech_lm_config import AnyUnitDecoder, PromptConfig, SpeechLMConfig, Voice, VoiceConfig, parts_of
from .tokens import TokenKind, check_ids

_ENCODED_S = 0.64  # of sound that are encoded in one step

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


@dataclass(frozen=True)
class Stages:
    """What a conversation is run through; no module, so that the weights keep the names of their parts.

    longest: positions that the language model is fed in one step; ``None``: any number.
    """

    hearing: Hearing
    llm: LLM | Unread
    speech: SpeechDecoder | None
    longest: int | None = None


class Unread:
    """In the place of a language model whose reply nobody wants."""

    def extend(self, embeds: Tensor, state: LLMState) -> Tensor:
        """Embeddings (1, t, D) -> states of zeros; the cache stays as it is."""
        return torch.zeros_like(embeds)


class SpeechLM(nn.Module):
    """Speech in, text and speech out. Its parts are those of its config, under the same names."""

    mel: LogMel
    encoder: Encoder
    adaptor: Adaptor
    llm: LLM
    unit_decoder: AnyUnitDecoder | None
    vocoder: Voice | None
    monitor: Monitor | None
    word_monitor: Monitor | None
    manner: MannerHead | None

    def __init__(self, config: SpeechLMConfig) -> None:
        super().__init__()
        self.config = config
        for name, part in parts_of(type(config)).items():
            setattr(self, name, part.build(getattr(config, name)) if name in config.parts() else None)
        if self.llm.hidden_size != config.adaptor.out_dim:
            raise DuologueError(
                f"the adaptor gives width {config.adaptor.out_dim}, the llm is {self.llm.hidden_size} wide"
            )
        layout, vocab, prompt = config.layout, self.llm.vocab_size, config.prompt
        check_ids((*layout.markers().values(), layout.text[1] - 1), vocab, "the token layout")
        self.layout = layout
        self._prompt: Prompt | None = None
        if prompt is not None:
            check_ids((*prompt.prefix_ids, *prompt.suffix_ids, *prompt.next_prefix_ids), vocab, "the prompt")
            self._prompt = FixedPrompt(prompt, layout, config.past_in_words)
        self.adaptor.bind(self.llm.embed)
        self.transcript = Transcript(layout, config.transcript_ctc)
        self.decoder: DecoderConfig | None = None
        self._decoder: Decoder | None = None
        self._labels: Callable[[], Labels] | None = None
        self._spelling: Spelling | None = None
        speech = None if self.unit_decoder is None else SpeechDecoder(self.unit_decoder, self.vocoder)
        self.stages = Stages(self._hearing(config.streams, None), self.llm, speech)

    def _hearing(self, streams: bool, window: WindowConfig | None) -> Hearing:
        c = self.config
        return Hearing(
            self.mel, self.encoder, self._decoded(), streams=streams, window=window, clip_s=c.listen_s, tail_s=c.tail_s,
            manner=self.manner,
        )  # fmt: skip

    @property
    def prompt(self) -> Prompt:
        """What stands around its turns.

        Raises:
            DuologueError: turns are written by a chat template, and :meth:`read_by` has given none.
        """
        if self._prompt is None:
            raise DuologueError("this model reads turns by a chat template: give it its tokenizer with read_by")
        return self._prompt

    def read_by(self, tokenizer: Any) -> SpeechLM:
        """Take a transformers tokenizer: turns are written by its chat template, where the config has no prompt of its
        own, and words are spelt by it, where the unit decoder reads spelling, or a decoder looks for words."""
        decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        self._spelling = Spelling(decode)
        if isinstance(self.unit_decoder, SpellingDecoder):
            self.unit_decoder.read_by(decode)
        if self.config.prompt is None:
            self._prompt = ChatPrompt(ChatTemplate(tokenizer))
        if self.adaptor.vocabulary() is not None:
            adaptor = self.adaptor
            self._labels = cache(lambda: Labels(tokenizer, adaptor.vocabulary() or ()))  # once its weights are there
            self.adaptor.spelt_by(self._labels)
        elif self.layout.reply is not None and self.transcribes:
            self._labels = cache(lambda: Labels(tokenizer, range(*self.layout.text)))
        return self

    @property
    def follows_instructions(self) -> bool:
        """Whether a system prompt reaches it."""
        return self.prompt.follows_instructions

    @property
    def takes_tools(self) -> bool:
        """Whether it can be told of functions to call."""
        return self.prompt.takes_tools

    @property
    def calls(self) -> CallFormat | None:
        """How it writes calls of functions; None: it calls none."""
        return self.prompt.calls

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.adaptor.parameters()).device

    hears_sounds = False

    @property
    def transcribes(self) -> bool:
        """Whether it writes down what it hears before it replies."""
        return self.hears_words or self.layout.transcript is not None

    @property
    def hears_words(self) -> bool:
        """Whether its adaptor hears tokens by itself, and gives the language model those alone."""
        return self.adaptor.transcribes

    @property
    def times_words(self) -> bool:
        """Whether it knows when each token of its transcript was said: its adaptor's tokens have times, or the language
        model predicts the words by CTC."""
        return self.hears_words or self.config.transcript_ctc > 0

    @property
    def judges_turns(self) -> bool:
        """Whether it has a monitor, which tells while the user speaks what is to be answered."""
        return self.monitor is not None

    @property
    def certain(self) -> tuple[float, ...]:
        """From which probability on each turn state of the monitor counts, in the order of TURN_STATES."""
        return CERTAIN if self.monitor is None else self.monitor.thresholds

    @property
    def reads_turn_state(self) -> bool:
        """Whether it has a word monitor, which judges the transcript."""
        return self.word_monitor is not None

    @property
    def manners(self) -> tuple[str, ...]:
        """The manners of speaking that it tells apart; none without a head for them."""
        return () if self.manner is None else self.manner.config.classes

    @torch.no_grad()
    def manner_of(self, state: DialogueState) -> dict[str, float] | None:
        """The probability of each manner in which the turn was spoken, or is so far; ``None``: nothing was heard of it,
        or the model has no head for them."""
        gathered = state.manner if state.hearing is None else self.stages.hearing.manner_of(state.hearing)
        if self.manner is None or gathered is None or (found := self.manner.probabilities(gathered)) is None:
            return None
        return dict(zip(self.manners, found[0].tolist(), strict=True))

    @property
    def longest_s(self) -> float:
        """Seconds that are heard at once."""
        return self.stages.hearing.longest_s

    @property
    def clip_s(self) -> float | None:
        """Seconds that a whole clip is padded or cut to; ``None``: it is not."""
        return self.stages.hearing.clip_s

    @property
    def history(self) -> int:
        """Positions of past turns that a turn may follow."""
        return self.config.history

    @property
    def fingerprint(self) -> str:
        """Names the config: a saved conversation goes on with a model of the same."""
        return repr(self.config)

    @property
    def input_rate(self) -> int:
        """Sample rate of what is heard, Hz."""
        return self.config.mel.sample_rate

    @property
    def output_rate(self) -> int:
        """Sample rate of what is said, Hz (16000, of no samples, without a voice)."""
        return 16_000 if self.config.vocoder is None else self.config.vocoder.sample_rate

    @property
    def speaks(self) -> bool:
        """Whether a reply has samples."""
        return self.config.vocoder is not None

    @property
    def renders_ssml(self) -> bool:
        """Whether replies may be in SSML."""
        return self.stages.speech is not None and self.stages.speech.renders_ssml

    @property
    def speech(self) -> SpeechDecoder | None:
        """What it speaks with."""
        return self.stages.speech

    @property
    def streams(self) -> bool:
        """Whether speech is encoded while it comes in, and not at the end of the turn."""
        return self.stages.hearing.streams

    def listen_through(self, window: WindowConfig | None) -> None:
        """Encode speech while it comes in, with a window, where the encoder was made for whole clips; ``None``:
        encode the whole clip at the end of the turn."""
        self.stages = replace(self.stages, hearing=self._hearing(False, window))

    def while_speaking(self) -> SpeechLM:
        """A view of the same weights that hears while the user speaks: through the config's window, where the encoder
        was made for whole clips."""
        if self.streams:
            return self
        view = copy.copy(self)
        view.listen_through(self.config.window or WindowConfig())
        return view

    def with_shared_steps(self, wrap: Callable[[Any, str], Any], longest: int | None = None) -> SpeechLM:
        """A view of the same weights in which ``wrap(stage, name of its step)`` stands for each stage whose steps are
        worth sharing between conversations.

        longest: positions that are fed to the language model in one step, so that no step is long. The result is the
            same.

        The vocoder is not: rows of a batch last differently long, so that they seldom fit together.
        """
        view, hearing, speech = copy.copy(self), self.stages.hearing, self.stages.speech
        if speech is not None:
            speech = SpeechDecoder(wrap(speech.unit_decoder, "step"), speech.vocoder, speech.voices)
        if hearing.streams and hearing.exact and self.adaptor.even:  # windows of streams are of different lengths
            hearing = wrap(hearing, "step")
        view.stages = Stages(hearing, wrap(self.stages.llm, "extend"), speech, longest)
        return view

    @property
    def takes_decoder(self) -> bool:
        """Whether words can be looked for in what it hears (:meth:`with_decoder`)."""
        return self._labels is not None

    def with_decoder(self, config: DecoderConfig | None) -> SpeechLM:
        """A view of the same weights that finds its words by a beam search, with what is known of them; None: those
        that are likeliest moment by moment. The words found are its transcript, and what the language model hears.

        Where the adaptor hears words by CTC, its posteriors are searched, otherwise what the language model writes.

        Raises:
            DuologueError: a model that writes no transcripts, hot words that it cannot spell, or a grammar for a model
                whose language model writes them.
        """
        if config is not None and self._labels is None:
            raise DuologueError(NO_DECODER)
        if config is not None and config.grammar is not None and self.adaptor.vocabulary() is None:
            raise DuologueError("a grammar is looked for in CTC's posteriors; this model's transcripts are written by "
                                "its language model")  # fmt: skip
        if config is self.decoder:
            return self
        if config is not None and self._labels is not None and config.lm == OWN:
            config = replace(config, lm=LLMWords(self.llm, self._labels().tokenizer))
        view = copy.copy(self)
        view.decoder = config
        view._decoder = None if config is None or self._labels is None else Decoder(config, self._labels())
        view.stages = replace(self.stages, hearing=self.stages.hearing.with_adaptor(view._decoded()))
        return view

    @torch.no_grad()
    def n_best(self, pcm: Tensor) -> list[HeardText]:
        """What may have been said in a whole clip (1, n): at most as many texts as the beam is wide, the best first,
        with their scores, and each token's time in seconds and probability.

        Raises:
            DuologueError: a model without a decoder.
        """
        if self.decoder is None:
            raise DuologueError("several texts are found by a decoder: give the model one (with_decoder)")
        if self.adaptor.vocabulary() is not None:
            return self.stages.hearing.n_best(pcm.to(self.device))
        state, plain = self.init_state(), self.with_decoder(None)
        plain.begin_turn(state)
        plain.listen(pcm, state)
        plain.end_turn(state)
        times, first, texts = self.token_times(state), self.layout.text[0], list[HeardText]()
        for found in self._searched(state):
            ids = [first + label for label in found.labels]
            unknown = [HeardToken(token=token, start=0.0, end=0.0, confidence=0.0) for token in ids]
            texts.append(HeardText(tokens=times(ids) if times else unknown, score=found.score, ctc=found.ctc))
        return texts

    def spells(self, text: str) -> bool:
        """Whether a hot word can be written with what it hears."""
        return self._labels is not None and bool(spelt(text, self._labels()))

    def _decoded(self) -> Adaptor:
        """The adaptor, as hearing uses it."""
        searched = self._decoder is not None and self.adaptor.vocabulary() is not None
        return self.adaptor.decoded_by(self._decoder) if searched else self.adaptor

    def _searched(self, state: DialogueState) -> list[Found]:
        """What the language model may write down of a turn that is over, the best first."""
        assert self._decoder is not None and self.layout.reply is not None
        state, most = state.clone(), Sampling()
        state.transcript.question = []

        def push(each: DialogueState, token: int) -> bool:
            return self.reply_step(each, most, aloud=False, forced=token).token == token

        beam = TokenBeam(self.next_logits, push, self.layout.text, (self.layout.reply, self.layout.eos))
        return beam.search(state, self._decoder.config.beam, self._decoder.fusions, most.max_tokens)

    def without_replies(self) -> SpeechLM:
        """A view of the same weights that writes the same transcripts. Where the adaptor hears words by itself, the
        language model does not run, and a reply would mean nothing."""
        if not self.hears_words:
            return self
        view = self.without_voice()
        view.stages = replace(view.stages, llm=Unread())
        return view

    def without_voice(self) -> SpeechLM:
        """A view of the same weights that writes the same words and does not speak."""
        view = copy.copy(self)
        view.config = replace(self.config, unit_decoder=None, vocoder=None)
        view.stages = replace(self.stages, speech=None)
        return view

    def with_voices(self, voices: Mapping[str, Speaker]) -> SpeechLM:
        """A view of the same weights that speaks in these voices, by name; the first is who speaks where none is asked
        for."""
        view, speech = copy.copy(self), self.stages.speech
        if speech is not None:
            view.stages = replace(self.stages, speech=speech.with_voices(voices))
        return view

    # One conversation: batch 1.

    def init_state(self, seed: int = 0, instructions: str = "", tools: Sequence[Tool] = ()) -> DialogueState:
        """A conversation in which nothing has been said. ``seed`` is for sampling.

        instructions: the system prompt; "": the config's. tools: functions that the model may call. Both are without
            effect where ``follows_instructions`` or ``takes_tools`` is false.

        Raises:
            DuologueError: instructions or tools that the chat template refuses, or that fill the context.
        """
        instructions = instructions or self.config.instructions
        rng, chat = torch.Generator().manual_seed(seed), self.prompt.begin(instructions, tools)
        state = DialogueState(llm=self.llm.init_state(), rng=rng, chat=chat)
        if chat is not None and (instructions or tools):
            self.must_fit(self.prompt.around(state), state, "instructions and tools have")
        return state

    def begin_again(self, state: DialogueState) -> DialogueState:
        """A conversation with the same instructions and tools, in which nothing has been said; sampling goes on."""
        chat = None if state.chat is None else self.prompt.begin(state.chat.system, state.chat.tools)
        fresh = DialogueState(llm=self.llm.init_state(), rng=state.rng, chat=chat)
        fresh.speak_as(state)
        return fresh

    @torch.no_grad()
    def begin_turn(self, state: DialogueState) -> None:
        """The user begins to speak. A reply under way ends with the tokens that it has."""
        self._feed_ids(self._between_turns(state, lambda: self.prompt.before_speech(state)), state)
        state.turn_start = state.text_start = state.llm.length
        state.phase, state.turn_state, state.word_turn_state = Phase.LISTENING, None, None
        state.transcript, state.hearing = TranscriptState(), self.stages.hearing.init_state(1)
        state.empty, state.manner = False, None

    @torch.no_grad()
    def listen(self, pcm: Tensor, state: DialogueState) -> None:
        """Hear samples (1, n), any number of them."""
        self._expect(state, Phase.LISTENING, "listen comes between begin_turn and end_turn")
        assert state.hearing is not None
        for part in pcm.to(self.device).split(round(_ENCODED_S * self.config.mel.sample_rate), dim=1):
            self._feed_speech(self.stages.hearing.step(part, state.hearing), state)

    def another_recording(self, state: DialogueState) -> None:
        """Raises DuologueError: what is heard is one turn of speech."""
        raise DuologueError("this model hears one recording a turn; ask about one at a time")

    def ask_about(self, ids: Sequence[int], state: DialogueState) -> None:
        """A text question about what is heard: words behind the speech, as if they had been spoken last.

        Where the model writes a transcript, they end it; otherwise they stand between speech and prompt.
        """
        self._expect(state, Phase.LISTENING, "ask_about comes between begin_turn and end_turn")
        check_ids(ids, self.llm.vocab_size, "the question")
        state.transcript.question = list(ids)

    @torch.no_grad()
    def end_turn(self, state: DialogueState) -> None:
        """The user has finished: hear what hearing held back, and get ready to reply."""
        self._expect(state, Phase.LISTENING, "end_turn comes after begin_turn")
        assert state.hearing is not None
        speech = self.stages.hearing.flush(state.hearing)
        transcript, end, question = state.transcript, state.llm.length + speech.shape[1], list[int]()
        state.manner = self.stages.hearing.manner_of(state.hearing)
        transcript.tokens = self.stages.hearing.tokens_of(state.hearing)
        state.empty = self.hears_words and not transcript.tokens and not transcript.question
        speaking = self.config.replies_at_once
        if speaking:
            question, transcript.question = transcript.question, []
        else:
            self.transcript.end_of_speech(transcript)
        suffix = self.prompt.behind_speech(state, end, question)
        check_ids(suffix, self.llm.vocab_size, "the prompt")
        state.text_start, state.written = end, list(suffix)
        self._feed_speech(speech, state, suffix)
        if not speaking:
            self.transcript.begin(transcript)
        transcript.heard = []
        self._start_reply(state, speaking and not transcript.tokens)
        if self._decoder is not None and self.adaptor.vocabulary() is None and self.layout.reply is not None:
            found = self._searched(state)[0].labels
            transcript.found = [*(self.layout.text[0] + label for label in found), self.layout.reply]

    def token_times(self, state: DialogueState) -> TokenTimes | None:
        """After :meth:`end_turn`, before the reply: what tells when the transcript's tokens were said; ``None`` where
        nothing was heard, or nobody knows."""
        heard, ctc = list(state.transcript.tokens), state.transcript.ctc
        if heard:
            return lambda ids: heard[: len(ids)]
        if ctc is None:
            return None
        hearing = self.stages.hearing
        return partial(aligned, ctc.labels, ctc.blank, float(1 / (hearing.rate * hearing.sample_rate)))

    @torch.no_grad()
    def read_text(self, ids: Sequence[int], state: DialogueState) -> None:
        """A turn that the user typed, as ids, instead of begin_turn, listen and end_turn.

        Raises:
            DuologueError: more than fits into the language model's context; nothing has changed then.
        """
        words = list(ids)
        check_ids(words, self.llm.vocab_size, "the text")
        self.must_fit(len(words), state)
        if state.chat is not None:  # what stands around them may be long
            self._must_fit_written(lambda trial: self.prompt.typed(trial, words), state)
        self._read(self._between_turns(state, lambda: self.prompt.typed(state, words)), state)

    @torch.no_grad()
    def read_messages(self, messages: Sequence[Message], state: DialogueState) -> None:
        """Messages as transformers' chat templates take them, instead of a turn: tool calls and their results, say.

        Raises:
            DuologueError: a model without a chat template, or more than fits into the language model's context;
                nothing has changed then.
        """
        self._must_fit_written(lambda trial: self.prompt.messages(trial, messages), state)
        self._read(self._between_turns(state, lambda: self.prompt.messages(state, messages)), state)

    @torch.no_grad()
    def recall(self, question: Sequence[int], reply: Sequence[int], state: DialogueState) -> None:
        """A turn that is past, as ids of words: as if it had been typed and answered.

        Raises:
            DuologueError: as :meth:`read_text`.
        """
        self.must_fit(len(question) + len(reply), state)
        self.read_text(question, state)
        check_ids(reply, self.llm.vocab_size, "the reply")
        self._feed_ids(reply, state)
        state.phase = Phase.ENDED

    def must_fit(self, tokens: int, state: DialogueState, what: str = "the text has") -> None:
        """Raises DuologueError where so many more tokens are too many for the language model's context."""
        context = self.llm.context
        if context is not None and state.llm.length + tokens >= context:
            before = f", {state.llm.length} of which are taken" if state.llm.length else ""
            raise DuologueError(f"{what} {tokens} tokens; the model's context has {context} positions{before}")

    def words_take(self, past: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
        """Positions of past questions and replies in words, with their markers."""
        return self.prompt.takes(len(past)) + sum(len(question) + len(reply) for question, reply in past)

    def room(self, samples: int | None, tokens: int, state: DialogueState) -> int | None:
        """Tokens that a reply may have behind a question of so many samples (``None``: a written one) and text tokens;
        ``None``: any number.

        Raises:
            DuologueError: the question does not fit behind what was said.
        """
        positions, used = self.llm.context, state.llm.length
        if positions is None:
            return None
        length = tokens + (0 if samples is None else self.stages.hearing.embeddings_of(samples))
        room = positions - used - length - self.prompt.around(state)
        if room < 1:
            said = f" and {used} of them are taken by what was said before: begin a new conversation" if used else ""
            raise DuologueError(
                f"the question takes {length} positions, but the model has {positions}{said or ': ask a shorter one'}"
            )
        return room

    @torch.no_grad()
    def next_logits(self, state: DialogueState) -> Tensor:
        """(V,) of the token that the next reply_step picks from: the language model's, or joint with CTC's."""
        self._expect(state, Phase.REPLYING, "next_logits comes after end_turn or read_text, until END")
        self._feed_pending(state)
        if state.hidden is None:
            raise DuologueError("nothing to reply to: the turn had no speech and the prompt no tokens")
        return self.transcript.joint(self.llm.head(state.hidden)[0, -1], state.transcript)

    @torch.no_grad()
    def reply_step(
        self, state: DialogueState, sampling: Sampling, aloud: bool = True, forced: int | None = None
    ) -> ReplyStep:
        """One more token, and the speech that it brings. The last step is of kind END.

        aloud: otherwise it brings units alone, for :meth:`sound` to make speech of when there is time.
        forced: the token, which is otherwise picked from the model's distribution; so a given text is spoken, and
            a beam searched.

        The unit decoder reads the state that *predicted* a token, so the speech of a token is there as soon as the
        token is (LLaMA-Omni's convention at inference), unless the decoder looks ahead: then it is there with a later
        step, END at the latest. ``<eos>`` is not spoken and not fed.
        """
        if not state.picked:
            self._expect(state, Phase.REPLYING, "reply_step comes after end_turn or read_text, until END")
            if state.empty or state.transcript.told < len(state.transcript.tokens):
                return self._step_without_llm(state)
        picked = pick_decided(state, sampling, self.calls, lambda token: self._pick(state, sampling, token), forced)
        units, pcm = self._nothing()
        held, speech, kind = 0, self.stages.speech, picked.kind
        if speech is not None and state.speech is not None and kind in (TokenKind.REPLY, TokenKind.END):
            if kind is TokenKind.REPLY:
                ids = torch.tensor([[picked.token]], device=self.device)
                text = self._said(picked.token, state) if state.speech.marked is not None else ("", "")
                units = speech.units(picked.hidden, state.speech, speech.beside(ids, self.llm.embed), *text)
            else:
                units = speech.last_units(state.speech, "".join(state.tags))
            held = speech.held(state.speech)
            pcm = self.sound(units, state) if aloud else pcm
        return ReplyStep(
            token=picked.token, kind=kind, position=picked.position, foreseen=picked.foreseen, units=units, pcm=pcm,
            held=held,
        )  # fmt: skip

    def _said(self, token: int, state: DialogueState) -> tuple[str, str]:
        """The text that a token adds to a reply in SSML, and the tags before it."""
        if self._spelling is None:
            raise DuologueError("a reply in SSML is read by its letters: give the model its tokenizer with read_by")
        return self._spelling.piece(token), state.tags.pop(0) if state.tags else ""

    def _pick(self, state: DialogueState, sampling: Sampling, forced: int | None) -> Picked:
        """The next token of the transcript or the reply, and the state that predicted it."""
        layout = self.layout
        foreseen = self._feed_pending(state)
        logits = self.next_logits(state)
        hidden = state.hidden
        assert hidden is not None
        if self.word_monitor is not None and state.written[-1:] == [layout.reply]:
            state.word_turn_state = self.word_monitor(hidden[0, -1]).float().softmax(dim=-1).cpu()
        token = layout.eos
        if forced is None and not state.speaking and (found := state.transcript.found):
            forced = found.pop(0) if len(found) > 1 else found[0]
        room = self.llm.context is None or state.llm.length < self.llm.context
        if room and (forced is not None or state.generated < sampling.max_tokens):
            logits = without_calls(logits, state, sampling, self.calls)
            token = pick(logits, sampling, state.rng) if forced is None else forced
            if not state.speaking:
                token = self.transcript.write(token, state.transcript)
        position = state.llm.length - len(state.transcript.foreseen)
        kind = TokenKind.END
        if token in self.prompt.ends:
            state.phase = Phase.ENDED
            self._drop_draft(state)
        else:
            state.pending = token
            state.written.append(token)
            state.generated += 1
            kind = self._kind(token, state)
        return Picked(token, kind, position, foreseen, hidden)

    @torch.no_grad()
    def sound(self, units: Tensor, state: DialogueState) -> Tensor:
        """The samples (1, n) that the reply's next units (1, U) bring."""
        if self.stages.speech is None or state.speech is None:
            return self._nothing()[1]
        return self.stages.speech.sound(units, state.speech)

    @torch.no_grad()
    def reply_flush(self, state: DialogueState) -> Tensor:
        """The reply's last samples (1, n), which the vocoder held back; after END, or to stop early."""
        speech, state.speech = state.speech, None
        if self.stages.speech is None or speech is None:
            return self._nothing()[1]
        return self.stages.speech.flush(speech)

    # Parts of the above.

    def _expect(self, state: DialogueState, phase: Phase, rule: str) -> None:
        if state.phase is not phase:
            raise DuologueError(f"{rule}; this conversation is {state.phase.value}")

    def _must_fit_written(self, ids: Callable[[DialogueState], list[int]], state: DialogueState) -> None:
        """Raises DuologueError where a turn as the prompt writes it is too long; ``state`` stays as it is."""
        trial = state.clone()
        self.must_fit(len(ids(trial)), trial)  # the prompt may have truncated it

    def _between_turns(self, state: DialogueState, ids: Callable[[], list[int]]) -> list[int]:
        """The ids that a turn begins with, as the prompt gives them; a reply under way ends."""
        if state.phase is Phase.LISTENING:
            raise DuologueError("the user's turn has begun already; end it with end_turn first")
        self._drop_draft(state)
        new = ids()
        check_ids(new, self.llm.vocab_size, "the prompt")
        state.turn += 1
        state.pending = state.speech = state.calls = None
        state.picked = []
        return new

    def _read(self, ids: list[int], state: DialogueState) -> None:
        """Feed a whole turn in writing, and get ready to reply."""
        self._feed_ids(ids, state)
        state.turn_start, state.text_start, state.written = state.llm.length, state.llm.length, []
        state.transcript, state.empty, state.manner = TranscriptState(), False, None
        self._start_reply(state, True)

    def _start_reply(self, state: DialogueState, speaking: bool) -> None:
        state.phase, state.speaking, state.generated, state.hearing = Phase.REPLYING, speaking, 0, None
        state.calls, state.picked = None, []
        speech = self.stages.speech
        state.speech = None if speech is None else speech.init_state(1, state.speed, state.voice, state.ssml)
        if state.chat is not None:
            state.chat.reply_start = state.llm.length

    def _step_without_llm(self, state: DialogueState) -> ReplyStep:
        """The next token that the adaptor heard; or, of a turn in which it heard none, the end."""
        (units, pcm), transcript, heard = self._nothing(), state.transcript, None
        token, kind = self.layout.eos, TokenKind.END
        if state.empty:
            state.phase = Phase.ENDED
        else:
            heard = transcript.tokens[transcript.told]
            transcript.told += 1
            state.speaking = transcript.told == len(transcript.tokens)
            token, kind = heard.token, TokenKind.TRANSCRIPT
        return ReplyStep(
            token=token, kind=kind, position=state.llm.length, foreseen=True, units=units, pcm=pcm, heard=heard
        )

    def _kind(self, token: int, state: DialogueState) -> TokenKind:
        layout = self.layout
        if layout.reply is None:
            return TokenKind.REPLY
        if token in (layout.reply, layout.transcript):
            state.speaking = token == layout.reply
            return TokenKind.CONTROL
        if not layout.is_text(token):
            return TokenKind.CONTROL
        return TokenKind.REPLY if state.speaking else TokenKind.TRANSCRIPT

    def _nothing(self) -> tuple[Tensor, Tensor]:
        """No units, no samples."""
        return torch.zeros(1, 0, dtype=torch.long, device=self.device), torch.zeros(1, 0, device=self.device)

    def _embed(self, ids: Sequence[int]) -> Tensor:
        return self.llm.embed(torch.tensor([ids], dtype=torch.long, device=self.device))  # (1, T, D)

    def _feed_pending(self, state: DialogueState) -> bool:
        """Feed the last token picked, and behind it the draft. True: there was nothing to feed."""
        if state.pending is None:
            return True
        (token, state.pending), transcript = (state.pending, None), state.transcript
        if transcript.foreseen and transcript.draft[0] == token:
            transcript.draft.pop(0)
            state.hidden = transcript.foreseen.pop(0)
            return True
        self._forget_foreseen(state)
        self.transcript.redraft(token, transcript)
        self._feed_ids([token, *transcript.draft], state)
        return False

    def _drop_draft(self, state: DialogueState) -> None:
        self._forget_foreseen(state)
        state.transcript.draft = []

    def _forget_foreseen(self, state: DialogueState) -> None:
        """The language model forgets what it was fed of the draft."""
        if state.transcript.foreseen:
            state.llm.truncate(state.llm.length - len(state.transcript.foreseen))
            state.transcript.foreseen = []

    def _feed_ids(self, ids: Sequence[int], state: DialogueState) -> None:
        if state.chat is not None:
            state.chat.fed += ids
        self._feed(self._embed(ids), state)

    def _feed_speech(self, speech: Tensor, state: DialogueState, suffix: Sequence[int] = ()) -> None:
        """Put embeddings (1, t, D), the tokens that follow them and the draft into the cache; keep what the model
        predicts at the first."""
        length, ids = speech.shape[1], [*suffix, *state.transcript.draft]
        if state.chat is not None:
            state.chat.fed += [SPEECH] * length + list(suffix)
        hidden = self._feed(torch.cat([speech, self._embed(ids)], dim=1) if ids else speech, state)
        state.transcript.room += length
        if self.config.transcript_ctc and length:
            state.transcript.heard.append(self.llm.head(hidden[:, :length]))
        if self.monitor is not None and length:
            state.turn_state = self.monitor(hidden[0, length - 1]).float().softmax(dim=-1).cpu()

    def _feed(self, embeds: Tensor, state: DialogueState) -> Tensor:
        """Put embeddings (1, t, D) into the language model's cache and return their states; keep the last one's, but
        for the draft, if that is what the last of them are."""
        if embeds.shape[1] == 0:
            return embeds
        pieces = embeds.split(self.stages.longest or embeds.shape[1], dim=1)
        hidden = torch.cat([self.stages.llm.extend(piece, state.llm) for piece in pieces], dim=1)
        state.hidden, *state.transcript.foreseen = hidden[:, -1 - len(state.transcript.draft) :].split(1, dim=1)
        return hidden
