"""The voices of a model: whether they can be told apart, are understood alike, and keep their pitch at other speeds.

Each sentence is read aloud in each voice, at speed 1 and at the others.

    told apart      a speaker encoder's vector of a clip (Resemblyzer; Wan et al. 2018, arXiv 1710.10467) lies nearest
                    to the centroid of the same voice's other clips
    word errors     what a recogniser hears, at each speed
    pitch           by how much the median of a clip differs from that at speed 1

The language model is run once a sentence: voices and speeds are the vocoder's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ....checkpoints.files import lines, read_text
from ....checkpoints.recognisers.recogniser import ENGLISH, find_recogniser, usual_recogniser
from ....data_prep.audio import read_audio
from ....data_prep.speech.pitch import pitch
from ....model.decoding.reply import units_of
from ....model.errors import DuologueError
from ....model.speech_decoder.unit_vocoder import UnitVocoder
from ...assistant.assistant import Assistant
from ...assistant.text_stream import said_ids
from ...assistant.voices import check_voice, voices_of
from ..inputs.questions import BUNDLED, questions_of
from ..metrics.quality import SpeakerEncoder
from ..metrics.statistics import Better, Metric, Statistic, evaluate
from ..metrics.words import error_measures, usual_normaliser
from ..report.page import Section, table
from ..report.plots import number
from ..report.reporting import finish, good_rows
from ..report.run_folder import Row, loaded, open_folder, resume_rows

RATE = 16_000
_SPEEDS = (0.8, 1.25)
_PAUSE = np.zeros(RATE // 2, np.float32)  # behind each sentence
TOLD_APART = Metric(key="told_apart", name="Voices told apart", unit="%", reference=(0.95, "bar"))


def run(
    *,
    out: Path,
    model: str | Assistant = BUNDLED,
    data: Path | None = None,
    voices: str | None = None,
    sentences: int = 30,
    together: int = 1,
    speeds: tuple[float, ...] = _SPEEDS,
    recogniser: str | None = None,
    language: str = ENGLISH,
    seed: int = 0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure and write the reports into ``out``.

    Args:
        data: a text, a sentence a line; None: answers of the bundled question set, of its test split.
        voices: names with commas between; None: all that the model has.
        together: sentences that are heard in one recording: a recogniser of windows of 30 s is then done sooner.
        speeds: beside 1.
        recogniser: see :func:`find_recogniser`; language: of the sentences (ISO 639).

    Raises:
        DuologueError: a model without a unit vocoder, an unknown voice, no sentences, or no such recogniser.
    """
    assistant, source = loaded(model)
    speech = assistant.model.speech
    if speech is None or not isinstance(speech.vocoder, UnitVocoder):
        raise DuologueError("voices are those of a unit vocoder; this model has none")
    names = list(voices_of(assistant.model)) if voices is None else [name.strip() for name in voices.split(",")]
    for name in names:
        check_voice(assistant.model, name)
    slowest, fastest = speech.speeds
    if wrong := [speed for speed in speeds if not slowest <= speed <= fastest or speed == 1]:
        range_ = f"{slowest:g} to {fastest:g}, and 1 is measured anyway"
        raise DuologueError(f"speeds has {wrong[0]:g}; this model speaks at {range_}")
    if together < 1:
        raise DuologueError(f"together is {together}; it must be at least 1")
    texts = _sentences(data, sentences, seed)
    recogniser = recogniser or usual_recogniser()
    settings = {
        "suite": "voices", "model": source, "data": None if data is None else str(data), "voices": names,
        "sentences": len(texts), "together": together, "speeds": list(speeds), "recogniser": recogniser,
        "language": language, "seed": seed,
    }  # fmt: skip
    folder = open_folder(out, settings)
    understood, speaker = find_recogniser(recogniser, language), SpeakerEncoder()
    how = usual_normaliser(language, "english")
    units: dict[str, torch.Tensor] = {}

    def read(at: int, item: tuple[list[str], str]) -> Row:
        group, name = item
        if not units.keys() >= set(group):
            units.clear()
            units.update((text, _units(assistant, text)) for text in group)
        row: Row = {"text": " ".join(group), "voice": name, "heard": {}, "measures": {}}
        usual = 0.0
        for speed in (1.0, *speeds):
            waves = [_spoken(assistant, units[text], name, speed) for text in group]
            wave = np.concatenate([piece for each in waves for piece in (each, _PAUSE)])
            heard = row["heard"][f"{speed:g}"] = understood(wave)
            row["measures"][f"wer_{speed:g}"] = error_measures(heard, row["text"], how).get("wer", [0, 0])
            if (hertz := _median(wave)) is None:
                raise DuologueError(f"nothing is voiced in the voice {name!r} at speed {speed:g}: {row['text']!r}")
            if speed == 1:
                row["embeddings"] = [speaker(each).round(5).tolist() for each in waves]
                row["hertz"] = usual = hertz
            else:
                row["measures"][f"pitch_{speed:g}"] = [abs(hertz / usual - 1), 1]
        return row

    groups = [texts[at : at + together] for at in range(0, len(texts), together)]
    items = [(group, name) for group in groups for name in names]
    rows = resume_rows(folder / "read.jsonl", "reading", items, read, quiet, lambda item: f"{item[1]}: {item[0][0]}")
    good = good_rows(rows)
    if len(names) > 1:
        _tell_apart(good)
    metrics = (
        TOLD_APART,
        *(Metric(key=f"wer_{s:g}", name=f"Word error rate at speed {s:g}", unit="%", better=Better.LOWER)
          for s in (1.0, *speeds)),
        *(Metric(key=f"pitch_{s:g}", name=f"Change of pitch at speed {s:g}", unit="%", better=Better.LOWER,
                 statistic=Statistic.P50) for s in speeds),
    )  # fmt: skip
    parts = [(name, [evaluate(metric, [row for row in good if row["voice"] == name], seed) for metric in metrics])
             for name in names]  # fmt: skip
    hertz = {name: float(np.median([row["hertz"] for row in good if row["voice"] == name] or [0])) for name in names}
    shown = [(name, f"{hertz[name]:.0f}", *(number(each.value, each.metric.unit) for each in found))
             for name, found in parts]  # fmt: skip
    columns = ("voice", "Hz", *(metric.name for metric in metrics))
    sections = [Section(title="By voice", body=table(columns, shown, tuple(range(1, len(columns)))))]
    for row in rows:
        row.pop("embeddings", None)
    return finish(folder, "Voices", settings, metrics, rows, sections, details={"hertz": hertz}, parts=parts,
                  quiet=quiet)  # fmt: skip


