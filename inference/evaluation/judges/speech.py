"""One spoken reply, judged: by a recogniser, by how it sounds, by whose voice it is, and by a chat model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ....checkpoints.recognisers.recogniser import Recogniser
from ..metrics.quality import SpeakerEncoder, audible, speaker_encoder, unreferenced
from ..metrics.words import error_measures, normaliser
from ..report.run_folder import Row
from .endpoint import EndpointJudge
from .slots import is_right


class SpeechJudge:
    """What is measured of a reply depends on what is known of it: its text, its speech, the question, the answer.

    Args:
        utmos: folder or hub id of UTMOS weights, or None.
        grader: a chat model that grades, or None.
        how: the normaliser of its words.
    """

    def __init__(
        self, recogniser: Recogniser, utmos: str | None, grader: EndpointJudge | None, how: str = "plain"
    ) -> None:
        self.recogniser, self.grader, self.how = recogniser, grader, how
        self._utmos = None if utmos is None else load_utmos(utmos)
        normaliser(how)

    @functools.cached_property
    def speaker(self) -> SpeakerEncoder | None:
        """What compares voices, where it is installed."""
        return speaker_encoder()

    def __call__(self, row: Row, wave: np.ndarray | None, like: np.ndarray | None = None) -> Row:
        """heard, synthesiser_heard and measures.

        Args:
            row: reply, and where known question, transcript, answer and slot; past: the exchanges before it.
            wave: its speech (n,) at 16 kHz; None or silence: it has none.
            like: a recording of the voice that it ought to have (of the same words, where it is the synthesiser's).
        """
        found: dict[str, Any] = {}
        out: Row = {"heard": None, "synthesiser_heard": None, "measures": found}
        if row.get("transcript") is not None and row.get("question"):
            found |= error_measures(row["transcript"], row["question"], self.how, "transcript_")
        judged = row.get("answer") and row.get("slot")
        question, reply = row.get("question") or "", row.get("reply") or ""
        if wave is not None and audible(wave):
            heard = out["heard"] = self.recogniser(wave)
            if reply:
                found |= error_measures(heard, reply, self.how, "reply_")
            found |= self.quality(wave)
            if like is not None:
                found |= self._resembles(wave, like)
                if reply:
                    out["synthesiser_heard"] = self.recogniser(like)
                    found |= error_measures(out["synthesiser_heard"], reply, self.how, "synthesiser_")
        elif reply and wave is not None:  # a reply of which nothing can be heard
            out["heard"] = ""
            found |= error_measures("", reply, self.how, "reply_")
        if judged:
            right = out["heard"] is not None and is_right(out["heard"], row["answer"], row["slot"], by_recogniser=True)
            found["right_by_ear"] = [right, 1]
        if self.grader is not None and question:
            question = _with_past(row)
            for name, text in (("text", reply), ("speech", out["heard"])):
                if text is not None:
                    content, style = self.grader.content_and_style(question, text)
                    found |= {f"content_{name}": [content, 1], f"style_{name}": [style, 1]}
        return out

    def quality(self, wave: np.ndarray) -> dict[str, list[float]]:
        """How it sounds, by everything that needs no reference and that can measure it; nothing of silence."""
        if not audible(wave):
            return {}
        found = unreferenced(wave)
        if self._utmos is not None and math.isfinite(score := self._utmos(wave)):
            found["utmos"] = [score, 1.0]
        return found

    def _resembles(self, wave: np.ndarray, like: np.ndarray) -> dict[str, list[float]]:
        if self.speaker is None or not audible(like):
            return {}
        similarity = float(self.speaker(wave) @ self.speaker(like))
        return {"similarity": [similarity, 1.0]} if math.isfinite(similarity) else {}


def _with_past(row: Row) -> str:
    """The question as a judge reads it: behind the system prompt and what was said before it."""
    before = [f"System prompt: {row['system']}"] if row.get("system") else []
    before += [f"User: {question}\nAssistant: {reply}" for question, reply in row.get("past") or ()]
    return "\n".join([*before, f"User: {row['question']}"]) if before else str(row["question"])


def load_utmos(folder: str) -> Callable[[np.ndarray], float]:
    """UTMOS from a folder (or hub id) that `duologue import utmos22-strong` wrote: (n,) at 16 kHz -> 1 to 5.

    Raises DuologueError where there is none.
    """
    import torch

    from ....checkpoints.parts import load_part
    from ....model.quality.utmos import SHORTEST, UTMOS, UTMOSConfig

    network = load_part(folder, "utmos", UTMOSConfig, UTMOS)

    def score(waveform: np.ndarray) -> float:
        with torch.inference_mode():
            wave = torch.from_numpy(np.pad(waveform, (0, max(0, SHORTEST - len(waveform)))))
            return float(network(wave[None])[0])

    return score
