"""WebRTC calls over loopback, by aiortc as a client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("aiortc")
import httpx
from running_server import ENGINE, Running, running, sound, wait
from tiny_assistant import SAID
from webrtc_client import PATIENCE, Caller, LossyRelay, calling, loopback_alone, relayed

from duologue.inference.serving.app import ServeConfig
from duologue.inference.serving.http.access import AccessConfig
from duologue.inference.serving.http.limits import Limits
from duologue.inference.serving.webrtc import calls
from duologue.inference.serving.webrtc.offer import checked

__all__ = ["loopback_alone"]
KEYS = ("the-first-servers-key", "the-second-servers-key")
SDP = {"content-type": "application/sdp"}
pytestmark = pytest.mark.usefixtures("loopback_alone")


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(speed=1.0) as found:
        yield found


def test_three_turns_with_an_interruption(server: Running) -> None:
    """Two answers are heard; the one between is spoken over: what is remembered of it is what the track has played."""

    async def talk(caller: Caller) -> None:
        caller.voice.say(sound((0.4, False), (1.0, True)))
        await caller.until("output_audio_buffer.stopped")
        caller.voice.say(sound((1.0, True), seed=1))
        await caller.until("output_audio_buffer.started", 2)
        caller.voice.say(sound((0.6, False), (1.2, True), seed=2))
        await caller.until("output_audio_buffer.stopped", 2)

    async def run() -> Caller:
        async with calling(server.url) as caller:
            await talk(caller)
            return caller

    caller = asyncio.run(run())
    kinds = [event["type"] for event in caller.events]
    done = [event["response"] for event in caller.of("response.done")]
    assert [response["status"] for response in done] == ["completed", "cancelled", "completed"], kinds
    assert "response.output_audio.delta" not in kinds
    ids = [response["id"] for response in done]
    about = [event for event in caller.events if event["type"].startswith("output_audio_buffer")]
    played = [(event["type"].rpartition(".")[2], event["response_id"]) for event in about]
    assert played == [
        ("started", ids[0]), ("stopped", ids[0]), ("started", ids[1]), ("cleared", ids[1]), ("started", ids[2]),
        ("stopped", ids[2]),
    ]  # fmt: skip
    assert kinds.index("response.content_part.added") < kinds.index("output_audio_buffer.started")
    assert kinds.index("response.done") < kinds.index("output_audio_buffer.stopped")
    assert done[0]["output"][0]["content"][0]["transcript"] == SAID
    cut = done[1]["output"][0]["content"][0]["transcript"]
    assert SAID.startswith(cut) and cut != SAID
    assert done[1]["status_details"]["reason"] == "turn_detected"
    wait(lambda: server.service.pool.slots == 0)


def test_a_turn_ends_although_the_microphone_is_switched_off_in_it(server: Running) -> None:
    """No packet comes any more: what was said is answered all the same."""

    async def run() -> Caller:
        async with calling(server.url) as caller:
            caller.voice.say(sound((0.4, False), (1.0, True)))
            await caller.until("input_audio_buffer.speech_started")
            await caller.voice.said.wait()
            (sender,) = caller.connection.getSenders()
            sender.replaceTrack(None)
            await caller.until("response.done")
            return caller

    (done,) = asyncio.run(run()).of("response.done")
    assert done["response"]["output"][0]["content"][0]["transcript"] == SAID


def test_a_lossy_network_leaves_no_turn_stuck_or_doubled(server: Running) -> None:
    """5 % of the packets lost, up to 60 ms of jitter, both ways: two turns, two answers."""

    async def run() -> tuple[Caller, LossyRelay]:
        caller = Caller()
        async with httpx.AsyncClient(timeout=PATIENCE) as http:
            answer = await http.post(f"{server.url}/v1/realtime/calls", content=await caller.offer(), headers=SDP)
        changed, relay = await relayed(answer.text, lost=0.05, jitter_s=0.06)
        try:
            await caller.accept(answer.headers["location"], changed)
            await caller.until("session.created")
            for turn in range(2):
                caller.voice.say(sound((0.4, False), (1.0, True), seed=turn))
                await caller.until("output_audio_buffer.stopped", turn + 1)
                await asyncio.sleep(0.5)
            return caller, relay
        finally:  # packets that say so may be lost
            httpx.post(f"{server.url}{answer.headers['location']}/hangup")
            await caller.close()
            relay.close()

    before = lost_seconds(server)
    caller, relay = asyncio.run(run())
    assert relay.dropped > 0.03 * relay.passed > 10
    assert len(caller.of("input_audio_buffer.speech_started")) == len(caller.of("input_audio_buffer.committed")) == 2
    assert [event["response"]["status"] for event in caller.of("response.done")] == ["completed"] * 2
    assert [event["response"]["output"][0]["content"][0]["transcript"] for event in caller.of("response.done")] == [
        SAID
    ] * 2
    # The session's time went on as the user's did, though packets were missing.
    started, stopped = caller.of("input_audio_buffer.speech_started"), caller.of("input_audio_buffer.speech_stopped")
    spoken = [b["audio_end_ms"] - a["audio_start_ms"] for a, b in zip(started, stopped, strict=True)]
    assert all(abs(ms - 1_240) <= 240 for ms in spoken), spoken
    assert lost_seconds(server) > before


def lost_seconds(server: Running) -> float:
    text = server.service.metrics.text().decode()
    found = re.search(r'audio_seconds_total{direction="lost",endpoint="/v1/realtime/calls"} (\S+)', text)
    return 0.0 if found is None else float(found[1])


def test_what_is_said_in_a_data_channel_is_an_event_or_an_error(server: Running) -> None:
    async def run() -> None:
        async with calling(server.url) as caller:
            for message in ("no JSON", "[" * 2_000, '{"type": 3}', b"\x00\x01", "x" * 60_000, ""):
                caller.channel.send(message)
            await caller.until("error", 6)
            assert {event["error"]["type"] for event in caller.of("error")} == {"invalid_request_error"}
            caller.send("input_audio_buffer.append", audio="AAAA", event_id="mine")
            await caller.until("error", 7)
            assert "over its track" in caller.of("error")[-1]["error"]["message"]
            caller.send("session.update", session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
            await caller.until("session.updated")
            caller.voice.say(sound((1.0, True)))
            await caller.voice.said.wait()
            caller.send("input_audio_buffer.commit")
            await caller.until("input_audio_buffer.committed")
            caller.send("response.create")
            await caller.until("output_audio_buffer.started")
            caller.send("response.cancel")
            await caller.until("response.done")
            assert caller.of("response.done")[0]["response"]["status"] == "cancelled"
            await caller.until("output_audio_buffer.cleared")
            caller.send("response.create")  # once more
            await caller.until("output_audio_buffer.started", 2)
            caller.send("output_audio_buffer.clear")
            await caller.until("output_audio_buffer.cleared", 2)
            await caller.until("response.done", 2)
            other = caller.connection.createDataChannel("another")
            closed = asyncio.Event()
            other.on("close", closed.set)
            async with asyncio.timeout(PATIENCE):
                await closed.wait()
            caller.send("conversation.item.retrieve", item_id="no such item")
            await caller.until("error", 8)

    asyncio.run(run())
    wait(lambda: server.service.pool.slots == 0)


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    access = AccessConfig(keys=KEYS, origins=("https://pages.example",), messages_per_s=20)
    with running(ServeConfig(model="tiny", pool=ENGINE, access=access, limits=Limits(calls=2))) as found:
        yield found


def test_a_browser_calls_with_an_ephemeral_key_and_its_server_hangs_up(locked: Running) -> None:
    """Whoever has no key, another site's page, another key: nobody else can call, or end the call."""
    session = {"type": "realtime", "audio": {"input": {"turn_detection": None}}, "instructions": "be brief"}
    value = locked.client(KEYS[0]).realtime.client_secrets.create(session=session).value
    address = f"{locked.url}/v1/realtime/calls"

    async def run() -> None:
        caller = Caller()
        answer = await caller.call(locked.url)
        assert answer.status_code == 401
        page = {"authorization": f"Bearer {value}", **SDP}
        wrong = httpx.post(address, content="v=0", headers={**page, "origin": "https://other.example"})
        assert wrong.status_code == 403 and wrong.json()["error"]["code"] == "origin_not_allowed"
        asked = {"origin": "https://pages.example", "access-control-request-method": "POST"}
        preflight = httpx.options(address, headers={**asked, "access-control-request-headers": "authorization"})
        assert preflight.status_code == 200
        known = httpx.post(address, content="v=0", headers={**page, "origin": "https://pages.example"})
        assert known.status_code == 400
        await caller.close()
        async with calling(locked.url, value) as caller:
            created = caller.events[0]["session"]
            assert created["audio"]["input"]["turn_detection"] is None and created["instructions"] == "be brief"
            assert re.fullmatch(r"/v1/realtime/calls/rtc_\w+", caller.location)
            hang_up = f"{locked.url}{caller.location}/hangup"
            for key, status in ((value, 403), (KEYS[1], 404), (KEYS[0], 200)):
                assert httpx.post(hang_up, headers={"authorization": f"Bearer {key}"}).status_code == status
            async with asyncio.timeout(PATIENCE):
                await caller.closed.wait()

    asyncio.run(run())
    wait(lambda: b'duologue_calls_total{reason="hung_up"} 1.0' in locked.service.metrics.text())


