"""The synthetic voices: who speaks in training, in development, in acceptance tests, and whose voice is the reply's.

Acceptance voices are never trained on. They are of kinds that training knows only by other speakers: two clustergen
voices of flite (a Scottish man, a woman), a diphone man and an HTS woman of festival.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from ...model.errors import DuologueError
from .engine import ENGINES, SynthesisError, Voice
from .engines.command import arguments_of, require_command
from .engines.espeak import espeak_command
from .synthesis import require

ACCENTS = ("en-029", "en-gb", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-gb-x-rp", "en-us", "en-us-nyc")
# Variants that sound like people; whispers, robots, croaks and the like are left out.
TRAIN_VARIANTS = (
    "f1", "f2", "f3", "f4", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "Alex", "Alicia", "Andy", "Annie", "Diogo",
    "Gene", "Jacky", "Marco", "Michael", "adam", "anika", "antonio", "aunty", "boris", "david", "ed", "edward",
    "grandma", "gustave", "iven", "john", "klatt", "klatt2", "klatt4", "klatt6", "marcelo", "max", "michel", "miguel",
    "norbert", "pablo", "paul", "quincy", "robert", "sandro", "shelby", "steph2", "travis", "victor", "zac",
)  # fmt: skip
DEV_NAMES = (
    "en-us+f5", "en-gb+m8", "en-gb-scotland+Andrea", "en-gb-x-rp+benjamin", "en-us-nyc+caleb", "en-029+linda",
    "en-gb-x-gbclan+Mario", "en-gb-x-gbcwmd+rob", "en-us+belinda", "en-gb+pedro", "en-gb-scotland+Lee", "en-us+Hugo",
)  # fmt: skip

_ESPEAK_FRACTION, _RMS_FRACTION, _KAL16_FRACTION, _KAL_FRACTION = 0.50, 0.20, 0.15, 0.15

TRAIN_VOICES: tuple[Voice, ...] = (
    *(
        Voice(engine="espeak", name=f"{accent}+{variant}", pitch=(25, 75), spread=(0, 0), rate=(120, 215),
              weight=_ESPEAK_FRACTION / len(ACCENTS) / len(TRAIN_VARIANTS))
        for accent in ACCENTS
        for variant in TRAIN_VARIANTS
    ),
    Voice(engine="flite", name="rms", pitch=(80, 230), spread=(8, 35), rate=(0.8, 1.3), weight=_RMS_FRACTION),
    Voice(engine="flite", name="kal16", pitch=(80, 230), spread=(8, 35), rate=(0.8, 1.3), weight=_KAL16_FRACTION),
    Voice(engine="festival", name="kal_diphone", pitch=(80, 230), spread=(8, 35), rate=(0.8, 1.4),
          weight=_KAL_FRACTION),
)  # fmt: skip
# People's voices by statistics, as the acceptance voices are; but not every machine has their programs.
MORE_VOICES: tuple[Voice, ...] = (
    Voice(engine="rhvoice", name="bdl", pitch=(80, 135), spread=(0, 0), rate=(75, 125), weight=0.35),
    Voice(engine="rhvoice", name="clb", pitch=(70, 125), spread=(0, 0), rate=(75, 125), weight=0.35),
    Voice(engine="pico", name="en-US", pitch=(65, 125), spread=(0, 0), rate=(75, 125), weight=0.3),
)
# Kokoro's: people who speak English, any two of them mixed, and people of other tongues, who speak it with an accent.
_KOKORO_DEV = ("af_bella", "af_river", "am_michael", "am_puck", "bf_emma", "bm_lewis")
_KOKORO_ENGLISH = (
    "af_alloy", "af_aoede", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_sarah", "af_sky",
    "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_onyx", "am_santa", "bf_alice", "bf_isabella",
    "bf_lily", "bm_daniel", "bm_fable", "bm_george",
)  # fmt: skip
_KOKORO_OTHERS = (
    "ef_dora", "em_alex", "em_santa", "ff_siwis", "hf_alpha", "hf_beta", "hm_omega", "hm_psi", "if_sara", "im_nicola",
    "jf_alpha", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo", "pf_dora", "pm_alex", "pm_santa", "zf_xiaobei",
    "zf_xiaoni", "zf_xiaoxiao", "zf_xiaoyi", "zm_yunjian", "zm_yunxi", "zm_yunxia", "zm_yunyang",
)  # fmt: skip
_MIXTURES = tuple("+".join(two) for two in itertools.combinations(_KOKORO_ENGLISH + _KOKORO_OTHERS[:10], 2))
NEURAL_VOICES: tuple[Voice, ...] = tuple(
    Voice(engine="kokoro", name=name, pitch=(1, 1), spread=(0, 0), rate=(75, 135), weight=fraction / len(names))
    for names, fraction in ((_KOKORO_ENGLISH, 0.45), (_KOKORO_OTHERS, 0.2), (_MIXTURES, 0.35))
    for name in names
)
DEV_VOICES: tuple[Voice, ...] = tuple(Voice(engine="espeak", name=name) for name in DEV_NAMES)
DEV_NEURAL_VOICES: tuple[Voice, ...] = tuple(Voice(engine="kokoro", name=name) for name in _KOKORO_DEV)
ACCEPTANCE_VOICES: tuple[Voice, ...] = (
    Voice(engine="flite", name="awb"),
    Voice(engine="flite", name="slt"),
    Voice(engine="festival", name="ked_diphone"),
    Voice(engine="festival", name="cmu_us_slt_arctic_hts"),
)
REPLY_VOICE = Voice(engine="flite", name="rms")
VOICE_SETS = {
    "train": TRAIN_VOICES,
    "espeak": tuple(voice for voice in TRAIN_VOICES if voice.engine == "espeak"),  # all of them by pip
    "more": MORE_VOICES,
    "neural": NEURAL_VOICES,
    "dev": DEV_VOICES,
    "dev_neural": DEV_NEURAL_VOICES,
    "acceptance": ACCEPTANCE_VOICES,
    "reply": (REPLY_VOICE,),
}


def draw_voice(voices: Sequence[Voice], rng: np.random.Generator) -> Voice:
    """One of `voices`, in proportion to their weights."""
    ends = np.cumsum([voice.weight for voice in voices])
    return voices[int(np.searchsorted(ends, rng.uniform(0, ends[-1]), side="right").clip(0, len(voices) - 1))]


def find_voices(names: str, tts_command: str = "") -> tuple[Voice, ...]:
    """The voices a recipe's `voices` and `tts_command` name.

    Args:
        names: sets by their names (VOICE_SETS) and voices by their keys, with commas between ("train,flite:awb"). They
            are drawn by their weights, of which a set to train on has 1 in all, as has a voice by itself.
        tts_command: a command that speaks instead of them (see tts_command.py); empty: none does.

    Raises DuologueError for an unknown engine or set, and for a command without its places.
    """
    if tts_command:
        arguments_of(tts_command)
        return (Voice(engine="command", name=tts_command),)
    known = {voice.key: voice for voices in VOICE_SETS.values() for voice in voices}
    built_in = ENGINES.first_lines().keys() - {"command"}
    found: list[Voice] = []
    for key in map(str.strip, names.split(",")):
        if key in VOICE_SETS:
            found += VOICE_SETS[key]
            continue
        engine, _, name = key.partition(":")
        if engine not in built_in or not name:
            raise DuologueError(
                f"unknown voice {key!r}: expected one of {', '.join(VOICE_SETS)}, or {'|'.join(sorted(built_in))}:name"
            )
        found.append(known.get(key) or Voice(engine=engine, name=name))
    return tuple(found)


def require_voices(voices: Sequence[Voice]) -> None:
    """Raises SynthesisError or DuologueError that names the programs which are not there."""
    try:
        require(*sorted({voice.engine for voice in voices if voice.engine != "command"}))
    except SynthesisError as error:
        if any(voice.engine in ("flite", "festival") for voice in voices) and espeak_command() is not None:
            raise SynthesisError(f"{error}; voices=espeak needs none of them") from None
        raise
    for voice in voices:
        if voice.engine == "command":
            require_command(voice.name)
