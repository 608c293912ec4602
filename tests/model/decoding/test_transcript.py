"""The transcript's rules, without a model: its length, the text question, the draft."""

from __future__ import annotations

import torch

from duologue.model.decoding.transcript import Transcript, TranscriptState
from duologue.model.tokens import TokenLayout

PAD, REPLY = 0, 4
LAYOUT = TokenLayout(bos=1, eos=2, pad=PAD, transcript=3, reply=REPLY, text=(10, 20))


def heard(words: list[int]) -> list[torch.Tensor]:
    """Predictions at positions of speech, in two pieces: these labels."""
    logits = torch.zeros(1, len(words), 20)
    for at, word in enumerate(words):
        logits[0, at, word] = 9.0
    return list(logits.split(3, dim=1))


def test_it_has_no_more_tokens_than_there_was_speech() -> None:
    transcript, state = Transcript(LAYOUT, 0.0), TranscriptState(room=2)
    assert [transcript.write(11, state) for _ in range(3)] == [11, 11, REPLY]


def test_a_text_question_ends_it() -> None:
    transcript, state = Transcript(LAYOUT, 0.0), TranscriptState(room=9, question=[15, 16])
    assert [transcript.write(token, state) for token in (11, REPLY, 12, 12, 13)] == [11, 15, 16, REPLY, REPLY]


def test_the_draft_is_what_ctc_heard_and_is_found_again() -> None:
    transcript = Transcript(LAYOUT, 0.5)
    state = TranscriptState(room=9, heard=heard([PAD, 11, 11, PAD, 12, 13, PAD]))
    transcript.end_of_speech(state)
    assert state.draft == [11, 12, 13, REPLY]
    transcript.begin(state)
    logits = torch.zeros(20)
    assert int(transcript.joint(logits, state).argmax()) == transcript.write(11, state) == 11
    transcript.redraft(12, state)  # a word of the draft was left out
    assert state.draft == [13, REPLY]
    twin = state.clone()
    transcript.write(REPLY, twin)
    assert twin.ctc is None and state.ctc is not None and transcript.joint(logits, twin) is logits
    assert twin.heard[0] is state.heard[0]
