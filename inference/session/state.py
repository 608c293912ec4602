"""How a full-duplex conversation behaves, and all that it remembers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from torch import Tensor

from ...model.dialogue_state import DialogueState, Sampling
from ...model.errors import DuologueError
from ...model.language_model.chat_template import Tool, schemas
from ...model.streaming import State
from ..front_end.echo import EchoGuard
from ..front_end.loudness import Loudness, LoudnessConfig
from ..front_end.speech_gate import GateConfig, SpeechGate
from .answer import Answer
from .memory import Memory
from .policy import FRAME_MS, DuplexConfig, DuplexPolicy, Mode
from .user_turn import UserTurn


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """How a session behaves.

    certain: from which probability on what the monitor says of a turn counts: "query", "noise", "wait". Too low
        for query: answers in a pause. Too high for noise: false responses. None: as the model's monitor has it.
    certain_over: the same of what is said over an answer: a query ends it, a noise does not.
    echo: what was played is taken out of what is heard (see echo.py); where that leaves less than ``1 - echo`` of the
        echo's energy, nobody speaks. 1: nothing is taken out.
    echo_ms: how late an echo may come: the longest round trip of a client, from what is played to what is heard of it.
        It holds from the session's beginning.
    tokens_a_frame, units_a_frame: how many tokens an answer may be advanced by in 80 ms (of a transcript only those
        count that nobody foresaw), and of how many speech units sound may be made: what a frame may cost. A frame of
        speech is two to four units long.
    ahead_ms: an answer is generated no further than this ahead of what is played.
    monitor: whether the model's own judgement of what is to be answered counts; off: the speech gate alone decides, and
        far talkers (loudness.py) are answered too.
    word_monitor: whether it also reads what it has written down before it judges, if it has learnt to.
    interruptible: whether speech over an answer can stop it.
    on_request: a turn that is over is written down, and answered once :meth:`.session.Session.respond` is called.
    history: positions of the language model that past turns may fill; None: as many as the model has learnt to go on
        behind. When there are more, the oldest whole turns are forgotten until half are left, and the rest is
        remembered in words: a turn a frame while nobody has the turn, or all at once where there was no such time
        before twice as many were filled.
    speed: of what is said, from the next answer on; within the speech decoder's ``speeds``.
    voice: in which it is said, from the next answer on; one of the speech decoder's ``voices``; None: the first.
    ssml: whether answers, from the next one on, may say in SSML how they are spoken (docs/ssml.md).
    manner: whether each turn that is to be answered brings an event of the manner in which it was spoken (calm,
        whisper, …); the model must have a head for it. A turn too long to be heard at once brings none.
    keywords: phrases that are likely to be said, which are looked for in what is heard from the next frame on.
    instructions: the system prompt. tools: functions that the model may call. Both have an effect on models that have
        learnt to follow them.
    """

    duplex: DuplexConfig = field(default_factory=DuplexConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    loudness: LoudnessConfig = field(default_factory=LoudnessConfig)
    sampling: Sampling = field(default_factory=Sampling)
    certain: tuple[float, float, float] | None = None
    certain_over: tuple[float, float, float] = (0.6, 0.9, 0.6)
    echo: float = 0.7
    echo_ms: int = 1600
    tokens_a_frame: int = 3
    units_a_frame: int = 6
    ahead_ms: int = 640
    monitor: bool = True
    word_monitor: bool = True
    interruptible: bool = True
    on_request: bool = False
    history: int | None = None
    speed: float = 1.0
    voice: str | None = None
    ssml: bool = False
    manner: bool = False
    keywords: tuple[str, ...] = ()
    instructions: str = ""
    tools: tuple[Tool, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tools", tuple(schemas(self.tools)))
        probabilities = {"certain": self.certain or (), "certain_over": self.certain_over, "echo": (self.echo,)}
        for name, values in probabilities.items():
            if not all(0 <= value <= 1 for value in values):
                raise DuologueError(f"session: {name} is {getattr(self, name)}; it must lie between 0 and 1")
        if not 0 <= self.echo_ms <= 10_000:
            raise DuologueError(f"session: echo_ms is {self.echo_ms}; it must be 0 to 10000 ms")
        for name in ("tokens_a_frame", "units_a_frame", "ahead_ms", "history"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise DuologueError(f"session: {name} is {getattr(self, name)}; it must be at least 1")


@dataclass
class SessionState(State):
    """All that a session remembers."""

    dialogue: DialogueState
    before: DialogueState | None  # what it was before the turn that is being heard
    barge_in: DialogueState | None  # while ducked: the answer cut where it stopped, and what is being said over it
    answer: Answer | None
    vad: State
    gate: SpeechGate
    loudness: Loudness
    policy: DuplexPolicy
    echo: EchoGuard
    recent: list[Tensor]  # the last frames, each (1280,), that a turn may turn out to have begun in
    memory: Memory  # of the turns that are over
    turn: UserTurn  # that is being heard, or the last one
    awaiting_response: bool = False  # the turn is over, and its answer waits to be asked for
    instruct_later: bool = False  # the config's instructions reach the model once the answer under way is over
    now_ms: int = 0

    @classmethod
    def begin(cls, dialogue: DialogueState, vad: State, config: SessionConfig, frame: int) -> Self:
        """Nothing has been said; ``frame``: samples of 80 ms."""
        return cls(
            dialogue=dialogue,
            before=None,
            barge_in=None,
            answer=None,
            vad=vad,
            gate=SpeechGate(config.gate),
            loudness=Loudness.begin(config.loudness),
            policy=DuplexPolicy(config.duplex),
            echo=EchoGuard.begin(frame, config.echo_ms * frame // FRAME_MS),
            recent=[],
            memory=Memory(),
            turn=UserTurn(),
        )


@dataclass(frozen=True)
class Standing:
    """Where a session stands.

    played: samples of the answer under way that have been played; ``None``: there is no answer.
    full: the answer has as many tokens as it may have.
    writing: a long turn is being written down, and nothing is played: nobody waits for the next frame.
    """

    mode: Mode
    played: int | None
    full: bool
    writing: bool
