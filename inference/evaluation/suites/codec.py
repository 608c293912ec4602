"""Decoded recordings against what went in, pair by pair.

    reference/NAME.wav    what went in
    decoded/NAME.wav      what came out, of any codec
    codes/NAME.json       optional: its codes, a list (or one for each codebook) of integers
    codec.json            optional: {"codebook_size": 4096, "times": {"NAME": seconds for encoding and decoding},
                          "weights": digest of the codec's file of weights}

Names may have folders in them. All is judged at 16 kHz. Utilisation is the fraction of a codebook's entries that occur
at all, perplexity 2 to the entropy of their use, over the whole set; both grow with the amount of speech. With
``recogniser=`` there is the word error rate of the copies against what it hears in the originals: what coding costs.

Source of the measures: WavTokenizer (arXiv 2408.16532), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ....checkpoints.files import read_json, read_object
from ....checkpoints.recognisers.recogniser import find_recogniser
from ....data_prep.audio import read_audio
from ....model.errors import DuologueError
from ..judges.speech import load_utmos
from ..metrics import quality
from ..metrics.quality import RATE, REFERENCED, SIMILARITY, UNREFERENCED, UTMOS
from ..metrics.statistics import Better, Metric
from ..metrics.words import error_measures, usual_normaliser
from ..report.page import Section, example, table
from ..report.plots import bars, number
from ..report.reporting import finish, good_rows, ranked
from ..report.run_folder import Row, open_folder, resume_rows

_SHOWN = 4
_SIDES = {"original": "reference", "copy": "decoded"}  # players of an example, and where their sound is
_WAVTOKENIZER = "WavTokenizer at 75 tokens/s, LibriTTS test-clean"
WER = Metric(key="wer", name="WER of the copies", unit="%", better=Better.LOWER)
METRICS = (
    Metric(key="utmos", name=UTMOS.name, unit=UTMOS.unit, reference=(4.05, _WAVTOKENIZER)),
    *UNREFERENCED,
    *REFERENCED,
    SIMILARITY,
    WER,
    Metric(key="tokens_a_second", name="Tokens a second", better=Better.NEITHER),
    Metric(key="bits_a_second", name="Bits a second", better=Better.NEITHER),
    Metric(key="real_time_factor", name="Real-time factor", better=Better.LOWER),
)
AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm")


def run(
    *,
    data: Path,
    out: Path,
    seed: int = 0,
    utmos: str | None = None,
    recogniser: str | None = None,
    language: str = "en",
    limit: int | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure the pairs in ``data``/reference and ``data``/decoded; write the reports into ``out``.

    A file without its partner, or that cannot be read, is named, counted and in no figure.

    Args:
        recogniser: of the words (see :func:`find_recogniser`), which are of ``language`` (ISO 639); None: no WER.

    Raises:
        DuologueError: ``data`` is no such folder; no such recogniser.
    """
    names = _names(data)[:limit]
    facts = read_object(data / "codec.json") if (data / "codec.json").is_file() else {}
    settings = {"suite": "codec", "data": str(data), "pairs": len(names), "seed": seed, "utmos": utmos,
                "recogniser": recogniser, "weights": facts.get("weights")}  # fmt: skip
    folder = open_folder(out, settings)
    score = None if utmos is None else load_utmos(utmos)
    speaker = quality.speaker_encoder()
    understood = None if recogniser is None else find_recogniser(recogniser, language)
    normaliser = usual_normaliser(language, "english")

    def work(at: int, name: str) -> Row:
        reference, decoded = (_read(data / side, name) for side in ("reference", "decoded"))
        found = quality.referenced(decoded, reference) | quality.unreferenced(decoded)
        if score is not None:
            found["utmos"] = [score(decoded), 1]
        if speaker is not None:
            found["similarity"] = [float(speaker(decoded) @ speaker(reference)), 1]
        words: dict[str, str] = {}
        if understood is not None:
            words = {"original": understood(reference), "copy": understood(decoded)}
            found["wer"] = error_measures(words["copy"], words["original"], normaliser).get("wer", [0, 0])
        seconds = len(reference) / RATE
        books = read_codes(data / "codes" / f"{name}.json")
        if books:
            count = sum(map(len, books))
            found["tokens_a_second"] = [count, seconds]
            if facts.get("codebook_size"):
                found["bits_a_second"] = [count * math.log2(facts["codebook_size"]), seconds]
        if name in facts.get("times", {}):
            found["real_time_factor"] = [float(facts["times"][name]), seconds]
        return {"seconds": seconds, "codes": len(books), "words": words, "measures": found}

    rows = resume_rows(folder / "pairs.jsonl", "measuring", names, work, quiet, str)
    good = good_rows(rows)
    books = [read_codes(data / "codes" / f"{row['id']}.json") for row in good]
    use = codebook_use([book for book in books if book], facts.get("codebook_size"))
    details = {"codebooks": use, "seconds": sum(row["seconds"] for row in good)}
    sections = [*_codebooks(use), *_examples(good, data)]
    return finish(folder, "Codec", settings, METRICS, rows, sections, details=details, quiet=quiet)