def _sentences(data: Path | None, count: int, seed: int) -> list[str]:
    if data is None:
        found = [dialogue.answer for dialogue in questions_of(BUNDLED, seed, count)]
        return list(dict.fromkeys(found))
    found = [line.strip() for line in lines(read_text(data)) if line.strip()]
    if not found:
        raise DuologueError(f"{data} has no sentences; a line is one")
    chosen = np.random.default_rng(seed).permutation(len(found))[:count]
    return [found[at] for at in sorted(chosen.tolist())]


@torch.inference_mode()
def _units(assistant: Assistant, text: str) -> torch.Tensor:
    """The units (1, U) of a sentence that is read aloud."""
    return units_of(assistant.model, said_ids(assistant.tokenizer, assistant.model.layout, text))


@torch.inference_mode()
def _spoken(assistant: Assistant, units: torch.Tensor, voice: str, speed: float) -> np.ndarray:
    """The samples (n,) of units (1, U) at RATE, in a voice and at a speed."""
    speech = assistant.model.speech
    assert speech is not None and isinstance(speech.vocoder, UnitVocoder)
    state = speech.init_state(1, speed, voice)
    pcm = speech.sound(units, state)
    whole = torch.cat([pcm, speech.vocoder.flush(state.vocoder)], dim=1)[0]  # type: ignore[arg-type]
    return read_audio((assistant.output_rate, whole.float().cpu().numpy()), RATE)


def _median(wave: np.ndarray) -> float | None:
    hertz = pitch(wave, RATE, RATE // 100)
    return float(np.median(hertz[hertz > 0])) if (hertz > 0).any() else None


def _tell_apart(rows: Sequence[Row]) -> None:
    """Whether each clip's vector lies nearest to its own voice's, the clip itself left out."""
    names = sorted({row["voice"] for row in rows})
    vectors = {name: np.concatenate([row["embeddings"] for row in rows if row["voice"] == name]) for name in names}
    sums = np.stack([vectors[name].sum(0) for name in names])
    for row in rows:
        own, right = np.array(names)[:, None] == row["voice"], 0
        for vector in np.array(row["embeddings"]):
            others = sums - np.where(own, vector, 0)
            lengths = np.linalg.norm(others, axis=1)
            nearest = np.where(lengths > 0, others @ vector / np.maximum(lengths, 1e-9), -np.inf).argmax()
            right += int(own[nearest, 0])
        row["measures"]["told_apart"] = [right, len(row["embeddings"])]
