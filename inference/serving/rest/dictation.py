"""A recording, written down part by part as it is heard: what is said, from when to when, and how sure the model is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ....checkpoints.recognisers.recogniser import TimedWord
from ....data_prep.audio import read_audio
from ....model.dialogue_state import Sampling
from ...assistant.one_shot import WrittenDown
from ...front_end import speech_segments
from ...front_end.speech_segments import Place
from ..requests.decoding import decode
from ..requests.questioner import Questioner


@dataclass(frozen=True)
class Segment:
    """A stretch of speech between pauses. Times are seconds of the recording.

    speech: mean probability that somebody speaks. confidence: mean of the tokens' log-probabilities; None: not known.
    words: none where the model does not time them.
    """

    text: str
    start: float
    end: float
    speech: float
    tokens: list[int]
    confidence: float | None = None
    words: list[TimedWord] = field(default_factory=list)


class Dictation:
    """One recording.

    Args:
        asker: hears it. sampling: how its transcript is picked. phrases: that are likely in it.
    """

    def __init__(
        self, asker: Questioner, recording: bytes, sampling: Sampling, rate: int, phrases: Sequence[str] = ()
    ) -> None:
        self._asker, self._recording, self._sampling, self._rate = asker, recording, sampling, rate
        self._phrases = phrases
        self.seconds = 0.0  # of the recording, once the first word has come
        self.text = ""  # so far
        self.segments: list[Segment] = []

    async def deltas(self) -> AsyncIterator[str]:
        """The words as they are heard; none where nobody speaks.

        Raises:
            DuologueError: it is no recording.
        """
        pcm = await decode(read_audio, self._recording, self._rate)
        if self._phrases:
            await self._asker.ask("expect", self._phrases)
        heard = await self._asker.plan(speech_segments.dictated, pcm)
        self.seconds = heard.seconds
        for part, place in zip(heard.parts, heard.places, strict=True):
            text, before = "", " " if self.segments else ""
            async for delta in self._asker.write_part(part, self._sampling):
                self.text += before + delta
                yield before + delta
                text, before = text + delta, ""
            if text.strip():
                written: WrittenDown = await self._asker.ask("written_down")
                self.segments.append(self._segment(text.strip(), len(part) / self._rate, place, written))

    async def finish(self) -> None:
        """Hear all of it."""
        async for _ in self.deltas():
            pass

    def _segment(self, text: str, seconds: float, place: Place, written: WrittenDown) -> Segment:
        def at(time: float, end: bool = False) -> float:
            return round(min(place.in_recording(time, end=end), self.seconds), 3)

        words = [TimedWord(word.text, at(word.start_s), at(word.end_s, True)) for word in written.words]
        return Segment(text, at(0.0), at(seconds, True), place.speech, written.tokens, written.confidence, words)
