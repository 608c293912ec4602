"""Text to speech behind one function, whatever engine speaks (see engines/): int16 PCM at 16 kHz."""

from __future__ import annotations

import numpy as np

from ...checkpoints.files import broken
from ...model.speech_decoder.spoken_form import read_aloud
from ..audio import resampled
from ..text.plain_text import spoken_field, words_or_text
from ..text.spoken import ALPHABET, letters_marked
from .engine import SAMPLE_RATE, Prosody, SynthesisError, Voice, engine
from .language import sayable

_MOST = 20_000  # characters: a command line has an end
# Pitch and rate of voices' own manner, of engines that can be told a rate alone (in their units, see Prosody).
_OWN = {"espeak": (50.0, 175.0), **dict.fromkeys(("kokoro", "pico", "piper", "rhvoice"), (100.0, 100.0))}


def require(*engines: str) -> None:
    """Raises SynthesisError that names the programs which are not installed."""
    missing = []
    for name in engines:
        try:
            engine(name).require()
        except SynthesisError as error:
            missing.append(str(error))
    if missing:
        raise SynthesisError("; ".join(missing))


def synthesise(text: str, voice: Voice, prosody: Prosody | None = None) -> np.ndarray:
    """Say `text` in `voice`: (samples,) int16 at 16 kHz.

    The voice reads the text as it is written, numbers, signs and abbreviations in its own language; emoji are silent.

    Raises SynthesisError when the program is missing, the voice is unknown or has no sound for a letter, nothing in the
    text can be said, or what comes out is empty.
    """
    speaker = engine(voice.engine)
    speaker.require()
    return _checked(*speaker.speak(given(text, voice), voice, prosody), text, voice)


def at_rate(rate: float, voice: Voice) -> Prosody | None:
    """A voice's manner at so many times its own rate; None: its own, for its engine cannot be told a rate alone."""
    if rate == 1 or voice.engine not in _OWN:
        return None
    pitch, own = _OWN[voice.engine]
    return Prosody(pitch=pitch, spread=0.0, rate=own * rate)


def spoken_by(text: str, voice: Voice, language: str = "en") -> dict[str, str]:
    """The field `spoken` of a clip in which `voice` says `text`: the words, where they can be told; else {}.

    language: of the text (ISO 639), where nobody knows what the voice reads.
    """
    return spoken_field(text, english=_is_english(voice, language))


def as_reply(text: str, voice: Voice, language: str = "en") -> tuple[str, dict[str, str]]:
    """What `voice` is given of a reply, and the field `spoken` of its clip, as :func:`spoken_by`.

    English is read as a unit decoder reads it (see model/speech_decoder/spoken_form.py): "$5" is five dollars whatever
    the voice makes of it.
    """
    if not _is_english(voice, language) or not (said := read_aloud(text)):
        return text, spoken_by(text, voice, language)
    words = words_or_text(said)
    return said, {} if words == text else {"spoken": words}


def _is_english(voice: Voice, language: str) -> bool:
    read = engine(voice.engine).language(voice)
    return (language if read is None else read.code) == "en"


def given(text: str, voice: Voice) -> str:
    """What is given to a voice's engine of a text. Raises SynthesisError for what the voice cannot say."""
    speaker = engine(voice.engine)
    if not text.strip():
        raise SynthesisError("there is nothing to say: the text is empty")
    if broken(text) or "\0" in text:
        raise SynthesisError(f"{text[:60]!r} has half a surrogate pair or a zero, which is no character")
    if len(text) > _MOST:
        raise SynthesisError(f"the text has {len(text)} characters, more than {_MOST}")
    if set(text) <= ALPHABET:
        return letters_marked(text, speaker.LETTER_A) if speaker.LETTER_A else text
    language = speaker.language(voice)
    return text if language is None else sayable(text, language, voice.key)


def _checked(pcm: np.ndarray, rate: int, text: str, voice: Voice) -> np.ndarray:
    """(samples at `rate` Hz,) -> (samples at 16 kHz,). Raises SynthesisError when nothing is to be heard."""
    if rate != SAMPLE_RATE:
        pcm = np.clip(np.round(resampled(pcm.astype(np.float32), rate, SAMPLE_RATE)), -32768, 32767).astype(np.int16)
    if len(pcm) < SAMPLE_RATE // 10 or int(np.abs(pcm.astype(np.int32)).max()) < 100:
        raise SynthesisError(f"{voice.key} gave no speech for {text!r}")
    return pcm
