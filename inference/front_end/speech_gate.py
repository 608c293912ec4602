"""Is somebody speaking? Probabilities of speech with hysteresis and a least duration, in stream time.

Above ``threshold`` a window counts as speech; once it does, only a window below ``release`` counts as silence. A run
of speech windows shorter than ``onset_ms`` is a click. The gate is a state: it can be cloned and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...model.duplex.vad import SAMPLE_RATE, WINDOW
from ...model.errors import DuologueError
from ...model.streaming import State

WINDOW_MS = 1000 * WINDOW // SAMPLE_RATE  # 32


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Probabilities, and milliseconds."""

    threshold: float = 0.6
    release: float = 0.4
    onset_ms: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.release <= self.threshold <= 1:
            raise DuologueError(
                f"gate: release {self.release} and threshold {self.threshold}; 0 <= release <= threshold <= 1 must hold"
            )
        if self.onset_ms < 0:
            raise DuologueError(f"gate: onset_ms is {self.onset_ms}; it must be 0 or more")


@dataclass
class SpeechGate(State):
    """What the last windows were.

    open: somebody is speaking, or paused so briefly that no window fell below ``release`` yet.
    speech_ms: how long the current run of speech has lasted (0 in silence).
    silence_ms: how long ago the last speech window ended (0 in speech).
    now_ms: end of the last window, in stream time.
    """

    config: GateConfig
    open: bool = False
    speech_ms: int = 0
    silence_ms: int = 0
    now_ms: int = 0
    _run_ms: int = 0  # of windows above the threshold, while the gate is shut

    def push(self, probability: float) -> None:
        """Hear one window."""
        self.now_ms += WINDOW_MS
        if self.open:
            self.open = probability >= self.config.release
            self.speech_ms = self.speech_ms + WINDOW_MS if self.open else 0
            self.silence_ms = 0 if self.open else WINDOW_MS
            return
        self.silence_ms += WINDOW_MS
        self._run_ms = self._run_ms + WINDOW_MS if probability >= self.config.threshold else 0
        if self._run_ms and self._run_ms >= self.config.onset_ms:
            self.open, self.speech_ms, self.silence_ms, self._run_ms = True, self._run_ms, 0, 0
