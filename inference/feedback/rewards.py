"""What an answer is worth: rules that can be checked, a chat model's grade, a reward model; and their weighted sum.

    right     1 where the answer holds the question's slot (see judges/slots.py), 0 where it does not
    brief     1 up to ``words`` words, fewer in proportion beyond: twice as many are worth a half
    fresh     the fraction of its runs of three words that were not there before in it: 1 where nothing is repeated
    spoken    1 - the word error rate of what a recogniser hears in its speech, at least 0
    judge     the grade of a chat model behind an endpoint, 1 to 5, as 0 to 1 (see judges/endpoint.py)
    model     the reward of a model that recipe ``reward`` has trained, without bounds

Each is a number that is the larger the better. Source of the sum: Ouyang et al. (arXiv 2203.02155), of answers that are
compared; rewards that can be checked: Lambert et al., "Tülu 3" (arXiv 2411.15124), section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...data_prep.datasets.question_sets import Dialogue
from ...data_prep.text.spoken import normalise
from ...model.errors import DuologueError
from ..evaluation.judges.endpoint import EndpointJudge
from ..evaluation.judges.slots import is_right
from ..evaluation.metrics.words import separate, word_errors
from .answers import Answer

Reward = Callable[[Dialogue, Answer], float]
RULES = ("right", "brief", "fresh", "spoken")
NAMES = (*RULES, "judge", "model")


def read_weights(text: str) -> dict[str, float]:
    """ "right,brief:0.3" -> {"right": 1.0, "brief": 0.3}. Raises DuologueError for an unknown reward or no number."""
    found: dict[str, float] = {}
    for entry in text.split(","):
        name, colon, weight = entry.strip().partition(":")
        if name not in NAMES:
            raise DuologueError(f"reward={text}: {name!r} is no reward; there are {', '.join(NAMES)}")
        try:
            found[name] = float(weight) if colon else 1.0
        except ValueError:
            raise DuologueError(f"reward={text}: the weight of {name} is {weight!r}; it must be a number") from None
    return found


def words_in(text: str) -> list[str]:
    """As they are compared: lower case, numbers in words, letters of scripts without spaces apart."""
    return separate(normalise(text)).split()


def right(question: Dialogue, answer: Answer) -> float:
    """Raises DuologueError of a question that does not say what a right answer contains."""
    if not question.slot:
        raise DuologueError(f"reward right: {question.question!r} has no slot, the words that a right answer contains")
    return float(is_right(answer.text, question.answer, question.slot))


def brief(most: int) -> Reward:
    """Of at most so many words; no words are worth nothing."""

    def worth(question: Dialogue, answer: Answer) -> float:
        count = len(words_in(answer.text))
        return min(1.0, most / count) if count else 0.0

    return worth


def fresh(question: Dialogue, answer: Answer) -> float:
    """See above; of fewer than four words it is 1."""
    return 1.0 - repeated(words_in(answer.text))


def repeated(words: list[str], run: int = 3) -> float:
    """The fraction of the runs of so many words that were there before."""
    runs = [tuple(words[at : at + run]) for at in range(len(words) - run + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def spoken(question: Dialogue, answer: Answer) -> float:
    """Of an answer that was spoken aloud; nothing said is worth nothing."""
    if not answer.heard or not words_in(answer.text):
        return 0.0
    found = word_errors([answer.heard], [answer.text])
    return max(0.0, 1.0 - (1.0 if found.rate is None else found.rate))


def judged(judge: EndpointJudge) -> Reward:
    """The grade of a chat model."""

    def worth(question: Dialogue, answer: Answer) -> float:
        before = "".join(f"User: {asked}\nAssistant: {said}\n" for asked, said in question.history)
        return (judge.score(f"{before}User: {question.question}" if before else question.question, answer.text) - 1) / 4

    return worth


@dataclass(frozen=True)
class Worth:
    """The weighted sum of some rewards, and each of them."""

    weights: Mapping[str, float]
    rewards: Mapping[str, Reward]

    def each(self, question: Dialogue, answer: Answer) -> dict[str, float]:
        """Every reward that there is, by its name, those of no weight too."""
        return {name: reward(question, answer) for name, reward in self.rewards.items()}

    def total(self, found: Mapping[str, float]) -> float:
        """Of what :meth:`each` has found."""
        return sum(weight * found[name] for name, weight in self.weights.items())
