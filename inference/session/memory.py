"""What a session remembers of the turns that are over: the words of each, and how they are forgotten.

The language model's cache holds turns as they were heard, or as they were written (SpeechLMConfig.past_in_words). When
past turns fill more positions than a conversation is allowed, the oldest whole turns are forgotten until half are left,
and the rest is remembered in words, a turn a call, so that no single frame pays for it: a second dialogue state grows
beside the one in use, and takes its place then. Of a question heard by a model that writes no transcript there are no
words: its turn is remembered as an empty one.

What is ignored leaves no trace, so that a past behind which a model takes everybody for noise would stay for ever.
Hence half of it is forgotten whenever many turns in a row were ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ...model.dialogue_model import DialogueModel
from ...model.dialogue_state import DialogueState
from ...model.streaming import State
from .answer import Answer

FORGOTTEN = -1  # the position of a word that the language model holds no more
MANY = 6  # turns ignored in a row


@dataclass
class Memory(State):
    """The past, as ids of text."""

    past: list[tuple[list[int], list[int]]] = field(default_factory=list)  # question and answer, as far as it was heard
    spoken: list[tuple[int, int, int]] = field(default_factory=list)  # the last answer's words: id, position, samples
    recalled: DialogueState | None = None  # is to replace the dialogue once it remembers all of the past in words
    remembered: int = 0  # turns of the past that it remembers
    ignored_now: int = 0  # turns ignored since the last that was answered
    called: bool = False  # the last answer called functions, and the dialogue holds its calls

    def keep(self, answer: Answer, heard: int) -> list[int]:
        """An answer is over, of which so many words were heard: these, which are remembered."""
        words = [word for word, _, _ in answer.words[:heard]]
        if answer.goes_on and self.past:  # its question is remembered, and what was said before the call
            question, said = self.past.pop()
            self.past.append((question, [*said, *words]))
        else:
            self.past.append((answer.transcript, words))
        self.ignored_now, self.called = 0, bool(answer.calls)
        spoken = zip(answer.words[:heard], answer.rendered, strict=False)
        self.spoken = [(word, position, made) for (word, position, _), made in spoken]
        return words

    def cut(self, samples: int | None, model: DialogueModel, dialogue: DialogueState) -> DialogueState | None:
        """No more of the last answer was heard than that (None: all of it). The dialogue that ends there, or None where
        nothing changes."""
        kept = [word for word in self.spoken if samples is None or word[2] <= samples]
        if len(kept) == len(self.spoken):
            return None
        cut = len(self.spoken) - len(kept)
        position, self.spoken = self.spoken[len(kept)][1], kept
        said = self.past[-1][1]
        before = said[: len(said) - len(self.spoken) - cut]
        self.past[-1] = (self.past[-1][0], [*before, *(word for word, _, _ in kept)])
        if position == FORGOTTEN:
            return self.in_words(model, dialogue)
        dialogue.truncate(position)
        return dialogue

    def ignored(self, model: DialogueModel, dialogue: DialogueState) -> None:
        """A turn was ignored. After many of them begin to remember only the newer half of the past."""
        self.ignored_now += 1
        if self.ignored_now % MANY == 0 and self.past:
            self.past = self.past[(len(self.past) + 1) // 2 :]
            self.recalled, self.remembered = model.begin_again(dialogue), 0

    def replace(self, newest: Iterable[tuple[list[int], list[int]]], model: DialogueModel, limit: int) -> None:
        """Let this be the past, the newest turn first: as many turns as fill no more positions than that in words."""
        kept: list[tuple[list[int], list[int]]] = []
        for question, reply in newest:  # no further than needed: each may be long
            if model.words_take([*kept, (question, reply)]) > limit:
                break
            kept.append((question, reply))
        self.past, self.spoken, self.recalled = kept[::-1], [], None

    def in_words(self, model: DialogueModel, replaced: DialogueState) -> DialogueState:
        """A conversation in which all of the past was said in words."""
        fresh = model.begin_again(replaced)
        self.called = False
        for question, reply in self.past:
            model.recall(question, reply, fresh)
        return fresh

    def forget_a_little(self, model: DialogueModel, dialogue: DialogueState, limit: int) -> DialogueState:
        """Between turns: drop the oldest when past turns fill more positions than that; remember one of the others in
        words. The dialogue to go on with."""
        if self.recalled is None:
            if dialogue.llm.length <= limit:
                return dialogue
            self._drop_the_oldest(model, limit)
            self.recalled, self.remembered = model.begin_again(dialogue), 0
        growing = self.recalled
        assert growing is not None
        if self.remembered < len(self.past):
            model.recall(*self.past[self.remembered], growing)
            self.remembered += 1
        if self.remembered < len(self.past):
            return dialogue
        growing.rng, self.recalled, self.called = dialogue.rng, None, False
        growing.speak_as(dialogue)
        self.spoken = [(word, FORGOTTEN, made) for word, _, made in self.spoken]
        return growing

    def forget_at_once(self, model: DialogueModel, dialogue: DialogueState, limit: int) -> DialogueState:
        """The same where a turn begins, if it cannot wait."""
        if dialogue.llm.length > 2 * limit:
            dialogue = self.forget_a_little(model, dialogue, limit)
            while self.recalled is not None:
                dialogue = self.forget_a_little(model, dialogue, limit)
        return dialogue

    def _drop_the_oldest(self, model: DialogueModel, limit: int) -> None:
        """Whole turns, until the rest fills half of the limit in words."""
        spoken = self.spoken
        self.replace(reversed(self.past), model, limit // 2)
        self.spoken = spoken
