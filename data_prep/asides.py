"""What is said and needs no answer: statements, back-channels; and what is to be obeyed without one: "stop".

    aside(seed, index, split) -> (text, verdict)       the same one whenever it is asked for

The duplex monitor learns from these to tell them from questions. One statement in five belongs to the test and one in
twenty to development, by its words; the scenes of `duologue evaluate duplex` have other texts again (see scenes.py).

Source: VITA (arXiv 2408.05211), section 3.3.1: noise audio is speech that needs no answer.
"""

from __future__ import annotations

import numpy as np

from .splits import Split, operand_split
from .spoken import number_in_words

_WHO = (
    "i", "we", "you", "they", "my brother", "my mother", "our neighbour", "the doctor", "a friend of mine",
    "the cat", "peter", "anna", "the boys", "his father", "her aunt", "that man", "the girl", "some people",
    "my uncle", "the neighbours", "a young woman", "our teacher", "his grandmother", "the driver", "everybody",
    "nobody", "my best friend", "the whole family", "her husband", "his daughter", "the old man", "those people",
    "the team", "a policeman", "the nurse", "my colleague", "both of them", "the baby", "she", "he", "our guests",
    "the owner", "these students", "somebody",
)  # fmt: skip
_DID = (
    "saw", "bought", "lost", "found", "forgot", "washed", "painted", "sold", "broke", "liked", "carried", "wanted",
    "needed", "took", "brought", "made", "dropped", "kept", "visited", "cooked", "cleaned", "fixed", "borrowed",
    "talked about", "remembered", "showed me", "gave away", "left", "ordered", "enjoyed", "hid", "filled", "moved",
    "opened", "watched", "chose", "repaired", "sent", "picked up", "put away", "threw out", "was looking for",
    "could not find", "used to have", "would rather have", "will never buy", "must not forget", "paid for",
    "is proud of", "got", "asked about", "has no use for", "laughed about", "hated", "just finished", "never saw",
    "always wanted", "walked past", "drove away with", "started with", "is afraid of",
)  # fmt: skip
_WHAT = (
    "the blue cup", "an old chair", "some apples", "two tickets", "the big box", "a pair of shoes", "the newspaper",
    "a bottle of milk", "his jacket", "her bicycle", "the long letter", "all the books", "our tent",
    "a cheap phone", "the spoon", "three pencils", "a loaf", "the yellow flowers", "the soup", "a warm coat",
    "the broken window", "some cheese", "their holiday", "the last piece of cake", "a new lamp", "the wrong key",
    "an umbrella", "the garage", "a small dog", "his old guitar", "the green sofa", "this film", "the long meeting",
    "a basket of plums", "her keys", "the washing", "breakfast", "the dishes", "a funny story", "all the plates",
    "the photographs", "the concert", "the big parcel", "the stairs", "the curtains", "a glass of juice",
    "my homework", "the football match", "fresh vegetables", "the second chapter", "a heavy bag",
    "his birthday present", "the neighbourhood", "that restaurant", "a silver ring", "the whole weekend",
    "the repair",
)  # fmt: skip
_WHEN = (
    "yesterday", "on friday", "last week", "in the morning", "before lunch", "after work", "two days ago",
    "at the market", "in the kitchen", "for the party", "because of the rain", "with great care", "in the end",
    "at night", "once again", "in the hall", "near the station", "at the office", "behind the house",
    "at the beach", "in the park", "on the balcony", "under the bed", "at the corner", "next to the bank",
    "upstairs", "in the mountains", "at the airport", "by the lake", "in town", "on the shelf", "outside",
    "at the hotel", "on holiday", "over here", "this spring", "on sunday evening", "every weekend", "a while ago",
    "just now", "the other day", "all afternoon", "last month", "right away", "as usual",
)  # fmt: skip
_BE = (
    "was tired", "was on the bus", "will be late", "is in the shop", "was very happy", "is sitting outside",
    "was not there", "could not sleep", "is coming with us", "went away", "will call back", "was waiting for you",
    "is getting better", "came back", "did not say much", "has to work", "is still asleep", "was in the water",
)  # fmt: skip
_BEING = ("is", "was", "is not", "looks", "will be", "stayed", "seems to be", "cannot be", "has been")
_HOW = (
    "nice", "broken", "too expensive", "really heavy", "almost empty", "quite far away", "wonderful", "terrible",
    "ready now", "a bit strange", "good enough", "much better than before", "not very useful", "gone", "still warm",
    "on its way", "my favourite", "a great idea", "not so easy", "finished",
)  # fmt: skip
_IT = (
    "it was cold {}", "it is too late now", "it rained all day {}", "there was a lot of noise {}",
    "that is not mine",
    "this one is better", "it does not matter", "there is no more bread", "it was a long day {}",
    "the door was open {}", "the road is closed {}", "lunch is nearly ready", "the bus was full {}",
    "that was a surprise",
)  # fmt: skip
_NUMBER = (
    "the train leaves at {}", "she is {} years old", "we still have {} chairs {}", "he lives in number {}",
    "there were {} people {}", "i counted {} of them {}", "the ticket was {} euros", "we waited until {} {}",
    "they open at {}", "my bus is the {}", "it will be {} degrees {}", "you had {} of them {}", "he came at {} {}",
    "{} of us were there {}", "she has read {} books {}", "the shop closes at {} today",
)  # fmt: skip
_THINK = ("", "", "", "i think ", "i heard that ", "you know ", "and then ", "he told me ", "well ", "but ")

