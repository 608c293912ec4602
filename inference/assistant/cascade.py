"""A recogniser, a language model and a synthesiser in a row, as a dialogue model: the baseline of every other.

    samples -> recogniser -> words -> language model, by its chat template -> words -> synthesiser -> samples

A turn is heard once it is over. The reply comes token by token, its speech sentence by sentence. What it is made of is
in a file (:mod:`.cascade_file`).
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.recognisers.recogniser import RATE, Recogniser
from ...data_prep.speech.engine import SAMPLE_RATE, SynthesisError, Voice
from ...data_prep.speech.synthesis import at_rate, synthesise
from ...data_prep.text.spoken import normalise
from ...model.decoding.decoder import NoTranscripts
from ...model.dialogue_state import DialogueState, Phase, Picked, ReplyStep, Sampling, pick
from ...model.duplex.monitor import CERTAIN
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.language_model.chat_template import ChatTemplate, Message, Tool
from ...model.language_model.picking import pick_decided, without_calls
from ...model.language_model.prompt import ChatPrompt
from ...model.speech_decoder.speech_decoder import SpeechDecoder
from ...model.speech_decoder.ssml import SSMLReader, settled
from ...model.speech_decoder.voices import Speaker
from ...model.tokens import TokenKind, TokenLayout, check_ids

FRAME = SAMPLE_RATE // 50  # samples of a unit: 20 ms of what was synthesised
# The end of a sentence: a mark with a space behind it, a mark of a script without spaces, or a new line.
_END = re.compile(r"[.!?…:;]+[\"'”’)\]]*\s|[。！？；]+[”’」』]*|\n")
_LONGEST = 240  # characters that are spoken at once where no sentence ends
_MARKUP = re.compile(r"[*_`#|]+")
_TOKENS_A_SECOND = 8  # of speech, at most
_QUIET = 0.01  # of full scale: what voices leave around a sentence


@dataclass
class CascadeState(DialogueState):
    """One conversation.

    clips: what is heard of this turn, samples (n,) in pieces. question: what is asked about it in writing.
    heard: tokens of the transcript that have not been handed out.
    unsaid: tokens of the reply that have not been spoken, but for the first ``skipped`` characters of them.
    spoken: the reply's speech so far, samples (n,), a whole number of units. reader: of a reply in SSML.
    """

    clips: list[Tensor] = field(default_factory=list)
    question: str = ""
    heard: list[int] = field(default_factory=list)
    unsaid: list[int] = field(default_factory=list)
    skipped: int = 0
    spoken: Tensor = field(default_factory=lambda: torch.zeros(0))
    reader: SSMLReader = field(default_factory=SSMLReader)

    def truncate(self, length: int) -> None:
        """See :meth:`DialogueState.truncate`."""
        super().truncate(length)
        self.heard, self.unsaid, self.skipped, self.clips = [], [], 0, []


class Cascade(NoTranscripts):
    """A :class:`...model.dialogue_model.DialogueModel`. Its units are the frames of its speech, counted from 0.

    Args:
        tokenizer: the language model's, of transformers.
        voice: None: it replies in writing alone.
    """

    streams = hears_sounds = times_words = hears_words = judges_turns = reads_turn_state = False
    transcribes = follows_instructions = True
    certain, manners = CERTAIN, ()
    input_rate, output_rate = RATE, SAMPLE_RATE
    longest_s = 300.0
    clip_s: float | None = None
    speech: SpeechDecoder | None = None

    def __init__(self, recogniser: Recogniser, llm: LLM, tokenizer: Any, voice: Voice | None) -> None:
        self.recogniser, self.llm, self.tokenizer, self.voice = recogniser, llm.eval(), tokenizer, voice
        self.template = ChatTemplate(tokenizer)
        self.prompt = ChatPrompt(self.template)
        self.takes_tools, self.calls = self.template.takes_tools, self.prompt.calls
        self.layout = _layout(tokenizer, self.template)
        self.history = (llm.context or 1 << 16) // 2

    @property
    def device(self) -> torch.device:
        """Where the language model's weights are."""
        return next(self.llm.parameters()).device

    @property
    def speaks(self) -> bool:
        """Whether a reply has samples."""
        return self.voice is not None

    @property
    def renders_ssml(self) -> bool:
        """Whether replies may be in SSML: pauses and, of engines that can be told one, rates; no emphasis."""
        return self.speaks

    @property
    def fingerprint(self) -> str:
        """Names its parts."""
        return f"{self.recogniser.name}, {self.llm.lm.config.to_json_string()}, {self.voice}"

    def eval(self) -> Self:
        """Nothing trains here."""
        return self

    def without_voice(self) -> Self:
        """The same weights as a model that writes the same words and does not speak."""
        view = copy.copy(self)
        view.voice = None
        return view

    def with_voices(self, voices: Mapping[str, Speaker]) -> Self:
        """Itself: its voice is the synthesiser's."""
        return self

    def without_replies(self) -> Self:
        """Without a voice; the language model reads the transcript all the same."""
        return self.without_voice()

    def while_speaking(self) -> Self:
        """It hears a turn once it is over."""
        return self

    def with_shared_steps(self, wrap: Callable[[Any, str], Any], longest: int | None = None) -> Self:
        """Its steps are not shared."""
        return self

    # A turn.

    def init_state(self, seed: int = 0, instructions: str = "", tools: Sequence[Tool] = ()) -> CascadeState:
        """A conversation in which nothing has been said; see :meth:`...model.speech_lm.SpeechLM.init_state`."""
        rng, chat = torch.Generator().manual_seed(seed), self.prompt.begin(instructions, tools)
        state = CascadeState(llm=self.llm.init_state(), rng=rng, chat=chat)
        if instructions or tools:
            self.must_fit(self.prompt.around(state), state)
        return state

    def begin_again(self, state: DialogueState) -> CascadeState:
        """A conversation with the same instructions and tools, in which nothing has been said; sampling goes on."""
        assert state.chat is not None
        chat = self.prompt.begin(state.chat.system, state.chat.tools)
        fresh = CascadeState(llm=self.llm.init_state(), rng=state.rng, chat=chat)
        fresh.speak_as(state)
        return fresh

    def begin_turn(self, state: DialogueState) -> None:
        """The user begins to speak."""
        state = _mine(state)
        state.phase, state.clips, state.question = Phase.LISTENING, [], ""
        self._be_silent(state)

    def listen(self, pcm: Tensor, state: DialogueState) -> None:
        """Hear samples (1, n), any number of them."""
        _mine(state).clips.append(pcm[0].float().cpu())

    def another_recording(self, state: DialogueState) -> None:
        """Raises DuologueError: what is heard is one turn of speech."""
        raise DuologueError("a cascade hears one recording a turn; ask about one at a time")

    def ask_about(self, ids: Sequence[int], state: DialogueState) -> None:
        """A text question about what is heard: it stands behind the transcript."""
        _mine(state).question = self.template.decode(ids)

    def token_times(self, state: DialogueState) -> None:
        """Its transcript comes without times."""

    def manner_of(self, state: DialogueState) -> None:
        """Its recogniser tells no manner of speaking."""

    def end_turn(self, state: DialogueState) -> None:
        """The user has finished: recognise what was said, and read it. To nothing at all there is no reply."""
        state = _mine(state)
        said = self.recogniser(torch.cat([torch.zeros(0), *state.clips]).numpy()).strip()
        asked, state.clips = " ".join(filter(None, (said, state.question))), []
        heard = self.template.encode(said) if said else []
        if asked:
            ids = self.template.encode(asked)
            self._must_fit_written(lambda trial: self.prompt.typed(trial, ids), state)
            self._read(self.prompt.typed(state, ids), state)
        else:
            if state.pending is not None:  # the last reply keeps its last token
                self.next_logits(state)
            state.phase, state.generated, state.hidden = Phase.REPLYING, 0, None
        state.heard, state.speaking = heard, not heard

    def read_text(self, ids: Sequence[int], state: DialogueState) -> None:
        """A turn that the user typed, as ids, instead of begin_turn, listen and end_turn.

        Raises:
            DuologueError: more than fits into the language model's context; nothing has changed then.
        """
        check_ids(ids, self.llm.vocab_size, "the text")
        self._must_fit_written(lambda trial: self.prompt.typed(trial, ids), state)
        self._read(self.prompt.typed(state, ids), _mine(state))

    def read_messages(self, messages: Sequence[Message], state: DialogueState) -> None:
        """Messages as transformers' chat templates take them, instead of a turn. Raises as :meth:`read_text`."""
        self._must_fit_written(lambda trial: self.prompt.messages(trial, messages), state)
        self._read(self.prompt.messages(state, messages), _mine(state))

    def recall(self, question: Sequence[int], reply: Sequence[int], state: DialogueState) -> None:
        """A turn that is past, as ids of words: as if it had been typed and answered. Raises as :meth:`read_text`."""
        self.must_fit(len(question) + len(reply), state)
        self.read_text(question, state)
        self._feed(reply, state)
        state.phase = Phase.ENDED

    def words_take(self, past: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
        """Positions of past questions and replies in words, with their markers."""
        return self.prompt.takes(len(past)) + sum(len(question) + len(reply) for question, reply in past)

    def must_fit(self, tokens: int, state: DialogueState) -> None:
        """Raises DuologueError where so many more tokens are too many for the language model's context."""
        context = self.llm.context
        if context is not None and state.llm.length + tokens >= context:
            raise DuologueError(
                f"the text has {tokens} tokens; the model's context has {context} positions, {state.llm.length} of "
                "which are taken"
            )

    def room(self, samples: int | None, tokens: int, state: DialogueState) -> int | None:
        """See :meth:`...model.dialogue_model.DialogueModel.room`; of speech, as many tokens as it has at most."""
        if self.llm.context is None:
            return None
        length = tokens + (0 if samples is None else _TOKENS_A_SECOND * samples // RATE)
        room = self.llm.context - state.llm.length - length - self.prompt.around(state)
        if room < 1:
            raise DuologueError(
                f"the question takes about {length} positions of {self.llm.context}, {state.llm.length} of which are "
                "taken: ask a shorter one, or begin a new conversation"
            )
        return room

    # The reply.

    def next_logits(self, state: DialogueState) -> Tensor:
        """(V,) of the token that the next reply_step picks from, once the transcript has been handed out."""
        if state.pending is not None:
            token, state.pending = state.pending, None
            self._feed([token], state)
        if state.hidden is None:
            raise DuologueError("nothing to reply to: nothing was understood")
        with torch.no_grad():
            logits: Tensor = self.llm.head(state.hidden)[0, -1]
        return logits

    def reply_step(
        self, state: DialogueState, sampling: Sampling, aloud: bool = True, forced: int | None = None
    ) -> ReplyStep:
        """One more token: of the transcript, as it was recognised, then of the reply. The last of a sentence brings its
        speech."""
        state = _mine(state)
        none = torch.zeros(1, 0, dtype=torch.long)
        if state.heard:
            token, position = state.heard.pop(0), state.llm.length
            state.speaking = not state.heard
            return ReplyStep(token=token, kind=TokenKind.TRANSCRIPT, position=position, foreseen=True, units=none,
                             pcm=torch.zeros(1, 0))  # fmt: skip
        picked = pick_decided(state, sampling, self.calls, lambda token: self._pick(state, sampling, token), forced)
        if picked.kind is TokenKind.REPLY:
            state.unsaid += [*self._tags(state, 1), picked.token]
        elif picked.kind is TokenKind.END:
            state.unsaid += self._tags(state, len(state.tags))
        speaks = self.speaks and picked.kind is not TokenKind.CALL
        units = self._speak(state, picked.kind is TokenKind.END) if speaks else none
        return ReplyStep(
            token=picked.token, kind=picked.kind, position=picked.position, foreseen=picked.foreseen, units=units,
            pcm=self.sound(units, state) if aloud else torch.zeros(1, 0),
        )  # fmt: skip

    def _tags(self, state: CascadeState, count: int) -> list[int]:
        """The next tags that a reply in SSML is given beside its tokens, as tokens."""
        tags, state.tags = "".join(state.tags[:count]), state.tags[count:]
        return self.template.encode(tags) if tags else []

    def _pick(self, state: CascadeState, sampling: Sampling, forced: int | None) -> Picked:
        """The next token of the reply."""
        token, foreseen, none = self.layout.eos, state.pending is None, torch.zeros(1, 1, 0)
        if state.pending is not None or state.hidden is not None:
            logits, context = self.next_logits(state), self.llm.context
            if (context is None or state.llm.length < context) and (
                forced is not None or state.generated < sampling.max_tokens
            ):
                logits = without_calls(logits, state, sampling, self.calls)
                token = pick(logits, sampling, state.rng) if forced is None else forced
        position = state.llm.length
        if token in self.prompt.ends:
            state.phase = Phase.ENDED
            return Picked(token, TokenKind.END, position, foreseen, none)
        state.pending, state.generated = token, state.generated + 1
        state.written.append(token)
        return Picked(token, TokenKind.REPLY, position, foreseen, none)

    def sound(self, units: Tensor, state: DialogueState) -> Tensor:
        """The samples (1, n) of frames (1, U) of the reply's speech."""
        return _mine(state).spoken.view(-1, FRAME)[units[0].cpu()].reshape(1, -1)

    def reply_flush(self, state: DialogueState) -> Tensor:
        """No samples are held back."""
        return torch.zeros(1, 0)

    # Parts of the above.

    def _must_fit_written(self, ids: Callable[[DialogueState], list[int]], state: DialogueState) -> None:
        """Raises DuologueError where a turn as the prompt writes it is too long; ``state`` stays as it is."""
        trial = state.clone()
        self.must_fit(len(ids(trial)), trial)

    def _read(self, ids: Sequence[int], state: CascadeState) -> None:
        """Feed a turn, and get ready to reply."""
        check_ids(ids, self.llm.vocab_size, "the prompt")
        state.turn, state.pending = state.turn + 1, None
        self._feed(ids, state)
        state.turn_start, state.text_start, state.written = state.llm.length, state.llm.length, []
        state.phase, state.speaking, state.generated = Phase.REPLYING, True, 0
        self._be_silent(state)
        assert state.chat is not None
        state.chat.reply_start = state.llm.length

    def _be_silent(self, state: CascadeState) -> None:
        """Forget what of the last turn has not been handed out, and what was spoken of it."""
        state.heard, state.unsaid, state.skipped, state.spoken = [], [], 0, torch.zeros(0)
        state.calls, state.picked, state.reader = None, [], SSMLReader()

    @torch.no_grad()
    def _feed(self, ids: Sequence[int], state: DialogueState) -> None:
        if ids:
            assert state.chat is not None
            state.chat.fed += ids
            embeds = self.llm.embed(torch.tensor([list(ids)], device=self.device))  # (1, T, D)
            state.hidden = self.llm.extend(embeds, state.llm)[:, -1:]

    def _speak(self, state: CascadeState, ended: bool) -> Tensor:
        """Synthesise the sentences that are complete; the units (1, U) that they bring."""
        text = self.template.decode(state.unsaid)[state.skipped :]
        ends = [found.end() for found in _END.finditer(text)]
        cut = len(text) if ended else ends[-1] if ends else 0
        if not cut and len(text) > _LONGEST:
            cut = text.rfind(" ") + 1
        if state.ssml and not ended:
            cut = settled(text[:cut])
        if not cut:
            return torch.zeros(1, 0, dtype=torch.long)
        rest, kept = text[cut:], 0  # its tokens: one, but for a sentence that was broken off
        while len(left := self.template.decode(state.unsaid[len(state.unsaid) - kept :])) < len(rest):
            kept += 1
        state.unsaid, state.skipped = state.unsaid[len(state.unsaid) - kept :], len(left) - len(rest)
        before = len(state.spoken) // FRAME
        pcm = self._marked(text[:cut], state, ended) if state.ssml else self._synthesised(text[:cut])
        state.spoken = torch.cat([state.spoken, pcm])
        return torch.arange(before, len(state.spoken) // FRAME)[None]

    def _marked(self, text: str, state: CascadeState, ended: bool) -> Tensor:
        """The speech of a sentence in SSML, samples (n,), n a whole number of frames."""
        runs, pieces, pause = state.reader.push(text) + (state.reader.end() if ended else []), [torch.zeros(0)], 0.0
        spoken = [(run.text, run.manner) for run in runs if run.manner is not None]
        while spoken:
            said, manner = spoken.pop(0)
            while spoken and spoken[0][1].rate == manner.rate and not spoken[0][1].pause:  # emphasis is not rendered
                said += spoken.pop(0)[0]
            pause += manner.pause
            pcm = self._synthesised(said, manner.rate)
            if len(pcm) and pause:
                pieces, pcm = [_without_quiet(torch.cat(pieces), behind=True), _silence(pause)], _without_quiet(pcm)
                pause = 0.0
            pieces.append(pcm)
        if ended and state.reader.pause + pause:
            pieces = [_without_quiet(torch.cat(pieces), behind=True), _silence(state.reader.pause + pause)]
        else:
            state.reader.pause += pause
        wave = torch.cat(pieces)
        return torch.nn.functional.pad(wave, (0, -len(wave) % FRAME))

    def _synthesised(self, text: str, rate: float = 1.0) -> Tensor:
        """The speech of a sentence, samples (n,), n a whole number of frames; none where the voice can say nothing."""
        assert self.voice is not None
        text = " ".join(_MARKUP.sub(" ", text).split())
        for said in (text, normalise(text)):
            try:
                pcm = synthesise(said, self.voice, at_rate(rate, self.voice))
            except SynthesisError:  # a letter that the voice has no sound for, a line of dashes
                continue
            wave = torch.from_numpy(pcm.astype(np.float32) / 32_768)
            return torch.nn.functional.pad(wave, (0, -len(wave) % FRAME))
        return torch.zeros(0)


def _silence(seconds: float) -> Tensor:
    return torch.zeros(round(seconds * SAMPLE_RATE))


def _without_quiet(wave: Tensor, behind: bool = False) -> Tensor:
    """Samples (n,) without the quiet before them, or ``behind`` them."""
    loud = (wave.abs() > _QUIET).nonzero()[:, 0]
    if not len(loud):
        return wave[:0]
    return wave[: int(loud[-1]) + 1] if behind else wave[int(loud[0]) :]


def _layout(tokenizer: Any, template: ChatTemplate) -> TokenLayout:
    """All ids between two special ones, the most that there are, are words. Nobody is fed bos or pad by itself."""
    size = len(tokenizer)
    special = sorted({template.eos, *(id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special)})
    edges = [-1, *special, size]
    low, high = max(itertools.pairwise(edges), key=lambda pair: pair[1] - pair[0])
    return TokenLayout(bos=size, pad=size + 1, eos=template.eos, text=(low + 1, high))


def _mine(state: DialogueState) -> CascadeState:
    assert isinstance(state, CascadeState)
    return state
