"""Qwen2-Audio behind ``ask``: voice chat and audio analysis, any number of recordings and turns in one conversation.

    assistant = duologue.load("Qwen/Qwen2-Audio-7B-Instruct")
    assistant.ask("question.wav")                               voice chat
    assistant.ask("clip.wav", text="what sound is this?")       analysis
    conversation.ask(["a.wav", "b.wav"], "which is louder?")    several at once; later turns remember them

The network and its processor are transformers' own; what it has read is kept as a state, so that a turn costs what is
new in it. It answers in text, and aloud where a unit decoder and a vocoder are attached.

Source: Chu et al., "Qwen2-Audio Technical Report" (arXiv 2407.10759).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.source import one_line
from ...data_prep.audio import AudioSource, read_audio
from ...model.dialogue_state import pick
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLMState, transformers_cache
from ...model.layers.kv_cache import KVBuffer
from ...model.speech_decoder.unit_decoder import CTCCollapse, UnitDecoder
from ...model.speech_decoder.unit_vocoder import UnitVocoder
from ...model.speech_lm import Sampling
from .turn import Reply, Timings

GREEDY = Sampling()
LONGEST_S = 30  # of a recording: what its Whisper hears
Recordings = AudioSource | Sequence[AudioSource] | None


@dataclasses.dataclass(frozen=True)
class Mouth:
    """What speaks a reply: a unit decoder that was trained on this language model's states, and a vocoder."""

    unit_decoder: UnitDecoder
    vocoder: UnitVocoder


