"""The page in a real browser: a live conversation with an interruption, recordings, a typed question, a bad file;
nothing leaves this machine."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("fastapi")
from chromium import PATIENCE, chromium, visitor
from running_server import ENGINE, running
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.data_prep.audio import read_audio, write_wav
from duologue.demo.page.page import ASSETS, EXAMPLES, create_page, launch
from duologue.inference.serving.app import ServeConfig
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.voices import Speaker

if TYPE_CHECKING:
    from playwright.sync_api import Page

DURATION = "document.querySelector('{} audio')?.duration"


def test_the_examples_are_recordings() -> None:
    sizes = [(ASSETS / "examples" / file).stat().st_size for _, file, _, _ in EXAMPLES]
    assert len(sizes) >= 5 and sum(sizes) < 300_000
    for _, file, text, _ in EXAMPLES:
        assert 0.05 < len(read_audio(ASSETS / "examples" / file)) / 16_000 / len(text) < 0.15  # s a letter
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_nothing_comes_from_elsewhere_and_every_address_is_relative() -> None:
    """So the page works in any folder of any host."""
    for file in ASSETS.rglob("*"):
        if file.suffix in (".html", ".js", ".css"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"https?://(?!example)", text), file.name
            for address in re.findall(r"""(?:src|href|action)=["']([^"']+)|fetch\(["'`]([^"'`]+)|url\(([^)]+)""", text):
                assert not "".join(address).startswith("/"), (file.name, address)


def test_a_taken_port_is_one_line() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(DuologueError, match=r"cannot serve on 127\.0\.0\.1, port"):
            launch(ServeConfig(model="tiny"), port=taken.getsockname()[1], assistant=tiny_assistant())


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    config = ServeConfig(model="tiny", pool=ENGINE)
    with running(app=create_page(config, tiny_assistant(), Loudness()), speed=1.0) as found:
        yield found.url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with chromium(tmp_path_factory.mktemp("microphone")) as started:
        yield started


@pytest.fixture
def tab(browser, address: str) -> Iterator[object]:  # type: ignore[no-untyped-def]
    with visitor(browser, address, allowed=("status of 400",)) as (page, _):  # a bad upload
        yield page


def spoken(tab, turns: int = 1) -> None:  # type: ignore[no-untyped-def]
    """Wait until the last of some turns is whole: its text, its speech in the player, its figures."""
    tab.wait_for_function(
        f"document.querySelector('#conversation').innerText.split('{SAID}').length > {turns}"
        " && document.querySelector('.player').dataset.state === 'ready'"
        f" && {DURATION.format('#reply-speech')} > 1"
        " && /\\d ms/.test(document.querySelector('#figures').textContent)"
    )


@pytest.mark.browser
def test_a_live_conversation_with_an_interruption(tab) -> None:  # type: ignore[no-untyped-def]
    """Asked aloud, it answers aloud; spoken over, it falls silent and keeps what was heard; asked again, it answers."""
    tab.get_by_role("button", name="Start talking").click()
    tab.wait_for_function("window.duologue.figures.filter((f) => f.status === 'completed').length >= 1")
    metrics = tab.evaluate("window.duologue.figures")
    assert metrics[0]["status"] == "cancelled" and metrics[1]["status"] == "completed", metrics
    assert 0 < metrics[0]["page"] < 5_000 and 0 < metrics[0]["stop"] < 5_000, metrics  # a busy machine is slow
    cut = tab.locator(".turn[data-cut] p").first.inner_text().removesuffix(" —")
    assert SAID.startswith(cut) and cut != SAID
    assert tab.locator(".turn[data-cut] .mark").first.inner_text() == "interrupted"
    tab.locator(".turn.assistant:not([data-cut]) p").get_by_text(SAID, exact=True).first.wait_for()
    assert tab.locator(".turn.user p").first.inner_text() == HEARD
    tab.get_by_role("button", name="Stop", exact=True).click()
    tab.get_by_role("button", name="Start talking").wait_for()


@pytest.mark.slow
@pytest.mark.browser
def test_an_interruption_silences_it_within_300_ms(tab) -> None:  # type: ignore[no-untyped-def]
    """As the page measures it, from the voice to the last sample played. For a machine with nothing else to do: the
    recording begins again and again, and the median of three interruptions counts."""
    tab.get_by_role("button", name="Start talking").click()
    tab.wait_for_function("window.duologue.figures.filter((f) => f.status === 'cancelled').length >= 3")
    stops = sorted(f["stop"] for f in tab.evaluate("window.duologue.figures") if f.get("status") == "cancelled")
    assert 0 < stops[len(stops) // 2] <= 300, stops


@pytest.mark.browser
def test_the_live_conversation_by_keyboard(tab) -> None:  # type: ignore[no-untyped-def]
    tab.get_by_label("Or write", exact=True).focus()
    tab.keyboard.type("what is 3 plus 4")
    tab.keyboard.press("Enter")
    tab.wait_for_function("window.duologue.figures.some((f) => f.status === 'completed')")
    tab.locator(".turn.assistant p").get_by_text(SAID, exact=True).wait_for()
    assert tab.locator(".turn p").all_inner_texts() == ["what is 3 plus 4", SAID]
    tab.wait_for_function("[...window.duologue.played.values()][0] > 24000")


@pytest.mark.browser
def test_without_a_microphone_it_says_why_and_goes_on_in_writing(browser, address: str) -> None:  # type: ignore[no-untyped-def]
    """As a page has it that came over plain http from another machine."""
    context = browser.new_context()
    context.add_init_script(
        "Object.defineProperty(window, 'isSecureContext', { value: false });"
        "delete Navigator.prototype.mediaDevices; delete window.AudioWorkletNode;"
        "delete BaseAudioContext.prototype.audioWorklet"
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_text("this page came over plain http from another machine").first.wait_for()
    assert page.get_by_role("button", name="Start talking").is_disabled()
    page.get_by_label("Or write", exact=True).fill("what is 3 plus 4")
    page.keyboard.press("Enter")
    page.locator("#live-transcript").get_by_text(SAID).wait_for()
    page.get_by_role("tab", name="Audio analysis").click()
    assert page.get_by_role("button", name="Record", exact=True).is_disabled()
    page.get_by_role("button", name=EXAMPLES[0][0]).click()
    page.get_by_role("link", name="Save").wait_for()
    assert page.evaluate("[...window.duologue.played.values()][0]") > 24_000  # spoken, too
    context.close()


def recordings(tab) -> None:  # type: ignore[no-untyped-def]
    tab.get_by_role("tab", name="Audio analysis").click()
    tab.get_by_role("button", name=EXAMPLES[0][0]).wait_for()


@pytest.mark.browser
def test_an_example_is_answered(tab) -> None:  # type: ignore[no-untyped-def]
    recordings(tab)
    tab.get_by_role("button", name=EXAMPLES[0][0]).click()
    spoken(tab)
    assert HEARD in tab.locator("#conversation").inner_text()
    tab.wait_for_function(f"{DURATION.format('#asked')} > 1")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Save").click()
    reply = read_audio(Path(download.value.path()).read_bytes())
    assert len(reply) > 16_000 and np.abs(reply).max() > 0.001
    tab.get_by_role("button", name="Clear conversation").click()
    tab.wait_for_function(f"!document.querySelector('#conversation').innerText.includes('{SAID}')")


@pytest.mark.browser
def test_the_microphone_then_a_typed_question(tab) -> None:  # type: ignore[no-untyped-def]
    recordings(tab)
    tab.get_by_role("button", name="Record", exact=True).click()
    tab.wait_for_timeout(2_500)  # a second of quiet, then the question
    tab.get_by_role("button", name="Stop", exact=True).click()
    spoken(tab)
    tab.get_by_role("button", name="Record", exact=True).wait_for()  # ready for the next question at once
    tab.get_by_label("Ask in writing").fill("What is 3 plus 4?")
    tab.keyboard.press("Enter")
    spoken(tab, turns=2)
    assert "What is 3 plus 4?" in tab.locator("#conversation").inner_text()


@pytest.mark.browser
def test_what_is_asked_meanwhile_is_answered_next(tab: "Page") -> None:
    recordings(tab)
    written = tab.get_by_label("Ask in writing")
    for text in ("What is 3 plus 4?", "And what is 4 plus 5?"):
        written.fill(text)
        written.press("Enter")
        tab.wait_for_function("document.querySelector('#written').value === ''")
    assert tab.locator("#conversation").inner_text().count(SAID) < 2  # asked while it answers, not after
    spoken(tab, turns=2)
    conversation = tab.locator("#conversation").inner_text()
    assert "What is 3 plus 4?" in conversation and "And what is 4 plus 5?" in conversation


@pytest.mark.browser
def test_a_recording_of_a_minute_and_a_half_is_heard_whole(tab: "Page", tmp_path: Path) -> None:
    """It is more than one message of the protocol may hold."""
    noise, quiet = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 7), np.zeros(16_000)
    write_wav(tmp_path / "long.wav", np.concatenate([noise, quiet] * 12).astype(np.float32), 16_000)
    recordings(tab)
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(tmp_path / "long.wav")
    tab.wait_for_function(f"{DURATION.format('#chosen')} > 90")
    tab.get_by_label("Ask in writing").fill("what is seven")
    tab.keyboard.press("Enter")
    spoken(tab)
    assert " ".join([HEARD] * 12 + ["what is seven"]) in tab.locator("#conversation").inner_text()


@pytest.mark.browser
def test_a_sound_is_uploaded_and_asked_about_twice(tab) -> None:  # type: ignore[no-untyped-def]
    recordings(tab)
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(ASSETS / "examples/hello.flac")
    tab.wait_for_function(f"{DURATION.format('#chosen')} > 0.5")
    for turn in (1, 2):  # it stays there, to be asked about again
        tab.get_by_label("Ask in writing").fill("how many beeps were there")
        tab.keyboard.press("Enter")
        spoken(tab, turn)
        conversation = tab.locator("#conversation").inner_text()
        assert conversation.count(f"{HEARD} how many beeps were there") == turn


@pytest.mark.browser
def test_a_phone_is_wide_enough(tab) -> None:  # type: ignore[no-untyped-def]
    tab.set_viewport_size({"width": 390, "height": 844})
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert tab.evaluate(fits)
    recordings(tab)
    assert tab.evaluate(fits)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(tab, scheme: str) -> None:  # type: ignore[no-untyped-def]
    """axe-core finds nothing serious in either tab, in light or dark."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab.emulate_media(color_scheme=scheme)

    def serious() -> dict[str, list[str]]:
        found = axe.run(tab).response["violations"]
        return {
            each["id"]: [node["html"][:200] for node in each["nodes"]]
            for each in found
            if each["impact"] in ("serious", "critical")
        }

    assert serious() == {}
    recordings(tab)
    assert serious() == {}


