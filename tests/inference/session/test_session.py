"""Full duplex with a tiny model whose words are known, a loudness detector in silero's place, and noise as speech."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant
from tiny_chat import CHATML, chat_assistant

from duologue.inference.assistant.assistant import Assistant
from duologue.inference.front_end.loudness import LoudnessConfig
from duologue.inference.session.events import Event, EventKind, read_events, write_events
from duologue.inference.session.listen import replay
from duologue.inference.session.notes import notes
from duologue.inference.session.policy import DuplexConfig, Mode
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model.dialogue_state import Sampling
from duologue.model.duplex.monitor import CERTAIN, TURN_STATES, TurnState
from duologue.model.errors import DuologueError
from duologue.model.language_model.causal_lm import LLM

RATE, FRAME = 16_000, 1_280
CONFIG = SessionConfig(duplex=DuplexConfig(endpoint_ms=400, speculate_ms=160, interrupt_ms=320, resume_ms=240))


@pytest.fixture(scope="module")
def assistant():
    return tiny_assistant()


def make(assistant, **changes) -> Session:
    return Session(assistant, dataclasses.replace(CONFIG, **changes), vad=Loudness())


def sound(*spans: tuple[float, bool], seed: int = 0) -> np.ndarray:
    """Seconds of noise or of silence, one after the other, filled up to whole frames."""
    rng = np.random.default_rng(seed)
    parts = [
        (0.1 if loud else 0.0) * rng.standard_normal(round(seconds * RATE)).astype(np.float32)
        for seconds, loud in spans
    ]
    wave = np.concatenate(parts)
    return np.pad(wave, (0, -len(wave) % FRAME))


def run(session: Session, wave: np.ndarray, size: int = FRAME) -> tuple[np.ndarray, list[Event]]:
    ticks = [session.tick(wave[at : at + size]) for at in range(0, len(wave), size)]
    for tick, at in zip(ticks, range(0, len(wave), size), strict=True):
        assert len(tick.pcm) == len(wave[at : at + size]), "as long out as in"
    return np.concatenate([tick.pcm for tick in ticks]), [event for tick in ticks for event in tick.events]


def kinds(events: list[Event], *wanted: EventKind) -> list[EventKind]:
    return [event.kind for event in events if not wanted or event.kind in wanted]


def text(events: list[Event], kind: EventKind) -> str:
    return " ".join(event.text for event in events if event.kind is kind)


QUESTION = ((0.4, False), (1.0, True), (6.0, False))


def test_a_question_is_answered_aloud(assistant) -> None:
    pcm, events = run(make(assistant), sound(*QUESTION))
    assert [kind for kind in kinds(events) if kind not in (EventKind.USER_TEXT, EventKind.ANSWER_TEXT)] == [
        EventKind.SPEECH_STARTED,
        EventKind.SPEECH_STOPPED,
        EventKind.ANSWER_STARTED,
        EventKind.TRANSCRIBED,
        EventKind.ANSWER_AUDIBLE,
        EventKind.ANSWER_FINISHED,
    ]
    assert text(events, EventKind.USER_TEXT) == HEARD and text(events, EventKind.ANSWER_TEXT) == SAID
    at = {event.kind: event.at_ms for event in events}
    assert abs(at[EventKind.SPEECH_STARTED] - 400) <= 32 and abs(at[EventKind.SPEECH_STOPPED] - 1400) <= 32
    assert 0 <= at[EventKind.ANSWER_STARTED] - at[EventKind.SPEECH_STOPPED] - 400 <= 112, "the endpoint, to a frame"
    audible, finished = (at[kind] * RATE // 1000 for kind in (EventKind.ANSWER_AUDIBLE, EventKind.ANSWER_FINISHED))
    assert not pcm[: audible - FRAME].any() and pcm[audible - FRAME : audible].any() and not pcm[finished:].any()


def test_the_manner_of_each_turn_that_is_answered() -> None:
    telling = tiny_assistant(manners=("calm", "shout"))
    wave = sound(*QUESTION, *QUESTION)
    _, quiet = run(make(telling), wave)
    assert EventKind.MANNER not in kinds(quiet)  # off by default
    session = make(telling, manner=True)
    _, events = run(session, wave)
    assert [event for event in events if event.kind is not EventKind.MANNER] == quiet
    assert kinds(events, EventKind.MANNER, EventKind.ANSWER_STARTED) == 2 * [EventKind.MANNER, EventKind.ANSWER_STARTED]
    for event in (event for event in events if event.kind is EventKind.MANNER):
        found = dict(event.probabilities)
        assert set(found) == {"calm", "shout"} and sum(found.values()) == pytest.approx(1)
        assert event.text == max(found, key=found.__getitem__)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        write_events(path, events)
        assert read_events(path) == events and path.read_text().count("probabilities") == 2
    session.type(HEARD)
    assert EventKind.MANNER not in kinds(run(session, sound((3.0, False)))[1])  # nothing was heard of it


def test_a_model_without_a_head_tells_no_manner(assistant) -> None:
    with pytest.raises(DuologueError, match="this model has no head for the manner of speaking: duologue train manner"):
        make(assistant, manner=True)
    session = make(assistant)
    with pytest.raises(DuologueError, match="no head for the manner"):
        session.configure(dataclasses.replace(CONFIG, manner=True))
    assert not session.config.manner


def test_what_is_said_is_what_a_turn_by_turn_conversation_says(assistant, monkeypatch) -> None:
    """One stretch of the recording is heard, without a gap; the same samples heard, the same are spoken."""
    model, wave, heard, ends = assistant.model, sound(*QUESTION), [], []
    listen, end_turn = model.listen, model.end_turn
    monkeypatch.setattr(model, "listen", lambda pcm, state: (heard.append(pcm), listen(pcm, state)))
    monkeypatch.setattr(model, "end_turn", lambda state: (ends.append(len(heard)), end_turn(state)))
    session = make(assistant)
    pcm, events = run(session, wave)
    monkeypatch.undo()
    at = {event.kind: event.at_ms * 16 for event in events}
    assert len(ends) == 1
    samples = torch.cat(heard[: ends[0]], dim=1)
    begin = next(i for i in range(0, len(wave), FRAME) if np.array_equal(wave[i : i + samples.shape[1]], samples[0]))
    assert 0 < at[EventKind.SPEECH_STARTED] - begin <= 240 * 16, "from a little before it began"
    assert 160 * 16 <= begin + samples.shape[1] - at[EventKind.SPEECH_STOPPED] <= 160 * 16 + 2 * FRAME
    state = model.init_state()
    model.begin_turn(state)
    model.listen(samples, state)
    model.end_turn(state)
    said = []
    while not said or state.phase.value == "replying":
        said.append(model.reply_step(state, CONFIG.sampling).pcm)
    whole = torch.cat([*said, model.reply_flush(state)], dim=1)[0].clamp(-1, 1).numpy()
    assert session.state.dialogue.llm.length == state.llm.length
    first = at[EventKind.ANSWER_AUDIBLE] - FRAME
    spoken = pcm[first : first + len(whole)]
    assert np.abs(spoken[160:] - whole[160:]).max() <= 1e-5 * np.abs(whole).max()  # but for the fade-in
    assert not pcm[first + len(whole) :].any()


@pytest.mark.parametrize("frames", [2, 5, 1000])
def test_the_size_of_a_tick_changes_nothing(assistant, frames: int) -> None:
    wave = sound((0.4, False), (1.0, True), (1.2, False), (0.2, True), (1.0, False), (1.0, True), (3.0, False))
    pcm, events = run(make(assistant), wave)
    again, same = run(make(assistant), wave)
    assert np.array_equal(pcm, again) and events == same, "twice the same to the bit"
    other, theirs = run(make(assistant), wave, frames * FRAME)
    assert np.array_equal(pcm, other) and events == theirs


def test_samples_in_any_form_are_heard_alike(assistant) -> None:
    """int16, as microphones give it, is no float that is 32,768 times too loud."""
    frame = Session(assistant).frame
    samples = (3_000 * np.sin(np.arange(frame) / 10)).astype(np.int16)
    floats = samples.astype(np.float32) / 32_768
    for given in (samples, samples.astype(np.int32) << 16, floats.astype(np.float64), floats.tolist(),
                  torch.from_numpy(floats), torch.from_numpy(floats).double().requires_grad_()):  # fmt: skip
        heard: list[np.ndarray] = []
        session = Session(assistant)
        session._one_frame = lambda pcm, events, heard=heard: heard.append(pcm.numpy()) or pcm
        session.tick(given)
        assert heard[0].dtype == np.float32 and np.array_equal(heard[0], floats)
    for given in (None, b"12" * frame, ["a"] * frame, np.zeros(frame, np.complex64), np.full(frame, np.nan)):
        with pytest.raises(DuologueError, match=r"samples are|not finite"):
            Session(assistant).tick(given)


def test_a_pause_inside_a_question_is_waited_for(assistant) -> None:
    _, events = run(make(assistant), sound((0.4, False), (0.6, True), (0.35, False), (0.6, True), (3.0, False)))
    assert kinds(events, EventKind.ANSWER_STARTED) == [EventKind.ANSWER_STARTED]
    assert text(events, EventKind.USER_TEXT) == HEARD, "told once, of the whole question"


def test_an_interruption_stops_the_answer_and_is_remembered_as_heard(assistant) -> None:
    _, events = run(make(assistant), sound(*QUESTION))
    audible = next(event.at_ms for event in events if event.kind is EventKind.ANSWER_AUDIBLE) / 1000
    before = ((0.4, False), (1.0, True), (audible - 1.4 + 1.5, False))
    session = make(assistant)
    pcm, events = run(session, sound(*before, (1.0, True), (8.0, False)))
    onset = [event.at_ms for event in events if event.kind is EventKind.SPEECH_STARTED][1]
    ducked = next(event.at_ms for event in events if event.kind is EventKind.DUCKED)
    cut = next(event for event in events if event.kind is EventKind.INTERRUPTED)
    assert ducked - onset <= 240, "silent within three frames of the onset"
    assert not pcm[ducked * 16 : cut.at_ms * 16].any()
    heard = cut.text.split()
    assert heard == SAID.split()[: len(heard)] and 0 < len(heard) < len(SAID.split())
    assert kinds(events, EventKind.ANSWER_FINISHED) == [EventKind.ANSWER_FINISHED], "the second question is answered"
    ids = session.assistant.tokenizer.encode(f"{HEARD} {cut.text}", add_special_tokens=False)
    assert [word for part in session.state.memory.past[0] for word in part] == ids
    # The language model has forgotten the words that it had written and nobody heard.
    session, words = make(assistant), []
    for tick in replay(session, sound(*before, (0.6, True))):
        if any(event.kind is EventKind.INTERRUPTED for event in tick.events):
            break
        words = words if session.state.answer is None else list(session.state.answer.words)
    held = session.state.before
    assert session.state.policy.mode is Mode.LISTENING and held is not None and held.turn == 1
    assert len(words) > len(heard) and held.llm.length == words[len(heard)][1] and held.pending is None


def speak_in_noise(model, monkeypatch) -> None:
    """Its own sounds are a hum with an offset; let it speak in syllables of noise, as long as those."""
    rng, original, made = np.random.default_rng(0), model.sound, [0]
    noise = 0.1 * rng.standard_normal(16_000 * 60) * (1 + np.sin(np.arange(16_000 * 60) / 1_000))
    noise = torch.from_numpy(noise.astype(np.float32))[None]

    def sound(units, dialogue):
        count, start = original(units, dialogue).shape[1], made[0]
        made[0] += count
        return noise[:, start : start + count]

    monkeypatch.setattr(model, "sound", sound)


@pytest.mark.parametrize("delay_ms", [500, 1_500])
def test_its_own_echo_does_not_stop_it(assistant, monkeypatch, delay_ms: int) -> None:
    """Fed back at half its loudness, also when it is over, it is no speech; with echo=1.0 it is."""
    speak_in_noise(assistant.model, monkeypatch)
    for echo, stops in ((SessionConfig().echo, False), (1.0, True)):
        session, wave, late = make(assistant, echo=echo), sound(*QUESTION), delay_ms * 16
        back, events = np.zeros(len(wave) + late + 2 * FRAME, np.float32), []
        for at in range(0, len(wave), FRAME):
            tick = session.tick(wave[at : at + FRAME] + back[at : at + FRAME])
            back[at + FRAME + late : at + 2 * FRAME + late] += 0.5 * tick.pcm
            events += tick.events
        assert np.abs(back).mean() > 0.005, "loud enough to be taken for speech"
        answers = len(kinds(events, EventKind.ANSWER_STARTED))
        assert (EventKind.INTERRUPTED in kinds(events) or answers > 1) == stops


def test_after_a_false_alarm_it_goes_on_where_it_stopped(assistant) -> None:
    whole, events = run(make(assistant), sound(*QUESTION))
    audible = next(event.at_ms for event in events if event.kind is EventKind.ANSWER_AUDIBLE)
    cough = sound((0.4, False), (1.0, True), (audible / 1000 - 1.4 + 0.4, False), (0.16, True), (4.0, False))
    pcm, events = run(make(assistant), cough)
    assert kinds(events, EventKind.DUCKED, EventKind.RESUMED, EventKind.INTERRUPTED) == [
        EventKind.DUCKED,
        EventKind.RESUMED,
    ]
    at = {event.kind: event.at_ms for event in events}
    first, second = (at[kind] * 16 - FRAME for kind in (EventKind.DUCKED, EventKind.RESUMED))
    assert np.array_equal(pcm[:first], whole[:first])
    fade = 160  # the end dies away, and is said again
    rest = len(whole) - first
    assert np.array_equal(pcm[second + fade : second + 20_000], whole[first + fade : first + 20_000][:rest])
    assert not pcm[first + fade : second].any() and pcm[first : first + fade].any()


def test_speculation_saves_the_time_that_the_answer_takes(assistant) -> None:
    """One token a frame: what was prepared during the endpoint wait is there when the wait is over."""
    delays = []
    for speculate in (0, 160):
        duplex = dataclasses.replace(CONFIG.duplex, speculate_ms=speculate)
        _, events = run(make(assistant, duplex=duplex, tokens_a_frame=1), sound(*QUESTION))
        at = {event.kind: event.at_ms for event in events}
        delays.append(at[EventKind.ANSWER_AUDIBLE] - at[EventKind.ANSWER_STARTED])
    assert delays[1] == delays[0] - 240


@pytest.mark.parametrize("tokens", [2, 6])
def test_the_frame_that_prepares_an_answer_costs_no_more_than_others(assistant, monkeypatch, tokens) -> None:
    """The language model is asked for what was heard, for the turn's end, and for a token less than elsewhere."""
    asked, extend = [0], LLM.extend

    def counted(self, *args):
        asked[-1] += 1
        return extend(self, *args)

    monkeypatch.setattr(LLM, "extend", counted)
    session, wave = make(assistant, tokens_a_frame=tokens), sound(*QUESTION)
    for frame in wave.reshape(-1, FRAME):
        if session.state.answer is None:
            asked.append(0)
            session.tick(frame)
    assert asked[-1] <= 2 + tokens - 1 and max(asked[:-1]) <= 2


