"""A script that takes some options of the program espeak-ng and calls the library in the package espeakng-loader.

espeak.py runs it once for each sentence. The library (GPL-3.0) keeps its state in global variables: in a fresh process
the samples depend on nothing said before. The script imports little, so that it starts fast.

    python -I -S espeak_library.py FOLDER [--stdout | -w FILE] [-v VOICE] [-p PITCH] [-s RATE] [--] TEXT
    python -I -S espeak_library.py FOLDER --version | --voices | --voices=LANGUAGE

FOLDER is the package's. TEXT may hold phonemes in [[ ]].
"""

from __future__ import annotations

import ctypes
import sys

# From espeak-ng's speak_lib.h.
SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback; espeak_Synth returns when all have
CHARACTERS = 1  # POS_CHARACTER
PHONEMES, END_PAUSE = 0x100, 0x1000  # [[...]] is read as phonemes; a pause ends the sentence
PARAMETERS = {"-s": 1, "-p": 3}  # espeakRATE, espeakPITCH


class EspeakVoice(ctypes.Structure):
    """espeak_VOICE. `languages` holds for each language a byte, its priority, and its name; a zero byte ends it."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("languages", ctypes.c_void_p), ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte), ("age", ctypes.c_ubyte), ("variant", ctypes.c_ubyte), ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int), ("spare", ctypes.c_void_p),
    )  # fmt: skip

    @property
    def language(self) -> str:
        return ctypes.string_at(self.languages + 1).decode()


def started(folder: str) -> tuple[ctypes.CDLL, int]:
    """The library, and its sample rate."""
    names = {"darwin": "libespeak-ng.dylib", "win32": "espeak-ng.dll"}
    library = ctypes.CDLL(f"{folder}/{names.get(sys.platform, 'libespeak-ng.so')}")
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, f"{folder}/espeak-ng-data".encode(), 0)
    if rate <= 0:
        sys.exit(f"the library of espeak-ng in {folder} does not start")
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath is noise, whose seed would be the time of day
    return library, rate


def voices(library: ctypes.CDLL, language: str) -> list[EspeakVoice]:
    held = ctypes.c_char_p(language.encode())
    wanted = EspeakVoice(languages=ctypes.cast(held, ctypes.c_void_p))
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(EspeakVoice))
    found = library.espeak_ListVoices(ctypes.byref(wanted) if language else None)
    listed: list[EspeakVoice] = []
    while found[len(listed)]:
        listed.append(found[len(listed)].contents)
    return listed


def choose(library: ctypes.CDLL, name: str) -> None:
    """By the name of a file, as "en-us+f3", else by language, as the program does: en-gb, whose file is called en."""
    held = ctypes.c_char_p(name.encode())
    language = EspeakVoice(languages=ctypes.cast(held, ctypes.c_void_p))
    if not library.espeak_SetVoiceByName(name.encode()):  # 0: found
        return
    if library.espeak_SetVoiceByProperties(ctypes.byref(language)):
        sys.exit(f"espeak-ng has no voice {name!r}")


def say(library: ctypes.CDLL, text: str) -> bytes:
    """int16 samples."""
    blocks: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def take(samples: int | None, count: int, events: int | None) -> int:
        if samples and count > 0:
            blocks.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(take)
    written = text.encode() + b"\0"
    size = ctypes.c_size_t(len(written))
    library.espeak_Synth(written, size, 0, CHARACTERS, 0, PHONEMES | END_PAUSE, None, None)
    return b"".join(blocks)


def wav(samples: bytes, rate: int) -> bytes:
    """A file of one channel of int16."""
    sizes = (36 + len(samples)).to_bytes(4, "little"), len(samples).to_bytes(4, "little")
    form = (16).to_bytes(4, "little") + b"\1\0\1\0" + rate.to_bytes(4, "little") + (2 * rate).to_bytes(4, "little")
    return b"RIFF" + sizes[0] + b"WAVEfmt " + form + b"\2\0\x10\0" + b"data" + sizes[1] + samples


def main(folder: str, arguments: list[str]) -> None:
    library, rate = started(folder)
    given, text = {"-v": "en"}, ""
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":
            text = arguments.pop(0)
        elif argument in ("-v", "-w", *PARAMETERS):
            given[argument] = arguments.pop(0)
        elif argument.startswith("--"):
            option, _, given_to_it = argument.partition("=")
            given[option] = given_to_it
        else:
            text = argument
    if "--version" in given:
        library.espeak_Info.restype = ctypes.c_char_p
        print(f"eSpeak NG text-to-speech: {library.espeak_Info(None).decode()}  Data at: {folder}/espeak-ng-data")
    elif "--voices" in given:
        print("Pty Language       Age/Gender VoiceName          File")
        for voice in voices(library, given["--voices"]):
            name = voice.name.decode().replace(" ", "_")
            print(f" 5  {voice.language:<15} --/-  {name:<18} {voice.identifier.decode()}")
    else:
        choose(library, given["-v"])
        for option in PARAMETERS:
            if option in given:
                library.espeak_SetParameter(PARAMETERS[option], int(given[option]), 0)
        written = wav(say(library, text), rate)
        if "-w" in given:
            with open(given["-w"], "wb") as file:
                file.write(written)
        else:
            sys.stdout.buffer.write(written)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
