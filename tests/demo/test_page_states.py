"""What a visitor meets: states seen and announced, the microphone given back, what was written kept, limits said."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("fastapi")
from chromium import chromium, visitor
from running_server import ENGINE, Running, running, wait
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.demo.page.page import ASSETS, create_page
from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.workers.pool import WorkerPoolConfig

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
# What is announced, and the microphones that were opened, from the beginning on.
WATCHING = """
window.announced = []; window.captions = []; window.opened = [];
addEventListener("DOMContentLoaded", () => {
  const watch = (id, seen) => new MutationObserver(() => seen(document.getElementById(id).textContent))
    .observe(document.getElementById(id), { childList: true, characterData: true, subtree: true });
  watch("live-state", (text) => window.announced.push(text));
  watch("live-caption", (text) => {
    const { speaker } = window.duologue;
    const put = speaker.playing.reduce((sum, { samples }) => sum + samples, 0) + [...speaker.over.values()].at(-1);
    window.captions.push({ text, played: [...speaker.played.values()].at(-1), put });
  });
});
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await open(wanted);
  window.opened.push(...stream.getTracks());
  return stream;
};
"""
LIVE = "window.opened.filter((track) => track.readyState === 'live').length"


def server(**config: Any) -> Any:
    given = ServeConfig(**{"model": "tiny", "pool": ENGINE, **config})
    return running(given, app=create_page(given, tiny_assistant(), Loudness()), speed=1.0)


@pytest.fixture(scope="module")
def found() -> Iterator[Running]:
    with server() as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("microphone")) as started:
        yield started


@pytest.fixture
def tabs(browser: Any, found: Running) -> Iterator[Callable[[], Page]]:
    with visitor(browser, found.url, script=WATCHING) as (first, open_):
        left = [first]
        yield lambda: left.pop() if left else open_()


def write(tab: Page, text: str = "what is 3 plus 4") -> None:
    tab.get_by_label("Or write", exact=True).fill(text)
    tab.keyboard.press("Enter")


def state(tab: Page, name: str) -> None:
    tab.locator("#live-state").get_by_text(name, exact=True).wait_for()


def talking(tab: Page) -> None:
    tab.get_by_role("button", name="Start talking").click()
    tab.get_by_role("button", name="Stop", exact=True).wait_for()


def test_states_are_announced_and_captions_follow_the_voice(tabs: Callable[[], Page]) -> None:
    tab = tabs()
    assert tab.get_by_role("status").filter(has_text="Ready").count() == 1
    write(tab)
    tab.locator(".turn.assistant p").get_by_text(SAID, exact=True).wait_for()
    state(tab, "Ready")
    assert [name for name, _ in itertools.groupby(tab.evaluate("announced"))] == [
        "Connecting", "Thinking", "Speaking", "Ready",
    ]  # fmt: skip
    seen = [each for each in tab.evaluate("captions") if each["text"]]
    texts = [each["text"] for each in seen]
    assert len(set(texts)) > 2 and texts[-1] == SAID
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert all(each["played"] > 0 for each in seen) and seen[0]["text"] == SAID.split()[0]
    assert seen[-1]["played"] > 0.6 * seen[-1]["put"], "the last word is not shown before it is said"


def test_a_word_is_shown_when_it_is_said(tabs: Callable[[], Page]) -> None:
    """However early its text comes: by the pace of the last answer or, once all its sound has come, by its length."""
    text = "one two three four five six seven eight nine ten"
    seen = tabs().evaluate(
        """async (text) => {
          const { Captions } = await import("./page-assets/live/captions.js");
          const seen = [];
          let second = 0;
          const captions = new Captions((item, shown) => seen.push([item, shown, second]));
          for (const [item, ahead] of [["first", 0], ["as it comes", 0], ["at once", 8]]) {
            captions.write(item, text);
            captions.sound(item, 24000 * ahead);
            if (ahead) captions.complete(item, text, 0);
            for (second = 0; second <= 8; second += 0.25) {
              if (!ahead && second < 8) captions.sound(item, 6000);
              if (!ahead && second === 8) captions.complete(item, text, 24000 * second);
              captions.follow(new Map([[item, 24000 * second]]));
            }
          }
          return seen;
        }""",
        text,
    )
    for item in ("as it comes", "at once"):
        shown = [(words, second) for which, words, second in seen if which == item]
        assert [words for words, _ in shown] == [text[: end.start()] for end in re.finditer(r"( |$)", text)]
        for words, second in shown:
            said = words.rfind(" ") / len(text) * 8  # where the last of them begins
            assert said - 0.3 <= second <= said + 0.7, (item, words, second)


def test_the_circle_interrupts_and_the_transcript_is_saved(tabs: Callable[[], Page]) -> None:
    """What was heard of the answer is what the server remembers of it."""
    tab = tabs()
    write(tab)
    circle = tab.get_by_role("button", name="Stop the answer")
    assert circle.get_attribute("id") == "live-orb"
    tab.wait_for_function("orb = document.querySelector('#live-orb'), !orb.disabled && !orb.click()")  # at once
    tab.wait_for_function("announced.includes('Interrupted')")
    assert not tab.evaluate("window.duologue.speaker.audible")
    tab.locator(".turn[data-cut]").wait_for()
    tab.wait_for_function("!window.duologue.response")
    state(tab, "Ready")
    said = tab.locator(".turn[data-cut] p").inner_text().removesuffix("—").strip()
    assert SAID.startswith(said) and said != SAID
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Save transcript").click()
    assert re.fullmatch(r"duologue-[\d-]+\.txt", download.value.suggested_filename)
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("A conversation with tiny, ") and lines[2].endswith(" You: what is 3 plus 4")
    assert "Duologue (interrupted): " in lines[3] and lines[3].endswith(f"{said} —".strip())


def test_muted_it_hears_nothing_and_stopped_the_microphone_is_given_back(tabs: Callable[[], Page]) -> None:
    tab = tabs()
    talking(tab)
    tab.wait_for_function("window.duologue.measured.level > 0.02")
    mute = tab.get_by_role("button", name="Mute")
    mute.click()
    state(tab, "Muted")
    assert mute.get_attribute("aria-pressed") == "true"
    tab.wait_for_function("window.duologue.measured.level === 0")
    assert tab.evaluate("window.opened.map((track) => track.enabled)") == [False]
    mute.click()
    tab.wait_for_function("window.duologue.measured.level > 0.02")
    assert tab.evaluate(LIVE) == 1
    tab.get_by_role("button", name="Stop", exact=True).click()
    assert tab.evaluate(LIVE) == 0
    tab.wait_for_function("document.querySelector('#live-mute').disabled")
    talking(tab)
    assert tab.evaluate(LIVE) == 1
    tab.get_by_role("tab", name="Audio analysis").click()
    assert tab.evaluate(LIVE) == 0
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.get_by_role("button", name="Stop", exact=True).wait_for()
    assert tab.evaluate(LIVE) == 1
    tab.get_by_role("tab", name="Conversation").click()
    assert tab.evaluate(LIVE) == 0


def test_a_new_conversation_forgets_the_last_one_here_and_there(tabs: Callable[[], Page], found: Running) -> None:
    tab = tabs()
    write(tab)
    state(tab, "Speaking")
    tab.get_by_label("Or write", exact=True).fill("not sent yet")
    tab.get_by_role("button", name="New conversation").click()
    state(tab, "Ready")
    assert tab.locator(".turn").count() == 0 and not tab.evaluate("window.duologue.speaker.audible")
    (session,) = found.service.sessions
    wait(lambda: session.conversation.response is None and not list(session.items))
    assert tab.get_by_label("Or write", exact=True).input_value() == "not sent yet"
    tab.get_by_role("button", name="Send").click()
    tab.locator(".turn.assistant p").get_by_text(SAID, exact=True).wait_for()
    assert tab.locator(".turn p").all_inner_texts() == ["not sent yet", SAID]
    assert tab.locator("#live-problem").inner_text() == ""


def test_a_lost_connection_loses_no_text_and_goes_on_where_it_was(tabs: Callable[[], Page], found: Running) -> None:
    tab = tabs()
    write(tab, "what is 3 plus 4")
    tab.locator(".turn.assistant p").get_by_text(SAID, exact=True).wait_for()
    state(tab, "Ready")
    tab.evaluate("window.duologue.connection.send = () => {}")  # it never comes
    write(tab, "and what is 5 plus 6")
    state(tab, "Thinking")
    found.service.sessions.pop().closed.set()  # as where the service has a fault
    tab.get_by_role("alert").filter(has_text="go on where you were").wait_for()
    assert tab.get_by_label("Or write", exact=True).input_value() == "and what is 5 plus 6"
    assert tab.locator(".turn").count() == 2
    tab.evaluate("delete window.duologue.connection.send")
    tab.get_by_role("button", name="Send").click()
    tab.wait_for_function(f"document.querySelector('#live-transcript').innerText.split('{SAID}').length > 2")
    (session,) = found.service.sessions
    assert [item.text for item in session.items] == ["what is 3 plus 4", SAID, "and what is 5 plus 6", SAID]
    assert tab.locator("#live-problem").inner_text() == ""


def test_while_it_listens_a_lost_connection_is_made_again(tabs: Callable[[], Page], found: Running) -> None:
    tab = tabs()
    talking(tab)
    found.service.sessions.pop().closed.set()
    tab.wait_for_function("window.announced.includes('Reconnecting')")
    tab.wait_for_function("window.duologue.connection.open && !window.duologue.step")
    assert tab.evaluate(LIVE) == 1 and len(found.service.sessions) == 1


def test_a_second_tab_may_take_over(tabs: Callable[[], Page]) -> None:
    first, second = tabs(), tabs()
    talking(first)
    first.get_by_label("Or write", exact=True).fill("half a question")
    second.get_by_role("button", name="Start talking").click()
    second.get_by_role("alert").filter(has_text="in another tab").wait_for()
    assert second.evaluate("window.opened.length") == 0
    second.get_by_role("button", name="Talk here instead").click()
    second.get_by_role("button", name="Stop", exact=True).wait_for()
    state(first, "Talking in another tab")
    assert first.evaluate(LIVE) == 0 and second.evaluate(LIVE) == 1
    assert first.get_by_label("Or write", exact=True).input_value() == "half a question"
    second.get_by_role("button", name="Stop", exact=True).click()
    first.get_by_role("button", name="Talk here instead").click()
    first.get_by_role("button", name="Stop", exact=True).wait_for()


def test_a_full_server_says_so_and_the_text_stays(browser: Any) -> None:
    with (
        server(pool=WorkerPoolConfig(sessions=1, late_ms=1e9)) as full,
        full.client().realtime.connect(model="tiny") as other,
        visitor(browser, full.url, allowed=("WebSocket", "503")) as (tab, _),
    ):
        other.recv()
        write(tab)
        state(tab, "Every place is taken")
        tab.get_by_role("alert").filter(has_text=re.compile(r"Try again in \d+ (seconds|minutes)")).wait_for()
        assert tab.get_by_label("Or write", exact=True).input_value() == "what is 3 plus 4"
        other.close()
        wait(lambda: not full.service.sessions)
        tab.get_by_role("button", name="Send").click()
        tab.locator(".turn.assistant p").get_by_text(SAID, exact=True).wait_for()
        assert tab.get_by_label("Or write", exact=True).input_value() == ""


def test_why_there_is_no_microphone(browser: Any, found: Running) -> None:
    denied = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'))"
    with visitor(browser, found.url, script=denied) as (tab, _):
        tab.get_by_role("button", name="Start talking").click()
        state(tab, "The microphone is blocked")
        tab.get_by_role("alert").filter(has_text="Allow it for this page").wait_for()
        wait(lambda: not found.service.sessions)  # nor is a place on the server taken


def test_a_microphone_that_wants_its_own_rate_is_resampled(browser: Any, found: Running) -> None:
    """As in Firefox, whose microphone is let only into a context of its own rate."""
    script = """
    const open = AudioContext.prototype.createMediaStreamSource;
    AudioContext.prototype.createMediaStreamSource = function (stream) {
      if (this.sampleRate === 24000) throw new DOMException("another rate", "NotSupportedError");
      window.rate = this.sampleRate;
      return open.call(this, stream);
    };
    navigator.mediaDevices.getUserMedia = async () => {
      const to = new AudioContext({ sampleRate: 44100 }).createMediaStreamDestination();
      const tone = new OscillatorNode(to.context, { frequency: 1000 });
      tone.connect(to);
      tone.start();
      return to.stream;
    };
    """
    with visitor(browser, found.url, script=script) as (tab, _):
        tab.evaluate("""() => {
          const { listened } = Object.getPrototypeOf(duologue);
          window.heard = [];
          duologue.listened = (data) => (window.heard.push(...data.samples), listened.call(duologue, data));
        }""")
        talking(tab)
        tab.wait_for_function("window.heard.length > 60000")
        assert tab.evaluate("window.rate") != 24_000
        wave = np.array(tab.evaluate("window.heard.slice(-24000)"))
        assert np.argmax(np.abs(np.fft.rfft(wave * np.hanning(len(wave))))) in range(998, 1_003)


def test_devices_are_chosen_and_remembered(tabs: Callable[[], Page]) -> None:
    tab = tabs()
    tab.get_by_text("Settings").click()
    talking(tab)
    choice = tab.get_by_label("Microphone")
    tab.wait_for_function("document.querySelector('#live-input').options.length > 1")
    choice.select_option(index=1)
    tab.wait_for_function("window.opened.length === 2")
    wanted = choice.input_value()
    assert tab.evaluate("window.opened[1].getSettings().deviceId") == wanted and tab.evaluate(LIVE) == 1
    again = tabs()
    again.wait_for_function("document.querySelector('#live-input').options.length > 1")
    assert again.locator("#live-input").input_value() == wanted


def test_several_files_and_their_limits(browser: Any, tmp_path: Path) -> None:
    """Of any kind, a browser's own recording among them; what the server would refuse is not sent."""
    with server() as found, visitor(browser, found.url) as (tab, _):
        sent: list[str] = []
        sounds = 0

        def count_sounds(frame: str | bytes) -> None:
            nonlocal sounds
            sounds += str(frame).count('"input_audio"')

        tab.on("request", lambda request: sent.append(request.url) if "/page/recording" in request.url else None)
        tab.on("websocket", lambda socket: socket.on("framesent", count_sounds))
        tab.get_by_role("tab", name="Audio analysis").click()
        tab.evaluate("""async () => {
          const to = new AudioContext().createMediaStreamDestination();
          const tone = new OscillatorNode(to.context);
          tone.connect(to);
          tone.start();
          const recorder = new MediaRecorder(to.stream);
          const pieces = [];
          recorder.ondataavailable = ({ data }) => pieces.push(data);
          const over = new Promise((done) => (recorder.onstop = done));
          recorder.start(100);
          while (pieces.length < 8) await new Promise((later) => setTimeout(later, 50));
          recorder.stop();
          await over;
          window.recordings.chosen.add([new File(pieces, "own.webm")]);
        }""")
        tab.locator("#chosen li").wait_for()
        tab.locator("#file").set_input_files([ASSETS / "examples/hello.flac", ASSETS / "examples/day.flac"])
        tab.locator("#chosen li").nth(2).wait_for()
        assert tab.locator("#chosen .name").all_inner_texts() == ["own.webm", "hello.flac", "day.flac"]
        tab.get_by_role("button", name="Remove own.webm").click()
        tab.get_by_role("button", name="Ask", exact=True).click()
        tab.locator("#conversation").get_by_text(SAID).wait_for()
        assert sounds == 2 and HEARD in tab.locator("#conversation").inner_text()
        large, count = tmp_path / "large.wav", len(sent)
        large.write_bytes(bytes((32 << 20) + 1))
        tab.locator("#file").set_input_files(large)
        tab.get_by_role("alert").filter(has_text="at most 32 MB are read").wait_for()
        assert len(sent) == count
        assert "32 MB a file and 10 minutes together" in tab.locator("#panel-recordings").inner_text()
        tab.evaluate("import('./page-assets/service.js').then(({ limits }) => (limits.seconds = 4))")
        tab.locator("#file").set_input_files([large, ASSETS / "examples/plus.flac"])
        tab.get_by_role("alert").filter(has_text="plus.flac: With it the recordings have").wait_for()
        assert tab.locator("#chosen li").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_state_can_be_used_by_everybody(browser: Any, found: Running, scheme: str) -> None:
    """axe-core finds nothing in any state, with settings and details open; nothing moves for those who want it so;
    a small phone is wide enough."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with visitor(browser, found.url, script=WATCHING, color_scheme=scheme, reduced_motion="reduce") as (tab, _):
        tab.set_viewport_size({"width": 320, "height": 640})
        for summary in ("Settings", "Details"):
            tab.get_by_text(summary, exact=True).first.click()

        def check() -> None:
            violations = axe.run(tab).response["violations"]
            assert [(each["id"], [node["html"][:150] for node in each["nodes"]]) for each in violations] == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= 320
            assert tab.evaluate("document.getAnimations().length") == 0

        check()
        write(tab)
        tab.locator(".turn.assistant p").get_by_text(SAID, exact=True).wait_for()
        for name in ("connecting", "listening", "thinking", "speaking", "interrupted", "muted"):
            tab.evaluate(f"Object.defineProperty(duologue, 'state', {{ value: '{name}', configurable: true }})")
            tab.locator(f"#stage[data-state={name}]").wait_for()
            check()
        tab.evaluate("delete duologue.state; duologue.yielded()")
        state(tab, "Talking in another tab")
        check()
