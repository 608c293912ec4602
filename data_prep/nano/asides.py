"""What is said and needs no answer: statements, back-channels; and what is to be obeyed without one: "stop".

    aside(seed, index, split) -> (text, verdict)       the same one whenever it is asked for

The duplex monitor learns from these to tell them from questions. One statement in five belongs to the test and one in
twenty to development, by its words; the scenes of `duologue evaluate duplex` have other texts again (see scenes.py).

Source: VITA (arXiv 2408.05211), section 3.3.1: noise audio is speech that needs no answer.
"""

from __future__ import annotations

import re

import numpy as np

from ..datasets.splits import Split, operand_split
from ..text.spoken import number_in_words

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
# The rest is what people say to each other about other things: in more ways, and often two sentences in one.
_REMARKS = (
    "{who} {went} {to} {when}", "{who} {has} a {adjective} {noun} {when}", "{who} {is} {doing} {place}",
    "there {are} {many} {place}", "{who} {ate} {dish} and {dish} {meal}", "{that was} the {best} {of all} {so far}",
    "{put} {place} {please}", "{who} {will} {when}", "{who} {will} at {hour}", "{what} {is} {place}",
)  # fmt: skip
_SLOTS = {
    "who": _WHO, "what": _WHAT, "when": ("", *_WHEN), "hour": tuple(map(number_in_words, range(1, 13))),
    "has": ("has", "had", "bought", "needs", "sold us"), "is": ("is", "was", "are", "were", "is still", "must be"),
    "are": ("are", "were"), "ate": ("had", "ate", "made", "cooked"),
    "that was": ("that was", "it was", "this is", "it is"),
    "please": ("", "", "please", "for now", "and do not touch it"),
    "went": (
        "went", "walked", "drove", "came", "flew", "moved", "ran", "rode", "travelled", "hurried", "got", "took us",
    ),
    "to": (
        "to the station", "to the river", "to the shops", "to the mountains", "to a small village", "to the dentist",
        "to the museum", "to the wedding", "to the other side", "into the forest", "all the way to the coast",
        "to the neighbours", "back to the hotel", "home", "to the cinema", "to a farm", "up the hill", "down the road",
        "across the bridge", "out of the house", "to my grandparents", "to bed", "to the swimming pool",
    ),
    "doing": (
        "playing football", "reading the paper", "waiting for the bus", "sleeping", "talking on the phone", "laughing",
        "looking out of the window", "working", "cutting the grass", "writing postcards", "running around", "singing",
        "swimming", "cooking", "sitting", "standing", "hiding", "painting", "listening to the radio", "having lunch",
    ),
    "place": (
        "in the living room", "behind the shed", "under the tree", "by the window", "on the roof", "in the next room",
        "at the station", "in front of the church", "on the left", "at the back", "in the basement", "in the street",
        "beside the river", "at my desk", "on the other side", "in the cupboard", "in the drawer", "on the floor",
        "next to the door", "down there", "up there", "in the sun", "in his pocket", "on top of the wardrobe",
    ),
    "adjective": (
        "big", "little", "nice", "heavy", "beautiful", "strange", "brown", "white", "green", "cheap", "expensive",
        "lovely", "empty", "dark", "long", "quiet", "noisy", "different", "wooden", "clean", "dirty", "famous",
        "modern", "young",
    ),
    "noun": (
        "house", "coat", "hat", "bike", "cat", "kitchen", "job", "haircut", "television", "boat", "dress", "idea",
        "flat", "voice", "garden fence", "carpet", "suitcase", "jumper", "mirror", "clock", "camera", "piano", "shirt",
        "desk",
    ),
    "many": (
        "some cars", "so many birds", "no tourists", "only a few mistakes", "some cups", "so many letters", "no clouds",
        "only a few leaves", "some shoes", "so many boxes", "no stars", "some spiders", "so many flowers", "strangers",
        "holes", "no bicycles", "only a few stones", "all these toys",
    ),
    "dish": (
        "soup", "potatoes", "rice", "salad", "chicken", "eggs", "noodles", "pancakes", "toast", "cheese", "sausages",
        "beans", "ice cream", "a sandwich", "some fruit", "cake", "tomatoes", "pasta",
    ),
    "meal": ("for lunch", "for breakfast", "for supper", "on the way", "this evening", "at the party", "as a starter"),
    "best": (
        "best", "worst", "longest", "funniest", "nicest", "coldest", "hardest", "most boring", "strangest", "first",
    ),
    "of all": (
        "film", "winter", "book", "party", "journey", "meal", "day", "lesson", "concert", "speech", "present", "match",
        "story", "trip", "show", "question",
    ),
    "so far": (
        "i have ever seen", "of my life", "of the week", "so far", "in years", "we had together", "of all",
        "of the season", "for a long time", "that anybody can remember", "of the summer",
    ),
    "put": (
        "leave it", "hang them", "throw that", "put those", "put the bags", "keep it", "carry that", "hide them",
        "push it", "bring him the ladder", "show her the room", "take the dog out", "give him another one",
        "come and sit", "do not stand", "stay", "be careful", "look", "hold it", "wait for me", "meet us",
        "let us go and eat", "let them play", "do not leave your things", "do not run", "park the car", "sit down",
    ),
    "will": (
        "will come", "will arrive", "will leave", "is leaving", "can help us", "has to get up", "should be here",
        "might be late", "would like to come", "is going to move", "will pick them up", "wants to start", "will pay",
        "cannot come", "has to go", "will try again", "is flying back", "is getting married", "may stay",
    ),
    "said": (
        "said", "told us that", "thinks", "wrote that", "promised that", "is sure that", "knew that", "forgot that",
        "was glad that", "wished that", "explained that", "hopes", "believed that",
    ),
    "then": (
        "because nobody was at home", "but it was closed", "so we waited", "and nobody noticed", "when the phone rang",
        "while the others slept", "although it was raining", "and then it got dark", "before anybody could help",
        "so that was that", "but i did not mind", "and it cost nothing", "until the lights went out", "if you ask me",
        "because the lift was broken", "and everybody laughed", "as long as it is dry", "or so they say",
    ),
}  # fmt: skip
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
_REMARK_FRACTION = 0.5  # of the statements


def _one(rng: np.random.Generator, among: tuple[str, ...]) -> str:
    return among[int(rng.integers(len(among)))]


def _remark(rng: np.random.Generator) -> str:
    template = _one(rng, _REMARKS)
    if rng.random() < 0.2:
        template = "{who} {said} " + template
    if rng.random() < 0.2:
        template += " {then}"
    return re.sub(r"\{([^}]+)\}", lambda slot: _one(rng, _SLOTS[slot[1]]), template)


def _statement(rng: np.random.Generator) -> str:
    if rng.random() < _REMARK_FRACTION:
        return " ".join((_one(rng, _THINK) + _remark(rng)).split())
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
