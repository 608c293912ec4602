"""Any Whisper and any language model, joined to a fresh adaptor and unit decoder: one step of each stage learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from duologue.data_prep.nano.vocabulary import token_ids
from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoderConfig
from duologue.model.language_model.causal_lm import LLM
from duologue.model.speech_decoder.unit_decoder import UnitDecoder, UnitDecoderConfig
from duologue.training.loop.trainer import train
from duologue.training.losses.ctc_units import ctc_unit_frames, ctc_unit_loss
from duologue.training.recipes import speech_to_text, text_sft

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "phi", "phi3")
WHISPER = WhisperEncoderConfig(n_mels=80, n_audio_state=32, n_audio_head=2, n_audio_layer=1)  # sees whole clips
MEL = LogMelConfig(n_mels=80, norm="whisper")


def family(kind: str) -> dict[str, Any]:
    """A tiny model of a family over nano's words."""
    table = token_ids()
    return {
        "model_type": kind, "vocab_size": len(table), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 512,
        "bos_token_id": table["<bos>"], "eos_token_id": table["<eos>"], "pad_token_id": table["<pad>"],
    }  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_one_step_of_each_stage(questions: Path, tmp_path: Path, kind: str) -> None:
    """text_sft's weights go on into speech_to_text with a Whisper that sees whole clips; then a unit decoder learns."""
    once = {"steps": 1, "warmup": 0, "save_every": 1, "batch_size": 2, "workers": 0, "optimiser": "adamw"}
    text = replace(text_sft.recipe("tiny"), llm=family(kind), out=str(tmp_path / "text"), **once)
    writes = text.build()
    writes.evaluate = dict  # it asks 256 questions
    assert 0 < train(text, writes, progress=False)["loss"] < 20
    assert len(writes.answer([writes.questions.dialogue(0, at) for at in range(2)])) == 2

    recipe = replace(
        speech_to_text.recipe("tiny"), data=(str(questions),), out=str(tmp_path / "speech"), mel=MEL, encoder=WHISPER,
        adaptor=StackConfig(in_dim=32, hidden_dim=32, out_dim=32, stack=5), llm=family(kind),
        start=(f"llm={tmp_path / 'text'}",), **once,
    )  # fmt: skip
    task = recipe.build()
    before = {name: p.detach().clone() for name, p in task.named_parameters()}
    assert 0 < train(recipe, task, progress=False)["loss"] < 20
    moved = {name.split(".")[0] for name, p in task.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"adaptor", "llm"}

    llm = LLM(family(kind))
    decoder = UnitDecoder(UnitDecoderConfig(in_dim=32, dim=32, heads=2, ffn_dim=48, units=20, upsample=5))
    learner = torch.optim.AdamW(decoder.parameters(), lr=1e-2)
    with torch.no_grad():
        hidden = llm(llm.embed(torch.arange(20, 28)[None])).hidden  # (1, 8, 32)
    lengths, units = torch.tensor([8]), torch.arange(12)[None]
    losses = []
    for _ in range(2):
        frames = ctc_unit_frames(lengths, units, 5)
        loss = ctc_unit_loss(decoder(hidden, lengths=lengths, frames=frames), frames, units)
        learner.zero_grad()
        loss.backward()
        learner.step()
        losses.append(float(loss))
    assert losses[1] < losses[0]