def test_a_flood_ends_the_call_and_no_other(locked: Running) -> None:
    async def run() -> None:
        async with calling(locked.url, KEYS[0]) as other, calling(locked.url, KEYS[1]) as caller:
            for _ in range(600):
                caller.channel.send('{"type": "input_audio_buffer.clear"}')
            async with asyncio.timeout(PATIENCE):
                await caller.closed.wait()
            assert caller.of("error")[-1]["error"]["code"] == "rate_limit_exceeded"
            other.send("conversation.item.retrieve", item_id="no such item")
            await other.until("error")

    asyncio.run(run())
    wait(lambda: b'duologue_calls_total{reason="too_fast"} 1.0' in locked.service.metrics.text())


def test_a_message_without_an_end_ends_the_call(locked: Running) -> None:
    """aiortc's own sender minds neither the window nor, told so, the largest message."""

    async def run() -> None:
        async with calling(locked.url, KEYS[0]) as caller:
            caller.connection.sctp._remote_max_message_size = 1 << 30
            caller.channel.send(" " * (3 << 20))
            async with asyncio.timeout(PATIENCE):
                await caller.closed.wait()

    asyncio.run(run())
    wait(lambda: b'duologue_calls_total{reason="too_large"} 1.0' in locked.service.metrics.text())


