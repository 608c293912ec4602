"""An audio language model of transformers as a dialogue model: voice chat and audio analysis, any number of recordings
in a turn.

The network and its processor are transformers' own; what it has read is kept as a state, so that a turn costs what is
new in it. A turn is written by the processor's chat template, with system prompt and tools. It hears a turn once it is
over, and replies in text, and aloud with a speech decoder that was trained on its states.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from ..decoding.decoder import NoTranscripts
from ..dialogue_state import DialogueState, Phase, ReplyStep, Sampling, pick
from ..duplex.monitor import CERTAIN
from ..errors import DuologueError
from ..language_model.causal_lm import LLMState, transformers_cache
from ..language_model.chat_template import PROBE, Message, Tool, schemas
from ..language_model.messages import check_messages, parts
from ..language_model.tool_calls import CallFormat
from ..layers.kv_cache import KVBuffer
from ..speech_decoder.speech_decoder import SpeechDecoder
from ..speech_decoder.spelling_decoder import Spelling
from ..speech_decoder.voices import Speaker
from ..tokens import TokenKind, TokenLayout


@dataclass
class AudioLLMState(DialogueState):
    """One conversation.

    messages: as the chat template takes them. text: as it writes them, as far as the network has read them.
    instructions: the system prompt, which is the first of them. tools: functions that the model may call.
    clips: the recordings of this turn, samples (n,) in pieces. question: its words.
    replied: whether a reply has begun that is no message yet.
    turns: of each turn the position at which it begins, and how many messages and characters of the text stand before.
    """

    instructions: str = ""
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    clips: list[list[Tensor]] = field(default_factory=list)
    question: str = ""
    replied: bool = False
    turns: list[tuple[int, int, int]] = field(default_factory=list)

    def truncate(self, length: int) -> None:
        """See :meth:`DialogueState.truncate`; a turn whose question is cut into is forgotten whole."""
        if length < self.text_start:
            while self.turns:
                start, messages, characters = self.turns.pop()
                self.messages, self.text, self.replied = self.messages[:messages], self.text[:characters], False
                if start <= length:
                    length = start
                    break
        super().truncate(length)


class AudioLLM(NoTranscripts):
    """A :class:`..dialogue_model.DialogueModel`.

    Args:
        network: a model of transformers that generates from text and audio; processor: its processor.
        speech: a speech decoder trained on its states, for spoken replies.
    """

    streams = transcribes = times_words = hears_words = judges_turns = reads_turn_state = False
    hears_sounds = follows_instructions = True
    certain, manners = CERTAIN, ()
    longest_s = clip_s = 30.0  # what a Whisper encoder hears of a recording

    def __init__(self, network: Any, processor: Any, speech: SpeechDecoder | None = None) -> None:
        self.network, self.processor, self.speech = network.eval(), processor, speech
        self.tokenizer = processor.tokenizer
        self._spelling = Spelling(self._words)
        eos = network.generation_config.eos_token_id
        special = set(self.tokenizer.added_tokens_decoder)
        words = [id_ for id_ in range(len(self.tokenizer)) if id_ not in special]
        bos, end, pad = self.markers()
        self.layout = TokenLayout(bos=bos, eos=end, pad=pad, text=(words[0], words[-1] + 1))
        self.ends = {end, self.tokenizer.eos_token_id, *([eos] if isinstance(eos, int) else eos or ())}

    def markers(self) -> tuple[int, int, int]:
        """The ids that begin a text, end a reply, and pad: three different ones."""
        raise NotImplementedError

    @functools.cached_property
    def takes_tools(self) -> bool:
        """Whether the chat template has a place for tools."""
        asked = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
        return PROBE["function"]["name"] in self._written(asked, [PROBE])

    calls: CallFormat | None = None  # it is told of tools, and its calls are words like any other

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.network.device
        return device

    @property
    def input_rate(self) -> int:
        """Sample rate of what is heard, Hz."""
        return int(self.processor.feature_extractor.sampling_rate)

    @property
    def output_rate(self) -> int:
        """Sample rate of what is said, Hz (16000, of no samples, without a voice)."""
        return 16_000 if not self.speaks else self.speech.vocoder.config.sample_rate  # type: ignore[union-attr]

    @property
    def renders_ssml(self) -> bool:
        """Whether replies may be in SSML."""
        return self.speech is not None and self.speech.renders_ssml

    @property
    def speaks(self) -> bool:
        """Whether a reply has samples."""
        return self.speech is not None and self.speech.vocoder is not None

    @property
    def history(self) -> int:
        """Positions of past turns that a turn may follow."""
        return int(self.network.config.get_text_config().max_position_embeddings) // 2

    @property
    def fingerprint(self) -> str:
        """Names the config."""
        return str(self.network.config.to_json_string())

    def eval(self) -> Self:
        """The network never trains here."""
        return self

    def without_voice(self) -> Self:
        """The same weights as a model that writes the same words and does not speak."""
        return type(self)(self.network, self.processor)

    def with_voices(self, voices: Mapping[str, Speaker]) -> Self:
        """See :meth:`..speech_lm.SpeechLM.with_voices`."""
        return type(self)(self.network, self.processor, self.speech and self.speech.with_voices(voices))

    def without_replies(self) -> Self:
        """Itself: it writes no transcripts."""
        return self

    def with_shared_steps(self, wrap: Callable[[Any, str], Any], longest: int | None = None) -> Self:
        """Its steps are not shared."""
        return self

    def while_speaking(self) -> Self:
        """It hears a turn once it is over."""
        return self

    def init_state(self, seed: int = 0, instructions: str = "", tools: Sequence[Tool] = ()) -> AudioLLMState:
        """A conversation in which nothing has been said; see :meth:`..speech_lm.SpeechLM.init_state`."""
        layers = self.network.config.get_text_config().num_hidden_layers
        llm = LLMState(layers=[KVBuffer() for _ in range(layers)])
        text = self._plain(instructions)
        system = [{"role": "system", "content": [{"type": "text", "text": text}]}] if text else []
        return AudioLLMState(
            llm=llm, rng=torch.Generator().manual_seed(seed), speaking=True, messages=list(system),
            instructions=instructions, tools=schemas(tools),
        )  # fmt: skip

    def begin_again(self, state: DialogueState) -> AudioLLMState:
        """A conversation with the same instructions and tools, in which nothing has been said; sampling goes on."""
        again = self.init_state(0, _mine(state).instructions, _mine(state).tools)
        again.rng = state.rng
        again.speak_as(state)
        return again

    def begin_turn(self, state: DialogueState) -> None:
        """The user begins to speak, or a recording is played."""
        state = _mine(state)
        state.phase, state.clips, state.question = Phase.LISTENING, [[]], ""

    def listen(self, pcm: Tensor, state: DialogueState) -> None:
        """Hear samples (1, n), any number of them."""
        _mine(state).clips[-1].append(pcm[0])

    def another_recording(self, state: DialogueState) -> None:
        """What follows is another recording of the same turn."""
        _mine(state).clips.append([])

    def ask_about(self, ids: Sequence[int], state: DialogueState) -> None:
        """A text question about what is heard."""
        _mine(state).question = self._plain(self._words(ids)) or ""

    def token_times(self, state: DialogueState) -> None:
        """It writes no transcript."""

    def manner_of(self, state: DialogueState) -> None:
        """It tells no manner of speaking."""

    def end_turn(self, state: DialogueState) -> None:
        """The user has finished: get ready to reply."""
        state = _mine(state)
        content: list[dict[str, Any]] = [{"type": "audio"} for _ in state.clips]
        content += [{"type": "text", "text": state.question}] if state.question else []
        self._read_turn([{"role": "user", "content": content}], state)

    def read_messages(self, messages: Sequence[Message], state: DialogueState) -> None:
        """Messages as the chat template takes them, instead of a turn: tool calls and their results, say.

        Raises:
            DuologueError: messages that the template or the processor refuses; nothing has changed then.
        """
        state = _mine(state)
        check_messages(messages)
        said = [message | {"content": self._plain(message["content"])} if "content" in message else message
                for message in map(dict, messages)]  # fmt: skip
        clips, state.clips = state.clips, []
        try:
            self._read_turn(said, state)
        except DuologueError:
            state.clips = clips
            raise

    def _read_turn(self, messages: Sequence[Message], state: AudioLLMState) -> None:
        past, before = self._past(state)
        messages = [*past, *messages]
        text = self._written(messages, state.tools)
        if not text.startswith(before):
            raise DuologueError("the chat template rewrites what was said before; such templates are not known")
        fed = self._processed(text[len(before) :], [torch.cat(clip).cpu().numpy() for clip in state.clips])
        if state.replied and state.pending is not None:
            self.next_logits(state)  # the network reads the last token of the last reply
        state.turns.append((state.llm.length, len(past), len(before)))
        state.hidden = self._step(state, **fed)
        state.messages, state.text, state.clips, state.written = messages, text, [], []
        state.text_start, state.replied = state.llm.length, True
        state.phase, state.generated, state.pending, state.turn = Phase.REPLYING, 0, None, state.turn + 1
        state.speech = None
        if self.speech is not None:
            state.speech = self.speech.init_state(1, state.speed, state.voice, state.ssml)

    def read_text(self, ids: Sequence[int], state: DialogueState) -> None:
        """A turn that the user typed, as ids, instead of begin_turn, listen and end_turn."""
        state = _mine(state)
        self.read_messages([{"role": "user", "content": self._words(ids)}], state)

    def recall(self, question: Sequence[int], reply: Sequence[int], state: DialogueState) -> None:
        """A turn that is past, as ids of words: as if it had been typed and answered."""
        self.read_text(question, state)
        for token in (*reply, self.layout.eos):
            self.reply_step(state, Sampling(), aloud=False, forced=token)

    def words_take(self, past: Sequence[tuple[Sequence[int], Sequence[int]]]) -> int:
        """Positions of past questions and replies in words, with their markers."""
        return sum(len(question) + len(reply) + 10 for question, reply in past)

    def must_fit(self, tokens: int, state: DialogueState) -> None:
        """Any number fits: the processor alone knows how many positions a turn takes."""

    def room(self, samples: int | None, tokens: int, state: DialogueState) -> int | None:
        """Any number of tokens: as :meth:`must_fit`."""
        return None

    @torch.no_grad()
    def next_logits(self, state: DialogueState) -> Tensor:
        """(V,) of the token that the next reply_step picks from."""
        if state.pending is not None:
            state.hidden = self._step(state, input_ids=torch.tensor([[state.pending]], device=self.device))
            state.pending = None
        assert state.hidden is not None
        logits: Tensor = self.network.lm_head(state.hidden)[0, -1]
        return logits

    @torch.no_grad()
    def reply_step(
        self, state: DialogueState, sampling: Sampling, aloud: bool = True, forced: int | None = None
    ) -> ReplyStep:
        """One more token, and the speech that it brings; see :meth:`..speech_lm.SpeechLM.reply_step`."""
        state, foreseen = _mine(state), state.pending is None
        logits, token = self.next_logits(state), self.layout.eos
        if forced is not None or state.generated < sampling.max_tokens:
            token = pick(logits, sampling, state.rng) if forced is None else forced
        units = torch.zeros(1, 0, dtype=torch.long, device=self.device)
        pcm, position, hidden = torch.zeros(1, 0, device=self.device), state.llm.length, state.hidden
        if token in self.ends:
            state.phase = Phase.ENDED
            if self.speech is not None and state.speech is not None:
                units = self.speech.last_units(state.speech, "".join(state.tags))
                pcm = self.speech.sound(units, state.speech) if aloud else pcm
            return ReplyStep(
                token=token, kind=TokenKind.END, position=position, foreseen=foreseen, units=units, pcm=pcm
            )
        state.pending, state.generated = token, state.generated + 1
        state.written.append(token)
        held = 0
        if self.speech is not None and hidden is not None and state.speech is not None:
            fed = torch.tensor([[token]], device=self.device)
            beside = self.speech.beside(fed, self.network.get_input_embeddings())
            text = ("", "") if state.speech.marked is None else self._said(token, state)
            units = self.speech.units(hidden, state.speech, beside, *text)
            held = self.speech.held(state.speech)
            pcm = self.speech.sound(units, state.speech) if aloud else pcm
        return ReplyStep(
            token=token, kind=TokenKind.REPLY, position=position, foreseen=foreseen, units=units, pcm=pcm, held=held
        )

    def _said(self, token: int, state: DialogueState) -> tuple[str, str]:
        """The text that a token adds to a reply in SSML, and the tags before it."""
        return self._spelling.piece(token), state.tags.pop(0) if state.tags else ""

    def sound(self, units: Tensor, state: DialogueState) -> Tensor:
        """The samples (1, n) that the reply's next units (1, U) bring."""
        if self.speech is None or state.speech is None:
            return torch.zeros(1, 0)
        return self.speech.sound(units, state.speech)

    def reply_flush(self, state: DialogueState) -> Tensor:
        """The reply's last samples (1, n), which the vocoder held back."""
        speech, state.speech = state.speech, None
        return torch.zeros(1, 0) if self.speech is None or speech is None else self.speech.flush(speech)

    def _past(self, state: AudioLLMState) -> tuple[list[Message], str]:
        """The messages that are over, and their text. The last reply is one of them, as far as it was generated or
        heard; the template's end of it is read with the next turn."""
        if not state.replied:
            return state.messages, state.text
        said = self._words(state.written)
        return [*state.messages, {"role": "assistant", "content": said}], state.text + said

    def _words(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _plain(self, content: Any) -> str | None:
        """A message's content as text.

        Raises:
            DuologueError: it is none, or holds a special token, which the processor would take for its own.
        """
        if content is None:
            return None
        text = "".join(part for part in parts(content) if isinstance(part, str))
        for token in self.tokenizer.added_tokens_decoder.values():
            if token.special and token.content in text:
                raise DuologueError(f"a message holds {token.content!r}, which stands for no words: leave it out")
        return text

    def _written(self, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
        more = {"tools": list(tools)} if tools else {}
        try:
            text = self.processor.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=False, **more
            )
        except Exception as error:  # jinja's own, of many kinds
            raise DuologueError(f"the chat template fails: {' '.join(str(error).split())}") from None
        return str(text)

    def _processed(self, text: str, clips: list[np.ndarray]) -> dict[str, Tensor]:
        """What the network is fed of what is new in the conversation."""
        more = {"audio": clips, "sampling_rate": self.input_rate} if clips else {}
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DuologueError("a message has half a surrogate pair, which is no character") from None
        inputs = self.processor(text=[text], return_tensors="pt", **more)
        fed = {"input_ids": inputs["input_ids"].to(self.device)}
        if clips:
            fed["input_features"] = inputs["input_features"].to(self.device, self.network.dtype)
            fed["feature_attention_mask"] = inputs["feature_attention_mask"].to(self.device)
        return fed

    @torch.no_grad()
    def _step(self, state: DialogueState, **fed: Tensor) -> Tensor:
        cache = transformers_cache(state.llm.layers)
        hidden: Tensor = self.network.model(past_key_values=cache, use_cache=True, **fed).last_hidden_state[:, -1:]
        return hidden


def _mine(state: DialogueState) -> AudioLLMState:
    assert isinstance(state, AudioLLMState)
    return state


def network_and_processor(folder: Path, network: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """The network, a class of transformers, and the processor that are in a folder.

    Raises:
        DuologueError: the folder lacks something, or its tensors are not the network's.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        found, info = network.from_pretrained(folder, local_files_only=True, dtype=dtype, output_loading_info=True)
    except Exception as error:  # many kinds, some of several lines
        raise DuologueError(f"{folder}: {' '.join(str(error).split())}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            raise DuologueError(f"{folder}: {kind.replace('_', ' ')}, {min(map(str, info[kind]))} for one")
    return found, processor
