"""Long work of one client is done in pieces; others are served in between; it is given up when the client leaves."""

import threading

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi")
import httpx
from running_server import pcm16, running, sound, wait
from test_worker import CONFIG, FRAME, Link, begins, serve
from tiny_assistant import Loudness, tiny_assistant

from duologue.inference.assistant.text_stream import ids_of
from duologue.inference.serving.app import ServeConfig, create_app
from duologue.inference.serving.workers import pool
from duologue.inference.serving.workers.worker import Job, Worker
from duologue.inference.session.session import Session
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import Sampling, TokenKind

LONG = "what is seven plus two " * 60  # 300 tokens


@pytest.fixture(scope="module")
def assistant():
    return tiny_assistant(scripted=False)


@pytest.fixture
def fed(assistant, monkeypatch):
    """How many positions each step of the language model was given."""
    sizes: list = []
    extend = type(assistant.model.llm).extend

    def counted(self, embeds, state):
        sizes.append(embeds.shape[1])
        return extend(self, embeds, state)

    monkeypatch.setattr(type(assistant.model.llm), "extend", counted)
    return sizes


@pytest.mark.parametrize("piece", [1, 7, 16])
def test_pieces_are_as_the_whole(assistant, piece) -> None:
    """The streaming law, for all that the language model is fed: texts, a past, sound."""
    ids, _ = ids_of(assistant.tokenizer, assistant.model.config.layout, LONG)
    pcm = torch.from_numpy(sound((1.7, True)))[None]
    results = []
    for model in (assistant.model, assistant.model.with_shared_steps(lambda stage, method: stage, piece)):
        read, heard = model.init_state(), model.init_state()
        model.recall(ids[:30], ids[5:50], read)
        model.read_text(ids, read)
        model.begin_turn(heard)
        model.listen(pcm, heard)
        model.ask_about(ids[:40], heard)
        model.end_turn(heard)
        logits = torch.stack([model.next_logits(read), model.next_logits(heard)])
        steps = [model.reply_step(heard, Sampling(max_tokens=60)) for _ in range(40)]
        results.append((torch.cat([logits, model.next_logits(heard)[None]]), [step.token for step in steps]))
    (logits, tokens), (in_pieces, its_tokens) = results
    assert (logits - in_pieces).abs().max() <= 1e-5 and tokens == its_tokens