BACK_CHANNELS = (
    "uh huh", "mm hmm", "yes", "i see", "sure", "ah", "oh", "hmm", "yep", "of course", "really", "wow", "indeed", "aha",
    "all right", "oh yes", "yes yes",
)  # fmt: skip
STOPS = (
    "stop", "stop now", "stop please", "wait", "wait a moment", "be quiet", "enough", "that is enough", "hold on",
    "quiet please", "no stop", "stop talking", "just stop",
)  # fmt: skip
_STATEMENTS, _BACK_CHANNELS = 0.7, 0.18  # shares; the rest is to be obeyed


def _one(rng: np.random.Generator, among: tuple[str, ...]) -> str:
    return among[int(rng.integers(len(among)))]


def _statement(rng: np.random.Generator) -> str:
    choice = rng.random()
    when = "" if rng.random() < 0.1 else _one(rng, _WHEN)
    if choice < 0.2:
        number = number_in_words(int(rng.integers(2, 13 if rng.random() < 0.5 else 100)))
        words = _one(rng, _NUMBER).format(number, when)
    elif choice < 0.6:
        words = f"{_one(rng, _WHO)} {_one(rng, _DID)} {_one(rng, _WHAT)} {when}"
    elif choice < 0.7:
        words = f"{_one(rng, _WHO)} {_one(rng, _BE)} {when}"
    elif choice < 0.8:
        words = f"{_one(rng, _WHO)} {_one(rng, _BEING)} {_one(rng, _WHEN)}"
    elif choice < 0.9:
        words = f"{_one(rng, _WHAT)} {_one(rng, _BEING)} {_one(rng, _HOW)}"
    else:
        words = _one(rng, _IT).format(when)
    return " ".join((_one(rng, _THINK) + words).split())


def aside(seed: int, index: int, split: Split | str = Split.TRAIN) -> tuple[str, str]:
    """Words, and what a monitor should make of them once they are said: "noise", or "query" for a stop."""
    split = Split(split)
    rng = np.random.default_rng([seed, index, 11 + tuple(Split).index(split)])
    choice = rng.random()
    if choice >= _STATEMENTS:
        few = BACK_CHANNELS if choice < _STATEMENTS + _BACK_CHANNELS else STOPS
        return _one(rng, few), "noise" if few is BACK_CHANNELS else "query"
    text = _statement(rng)
    while operand_split(f"aside {text}") is not split:
        text = _statement(rng)
    return text, "noise"