@pytest.mark.browser
def test_a_bad_upload_is_one_clear_line(tab, tmp_path: os.PathLike) -> None:  # type: ignore[no-untyped-def]
    path = Path(tmp_path) / "notes.wav"
    path.write_text("what is three plus four\n" * 50)
    recordings(tab)
    with tab.expect_file_chooser() as chooser:
        tab.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(path)
    tab.get_by_text("is not a recording that can be read").wait_for()


def test_a_voice_is_chosen_and_remembered(browser, tab) -> None:  # type: ignore[no-untyped-def]
    """From the next answer on, and from visit to visit; of a model with one voice nothing is to choose."""
    assert tab.locator("#live-voice").is_hidden() and tab.locator("label[for=live-voice]").is_hidden()
    assistant = tiny_assistant()
    two = assistant.speaking_in({"<one>": Speaker(), "two": Speaker()})
    config = ServeConfig(model="tiny", pool=ENGINE)
    with (
        running(config, app=create_page(config, two, Loudness()), speed=1.0) as found,
        visitor(browser, found.url) as (page, _),
    ):
        page.click("#live-settings summary")
        voice = page.get_by_label("Its voice")
        assert voice.locator("option").all_inner_texts() == ["<one>", "two"]
        voice.select_option("two")
        page.fill("#live-text", SAID)
        page.press("#live-text", "Enter")
        page.wait_for_function(f"document.querySelector('#live-transcript').innerText.split('{SAID}').length > 2")
        (session,) = found.service.sessions
        assert session.conversation.settings.session["audio"]["output"]["voice"] == "two"
        page.reload()
        assert voice.input_value() == "two"