def test_a_call_that_is_never_connected_ends(locked: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_CONNECT_S", 0.3)
    headers = {"authorization": f"Bearer {KEYS[0]}", **SDP}
    answer = httpx.post(f"{locked.url}/v1/realtime/calls", content=offer(), headers=headers, timeout=PATIENCE)
    assert answer.status_code == 201
    wait(lambda: locked.service.pool.slots == 0)
    wait(lambda: b'duologue_calls_total{reason="unconnected"} 1.0' in locked.service.metrics.text())


def test_one_call_too_many_is_refused(locked: Running) -> None:
    async def run() -> None:
        async with calling(locked.url, KEYS[0]), calling(locked.url, KEYS[1]):
            third = Caller()
            answer = await third.call(locked.url, KEYS[0])
            await third.close()
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
            assert "2 calls are under way" in answer.json()["error"]["message"]
        wait(lambda: not locked.service.sessions)
        async with calling(locked.url, KEYS[0]):
            pass

    asyncio.run(run())
    wait(lambda: locked.service.pool.slots == 0)


def test_the_official_client_opens_one_with_a_session(locked: Running) -> None:
    async def run() -> None:
        caller = Caller()
        sdp, client = await caller.offer(), locked.client(KEYS[0])
        made = await asyncio.to_thread(
            lambda: client.realtime.calls.create(sdp=sdp, session={"type": "realtime", "instructions": "be brief"})
        )
        await caller.accept(made.response.headers["location"], made.text)
        await caller.until("session.created")
        assert caller.events[0]["session"]["instructions"] == "be brief"
        await asyncio.to_thread(client.realtime.calls.hangup, caller.location.rpartition("/")[2])
        async with asyncio.timeout(PATIENCE):
            await caller.closed.wait()
        await caller.close()

    asyncio.run(run())
    wait(lambda: locked.service.pool.slots == 0)


def offer() -> str:
    async def run() -> str:
        caller = Caller()
        sdp = await caller.offer()
        await caller.close()
        return sdp

    return asyncio.run(run())


def test_what_cannot_be_answered_is_refused_and_takes_no_slot(locked: Running) -> None:
    good = offer()
    audio = good[good.index("m=audio") : good.index("m=application")]
    for body, kind, status, what in (
        ("", "application/sdp", 400, "cannot be read|media none"),
        ("v=0\r\n" * 10_000, "application/sdp", 413, "larger than 32768"),
        ("v=0\r\nm=audio x", "application/sdp", 400, "cannot be read"),
        (b"\xff\xfe", "application/sdp", 400, "not UTF-8"),
        (good, "text/plain", 415, "application/sdp or multipart"),
        (good.replace("m=audio", "m=video"), "application/sdp", 400, "one of audio"),
        (good + audio, "application/sdp", 400, "one of audio"),
        (good.replace("opus", "other"), "application/sdp", 400, "no Opus"),
        (good.replace("a=ice-ufrag", "a=ice-other"), "application/sdp", 400, "cannot be answered"),
        (good.replace("a=fingerprint", "a=other"), "application/sdp", 400, "no fingerprint"),
    ):
        headers = {"authorization": f"Bearer {KEYS[0]}", "content-type": kind}
        answer = httpx.post(f"{locked.url}/v1/realtime/calls", content=body, headers=headers)
        assert answer.status_code == status, (answer.text, what)
        assert re.search(what, answer.json()["error"]["message"]), answer.text
    form = {"sdp": (None, good), "session": (None, '{"type": "realtime", "instrutions": "a"}')}
    answer = httpx.post(f"{locked.url}/v1/realtime/calls", files=form, headers={"authorization": f"Bearer {KEYS[0]}"})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "session.instrutions"
    assert locked.service.pool.slots == 0


def test_nothing_is_sent_to_the_addresses_of_an_offer() -> None:
    sdp = offer()
    assert "a=candidate" in sdp and "a=candidate" not in checked(sdp, False) and "a=candidate" in checked(sdp, True)
    many = sdp.replace("a=end-of-candidates", "a=candidate:1 1 udp 1 192.0.2.9 9 typ host\r\n" * 99, 1)
    assert checked(many, True).count("a=candidate") == 32
