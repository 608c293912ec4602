"""The text of a session's events, piece after piece, is the text of the answer: in any script, of any tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_assistant import Loudness
from tiny_chat import chat_assistant

from duologue.inference.session.events import Event, EventKind, read_events, text_of, write_events
from duologue.inference.session.policy import DuplexConfig
from duologue.inference.session.session import Session
from duologue.inference.session.state import SessionConfig
from duologue.model import speech_lm

ANSWERS = (
    "The capital of France is Paris. It's lovely!",
    "法国的首都是巴黎。",
    "Grüß Gott,\n\n1.  zwei 🙂 drei",
)


@pytest.mark.parametrize("kind", ["chatml", "inst"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_the_pieces_of_an_answer_make_the_answer(
    answer: str, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assistant = chat_assistant(kind, speech=False)
    ids = assistant.tokenizer.encode(answer, add_special_tokens=False)
    picked = iter([*ids, assistant.model.layout.eos])
    monkeypatch.setattr(speech_lm, "pick", lambda *_: next(picked))
    config = SessionConfig(duplex=DuplexConfig(speculate_ms=0), tokens_a_frame=1)
    session = Session(assistant, config, vad=Loudness())
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    heard = np.concatenate([np.zeros(6_400, np.float32), noise, np.zeros(1280 * 75 + 640, np.float32)])
    events = [event for at in range(0, len(heard), 1280) for event in session.tick(heard[at : at + 1280]).events]
    pieces = [event for event in events if event.kind is EventKind.ANSWER_TEXT]
    assert len(pieces) > 1 and not any("\N{REPLACEMENT CHARACTER}" in piece.text for piece in pieces)
    assert text_of(events, EventKind.ANSWER_TEXT) == assistant.tokenizer.decode(ids, skip_special_tokens=True)
    write_events(tmp_path / "events.jsonl", events)
    assert read_events(tmp_path / "events.jsonl") == events


def test_a_piece_says_whether_a_space_stands_before_it(tmp_path: Path) -> None:
    pieces = [Event.piece(EventKind.ANSWER_TEXT, 80, text) for text in (" Fr", "ance", " is", "  big", "\n")]
    assert [piece.text for piece in pieces] == ["Fr", "ance", "is", " big", "\n"]
    assert [piece.glued for piece in pieces] == [False, True, False, False, True]
    assert text_of(pieces, EventKind.ANSWER_TEXT) == "France is  big\n"
    write_events(tmp_path / "events.jsonl", pieces)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert ["glued" in line for line in lines] == [piece.glued for piece in pieces], "as ever where it is not needed"
