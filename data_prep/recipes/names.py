"""Sentences in which rare names are said, to measure how well a model understands those of a product.

    duologue prepare names out=names names=mine.txt others=questions.txt avoid=questions.txt

    OUT/sentences.jsonl    conversations, each name in as many sentences as `each` says
    OUT/names.txt          the names, a line each: the right list of hot words
    OUT/others.txt         1,000 rare words of a text that no sentence has: a wrong list, where `others` is given

`duologue evaluate asr --data OUT/sentences.jsonl hotwords=OUT/names.txt` has voices say them, and tells what the list
finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...checkpoints.files import expanded, read_text, write_json_lines, write_text
from ...model.decoding.labels import plain_words
from ...model.errors import DuologueError

NAMES = {  # surnames, places and products
    "test": """
        Abramowitz Alcoa Andonian Bagnell Batzel Benecke Bergling Biddison Bolten Bonneville Borman Branson Burgman
        Butkovich Cantwell Caspers Cayton Channon Condello Conville Corrigan Crosslin Dagan Deanda Dedham Dermody
        Difonzo Duffner Enichem Espejo Farney Finklea Flagler Freilich Frisina Geffner Gilpin Glendon Gookin Grissett
        Hardister Hartner Heidinger Herskovitz Holtzinger Hussong Karolyn Keltner Kensington Kimbell Klamer Kornberg
        Kristiansen Landingham Laskowski Lipsey Lourenco Manco Marotto Matranga McCarron McFadden McGinty Meyerman
        Moncus Monterosso Murase Nagao Natale Nokia Ocala Orpheus Partch Perrott Photronics Pitkin Podesta Pooley
        Prutzman Redmon Riegert Rivard Rojas Rozanski Sargasso Shaykin Sodano Stefanko Stempien Tedman Toothman
        Tregoning Vanderhorst Verlag Wallenberg Waterstein Wedgewood Wesolowski Whitten Wortley
    """,
    "dev": """
        Achilles Allsop Antenucci Balko Beggs Benites Bialik Biondo Bonaventure Borchers Bowlus Brantner Burkley
        Cabrales Carsey Cassetta Cervenka Clemons Condra Coppock Cotroneo Crosswhite Danton Decamillo Dejarnett Dieguez
        Dobrowski Elderkin Epcot Estabrooks Farrar Finley Fogerty Freudenberg Gambrell Gilbride Girobank Goodstein
        Gramley Hager Hargrove Havelka Henslee Hilger Hubbs Icarus Kasparek Kennard Kerstein Kirton Kolasinski Kowalchuk
        Lacosse Laporte Lassman Longanecker Madeleine Margaux Massenburg Mattick McCleskey McGeever Merolla Minerd
        Monteagudo Mulhern Myerson Napierala Noguchi Nordahl Okano Otero Pascoe Petstuff Pierman Plambeck Poniatowski
        Poquette Quigley Renata Rissmiller Roback Rowena Sangster Seligmann Siddall Steadman Steinbaugh Strenio Tonelli
        Transimage Turrill Vanzant Vestron Warmington Weatherspoon Weisenborn Wetherby Wiersema Zorich
    """,
}
SENTENCES = (
    "Please call {} and say that I will be late.", "What do you know about {}?", "Send a message to {} this evening.",
    "How do I get to {} from here?", "Remind me to write to {} on Monday.", "Is {} still open at this hour?",
    "Read me the news about {}.", "When did you last hear from {}?", "Add {} to my list of contacts.",
    "I had lunch with {} and a friend of mine.", "Who is the new head of {}?", "Play the latest song by {}.",
    "Put the meeting with {} into my calendar.", "Can you spell {} for me?", "Did {} answer my last letter?",
    "Tell {} that the door is open.", "How far is it from {} to the sea?", "Order two more boxes from {}.",
    "The parcel is for {} on the second floor.", "What did {} say about the weather?", "Cancel my dinner with {}.",
    "Has {} paid the bill for March?", "I would like to speak to {} now.", "Find a picture of {} with a dog.",
    "My neighbour {} has a red car.", "Show me the way to {} by train.", "Which of the books by {} is the best?",
    "Ask {} whether we can meet at noon.", "The flight to {} leaves in an hour.", "Set the alarm for the call with {}.",
)  # fmt: skip
_OTHERS, _SELDOM, _LETTERS = 1000, 3, 5


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    out: the folder, made if need be
    names: file of names, one a line; empty: a hundred rare ones
    split: which of these hundred, test or dev
    each: sentences of each name, at most 30
    avoid: texts in which no name may occur, such as those of training, with commas between
    others: a text; words of it that it has at most three times become others.txt
    seed: of which name is said in which sentence
    """

    out: str
    names: str = ""
    split: str = "test"
    each: int = 3
    avoid: str = ""
    others: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in NAMES:
            raise DuologueError(f"split={self.split}: expected {' or '.join(NAMES)}")
        if not 1 <= self.each <= len(SENTENCES):
            raise DuologueError(f"each={self.each}: expected 1 to {len(SENTENCES)}")


def run(config: Config) -> dict[str, Any]:
    """Write the files; returns their counts.

    Raises:
        DuologueError: no names, or one that occurs in a text to avoid.
    """
    names = NAMES[config.split].split() if not config.names else _names(expanded(config.names))
    for path in filter(None, map(str.strip, config.avoid.split(","))):
        known = f" {plain_words(read_text(expanded(path)))} "
        if found := [name for name in names if f" {plain_words(name)} " in known]:
            raise DuologueError(f"{path} has {len(found)} of the names: {', '.join(found[:5])}")
    out, texts = expanded(config.out), _sentences(names, config.each, np.random.default_rng(config.seed))
    out.mkdir(parents=True, exist_ok=True)
    write_json_lines(out / "sentences.jsonl", [{"turns": [{"text": text}]} for text in texts])
    write_text(out / "names.txt", "".join(f"{name}\n" for name in names))
    others = _rare_words(expanded(config.others), texts) if config.others else []
    if others:
        write_text(out / "others.txt", "".join(f"{word}\n" for word in others))
    return {"names": len(names), "sentences": len(texts), "others": len(others)}


def _names(path: Path) -> list[str]:
    names = [name for line in read_text(path).splitlines() if plain_words(name := line.partition("#")[0].strip())]
    if not names:
        raise DuologueError(f"{path} has no names: write one a line")
    return list(dict.fromkeys(names))


def _sentences(names: Sequence[str], each: int, rng: np.random.Generator) -> list[str]:
    """The names in turn, each time in another sentence."""
    order = rng.permutation(len(SENTENCES))
    return [SENTENCES[order[(at + time) % len(SENTENCES)]].format(name)
            for time in range(each) for at, name in enumerate(names)]  # fmt: skip


def _rare_words(path: Path, texts: Sequence[str]) -> list[str]:
    said = set(plain_words(" ".join(texts)).split())
    counts = Counter(plain_words(read_text(path)).split())
    words = (word for word, count in counts.items() if count <= _SELDOM and word.isascii() and word.isalpha())
    rare = sorted(word for word in words if len(word) >= _LETTERS and word not in said)
    return rare[:: max(1, len(rare) // _OTHERS)][:_OTHERS]