def codebook_use(clips: Sequence[list[list[int]]], size: int | None) -> list[dict[str, Any]]:
    """Of each codebook, over all clips: entries used, perplexity, and their fraction of ``size`` where it is known."""
    out = []
    for at in range(max((len(books) for books in clips), default=0)):
        codes = np.concatenate([np.asarray(books[at], np.int64) for books in clips if at < len(books)])
        _, counts = np.unique(codes, return_counts=True)
        fractions = counts / counts.sum()
        entry: dict[str, Any] = {
            "codebook": at,
            "tokens": len(codes),
            "used": len(counts),
            "perplexity": float(2 ** -(fractions * np.log2(fractions)).sum()),
        }
        out.append(entry | {"utilisation": None if not size else len(counts) / size})
    return out


def read_codes(path: Path) -> list[list[int]]:
    """One list a codebook; none where there is no such file. Raises DuologueError when it holds something else."""
    if not path.is_file():
        return []
    try:
        found = read_json(path)
        books = found if found and isinstance(found[0], list) else [found]
        return [[int(code) for code in book] for book in books]
    except (ValueError, TypeError, LookupError):
        raise DuologueError(f"{path} holds no codes: expected a list of integers, or one for each codebook") from None


def _names(data: Path) -> list[str]:
    reference, decoded = data / "reference", data / "decoded"
    if not reference.is_dir() or not decoded.is_dir():
        raise DuologueError(f"{data} is no set of pairs: it must hold the folders reference and decoded")
    names = {
        path.relative_to(side).with_suffix("").as_posix()
        for side in (reference, decoded)
        for path in side.rglob("*")
        if path.suffix.lower() in AUDIO
    }
    if not names:
        raise DuologueError(f"{reference} and {decoded} hold no recordings ({', '.join(AUDIO)})")
    return sorted(names)


def _read(side: Path, name: str) -> np.ndarray:
    for suffix in AUDIO:
        if (side / f"{name}{suffix}").is_file():
            return read_audio(side / f"{name}{suffix}", RATE)
    raise DuologueError(f"there is no {side / name}.wav: each recording needs both sides")


def _codebooks(use: list[dict[str, Any]]) -> list[Section]:
    if not use:
        return []
    columns = ("codebook", "tokens", "entries used", "utilisation", "perplexity")
    rows = [
        (str(e["codebook"]), str(e["tokens"]), str(e["used"]), number(e["utilisation"], "%"), number(e["perplexity"]))
        for e in use
    ]
    plot = bars([(f"codebook {entry['codebook']}", entry["perplexity"], None, None) for entry in use])
    return [Section(title="Codebooks", body=table(columns, rows, (1, 2, 3, 4)) + plot)]


def _examples(rows: list[Row], data: Path) -> list[Section]:
    out = []
    shown = {"pesq", "voicing_f1", "mel_distance"}
    for metric in (UTMOS, WER, *(metric for metric in REFERENCED if metric.key in shown)):
        order = ranked(rows, metric.key, metric.better)
        for title, chosen in (("Worst", order[::-1][:_SHOWN]), ("Best", order[:_SHOWN])):
            cards = []
            for row in chosen:
                amount, weight = row["measures"][metric.key]
                waves = {name: _read(data / side, row["id"]) for name, side in _SIDES.items()}
                lines = [(row["id"], f"{metric.name} {number(amount / weight, metric.unit)}"), *row["words"].items()]
                cards.append(example(lines, waves))
            if cards:
                out.append(Section(title=f"{title} by {metric.name}", body="".join(cards)))
    return out
