"""Teachers from folders, each a run, a checkpoint or an imported part; and whether they fit a student."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.base.cache import weights_of
from ...checkpoints.files import expanded
from ...checkpoints.parts import read_run, read_sizes
from ...checkpoints.source import resolve
from ...checkpoints.store import load_tokenizer
from ...data_prep.datasets.question_sets import question_set
from ...model.audio_encoder.mel import LogMel, LogMelConfig
from ...model.errors import DuologueError
from ...model.language_model.causal_lm import LLM
from ...model.speech_decoder.spelling_decoder import SpellingDecoder
from ..data.characters import LABELS
from ..data.turns import TurnTokens, counted, train_plainly
from ..loop.parts import load_parts
from ..loop.task import Batch
from ..recipes.unit_decoder import decode


def folder_of(name: str) -> Path:
    """Where a teacher lies: a run, a folder, a bundled name or a hub id."""
    return expanded(name) if read_run(name) else resolve(name)


def fingerprint(name: str, part: str) -> str:
    """Of a teacher's weights."""
    path = weights_of(folder_of(name), part)
    if not path.is_file():
        raise DuologueError(f"teacher {name} has no weights: there is no {path}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def vocabulary_of(tokenizer: str | None, questions: str | None) -> dict[str, int]:
    """{token: id} of what turns are written in: of a folder's tokenizer, or of a question set."""
    if tokenizer is not None:
        return dict(load_tokenizer(resolve(tokenizer)).get_vocab())
    return question_set(str(questions)).token_ids()


def check_vocabulary(name: str, own: Mapping[str, int]) -> None:
    """Raises DuologueError unless the teacher ``name`` has the student's tokens, each under the same id."""
    run = read_run(name)
    tokenizer = run.get("tokenizer") if run else str(folder_of(name))
    theirs = vocabulary_of(tokenizer, run.get("questions"))
    if theirs == own:
        return
    token = min(token for token in {*theirs, *own} if theirs.get(token) != own.get(token))
    there, here = ("absent" if each is None else each for each in (theirs.get(token), own.get(token)))
    raise DuologueError(
        f"teacher {name} has another vocabulary than the student: {token!r} is {there} there and {here} here; "
        "a teacher must have the student's tokens"
    )


class LLMTeacher(nn.Module):
    """A language model: logits (N, V) at the positions of a batch that count."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.llm = train_plainly(LLM(_sizes(name, "llm")))
        load_parts({"llm": self.llm}, [f"llm={folder_of(name)}"])

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.llm.states(self.llm.embed(batch["ids"]), segments=batch.get("segments"))
        return counted(self.llm, hidden, batch["ids"], batch["weights"])[0]


class EncoderTeacher(nn.Module):
    """An encoder with its CTC head, which hears clips without what augmentation masks: logits (N, LABELS) at the real
    frames of a batch."""

    def __init__(self, name: str, own: LogMelConfig) -> None:
        super().__init__()
        sizes = read_sizes(folder_of(name), "encoder")
        if len(sizes) < 2 or not read_run(name):
            raise DuologueError(f"teacher {name} is no run of asr_pretrain: an encoder teaches by its CTC head")
        if sizes["mel"].hop != own.hop:
            raise DuologueError(f"teacher {name} has mel.hop={sizes['mel'].hop}; the student's is {own.hop}")
        self.mel, self.encoder = LogMel(sizes["mel"]), sizes["encoder"].build()
        self.ctc_head = nn.Linear(sizes["encoder"].width, LABELS)
        load_parts(dict(self.named_children()), [f"{part}={folder_of(name)}" for part in ("encoder", "ctc_head")])

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.ctc_head(self.encoder(self.mel(batch["samples"])))  # (B, T, LABELS)
        return logits[real_frames(batch, logits.shape[1], self.mel.config.hop)]


def real_frames(batch: Batch, frames: int, hop: int) -> Tensor:
    """(B, T) which frames of the encoder are of its clip."""
    lengths = batch["lengths"] // hop // 2
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


class UnitDecoderTeacher(nn.Module):
    """A unit decoder with the language model whose states it reads: logits (N, units + 1) at the frames of a batch."""

    def __init__(self, name: str, own: Any, tokens: TurnTokens) -> None:
        super().__init__()
        self.config = _sizes(name, "unit_decoder")
        theirs, wanted = ((type(c).__name__, f"units={c.units}", f"upsample={c.upsample}") for c in (self.config, own))
        if theirs != wanted:
            raise DuologueError(
                f"teacher {name} has a unit decoder {' '.join(theirs)}; the student's is {' '.join(wanted)}: their "
                "frames must be the same"
            )
        starts = dict(entry.split("=", 1) for entry in read_run(name).get("start", ()))
        self.reads = starts.get("llm", str(folder_of(name)))  # a run of the stage has its decoder alone
        self.llm = LLM(_sizes(self.reads, "llm"))
        self.unit_decoder = self.config.build()
        if isinstance(self.unit_decoder, SpellingDecoder):
            self.unit_decoder.read_by(tokens.decode)
        load_parts(dict(self.named_children()), [f"llm={self.reads}", f"unit_decoder={folder_of(name)}"])

    def forward(self, batch: Batch) -> Tensor:
        logits, frames = decode(self.llm, self.unit_decoder, self.config.upsample, batch)
        return logits[torch.arange(logits.shape[1], device=logits.device) < frames[:, None]]


def _sizes(name: str, part: str) -> Any:
    sizes = read_sizes(folder_of(name), part)
    if part not in sizes:
        raise DuologueError(f"teacher {name}: nothing says the sizes of an {part} there; name another run or model")
    return sizes[part]