def test_a_click_leaves_no_trace(assistant) -> None:
    session = make(assistant, duplex=dataclasses.replace(CONFIG.duplex, shortest_turn_ms=400))
    pcm, events = run(session, sound((0.4, False), (0.2, True), (2.0, False)))
    assert kinds(events)[-1] is EventKind.TURN_IGNORED and not pcm.any()
    assert session.state.dialogue.llm.length == 0 and session.state.dialogue.turn == 0


class Says(torch.nn.Module):
    """A monitor of one opinion."""

    def __init__(self, turn_state: TurnState, sure: float = 5.0, thresholds: tuple[float, ...] = CERTAIN) -> None:
        super().__init__()
        self.thresholds = thresholds
        self.logits = sure * torch.eye(3)[TURN_STATES.index(turn_state)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(*x.shape[:-1], 3)


def test_the_monitor_decides_what_is_answered_and_how_soon() -> None:
    waits = {}
    for turn_state in TurnState:
        monitored = tiny_assistant()
        monitored.model.monitor = Says(turn_state)
        session = make(monitored, duplex=DuplexConfig(query_endpoint_ms=160, endpoint_ms=480, wait_endpoint_ms=1200))
        _, events = run(session, sound(*QUESTION))
        at = {event.kind: event.at_ms for event in events}
        if turn_state is TurnState.NOISE:
            assert EventKind.TURN_IGNORED in at and EventKind.ANSWER_STARTED not in at
            assert session.state.dialogue.turn == 0
        else:
            waits[turn_state] = at[EventKind.ANSWER_STARTED] - at[EventKind.SPEECH_STOPPED]
    assert 160 <= waits[TurnState.QUERY] <= 272 and 1200 <= waits[TurnState.WAIT] <= 1312


@pytest.mark.parametrize("speculate_ms", [0, 160])
def test_what_reads_like_nothing_to_answer_is_ignored(speculate_ms: int) -> None:
    """The monitor is not sure, the word monitor is: then they decide, and without a word about an answer."""
    waits = []
    for words in (None, TurnState.QUERY, TurnState.NOISE):
        monitored = tiny_assistant()
        monitored.model.monitor = Says(TurnState.QUERY, sure=1.0)
        monitored.model.word_monitor = None if words is None else Says(words)
        session = make(monitored, duplex=DuplexConfig(endpoint_ms=480, speculate_ms=speculate_ms))
        _, events = run(session, sound(*QUESTION))
        ends = kinds(events, EventKind.ANSWER_STARTED, EventKind.TURN_IGNORED)
        assert ends == [EventKind.TURN_IGNORED if words is TurnState.NOISE else EventKind.ANSWER_STARTED]
        audible = [event.at_ms for event in events if event.kind is EventKind.ANSWER_AUDIBLE]
        assert bool(audible) == (words is not TurnState.NOISE)
        waits += audible
        without = make(monitored, monitor=False)
        assert EventKind.ANSWER_STARTED in kinds(run(without, sound(*QUESTION))[1]), "it can be deaf to both"
        unread = make(monitored, word_monitor=False, duplex=DuplexConfig(speculate_ms=speculate_ms))
        assert EventKind.ANSWER_STARTED in kinds(run(unread, sound(*QUESTION))[1]), "or to the words alone"
    assert waits[0] == waits[1], "to read costs no time: an answer comes behind the words"


def test_a_monitor_that_is_sure_is_not_overruled() -> None:
    monitored = tiny_assistant()
    monitored.model.monitor, monitored.model.word_monitor = Says(TurnState.QUERY, sure=9.0), Says(TurnState.NOISE)
    _, events = run(make(monitored), sound(*QUESTION))
    assert EventKind.ANSWER_STARTED in kinds(events)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"certain": (0.9, 0.999, 0.6)}, True),
        ({"certain": (0.999, 0.6, 0.999)}, False),
        ({"certain_over": (0.9, 0.999, 0.6)}, False),
    ],
)
def test_each_turn_state_wants_a_certainty_of_its_own(changes: dict[str, tuple[float, ...]], kept: bool) -> None:
    monitored = tiny_assistant()
    monitored.model.monitor = Says(TurnState.NOISE)  # 0.99
    _, events = run(make(monitored, **changes), sound(*QUESTION))
    assert (EventKind.ANSWER_STARTED in kinds(events)) == kept


