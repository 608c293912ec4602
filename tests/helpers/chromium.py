"""The page in a real browser: Chromium without a window, whose microphone is a file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from duologue.data_prep.audio import read_audio, write_wav
from duologue.demo.page.page import ASSETS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")
# Besides running headless as any user: without these, Chromium asks its maker's hosts for things of its own.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip
PATIENCE = 150_000  # ms, for a busy machine


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser whose microphone hears, again and again: a question; while the answer is spoken, another; silence."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian package chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    spoken = folder / "question.wav"
    question, quiet = read_audio(ASSETS / "examples/plus.flac"), np.zeros(16_000, np.float32)
    write_wav(spoken, np.concatenate([quiet, question, *3 * [quiet], question, *9 * [quiet]]), 16_000)
    with playwright.sync_playwright() as driver:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={spoken}"]
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@contextmanager
def visitor(
    browser: Browser, address: str, allowed: tuple[str, ...] = (), script: str = "", **context: Any
) -> Iterator[tuple[Page, Callable[[], Page]]]:
    """A fresh visitor's tab, and what opens another one. Afterwards, no request has left this machine and no script has
    failed.

    allowed: parts of messages of the console that belong to the test. script: runs before the page's own.
    """
    # wait_for_function evaluates text, which our policy forbids
    here = browser.new_context(permissions=["microphone"], bypass_csp=True, **context)
    asked: list[str] = []
    failed: list[str] = []

    def open_() -> Page:
        page = here.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda message: failed.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.wait_for_function("window.recordings && !document.querySelector('#live-text').disabled")
        return page

    if script:
        here.add_init_script(script)
    yield open_(), open_
    here.close()
    hosts = {urlsplit(url).hostname for url in asked if urlsplit(url).scheme not in ("blob", "data")}
    assert asked and hosts == {urlsplit(address).hostname}
    assert not [text for text in failed if not any(part in text for part in allowed)]
