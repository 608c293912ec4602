"""An encoder layer by layer, beside random weights and log-mel: what `duologue train probe` has measured.

Word and character error rates by layer, beside those of random weights and of the log-mel; which layer is best; and by
how much it is better than the best of either, over the same clips, by paired bootstrap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....checkpoints.files import read_json
from ....model.errors import DuologueError
from ..metrics.statistics import Better, Finding, Metric, compare, evaluate
from ..report.page import Section, table
from ..report.plots import curves, interval, number
from ..report.reporting import finish
from ..report.run_folder import open_folder

FILE = "probe.json"
_KINDS = {"wer": "Word error rate", "cer": "Character error rate"}


def run(*, data: Path, out: Path, seed: int = 0, quiet: bool = False) -> dict[str, Any]:
    """Write report.json, report.html and summary.md about the run in ``data`` into ``out``.

    Raises:
        DuologueError: ``data`` is no run of `probe` that has got to its first save.
    """
    path = data / FILE
    if not path.is_file():
        raise DuologueError(f"{data} has no {FILE}: duologue train probe source=… out={data} writes it")
    found = read_json(path)
    try:
        rows = [
            row | {"id": f"{name}/{row['id']}", "set": name} for name, rows in found["sets"].items() for row in rows
        ]
        layers, source = int(found["layers"]), found["source"] or "random weights"
    except (ValueError, KeyError, TypeError) as error:
        raise DuologueError(f"{path} cannot be read ({error!r}): train the probe again") from None
    if not rows:
        raise DuologueError(f"{path} has no clips: give the recipe probe dev_data=…")
    head = f"{found['hidden']} wide, reach {found['reach']}" if found["hidden"] else "linear"
    settings = {"suite": "probe", "data": str(data), "source": source, "head": head, "seed": seed}
    folder = open_folder(out, settings)
    details = {name: _summary([row for row in rows if row["set"] == name], layers, seed) for name in found["sets"]}
    metrics = [_metric(kind, head) for kind in _KINDS for head in _heads(layers)]

    def sections(_: Any, findings: list[Finding]) -> list[Section]:
        return _sections(findings, details, layers)

    return finish(folder, "Probes", settings, metrics, rows, sections, details=details, quiet=quiet)


def _heads(layers: int) -> list[str]:
    return ["mel", *(f"{kind}_{layer}" for kind in ("random", "trained") for layer in range(layers + 1))]


def _metric(kind: str, head: str) -> Metric:
    which, _, layer = head.partition("_")
    name = {"mel": "log-mel", "random": f"random weights, layer {layer}", "trained": f"layer {layer}"}[which]
    return Metric(key=f"{kind}_{head}", name=f"{_KINDS[kind]}, {name}", unit="%", better=Better.LOWER)


def _summary(rows: list[dict[str, Any]], layers: int, seed: int) -> dict[str, Any]:
    """Of one held-out set: the best layer by word errors, and its lead on log-mel and on the best of random weights."""
    by_id = {row["id"]: row for row in rows}
    summary: dict[str, Any] = {}
    for kind in _KINDS:
        value = {head: evaluate(_metric(kind, head), rows, seed).value or 0.0 for head in _heads(layers)}
        if not summary:  # words decide
            best, baseline = (_lowest(value, which) for which in ("trained", "random"))
            summary = {"best_layer": int(best.partition("_")[2]), "clips": len(rows)}
        for name, other in (("log-mel", "mel"), ("random weights", baseline)):
            metric = Metric(key="errors", name=_KINDS[kind], unit="%", better=Better.LOWER)
            a, b = ({k: _only(row, f"{kind}_{head}") for k, row in by_id.items()} for head in (other, best))
            lead = compare(metric, a, b, seed)
            summary[f"{kind} against {name}"] = {
                "theirs": lead.a, "best": lead.b, "low": lead.low, "high": lead.high, "p": lead.p
            }  # fmt: skip
    return summary


def _lowest(value: dict[str, float], which: str) -> str:
    return min((head for head in value if head.startswith(which)), key=value.__getitem__)


def _only(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {"id": row["id"], "measures": {"errors": row["measures"][key]}}


def _sections(findings: Any, details: dict[str, dict[str, Any]], layers: int) -> list[Section]:
    value = {found.metric.key: found for found in findings}
    out = []
    for kind, name in _KINDS.items():
        lines = {
            which: [(float(layer), 100 * _value(value, f"{kind}_{key}_{layer}")) for layer in range(layers + 1)]
            for which, key in (("this encoder", "trained"), ("random weights", "random"))
        }
        level = 100 * _value(value, f"{kind}_mel")
        lines["log-mel"] = [(0.0, level), (float(layers), level)]
        out.append(Section(title=f"{name} by layer", body=curves(lines, "blocks of the encoder", f"{name} (%)")))
    rows = [
        (name, str(summary["best_layer"]), what, number(lead["theirs"], "%"),
         number(lead["best"], "%"), interval(lead["low"], lead["high"], "%"))
        for name, summary in details.items()
        for what, lead in summary.items()
        if isinstance(lead, dict)
    ]  # fmt: skip
    columns = ("held-out set", "best layer", "measure", "theirs", "best layer's", "difference, 95 %")
    return [*out, Section(title="The best layer's lead", body=table(columns, rows, (1, 3, 4, 5)))]


def _value(findings: dict[str, Finding], key: str) -> float:
    found = findings[key].value
    return 0.0 if found is None else found
