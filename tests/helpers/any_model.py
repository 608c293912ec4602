"""A tiny language model of a family with its own tokenizer and chat template, a tiny Whisper, and data to join them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_chat import chat_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from duologue.checkpoints.cards.facts import Card
from duologue.checkpoints.importers.llm import Config, run
from duologue.checkpoints.parts import EncoderPart, save_part
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.model.adaptor.ctc import CTCAdaptorConfig
from duologue.model.adaptor.stack import StackAdaptor, StackConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig

RATE = 16_000
SYSTEM = "Answer in one sentence, please."
# Two conversations of two turns, whose second question is the same; one with a system prompt, one with an instruction.
TALKS: list[dict[str, Any]] = [
    {"turns": [("Who are you?", "I'm Anna, sure."), ("And again?", "Anna!")], "system": SYSTEM},
    {"turns": [("Wie heißt du?", "Grüß Gott, ich heiße Bert."), ("And again?", "Bert, 再见!")]},
]
UNDER = {"text": "it is late", "verdict": "noise"}  # said to nobody here
TASK = {"text": "Hello there.", "instruction": "Transcribe the speech.", "answer": "Hello there."}


def tiny_llm(folder: Path, kind: str = "llama", template: str = "headers", **sizes: Any) -> str:
    """Imported from a folder as transformers writes it."""
    torch.manual_seed(0)
    tokenizer = chat_tokenizer(template)
    usual = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 2, "num_local_experts": 4, "max_position_embeddings": 512, "pad_token_id": None,
             "bos_token_id": None, "eos_token_id": None}  # fmt: skip
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer) + 4, **usual | sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / f"theirs_{kind}")
    tokenizer.save_pretrained(folder / f"theirs_{kind}")
    return str(run(folder / f"theirs_{kind}", folder / kind, Config()))


def tiny_whisper(folder: Path) -> str:
    """An encoder that sees whole clips."""
    torch.manual_seed(1)
    sizes = WhisperEncoderConfig(n_mels=80, n_audio_state=24, n_audio_head=2, n_audio_layer=1)
    part = EncoderPart(mel=LogMelConfig(n_mels=80, norm="whisper"), encoder=sizes)
    return str(save_part(folder / "encoder", "encoder", WhisperEncoder(sizes), part, Card()))


def tiny_adaptor(folder: Path) -> str:
    """From that encoder to that language model."""
    torch.manual_seed(2)
    sizes = StackConfig(in_dim=24, hidden_dim=16, out_dim=32, stack=4)
    return str(save_part(folder / "adaptor", "adaptor", StackAdaptor(sizes), sizes, Card()))


def tiny_ctc_adaptor(folder: Path) -> str:
    """The same, by CTC: it hears words and pieces of words at random."""
    torch.manual_seed(3)
    sizes = CTCAdaptorConfig(in_dim=24, dim=16, layers=1, heads=2, chunk=5, left_context=20, positions=300, out_dim=32,
                             vocab=20, temperature=0.5)  # fmt: skip
    adaptor = sizes.build()
    adaptor.tokens.copy_(torch.arange(336, 356))
    with torch.no_grad():
        adaptor.log_scale.fill_(4.0)
        adaptor.project.weight.normal_()
        adaptor.blank.weight.normal_(std=6.0)
    return str(save_part(folder / "ctc", "adaptor", adaptor, sizes, Card()))


def _write(folder: Path, metas: list[dict[str, Any]], seconds: float = 0.6) -> str:
    rng = np.random.default_rng(0)
    writer = ShardWriter(folder, name=folder.name, sample_rate=RATE, seed=0, parameters={})
    clips = []
    for at, meta in enumerate(metas):
        pcm = 3000 * rng.standard_normal(int(RATE * (seconds + 0.1 * at)))
        clips.append(Clip(pcm.astype(np.int16), {"id": str(at), "voice": "noise", **meta}))
    writer.write(0, clips)
    writer.finish()
    return str(folder)


def talk_metas() -> list[dict[str, Any]]:
    """The clips of TALKS, and one with an instruction."""
    metas = []
    for number, talk in enumerate(TALKS):
        for turn, (question, answer) in enumerate(talk["turns"]):
            meta = {"text": question, "answer": answer, "conversation": f"c{number}", "turn": turn}
            meta |= {"system": talk["system"]} if "system" in talk else {}
            metas.append(meta | ({"history": [list(pair) for pair in talk["turns"][:turn]]} if turn else {}))
    return [*metas, dict(TASK)]


def talks(folder: Path) -> str:
    """Clips of questions with answers."""
    return _write(folder, talk_metas())


def statements(folder: Path) -> str:
    """Clips that need no answer."""
    return _write(folder, [dict(UNDER) for _ in range(3)])


def replies(folder: Path) -> str:
    """The answers spoken, with their units."""
    metas = [
        {"text": meta["answer"], "question": meta["text"], **{k: meta[k] for k in ("system", "history") if k in meta}}
        for meta in talk_metas()
    ]
    name = _write(folder, metas)
    rows = [{"id": str(at), "units": [at, 5, 7], "durations": [10, 10, 10 + 5 * at]} for at in range(len(metas))]
    (folder / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name