@pytest.mark.parametrize("enough", [0.9, 0.999])
def test_a_calibrated_monitor_says_from_when_on_it_is_certain(enough: float) -> None:
    monitored = tiny_assistant()
    monitored.model.monitor = Says(TurnState.NOISE, thresholds=(0.93, enough, 0.6))  # 0.99
    _, events = run(make(monitored), sound(*QUESTION))
    assert (EventKind.ANSWER_STARTED in kinds(events)) == (enough > 0.99)


def test_over_an_answer_noise_wants_another_certainty() -> None:
    for enough, wanted in ((0.9, EventKind.RESUMED), (0.999, EventKind.INTERRUPTED)):
        monitored = tiny_assistant()
        monitored.model.monitor = Says(TurnState.QUERY)
        session = make(monitored, certain_over=(0.6, enough, 0.6))
        run(session, sound((0.4, False), (1.0, True), (2.6, False)))
        monitored.model.monitor = Says(TurnState.NOISE)  # 0.99
        _, events = run(session, sound((0.8, True), (0.6, False)))
        assert wanted in kinds(events)


def test_the_monitor_hears_what_is_said_over_the_answer() -> None:
    """An opinion that changes while it speaks: "query" stops it at once, "noise" never does."""
    question = ((0.4, False), (1.0, True), (2.6, False))
    for turn_state, wanted in ((TurnState.QUERY, EventKind.INTERRUPTED), (TurnState.NOISE, EventKind.RESUMED)):
        monitored = tiny_assistant()
        monitored.model.monitor = Says(TurnState.QUERY)
        session = make(monitored)
        run(session, sound(*question))
        monitored.model.monitor = Says(turn_state)
        _, events = run(session, sound((0.8, True), (0.6, False)))
        seen = kinds(events, EventKind.DUCKED, EventKind.INTERRUPTED, EventKind.RESUMED)
        assert seen == [EventKind.DUCKED, wanted]
        if turn_state is TurnState.QUERY:
            at = {event.kind: event.at_ms for event in events}
            assert at[EventKind.INTERRUPTED] - at[EventKind.DUCKED] <= 80


