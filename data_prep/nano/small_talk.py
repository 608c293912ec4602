"""Small talk, and what nano says to a question outside its domain: intents, their wordings, one reply each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Intent:
    """`slot` is the part of `reply` that makes it right."""

    name: str
    wordings: tuple[str, ...]
    reply: str
    slot: str


INTENTS = (
    Intent("hello", ("hello", "hello nano", "hello there", "hi", "hi there", "hi nano", "hey there",
           "hello how do you do"),
           "hello how can i help you", "hello"),
    Intent("good_morning", ("good morning", "good morning nano", "good morning to you", "a very good morning",
           "hello good morning"),
           "good morning to you", "good morning"),
    Intent("good_evening", ("good evening", "good evening nano", "good evening to you", "a very good evening",
           "hello good evening"),
           "good evening to you", "good evening"),
    Intent("how_are_you", ("how are you", "how are you today", "how are you doing", "how are you doing today",
           "are you well",
                           "how do you feel", "how do you feel today"), "i am very well thank you", "very well"),
    Intent("name", ("what is your name", "who are you", "tell me your name", "what are you called",
           "do you have a name",
                    "what should i call you", "say your name"), "my name is nano", "nano"),
    Intent("maker", ("who made you", "who created you", "who built you", "where do you come from", "who is your maker",
                     "tell me who made you"), "i was made with duologue", "duologue"),
    Intent("what_are_you", ("what are you", "are you a robot", "are you a person", "are you human", "are you a machine",
                            "are you a computer", "are you a real person"), "i am a small computer model",
                            "computer model"),
    Intent("thanks", ("thank you", "thanks", "thank you very much", "thanks a lot", "many thanks", "thank you nano",
                      "thank you so much"), "you are welcome", "welcome"),
    Intent("goodbye", ("goodbye", "bye", "bye bye", "goodbye nano", "see you later", "see you tomorrow", "good night",
                       "i have to go now"), "goodbye and see you soon", "goodbye"),
    Intent("joke", ("tell me a joke", "do you know a joke", "say something funny", "make me laugh",
           "tell me something funny",
                    "please tell me a joke", "can you tell a joke"),
           "why is six afraid of seven because seven ate nine", "seven ate nine"),
    Intent("help", ("what can you do", "what do you know", "how can you help me", "what can i ask you", "help",
                    "can you help me", "what are you good at"),
           "i can count spell and tell you capitals", "count spell"),
    Intent("old", ("how old are you", "what is your age", "when were you born", "are you old", "tell me your age"),
           "i am very young", "young"),
    Intent("home", ("where do you live", "where is your home", "where are you", "where are you now",
           "do you have a home"),
           "i live in this computer", "this computer"),
    Intent("colour", ("what is your favourite colour", "which colour do you like", "what colour do you like best",
                      "tell me your favourite colour", "do you have a favourite colour"),
                      "my favourite colour is blue", "blue"),
    Intent("food", ("what do you eat", "what is your favourite food", "are you hungry", "do you eat",
           "do you like food",
                    "what food do you like"), "i do not eat food", "not eat"),
    Intent("sleep", ("do you sleep", "are you tired", "when do you sleep", "do you ever sleep", "do you need sleep"),
           "i never sleep", "never sleep"),
    Intent("love", ("do you love me", "i love you", "do you like me", "i like you", "i like you very much"),
           "i like you too", "like you too"),
    Intent("sorry", ("i am sorry", "sorry", "sorry about that", "i am very sorry", "oh sorry"), "that is all right",
           "all right"),
    Intent("praise", ("well done", "good job", "you are very good", "that was great", "you are great", "great job",
                      "very good"), "that is kind of you", "kind"),
    Intent("sing", ("can you sing", "sing a song", "sing me a song", "please sing", "do you sing", "sing something"),
           "i cannot sing but i can talk", "cannot sing"),
    Intent("hear", ("can you hear me", "do you hear me", "are you there", "are you listening",
           "can you hear what i say",
                    "do you understand me"), "yes i can hear you", "hear you"),
    Intent("language", ("what language do you speak", "do you speak english", "which language do you speak",
                        "can you speak english", "what languages do you know"), "i speak english", "english"),
    Intent("sad", ("i am sad", "i feel sad", "i am not happy", "i feel bad", "i am so sad", "i feel bad today"),
           "i am sorry to hear that", "sorry to hear"),
    Intent("happy", ("i am happy", "i feel good", "i am very happy", "i feel happy", "i feel great",
           "i feel great today"),
           "that is good to hear", "good to hear"),
    Intent("meet", ("nice to meet you", "it is nice to meet you", "i am happy to meet you", "good to meet you",
                    "great to meet you"), "nice to meet you too", "meet you too"),
)  # fmt: skip

OUTSIDE = Intent(
    "outside",
    (
        "what is the weather today", "what is the weather like", "will it rain tomorrow", "what time is it",
        "what is the time now", "who is the president", "who won the game", "who won the game last night",
        "play some music", "turn on the light", "call my mother", "what is the price of gold", "how far is the moon",
        "how far is the sun", "what is the news today", "read me the news", "who is the king of england",
        "what should i eat today", "open the window", "order a pizza", "who wrote this book",
        "what is the meaning of life",
        "how do i make bread", "how do i bake a cake", "when is the next train", "where is my key", "write a letter",
        "send a letter to my friend", "what is love", "how tall is the king", "who painted this picture",
        "what is in the news",
    ),
    "sorry i do not know that",
    "do not know",
)  # fmt: skip
