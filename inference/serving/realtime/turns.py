"""Whose turn it is in one Realtime session, as the protocol sees it: a small pure state machine.

It is told what the session has heard and said, and what the client asks for, and answers with what is to be done, in
order. It knows no audio, no items, no model and no clock, so that it can be driven by anything: a conversation, a test
that draws events at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ....model.errors import DuologueError


class Stage(Enum):
    """What is going on."""

    IDLE = "idle"
    HEARING = "hearing"  # the user speaks, and the session finds where the turn ends
    DECIDED = "decided"  # the turn is to be answered; nothing of the answer has been heard, and the user may go on
    ASKED = "asked"  # the client wants a response, which has not begun
    READING = "reading"  # it has begun, and the sound of items is on its way into the session
    RESPONDING = "responding"  # a response is under way


class Do(Enum):
    """What is to be done, in the order given."""

    BEGIN_TURN = "begin_turn"  # the user has begun to speak
    GO_ON = "go_on"  # the turn had not ended: forget what was prepared
    END_TURN = "end_turn"  # the session is to take it for over
    STOP_TURN = "stop_turn"  # the user has stopped speaking
    COMMIT = "commit"  # the turn becomes an item
    DROP_TURN = "drop_turn"  # it was nobody's
    HOLD = "hold"  # the item waits for a response
    WRITTEN = "written"  # all that was heard of it is written down
    DISCARD = "discard"  # the session forgets it
    RESPOND = "respond"  # it went on over the response that was asked for, and is over now: answer all of it
    ANSWER_HELD = "answer_held"  # answer the turn that waits
    ANSWER_ITEMS = "answer_items"  # answer items
    BEGIN_RESPONSE = "begin_response"
    INTERRUPT_RESPONSE = "interrupt_response"  # the user speaks over it, and means it
    FINISH_RESPONSE = "finish_response"  # all of it has been said


class Refused(Exception):
    """What a client asks for cannot be now."""


@dataclass
class Turns:
    """Where one session stands.

    manual: the client says where turns end. on_request: a turn that is over waits for the client to want a response.
    unanswered: no turn is ever answered (a transcription session).
    held: a turn that is over waits for a response. writing: it is being written down.
    """

    manual: bool = False
    on_request: bool = False
    unanswered: bool = False
    stage: Stage = Stage.IDLE
    held: bool = False
    writing: bool = False

    @property
    def responding(self) -> bool:
        """Whether a response has begun."""
        return self.stage in (Stage.READING, Stage.RESPONDING)

    @property
    def open_to_all(self) -> bool:
        """Whether nobody is being answered or about to be."""
        return self.stage in (Stage.IDLE, Stage.HEARING)

    @property
    def busy(self) -> bool:
        """Whether time must go on even if the client sends nothing."""
        return self.writing or not self.open_to_all

    # What the session tells.

    def speech_started(self) -> list[Do]:
        """Somebody speaks."""
        if self.stage is not Stage.DECIDED:
            return []
        self.stage = Stage.HEARING
        return [Do.GO_ON]

    def listening(self) -> list[Do]:
        """The session hears a turn of the user's."""
        if self.manual or self.stage is not Stage.IDLE:
            return []
        self.stage, self.writing = Stage.HEARING, False
        return [Do.BEGIN_TURN]

    def ignored(self) -> list[Do]:
        """What it heard was nobody's turn."""
        if self.stage is Stage.RESPONDING:  # the user went on before anything was heard of it: nothing is left to say
            return self.finished()
        if self.stage not in (Stage.HEARING, Stage.DECIDED):
            return []
        self.stage = Stage.IDLE
        return [Do.STOP_TURN, Do.DROP_TURN]

    def decided(self) -> list[Do]:
        """The turn is over."""
        if self.on_request and self.stage is Stage.RESPONDING:
            return [Do.RESPOND]
        if self.manual or self.stage is not Stage.HEARING:
            return []
        if not self.on_request:
            self.stage = Stage.DECIDED
            return []
        self.stage = Stage.IDLE
        return [Do.STOP_TURN, Do.COMMIT, *self._hold()]

    def transcribed(self) -> list[Do]:
        """All that was heard of the turn is written down."""
        if not self.writing:
            return []
        self.writing = False
        if not self.unanswered:
            return [Do.WRITTEN]
        self.held = False
        return [Do.WRITTEN, Do.DISCARD]

    def audible(self) -> list[Do]:
        """The answer's first sample, or a function that it calls: the turn before it has ended for good."""
        if self.responding:
            return []
        turn = [Do.STOP_TURN, Do.COMMIT] if self.stage in (Stage.HEARING, Stage.DECIDED) else []
        self.stage = Stage.RESPONDING
        return [*turn, Do.BEGIN_RESPONSE]

    def finished(self) -> list[Do]:
        """The answer has been said."""
        begun = self.audible()
        self.stage = Stage.IDLE
        return [*begun, Do.FINISH_RESPONSE]

    def interrupted(self) -> list[Do]:
        """The user speaks over the answer, and means it."""
        if not self.responding:
            return []
        self.stage = Stage.IDLE if self.manual else Stage.HEARING
        return [*([] if self.manual else [Do.BEGIN_TURN]), Do.INTERRUPT_RESPONSE]

    # What the client wants.

    def committed(self) -> list[Do]:
        """A turn of the client's own making has been heard to its end."""
        return self._hold()

    def ask(self, given: bool = False) -> list[Do]:
        """A response; ``given``: to items of its own. What the user is saying ends there if a turn waits for a
        response, and was nobody's turn otherwise.

        Raises:
            Refused: one is under way, or about to be.
            DuologueError: it is to items of its own, and a turn waits.
        """
        if not self.open_to_all:
            raise Refused("a response is under way: wait for response.done, or cancel it")
        if given and self.held:
            raise DuologueError(
                "a turn waits for its response: ask for that one first (response.create without input), "
                "or delete the turn's item"
            )
        hearing, self.stage = self.stage is Stage.HEARING, Stage.ASKED
        if not self.held:
            return [*([Do.STOP_TURN, Do.DROP_TURN, Do.DISCARD] if hearing else []), Do.ANSWER_ITEMS]
        return [*([Do.END_TURN, Do.STOP_TURN, Do.COMMIT, *self._hold()] if hearing else []), Do.ANSWER_HELD]

    def asked_in_vain(self) -> None:
        """It cannot be made; a turn that waits still does."""
        if self.stage is Stage.ASKED:
            self.stage = Stage.IDLE

    def begin(self, reading: bool = False) -> bool:
        """It begins, unless it has; ``reading``: with the sound of items."""
        self.held = self.writing = False
        if self.stage is not Stage.ASKED:
            return False
        self.stage = Stage.READING if reading else Stage.RESPONDING
        return True

    def read(self) -> None:
        """The session has heard the items."""
        if self.stage is Stage.READING:
            self.stage = Stage.RESPONDING

    def cancelled(self) -> None:
        """The response under way has been ended by the client."""
        if self.responding:
            self.stage = Stage.IDLE

    def deleted(self) -> list[Do]:
        """The turn that waits for a response is no more, nor is what is being said, which belongs to it."""
        self.held = self.writing = False
        return [*(self.ignored() if self.stage is Stage.HEARING else []), Do.DISCARD]

    def forget(self) -> None:
        """What is being heard, or waits, is forgotten."""
        self.held = self.writing = False
        if self.stage in (Stage.HEARING, Stage.DECIDED):
            self.stage = Stage.IDLE

    def _hold(self) -> list[Do]:
        self.held = self.writing = True
        return [Do.HOLD]