def test_a_clone_goes_its_own_way(assistant) -> None:
    wave = sound((0.4, False), (1.0, True), (1.2, False), (1.0, True), (3.0, False))
    whole, events = run(make(assistant), wave)
    session, at = make(assistant), 24 * FRAME
    head, early = run(session, wave[:at])
    twin = session.clone()
    run(twin, sound((2.0, True), (2.0, False), seed=7))
    tail, late = run(session, wave[at:])
    assert np.array_equal(np.concatenate([head, tail]), whole) and early + late == events


@pytest.mark.parametrize("at", [0, 9, 24, 34, 60])
def test_a_saved_session_goes_on_to_the_bit(assistant, tmp_path, at: int) -> None:
    """In silence, inside a question, ducked, while it speaks: whatever is going on."""
    wave = sound((0.4, False), (1.0, True), (1.2, False), (0.2, True), (1.0, False), (1.0, True), (3.0, False))
    whole, events = run(make(assistant), wave)
    session = make(assistant)
    head, early = run(session, wave[: at * FRAME]) if at else (np.zeros(0, np.float32), [])
    session.save(tmp_path / "saved")
    tail, late = run(Session.load(tmp_path / "saved", assistant, vad=Loudness()), wave[at * FRAME :])
    assert np.array_equal(np.concatenate([head, tail]), whole) and early + late == events