class AudioChat:
    """A Qwen2-Audio and its processor; what was said lives in an :class:`AudioConversation`.

    Args:
        model: transformers' Qwen2AudioForConditionalGeneration; processor: its Qwen2AudioProcessor.
        mouth: for spoken replies.
    """

    def __init__(self, model: Any, processor: Any, path: Path | None = None, mouth: Mouth | None = None) -> None:
        self.model, self.processor, self.path, self.mouth = model.eval(), processor, path, mouth
        self.tokenizer = processor.tokenizer
        self.input_rate: int = processor.feature_extractor.sampling_rate
        self.output_rate = 16_000 if mouth is None else mouth.vocoder.config.sample_rate

    def converse(self) -> AudioConversation:
        """A new conversation, whose turns remember the ones before."""
        return AudioConversation(self)

    def ask(self, audio: Recordings = None, text: str | None = None, sampling: Sampling = GREEDY) -> Reply:
        """One turn without history: recordings, a text, or both.

        Raises:
            DuologueError: neither is given, or a recording cannot be used.
        """
        return self.converse().ask(audio, text, sampling)

    def warm_up(self) -> None:
        """Answer half a second of silence and drop the answer."""
        self.ask((self.input_rate, np.zeros(self.input_rate // 2, np.float32)), sampling=Sampling(max_tokens=2))


class AudioConversation:
    """The memory of one user's turns. A turn that fails leaves no trace in it."""

    def __init__(self, chat: AudioChat) -> None:
        self.chat = chat
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.turns = 0
        layers = self.chat.model.config.get_text_config().num_hidden_layers
        self._messages: list[dict[str, Any]] = []
        self._state = LLMState(layers=[KVBuffer() for _ in range(layers)])
        self._written = ""  # the conversation as the template writes it, as far as the state holds it

    @torch.inference_mode()
    def ask(self, audio: Recordings = None, text: str | None = None, sampling: Sampling = GREEDY) -> Reply:
        """See :meth:`AudioChat.ask`; earlier turns, with their recordings, are remembered."""
        chat, start = self.chat, time.perf_counter()
        clips, warnings = self._clips(audio)
        if not clips and not (text and text.strip()):
            raise DuologueError("ask with a recording, with a text, or with both")
        content: list[dict[str, Any]] = [{"type": "audio"} for _ in clips]
        content += [{"type": "text", "text": text}] if text else []
        messages = [*self._messages, {"role": "user", "content": content}]
        whole = chat.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        if not whole.startswith(self._written):
            raise DuologueError("the chat template rewrites what was said before; such templates are not known")
        state = self._state.clone()
        heard = time.perf_counter()
        hidden = self._read(whole[len(self._written) :], clips, state)
        ids, units, pcm, first = self._write(hidden, state, sampling)
        done = time.perf_counter()
        said = chat.tokenizer.decode(ids, skip_special_tokens=True)
        if len(ids) >= sampling.max_tokens:
            warnings.append(f"the reply was cut short after {sampling.max_tokens} tokens")
        # The state holds the reply as it was generated; the template's end of it is read with the next turn.
        self._messages, self._state = [*messages, {"role": "assistant", "content": said}], state
        self._written, self.turns = whole + said, self.turns + 1
        audio_s, reply_s = sum(map(len, clips)) / chat.input_rate, len(pcm) / chat.output_rate
        timings = Timings(
            audio_s=audio_s,
            reply_s=reply_s,
            listen_ms=1e3 * (heard - start),
            compute_delay_ms=None if first[1] is None else 1e3 * (first[1] - heard),
            first_word_ms=None if first[0] is None else 1e3 * (first[0] - heard),
            total_ms=1e3 * (done - start),
            real_time_factor=(done - start) / max(audio_s + reply_s, 1e-3),
        )
        return Reply(
            text=said.strip(), transcript="", waveform=pcm, sample_rate=chat.output_rate, units=units, timings=timings,
            warning="; ".join(warnings) or None,
        )  # fmt: skip

    def _clips(self, audio: Recordings) -> tuple[list[np.ndarray], list[str]]:
        """Waveforms (n,) at the model's rate, and what is wrong with them."""
        several = isinstance(audio, list)
        sources: list[Any] = list(audio) if several else [] if audio is None else [audio]  # type: ignore[arg-type]
        clips = [read_audio(source, self.chat.input_rate) for source in sources]
        most = LONGEST_S * self.chat.input_rate
        cut = [i for i, clip in enumerate(clips, 1) if len(clip) > most]
        return [clip[:most] for clip in clips], [f"recording {i} was cut after {LONGEST_S} s" for i in cut]

    def _read(self, text: str, clips: list[np.ndarray], state: LLMState) -> Tensor:
        """Feed what is new in the conversation; the last position's state (1, 1, D)."""
        chat, device = self.chat, self.chat.model.device
        more = {"audio": clips, "sampling_rate": chat.input_rate} if clips else {}
        inputs = chat.processor(text=[text], return_tensors="pt", **more)
        fed = {"input_ids": inputs["input_ids"].to(device)}
        if clips:
            fed["input_features"] = inputs["input_features"].to(device, chat.model.dtype)
            fed["feature_attention_mask"] = inputs["feature_attention_mask"].to(device)
        return self._step(state, **fed)

    def _step(self, state: LLMState, **fed: Tensor) -> Tensor:
        out = self.chat.model.model(past_key_values=transformers_cache(state.layers), use_cache=True, **fed)
        hidden: Tensor = out.last_hidden_state[:, -1:]
        return hidden

    def _write(
        self, hidden: Tensor, state: LLMState, sampling: Sampling
    ) -> tuple[list[int], list[int], np.ndarray, tuple[float | None, float | None]]:
        """The reply's ids, its units, its samples (n,), and when the first word and the first samples were ready."""
        chat, mouth = self.chat, self.chat.mouth
        rng, ends = torch.Generator().manual_seed(self.turns), self._ends()
        embed = chat.model.get_input_embeddings()
        ids: list[int] = []
        units: list[int] = []
        pcm: list[Tensor] = []
        word = sound = None
        if mouth is not None:
            collapse = CTCCollapse(mouth.unit_decoder.config.units)
            decoding, merging, speaking = (
                mouth.unit_decoder.init_state(),
                collapse.init_state(),
                mouth.vocoder.init_state(),
            )
        while len(ids) < sampling.max_tokens:
            token = pick(chat.model.lm_head(hidden)[0, -1], sampling, rng)
            if token in ends:
                break
            ids.append(token)
            word = word or time.perf_counter()
            fed = torch.tensor([[token]], device=hidden.device)
            if mouth is not None:
                fused = embed(fed) if mouth.unit_decoder.config.fuse_token else None
                new = collapse.step(mouth.unit_decoder.step(hidden, decoding, fused), merging)  # (1, U)
                units += new[0].tolist()
                pcm.append(mouth.vocoder.step(new, speaking))
                sound = sound or (time.perf_counter() if pcm[-1].shape[1] else None)
            hidden = self._step(state, input_ids=fed)
        if mouth is not None:
            pcm.append(mouth.vocoder.flush(speaking))
        samples = torch.cat(pcm, dim=1)[0].float().clamp(-1, 1).cpu().numpy() if pcm else np.zeros(0, np.float32)
        return ids, units, samples, (word, sound)

    def _ends(self) -> set[int]:
        """What ends a reply."""
        eos = self.chat.model.generation_config.eos_token_id
        found = {eos} if isinstance(eos, int) else set(eos or ())
        return found | {self.chat.tokenizer.eos_token_id} - {None}


def load(
    folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32, mouth: Mouth | None = None
) -> AudioChat:
    """A Qwen2-Audio from a folder of transformers.

    Raises:
        DuologueError: the folder lacks something, or its tensors are not the network's.
    """
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model, info = Qwen2AudioForConditionalGeneration.from_pretrained(
            folder, local_files_only=True, dtype=dtype, output_loading_info=True
        )
    except Exception as error:  # many kinds, some of several lines
        raise DuologueError(f"{folder}: {one_line(error)}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            raise DuologueError(f"{folder}: {kind.replace('_', ' ')}, {min(map(str, info[kind]))} for one")
    return AudioChat(model.to(device), processor, folder, mouth)
