"""A report as a person meets it: in a browser, light and dark, without a network; and what its lines say."""

from __future__ import annotations

import base64
import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from duologue.inference.evaluation.metrics.statistics import Better, Metric, Statistic, evaluate
from duologue.inference.evaluation.metrics.words import Aligned
from duologue.inference.evaluation.report.page import Section, aligned, conclusion, example, player, table
from duologue.inference.evaluation.report.plots import bars, curves, histogram, number
from duologue.inference.evaluation.report.reporting import finish, from_json, ranked

WER = Metric(
    key="wer", name="Word <error> rate", unit="%", better=Better.LOWER, reference=(0.108, "another & its test")
)

PLAY = """(async () => {
  const audio = document.querySelector('audio');
  audio.muted = true;
  await audio.play();
  return audio.duration;
})()"""


def test_a_long_recording_has_a_player() -> None:
    """Of more than two minutes at once, libvorbis ended the process (a stack overflow)."""
    head, _, data = player(np.zeros(150 * 16_000, np.float32)).partition("base64,")
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data.partition('"')[0])))
    assert "audio" in head and len(sound) == 150 * rate


def rows(count: int = 40) -> list[dict[str, Any]]:
    return [
        {"id": str(at), "failed": None, "measures": {"wer": [at % 3, 10], "ms": [100 + at, 1]}} for at in range(count)
    ]


def report(folder: Path) -> str:
    wave = 0.1 * np.sin(np.arange(16_000) / 20).astype(np.float32)
    delay = Metric(key="ms", name="Delay", unit="ms", better=Better.LOWER, statistic=Statistic.P95)
    body = bars([("a", 0.5, 0.4, 0.6), ("b", None, None, None)], "%") + histogram([1.0, 2.0, 2.5], "x", "ms")
    body += curves({"one": [(1, 2), (3, 4)], "two": [(1, 1), (3, 9)]}, "x", "y", logarithmic=True)
    steps = [Aligned("substitute", "<b>cat</b>", "hat")]
    sections = [
        Section(title="Plots", body=body),
        Section(title="Best", body=example([("a", "<i>")], {"s": wave}, aligned(steps))),
    ]
    broken = {"id": "x.wav", "failed": "x.wav is <empty>"}
    settings = {"suite": "test", "seed": 0}
    found = [*rows(), broken]
    finish(folder, "A <report>", settings=settings, metrics=(WER, delay), rows=found, sections=sections, quiet=True)
    return (folder / "report.html").read_text()


def test_everything_is_inside_and_text_is_text(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "http" not in page and "<script" not in page and "url(" not in page and "@import" not in page
    for text in ("A &lt;report&gt;", "Word &lt;error&gt; rate", "another &amp; its test", "x.wav is &lt;empty&gt;",
                 "<del>&lt;b&gt;cat&lt;/b&gt;</del>"):  # fmt: skip
        assert text in page
    summary = (tmp_path / "summary.md").read_text()
    assert "| Delay | 137 ms |" in summary and "x.wav is <empty>" in summary


def test_lines() -> None:
    found = evaluate(WER, rows())
    assert found.value == pytest.approx(0.0975) and conclusion(found).startswith("cannot be told from 10.8 %")
    good = evaluate(WER, [{"measures": {"wer": [at % 2, 100]}} for at in range(40)])
    assert conclusion(good) == "better than 10.8 %, another & its test"
    assert conclusion(evaluate(WER, [])) == "not measured"
    mos = Metric(key="wer", name="x", unit="MOS")
    assert conclusion(evaluate(mos, [{"measures": {"wer": [2.61, 1]}}])) == "between poor (2) and fair (3)"
    fractions = Metric(key="wer", name="x", unit="%")
    few = evaluate(fractions, [{"measures": {"wer": [at % 2, 1]}} for at in range(4)])
    assert conclusion(few).endswith("too few for more than a guess")
    assert [number(v, u) for v, u in ((0.123, "%"), (1234.5, "ms"), (0.0123, ""), (None, "s"), (2.345, "MOS"))] == [
        "12.3 %", "1234 ms", "0.012", "–", "2.35"
    ]  # fmt: skip
    assert [row["id"] for row in ranked(rows(4), "wer", Better.LOWER)] == ["0", "3", "1", "2"]
    p95 = Metric(key="compute_delay_ms", name="x", statistic=Statistic.P95)
    assert from_json(evaluate(p95, []).to_json()) == p95 and from_json(found.to_json()) == WER
    assert 'class="number"' in table(("a", "b"), [("x", "1")], (1,))


@pytest.mark.browser
def test_in_a_browser(tmp_path: Path) -> None:
    sync = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    report(tmp_path)
    with sync.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        ink = {}
        for scheme in ("light", "dark"):
            context = browser.new_context(color_scheme=scheme, viewport={"width": 400, "height": 800}, offline=True)
            page, problems = context.new_page(), []
            page.on("console", lambda message, seen=problems: seen.append(message.text))
            page.on("pageerror", lambda error, seen=problems: seen.append(str(error)))
            page.goto(f"file://{tmp_path}/report.html")
            ink[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert page.evaluate("document.documentElement.scrollWidth") <= 400, "it fits a telephone"
            assert page.locator("svg.plot").count() == 3 and not problems
            assert page.evaluate(PLAY) == pytest.approx(1.0, abs=0.05)
            context.close()
        browser.close()
    assert ink["light"] == "rgb(255, 255, 255)" and ink["dark"] != ink["light"]