def test_bad_saved_sessions_are_refused(assistant, tmp_path) -> None:
    path = tmp_path / "saved"
    with pytest.raises(DuologueError, match="no saved state"):
        Session.load(path, assistant)
    make(assistant).save(path)
    other = tiny_assistant()
    other.model.config = dataclasses.replace(other.model.config, transcript_ctc=0.5)
    with pytest.raises(DuologueError, match="another model"):
        Session.load(path, other)
    data = path.read_bytes()
    for broken in (data[:-100], b"text"):
        path.write_bytes(broken)
        with pytest.raises(DuologueError, match="not a whole saved state"):
            Session.load(path, assistant)
    # as states have it whose fields, classes or modules have other names
    renamed = ((b"played", b"sended"), (b"SessionState", b"SessionStatf"), (b"session.state:", b"session.stage:"))
    for here, there in renamed:
        assert here in data
        path.write_bytes(data.replace(here, there))
        with pytest.raises(DuologueError, match=r"was saved by another version of Duologue: .*begin a new") as refused:
            Session.load(path, assistant)
        assert "\n" not in str(refused.value)
    with pytest.raises(DuologueError, match="cannot write"):
        make(assistant).save(tmp_path / "nowhere" / "saved")


def test_typing_and_push_to_talk(assistant) -> None:
    session = make(assistant)
    session.type("what is seven plus two")
    _, events = run(session, sound((6.0, False)))
    assert text(events, EventKind.ANSWER_TEXT) == SAID and not text(events, EventKind.USER_TEXT)
    assert kinds(events)[-1] is EventKind.ANSWER_FINISHED
    with pytest.raises(DuologueError, match=r"no words"):
        session.type("  ")
    session.press()
    _, events = run(session, sound((0.3, True), (1.0, False), (0.3, True)))
    assert EventKind.ANSWER_STARTED not in kinds(events), "no pause is long enough while the button is down"
    session.press(False)
    _, events = run(session, sound((0.08, False)))
    assert EventKind.ANSWER_STARTED in kinds(events), "at once"
    _, events = run(session, sound((1.0, True), (3.0, False)))
    assert EventKind.SPEECH_STARTED in kinds(events) and EventKind.DUCKED not in kinds(events)
    session.hands_free()
    _, events = run(session, sound((1.0, True), (8.0, False)))
    assert EventKind.ANSWER_FINISHED in kinds(events)


