"""Qwen2-Audio: a Whisper encoder of 128 mels, pooled to 25 Hz, and Qwen-7B.

Source: Chu et al., "Qwen2-Audio Technical Report" (arXiv 2407.10759).
"""

from __future__ import annotations

from pathlib import Path

import torch

from .audio_llm import AudioLLM, network_and_processor


class Qwen2Audio(AudioLLM):
    """A :class:`..dialogue_model.DialogueModel`."""

    def markers(self) -> tuple[int, int, int]:
        bos, end, pad = self.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
        return bos, end, pad


def load(folder: Path, device: str, dtype: torch.dtype) -> Qwen2Audio:
    """The model in a folder of transformers.

    Raises:
        DuologueError: the folder lacks something, or its tensors are not the network's.
    """
    from transformers import Qwen2AudioForConditionalGeneration

    network, processor = network_and_processor(folder, Qwen2AudioForConditionalGeneration, dtype)
    return Qwen2Audio(network.to(device), processor)
