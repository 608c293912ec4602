"""More ways of asking what the first kinds ask: the more of them a model has met, the better it takes a new one.

Every word of them is one of the vocabulary already. The operands held out are those of the kind itself.
"""

from __future__ import annotations

from dataclasses import replace

from .kinds.basics import FIRST_KINDS
from .kinds.everyday import EVERYDAY
from .kinds.kind import Category, Kind

MORE_WORDINGS: dict[str, tuple[str, ...]] = {
    "plus": (
        "put {a} and {b} together", "{a} and {b} more", "to {a} add {b}", "if i add {b} to {a} what do i get",
        "what do i get when i add {b} to {a}", "what is {b} more than {a}", "how much is {b} more than {a}",
        "add {b} on to {a}", "start with {a} and add {b}", "{a} and then {b} more is what",
        "what number is {b} more than {a}", "add the number {b} to {a}", "how many are {a} and {b}",
        "please work out {a} plus {b}", "take {a} and add {b}", "tell me {a} plus {b}", "find {a} plus {b}",
        "what would {a} plus {b} be", "with {b} added to {a} what do you get", "add {a} and {b} for me",
        "the sum of {a} and {b}", "i need {a} plus {b}", "please add {b} to the number {a}", "what is {a} and {b}",
    ),
    "minus": (
        "from {a} take {b}", "from {a} take away {b}", "if i take {b} from {a} what is left",
        "what is {b} less than {a}", "how much is {b} less than {a}", "{a} less {b}", "{a} take away {b}",
        "start with {a} and take away {b}", "what number is {b} less than {a}", "take the number {b} from {a}",
        "tell me {a} minus {b}", "find {a} minus {b}", "what would {a} minus {b} be", "i need {a} minus {b}",
        "when you take {b} from {a} what is left", "subtract the number {b} from {a}", "take {b} off {a}",
        "i have {a} and lose {b} how many do i have now", "how many are left when {b} of {a} are away",
        "please take {b} away from {a}",
    ),
    "times": (
        "{a} multiplied by {b}", "tell me {a} times {b}", "find {a} times {b}", "i need {a} times {b}",
        "what would {a} times {b} be", "take {a} times {b}", "take {a} and multiply it by {b}",
        "the product of {a} and {b}", "if i multiply {a} by {b} what do i get", "multiply {a} with {b}",
        "multiply the numbers {a} and {b}", "what number is {a} times {b}", "please calculate {a} times {b}",
        "please work out {a} times {b}", "start with {a} and multiply by {b}",
    ),
    "larger": (
        "is {a} larger or {b}", "tell me which is larger {a} or {b}", "tell me which is bigger {a} or {b}",
        "{a} or {b} which is larger", "{a} or {b} which is bigger", "{a} or {b} which one is more",
        "find the larger of {a} and {b}", "give me the bigger number {a} or {b}", "name the larger number {a} or {b}",
        "of {a} and {b} which is more", "which would be more {a} or {b}",
    ),
    "smaller": (
        "is {a} smaller or {b}", "tell me which is smaller {a} or {b}", "tell me which is less {a} or {b}",
        "{a} or {b} which is smaller", "{a} or {b} which one is less", "find the smaller of {a} and {b}",
        "give me the smaller number {a} or {b}", "name the smaller number {a} or {b}",
        "of {a} and {b} which is less", "which would be less {a} or {b}",
    ),
    "number_after": (
        "the number after {a}", "after {a} comes what", "after {a} comes which number", "count on from {a}",
        "what follows {a}", "which one comes after {a}", "what do you say after {a} when you count",
        "tell me what comes after {a}", "tell me which number follows {a}", "find the number after {a}",
        "say the number after {a}", "what number would come after {a}", "what number do i get after {a}",
        "i need the number after {a}", "if i count what number follows {a}",
    ),
    "number_before": (
        "the number before {a}", "before {a} comes what", "before {a} comes which number",
        "which one comes before {a}", "what do you say before {a} when you count", "tell me what comes before {a}",
        "tell me which number comes before {a}", "find the number before {a}", "say the number before {a}",
        "what number would come before {a}", "i need the number before {a}", "what number do i get before {a}",
        "if i count what number comes before {a}", "what is just before {a}",
    ),
    "day_after": (
        "the day after {d}", "after {d} comes which day", "tell me which day follows {d}",
        "it is {d} what day is tomorrow", "today is {d} so what is tomorrow",
        "when today is {d} what day is tomorrow", "what day would come after {d}", "find the day after {d}",
        "which day would come after {d}", "say the day after {d}", "tell me what day follows {d}",
    ),
    "day_before": (
        "the day before {d}", "before {d} comes which day",
        "tell me which day comes before {d}", "it is {d} what day was yesterday", "today is {d} so what was yesterday",
        "when today is {d} what day was yesterday", "find the day before {d}",
        "what day is just before {d}",
        "what day would come before {d}", "say the day before {d}", "tell me what day is before {d}",
    ),
    "days_after": (
        "{a} days after {d}", "{a} days after {d} is which day", "{a} days after {d} is what day",
        "{a} days from {d} is what day", "what day is {a} days from {d}", "which day is {a} days from {d}",
        "it is {d} what day is it in {a} days", "it is {d} which day will it be in {a} days",
        "start on {d} and count {a} days", "count {a} days from {d}", "tell me the day {a} days after {d}",
        "when today is {d} what day is it in {a} days", "which day follows {d} after {a} days",
        "if it is {d} now what day is it in {a} days", "name the day {a} days after {d}",
        "which day will it be {a} days from {d}",
    ),
    "month_after": (
        "the month after {m}", "after {m} comes which month", "tell me which month follows {m}",
        "it is {m} which month comes next", "this month is {m} what is the next month",
        "find the month after {m}", "if it is {m} what month is next",
        "what month would come after {m}",
        "say the month after {m}", "tell me what month follows {m}", "i need the month after {m}",
    ),
    "month_before": (
        "the month before {m}", "before {m} comes which month", "tell me which month comes before {m}",
        "it is {m} what month was before", "this month is {m} what was the last month",
        "find the month before {m}", "if it is {m} what month was last",
        "what month is just before {m}",
        "say the month before {m}", "tell me what month is before {m}", "i need the month before {m}",
    ),
    "units": (
        "{n} {large} in {small}", "how many {small} does {n} {large} have", "tell me {n} {large} in {small}",
        "i need {n} {large} in {small}", "find how many {small} are in {n} {large}", "make {n} {large} into {small}",
        "{n} {large} are how many {small}", "in {n} {large} there are how many {small}",
        "how many {small} do i get from {n} {large}", "put {n} {large} into {small}",
        "what would {n} {large} be in {small}", "please convert {n} {large} into {small}",
    ),
    "double": (
        "the number {a} twice", "what would twice {a} be", "twice the number {a}", "take {a} twice",
        "find the double of {a}",
        "say what double {a} is", "what do i get when i double {a}", "i need the double of {a}", "{a} and {a} again",
        "if i double {a} what do i get", "the double of {a}", "what number is twice {a}", "take double of {a}",
    ),
    "half": (
        "{a} divided by two", "divide {a} in two", "find half of {a}", "take half of {a}", "what number is half of {a}",
        "what do i get when i halve {a}", "i need half of {a}", "if i halve {a} what do i get", "the half of {a}",
        "give me half of {a}", "divide the number {a} by two", "how much is {a} divided by two", "one half of {a}",
    ),
    "parity": (
        "is {a} even", "is {a} odd", "tell me is {a} even or odd", "is that even or odd {a}",
        "the number {a} is it odd or even", "what is {a} even or odd", "what is {a} odd or even",
        "do you know if {a} is odd or even", "would {a} be even or odd", "even or odd the number {a}",
    ),
    "opposites": (
        "what word is opposite to {w}", "tell me a word that is the opposite of {w}", "find the opposite of {w}",
        "say the opposite of {w}", "i need the opposite of {w}", "what would be the opposite of {w}",
        "what is not {w} but the opposite", "which word is opposite to {w}", "the opposite of {w} please",
        "do you know the opposite of {w}",
    ),
    "hello": ("oh hello", "well hello there", "hello hello", "hello to you", "hello again", "hi again nano",
              "oh hi there", "hello my friend"),
    "how_are_you": ("how are you now", "how are you doing now", "and how are you", "how do you feel now",
                    "are you well today", "hello how are you", "tell me how you are"),
    "name": ("what is the name of you", "do you have a name nano", "what name do you have", "please tell me your name",
             "what can i call you", "tell me what you are called", "do i know your name"),
    "maker": ("who is it that made you", "tell me who created you", "tell me who built you", "do you have a maker",
              "do you know who made you", "what person made you"),
    "what_are_you": ("are you a computer or a person", "tell me what you are", "what kind are you",
                     "are you human or a machine", "are you not a real person", "do you know what you are"),
    "thanks": ("okay thank you", "oh thank you", "thanks nano", "thank you please", "great thank you",
               "thank you for that", "well thank you", "thanks for that"),
    "goodbye": ("okay bye", "goodbye for now", "well goodbye", "see you", "see you again", "i go now goodbye",
                "bye for now", "okay see you later", "good night nano"),
    "joke": ("do you have a joke", "give me a joke", "say a joke", "i need a joke", "do you know something funny",
             "do you have a joke for me", "tell me one joke"),
    "help": ("what do you do", "what can you do for me", "i need help", "what should i ask you",
                  "tell me what you can do",
             "what is it that i can ask you", "please help me"),
    "old": ("tell me how old you are", "how old is nano", "what year were you made", "are you very old",
            "when were you made"),
    "home": ("tell me where you live", "in which city do you live", "do you live in a house",
                  "where do you come home to",
             "what is your home"),
    "colour": ("do you like blue", "tell me the colour you like", "what colour is best",
                  "which colour is your favourite",
               "the colour you like best is what"),
    "food": ("are you hungry now", "do you like to eat", "what would you like to eat", "tell me your favourite food",
             "which food do you like", "do you ever eat"),
    "sleep": ("are you tired now", "do you need to sleep", "do you like to sleep", "will you sleep now",
              "can you sleep"),
    "love": ("i love you nano", "do you like me too", "i do like you", "i love to talk with you", "oh i like you"),
    "sorry": ("i am so sorry", "oh i am sorry", "well sorry", "so sorry", "sorry nano", "i am sorry for that"),
    "praise": ("that was good", "that is great", "you did well", "very good nano", "well done nano",
                  "that is right well done"),
    "sing": ("sing for me", "will you sing", "could you sing a song", "do you know a song", "sing one song for me",
             "i want you to sing"),
    "hear": ("are you listening to me", "can you hear me now", "hello are you there", "are you there now nano",
             "do you understand what i say", "tell me if you can hear me"),
    "language": ("is english your language", "tell me what language you speak", "do you understand english",
                 "what do you speak", "which languages do you know"),
    "sad": ("i am very sad", "today i am sad", "i feel sad today", "i am so sad today", "i feel so bad"),
    "happy": ("today i am happy", "i am so happy", "i feel very good", "i feel good today", "i am very happy today"),
    "meet": ("good to meet you nano", "so nice to meet you", "it is good to meet you", "very nice to meet you",
             "hello nice to meet you"),
}  # fmt: skip


def _asked_otherwise(kind: Kind) -> Kind:
    fraction = 1 if kind.category is Category.SMALL_TALK else 0.5
    name, templates = f"{kind.name}_more", MORE_WORDINGS[kind.name]
    return replace(kind, name=name, templates=templates, weight=fraction * kind.weight, held_as=kind.key)


REWORDED = tuple(_asked_otherwise(kind) for kind in (*FIRST_KINDS, *EVERYDAY) if kind.name in MORE_WORDINGS)
