"""What nano knows: tables of facts and word lists. One-word names, so that each is one token and one answer slot."""

from __future__ import annotations

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip

CAPITALS = {
    "france": "paris", "germany": "berlin", "italy": "rome", "spain": "madrid", "portugal": "lisbon",
    "england": "london",
    "scotland": "edinburgh", "ireland": "dublin", "wales": "cardiff", "norway": "oslo", "sweden": "stockholm",
    "finland": "helsinki", "denmark": "copenhagen", "poland": "warsaw", "austria": "vienna", "hungary": "budapest",
    "greece": "athens", "turkey": "ankara", "russia": "moscow", "ukraine": "kiev", "belgium": "brussels",
    "holland": "amsterdam", "romania": "bucharest", "bulgaria": "sofia", "croatia": "zagreb", "egypt": "cairo",
    "kenya": "nairobi", "morocco": "rabat", "ghana": "accra", "nigeria": "abuja", "japan": "tokyo", "china": "beijing",
    "india": "delhi", "iran": "tehran", "iraq": "baghdad", "canada": "ottawa", "cuba": "havana", "peru": "lima",
    "chile": "santiago", "australia": "canberra",
}  # fmt: skip

OPPOSITES = {
    "hot": "cold", "big": "small", "tall": "short", "fast": "slow", "old": "young", "happy": "sad", "light": "dark",
    "hard": "soft", "wet": "dry", "open": "closed", "full": "empty", "early": "late", "rich": "poor", "strong": "weak",
    "loud": "quiet", "good": "bad", "up": "down", "left": "right", "black": "white", "day": "night", "clean": "dirty",
    "high": "low", "near": "far", "thick": "thin", "push": "pull", "win": "lose", "first": "last", "north": "south",
}  # fmt: skip

SOUNDS = {
    "dog": "barks", "cat": "meows", "cow": "moos", "duck": "quacks", "lion": "roars", "bee": "buzzes", "owl": "hoots",
    "snake": "hisses", "pig": "grunts", "bird": "sings",
}  # fmt: skip
YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "sheep": "lamb", "horse": "foal", "bear": "cub", "duck": "duckling",
    "goat": "kid", "pig": "piglet", "frog": "tadpole",
}  # fmt: skip
COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "blood": "red", "coal": "black",
    "a lemon": "yellow", "milk": "white", "a strawberry": "red", "chocolate": "brown",
}  # fmt: skip

# (small unit, large unit, its singular, small units in one large one, most large units asked about)
UNIT_TABLE = (
    ("seconds", "minutes", "minute", 60, 12),
    ("minutes", "hours", "hour", 60, 12),
    ("hours", "days", "day", 24, 10),
    ("days", "weeks", "week", 7, 20),
    ("months", "years", "year", 12, 20),
    ("centimetres", "metres", "metre", 100, 12),
    ("metres", "kilometres", "kilometre", 1000, 9),
    ("grams", "kilograms", "kilogram", 1000, 9),
    ("inches", "feet", "foot", 12, 12),
    ("eggs", "dozens", "dozen", 12, 12),
)

# Words to spell and to repeat: common, short, easy to tell apart by ear.
SPELLING_WORDS = (
    "apple", "baby", "ball", "bank", "bed", "bird", "blue", "boat", "book", "box", "bread", "brother", "bus", "cake",
    "car",
    "cat", "chair", "city", "clock", "cloud", "coat", "cow", "cup", "dance", "desk", "dog", "door", "dress", "duck",
    "egg",
    "eye", "farm", "father", "fire", "fish", "flag", "flower", "food", "frog", "garden", "girl", "glass", "gold",
    "green",
    "hand", "hat", "horse", "house", "ice", "island", "jump", "key", "king", "kitchen", "lake", "leaf", "lemon",
    "letter",
    "lion", "map", "milk", "money", "moon", "mother", "mouse", "music", "nose", "ocean", "orange", "paper", "park",
    "pen",
    "piano", "picture", "pig", "queen", "quick", "rain", "red", "river", "road", "rock", "school", "ship", "shoe",
    "silver",
    "sister", "snow", "spoon", "star", "stone", "sugar", "summer", "sun", "table", "tiger", "train", "tree", "van",
    "water",
    "window", "winter", "wolf", "yellow", "zebra",
)  # fmt: skip
REPEAT_WORDS = (
    *SPELLING_WORDS,
    "happy", "little", "big", "cold", "warm", "fast", "slow", "black", "white", "brown", "pink", "purple", "night",
    "morning", "evening", "spring", "bear", "goat", "sheep", "cheese", "coffee", "tea", "banana", "potato", "tomato",
    "bottle", "pencil", "engine", "doctor", "teacher", "friend", "village", "mountain", "forest", "bridge", "street",
    "candle", "button", "pocket", "silent", "open", "seven", "nine",
)  # fmt: skip