@pytest.mark.parametrize(
    ("who", "method", "args"),
    [
        (None, "read", (LONG,)),
        (None, "recall", (LONG, LONG)),
        (CONFIG, "type", (LONG,)),
        (CONFIG, "remember", ([("what is two", "it makes nine")] * 100,)),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_frames_come_between_the_pieces_of_a_long_text(assistant, fed, who, method, args) -> None:
    jobs = [begins(1, who), begins(2), begins(3), Job(1, 0, method, args, 0.0)]
    jobs += [Job(line, n, "tick", (np.zeros(FRAME, np.float32),), 0.002 + 0.003 * n) for line in (2, 3) for n in (0, 1)]
    lines, order = serve(assistant, jobs)
    assert not isinstance(lines[1][0].value, Exception)
    assert order[-1] == (1, 0) or order.index((1, 0)) > order.index((3, 0))
    assert max(fed) <= 16 and sum(fed) > 200


def test_who_leaves_is_not_read_to_the_end(assistant, fed) -> None:
    """What of the text had not been read when its client left is not read; others go on."""
    jobs = [begins(1, None), begins(2), Job(1, 0, "read", (4 * LONG,), 0.0), Job(1, 0, "", (), 0.02)]
    jobs += [Job(2, n, "tick", (np.zeros(FRAME, np.float32),), 0.08 * n) for n in range(3)]
    lines, _ = serve(assistant, jobs)
    assert 0 < sum(fed) < 800 and 1 not in lines
    assert all(isinstance(lines[2][n].value.pcm, np.ndarray) for n in range(3))


def test_batches_of_pieces_are_not_long(assistant, fed) -> None:
    """Many clients' long texts at once are no long step."""
    jobs = [each for line in range(1, 9) for each in (begins(line, None), Job(line, 0, "read", (LONG,), 0.0))]
    widest = []
    extend = type(assistant.model.llm).extend

    def counted(self, embeds, state):
        widest.append(embeds.shape[0] * embeds.shape[1])
        return extend(self, embeds, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(assistant.model.llm), "extend", counted)
        serve(assistant, jobs)
    assert max(widest) == 32


def test_a_past_is_as_long_as_is_remembered(assistant, fed) -> None:
    session = Session(assistant, CONFIG, Loudness())
    session.remember([("what " * 5000, "it makes nine"), *[("what is two", "it makes nine")] * 5000])
    assert sum(fed) <= assistant.model.config.history and 50 < len(session.state.memory.past) < 200


def test_a_past_that_cannot_be_read_ends_no_session(assistant) -> None:
    session = Session(assistant, CONFIG, Loudness())
    session.remember([("what " * 5000, "it makes nine"), ("what is two", "it makes nine")])
    assert [len(question) for question, _ in session.state.memory.past] == [0, 3]


def test_what_does_not_fit_the_context_is_an_error(assistant) -> None:
    """One that names the numbers; and the session goes on, with its answer."""
    session = Session(assistant, CONFIG, Loudness())
    with pytest.raises(DuologueError, match="the text has 3000 tokens; the model's context has 2048 positions"):
        session.type("what " * 3000)
    session.type("what is two plus two")
    session.tick(np.zeros(FRAME, np.float32))
    with pytest.raises(DuologueError, match=r"has 3000 tokens.*context has 2048 positions, [0-9]+ of which are taken"):
        session.type("what " * 3000)
    with pytest.raises(DuologueError, match="3000 tokens"):
        session.about("what " * 3000)
    with pytest.raises(DuologueError, match="the text has 5000 tokens; at most 4096 are read"):
        session.type("what " * 5000)
    assert session.state.answer is not None
    session.tick(np.zeros(FRAME, np.float32))


def test_a_reply_ends_where_the_context_does(assistant) -> None:
    model = assistant.model
    state = model.init_state()
    model.read_text([assistant.model.config.layout.text[0]] * 2040, state)
    kinds = [model.reply_step(state, Sampling(), forced=model.config.layout.text[0]).kind for _ in range(4)]
    assert TokenKind.END not in kinds[:2]
    while model.reply_step(state, Sampling()).kind is not TokenKind.END:
        pass
    assert state.llm.length <= 2048


class Blocking(Loudness):
    """Does not come back from what it hears, until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.may, self.hears = threading.Event(), False

    def step(self, x, state):
        if self.hears and x.abs().max() > 0:
            self.may.wait(30)
        return super().step(x, state)


def test_health_tells_of_a_worker_that_does_not_come_back(monkeypatch) -> None:
    assert pool._PING_S + pool._STUCK_S < 5
    monkeypatch.setattr(pool, "_PING_S", 0.05)
    monkeypatch.setattr(pool, "_STUCK_S", 0.3)
    vad, room = Blocking(), pool.WorkerPoolConfig(sessions=4, late_ms=1e9)
    app = create_app(ServeConfig(model="tiny", pool=room), tiny_assistant(), vad)
    with running(app=app) as found:
        vad.hears = True

        def health() -> tuple[int, str]:
            answer = httpx.get(f"{found.url}/health")
            return answer.status_code, answer.json()["status"]

        assert health() == (200, "ok")
        try:
            with found.client().realtime.connect(model="tiny") as connection:
                # More than a pipe holds: whoever hands it over must not wait either.
                connection.input_audio_buffer.append(audio=pcm16(sound((20.0, True))))
                wait(lambda: health() == (503, "stuck"), 5)
                assert found.service.pool.room() == 0
                vad.may.set()
                wait(lambda: health() == (200, "ok"), 20)
        finally:
            vad.may.set()


def test_a_worker_goes_on_between_jobs() -> None:
    """However many jobs come at once, a step is made after so many of them."""
    jobs = [begins(2), Job(2, 0, "tick", (np.zeros(FRAME, np.float32),), 0.0)]
    jobs += [Job(2, n, "press", (False,), 0.0) for n in range(1, 500)]
    link = Link(jobs)
    taken, done = [], []
    receive, send = link.recv, link.send
    link.recv = lambda: (taken.append(1), receive())[1]
    link.send = lambda result: (done.append(len(taken)), send(result))
    with pytest.raises(EOFError):
        Worker(tiny_assistant(), Loudness(), link, link, clock=link.clock).serve()
    assert len(link.results) == 500 and done[0] < 300