def test_told_that_less_was_heard_it_remembers_less(assistant) -> None:
    """Under way, the answer is over; afterwards, its last words go; while a turn is heard, it is heard again behind."""
    session, wave = make(assistant), sound(*QUESTION)
    ticks = replay(session, wave)
    while not (session.state.answer is not None and session.state.answer.played >= RATE):
        next(ticks)
    heard = session.truncate(RATE // 2)
    assert SAID.startswith(heard) and heard != SAID and session.state.policy.mode is Mode.IDLE
    assert session.state.answer is None and session._text(session.state.memory.past[-1][1]) == heard
    session, whole = make(assistant), make(assistant)
    run(session, wave)
    run(whole, wave)
    held = session.state.dialogue.llm.length
    assert session.truncate() == session.truncate(10**9) == SAID and session.state.dialogue.llm.length == held
    first = [word for word in session.state.memory.spoken][1]
    assert session.truncate(first[2]) == " ".join(SAID.split()[:2]) and session.state.dialogue.llm.length < held
    run(whole, sound((0.6, True)))
    assert whole.state.before is not None
    length = whole.state.dialogue.llm.length - whole.state.before.llm.length
    whole.truncate(first[2])
    assert whole.state.before.llm.length < held
    assert whole.state.dialogue.llm.length - whole.state.before.llm.length == pytest.approx(length, abs=1)
    _, events = run(whole, sound((8.0, False)))
    assert text(events, EventKind.ANSWER_TEXT) == SAID


def test_what_was_said_can_be_replaced(assistant) -> None:
    session = make(assistant)
    run(session, sound(*QUESTION))
    session.remember([("what is two plus two", "it makes nine"), ("seven", "")])
    assert [session._text(part) for part in session.state.memory.past[0]] == ["what is two plus two", "it makes nine"]
    _, events = run(session, sound(*QUESTION))
    assert text(events, EventKind.ANSWER_TEXT) == SAID and len(session.state.memory.past) == 3
    session.type("what is two plus two")
    with pytest.raises(DuologueError, match="under way"):
        session.remember([])


def test_an_answer_can_wait_to_be_asked_for(assistant) -> None:
    session = make(assistant, on_request=True)
    pcm, events = run(session, sound(*QUESTION))
    assert not pcm.any() and text(events, EventKind.USER_TEXT) == HEARD and not text(events, EventKind.ANSWER_TEXT)
    assert EventKind.ANSWER_AUDIBLE not in kinds(events)
    length = session.state.dialogue.llm.length
    run(session, sound((1.0, False)))
    assert session.state.dialogue.llm.length == length, "silence is not heard meanwhile"
    session.respond()
    pcm, events = run(session, sound((6.0, False)))
    assert pcm.any() and text(events, EventKind.ANSWER_TEXT) == SAID
    run(session, sound((1.0, True), (1.0, False)))
    session.discard()
    assert session.state.policy.mode is Mode.IDLE and len(session.state.memory.past) == 1


def test_it_can_be_deaf_to_interruptions_and_to_its_monitor() -> None:
    monitored = tiny_assistant()
    monitored.model.monitor = Says(TurnState.NOISE)
    session = make(monitored, monitor=False, interruptible=False)
    _, events = run(session, sound((0.4, False), (1.0, True), (1.6, False), (1.0, True), (6.0, False)))
    assert EventKind.ANSWER_FINISHED in kinds(events) and EventKind.DUCKED not in kinds(events)
    session.configure(dataclasses.replace(session.config, monitor=True))
    _, events = run(session, sound(*QUESTION))
    assert kinds(events)[-1] is EventKind.TURN_IGNORED


def test_an_hour_fits(assistant) -> None:
    """Turn after turn, the language model never holds more than `history` and one turn; the last turns are kept. No
    frame recalls more than one of them."""
    session, wave = make(assistant, history=120), sound((0.3, False), (0.6, True), (6.0, False))
    lengths, remembered = [], []
    for _ in range(8):
        for frame in np.split(wave, len(wave) // FRAME):
            before = session.state.memory.remembered
            session.tick(frame)
            remembered.append(session.state.memory.remembered - before)
        lengths.append(session.state.dialogue.llm.length)
    assert max(lengths) <= 120 + 30 and min(lengths[4:]) < 90, lengths
    assert max(remembered) == 1
    words = [session.assistant.tokenizer.encode(part, add_special_tokens=False) for part in (HEARD, SAID)]
    assert all([list(question), list(reply)] == words for question, reply in session.state.memory.past)


def test_who_never_rests_is_forgotten_at_once(assistant) -> None:
    """Turn upon turn with nothing between them: at twice the positions the oldest turns go, whoever waits for it."""
    session, lengths = make(assistant, history=60), []
    for _ in range(12):
        session.type(HEARD)
        while session.state.answer is not None and not session.state.answer.ended:
            session.tick(np.zeros(FRAME, np.float32))
        session.truncate()
        lengths.append(session.state.dialogue.llm.length)
    assert 120 < max(lengths) <= 150 and min(lengths[6:]) < 60, lengths


def test_who_is_ignored_again_and_again_is_heard_afresh(assistant) -> None:
    """What is ignored leaves no trace: if the past makes the model deaf, only forgetting it can help."""
    session, question = make(assistant), sound((0.3, False), (0.6, True), (6.0, False))
    for _ in range(3):
        run(session, question)
    full = session.state.dialogue.llm.length
    assert [len(session.state.memory.past), session.state.memory.ignored_now] == [3, 0]
    lengths = []
    for _ in range(12):
        _, events = run(session, 0.25 * sound((0.3, False), (0.6, True), (1.2, False)))  # somebody far off
        assert EventKind.ANSWER_STARTED not in kinds(events)
        lengths.append((len(session.state.memory.past), session.state.dialogue.llm.length))
        session.state.loudness.faint_dbfs = None  # or they would insist
    assert lengths[:5] == [(3, full)] * 5
    assert lengths[5] == lengths[10] and lengths[5][0] == 1 and lengths[5][1] < full
    assert lengths[11][0] == 0 and lengths[11][1] < lengths[10][1]
    _, events = run(session, question)
    assert text(events, EventKind.ANSWER_TEXT) == SAID and session.state.memory.ignored_now == 0


def test_a_model_says_how_much_of_the_past_it_can_go_on_behind(assistant) -> None:
    assert make(assistant)._history == assistant.model.config.history == 1024
    assert make(assistant, history=7)._history == 7
    with pytest.raises(DuologueError, match="history is 0"):
        SessionConfig(history=0)


def test_what_is_recalled_in_a_turn_a_frame_is_the_past(assistant) -> None:
    """A turn comes in between, the last answer is cut, or the past becomes another."""
    session, wave = make(assistant, history=200), sound((0.3, False), (0.6, True), (6.0, False))
    frames = itertools.cycle(np.split(wave, len(wave) // FRAME))
    while session.state.memory.recalled is None:
        session.tick(next(frames))
    begun, other = session.clone(), session.clone()
    session.truncate(session.state.memory.spoken[0][2])
    other.remember([(SAID, HEARD)])
    assert other.state.memory.recalled is None
    for going in (begun, session):
        before = len(going.state.memory.past)
        for frame in np.split(np.concatenate([wave, wave[-40 * FRAME :]]), len(wave) // FRAME + 40):
            going.tick(frame)
            if going.state.memory.recalled is None:
                break
        past = going.state.memory.past
        assert len(past) > before and len(past[before - 1][1]) <= len(SAID.split())
        at_once = going.state.memory.in_words(going.model, going.state.dialogue)
        assert at_once.llm.length == going.state.dialogue.llm.length


@pytest.mark.parametrize("pcm", [np.zeros(0), np.zeros(1000), np.zeros((2, FRAME)), np.full(FRAME, np.nan)])
def test_bad_ticks_are_refused(assistant, pcm: np.ndarray) -> None:
    with pytest.raises(DuologueError, match=r"multiple of 1280|not finite"):
        make(assistant).tick(pcm)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(DuologueError, match=r"echo is 1\.5; it must lie between 0 and 1"):
        SessionConfig(echo=1.5)
    with pytest.raises(DuologueError, match="echo_ms is -1; it must be 0 to 10000 ms"):
        SessionConfig(echo_ms=-1)
    with pytest.raises(DuologueError, match="tokens_a_frame is 0"):
        SessionConfig(tokens_a_frame=0)


def test_somebody_far_off_is_not_answered_until_they_insist(assistant) -> None:
    """The VAD of these tests hears anything above 1 %; the usual level is -26 dBFS."""
    faint = 0.25 * sound((0.4, False), (1.0, True), (2.0, False))  # -32 dBFS
    near = LoudnessConfig(usual_dbfs=-20.0)
    session = make(assistant, loudness=near)
    _, events = run(session, faint)
    assert EventKind.TURN_IGNORED in kinds(events) and EventKind.ANSWER_STARTED not in kinds(events)
    _, events = run(session, faint)
    assert EventKind.ANSWER_STARTED in kinds(events), "a faint microphone"
    _, events = run(make(assistant, loudness=near), sound((0.4, False), (1.0, True), (2.0, False)))
    assert EventKind.ANSWER_STARTED in kinds(events)


def test_any_model_converses() -> None:
    """An encoder for whole clips, no monitor, a chat template; also without a voice."""
    for speech in (True, False):
        chat = chat_assistant(speech=speech)
        session = make(chat, instructions="Be brief.", sampling=Sampling(max_tokens=6))
        pcm = sound((0.4, False), (1.0, True), (2.5, False))
        played, events = run(session, pcm)
        assert EventKind.ANSWER_STARTED in kinds(events) and EventKind.ANSWER_FINISHED in kinds(events)
        assert bool(np.abs(played).max() > 0) == speech
        assert session.model.streams and not chat.model.streams, "a view of it hears through a window"
        dialogue = session.state.dialogue
        assert dialogue.chat is not None and dialogue.chat.system == "Be brief."
        session.configure(dataclasses.replace(session.config, instructions="Be kind."))
        assert session.state.dialogue.chat is not None and session.state.dialogue.chat.system == "Be kind."
        _, events = run(session, pcm)
        assert EventKind.ANSWER_STARTED in kinds(events)
        assert len(session.state.memory.past) == 2


def test_what_a_conversation_has_to_do_without_is_said(assistant: Assistant) -> None:
    assert notes(assistant.model) == ["it has no monitor: voice activity alone decides when a turn has ended"]
    found = " ".join(notes(chat_assistant(speech=False).model))
    assert "through a window" in found and "voice activity alone" in found and "text alone" in found


def place(name: str) -> str:
    """Where something is.

    Args:
        name: What.
    """
    return name


def test_instructions_reach_the_turn_that_interrupts(tmp_path) -> None:
    """Changed while an answer is under way, in a session that is saved and loaded meanwhile, tools and all."""
    assistant, few = chat_assistant(), Sampling(max_tokens=80)
    session = make(assistant, instructions="Be brief.", tools=(place,), sampling=few, ahead_ms=10_000)
    _, events = run(session, sound((0.4, False), (1.0, True), (1.2, False)))
    assert EventKind.ANSWER_AUDIBLE in kinds(events) and session.state.policy.mode is Mode.ANSWERING
    with pytest.raises(DuologueError, match="instructions and tools have"):
        session.configure(dataclasses.replace(session.config, instructions="Hello " * 3000))
    assert session.config.instructions == "Be brief."
    session.configure(dataclasses.replace(session.config, instructions="Be kind."))
    session.save(tmp_path / "session")
    session = Session.load(tmp_path / "session", assistant, Loudness())
    _, events = run(session, sound((1.0, True), (1.2, False)))
    assert EventKind.INTERRUPTED in kinds(events) and EventKind.ANSWER_STARTED in kinds(events)
    answer = session.state.answer
    assert answer is not None and answer.dialogue.chat is not None and answer.dialogue.chat.system == "Be kind."
    assert answer.dialogue.chat.tools[0]["function"]["name"] == "place"


def test_an_answer_is_resumed_where_the_template_writes_past_turns_otherwise() -> None:
    """What is heard over the answer changes nothing in it: the same is said as without."""
    thinks = CHATML.replace("assistant\n", "assistant\n<think></think>")
    assistant, few = chat_assistant(template=thinks), Sampling(max_tokens=80)
    said = []
    for over in (False, True):
        session = make(assistant, sampling=few)
        _, events = run(session, sound((0.4, False), (1.0, True), (1.2, False), (0.15, over), (6.0, False)))
        assert (EventKind.RESUMED in kinds(events)) == over
        said.append(text(events, EventKind.ANSWER_TEXT))
        _, events = run(session, sound(*QUESTION))  # and the next turn is heard
        assert EventKind.ANSWER_FINISHED in kinds(events)
    assert said[0] and said[0] == said[1]
