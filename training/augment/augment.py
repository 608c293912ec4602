"""Augmentation on the fly: one clip in, the same words in another voice, room, noise, line and level out.

Order as in the world: voice (speed, pitch, tempo, formants, source), silence around it, room and microphone, noise,
line, level. An effect costs nothing when it is not drawn. numpy alone; what is random comes from the generator given.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ...data_prep.sounds.noise import draw_noise, mix
from ...data_prep.speech.another_voice import resample, revoice, shift_formants, time_scale
from ...model.errors import DuologueError
from .channel import colour, equaliser, mu_law, overdrive, requantise, room_response, set_level, telephone

_QUIETEST_DBFS = -35.0

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Chances (`*_chance`, 0 to 1) and ranges (low, high), drawn evenly. Ratios are drawn evenly in the logarithm."""

    sample_rate: int = 16000  # Hz
    speed_chance: float = 0.35  # faster and higher together, as a tape
    speed: Range = (0.88, 1.2)  # below, a man's vocal tract grows longer than people have them
    pitch_chance: float = 0.3  # pitch and formants together, tempo kept
    pitch: Range = (0.88, 1.22)
    tempo_chance: float = 0.15  # tempo alone
    tempo: Range = (0.82, 1.22)
    formants_chance: float = 0.12  # formants alone
    formants: Range = (0.85, 1.18)
    source_chance: float = 0.0  # a vocoder's pulses and noise in the place of what excites the vocal tract
    source_pitch: Range = (75.0, 280.0)  # Hz
    silence_chance: float = 0.6
    silence_s: Range = (0.0, 0.5)  # each, before and after
    room_chance: float = 0.3
    rt60_s: Range = (0.1, 0.6)
    direct_db: Range = (-2.0, 15.0)  # direct over reverberant energy
    equaliser_chance: float = 0.4
    tilt_db: Range = (-3.0, 3.0)  # an octave
    bump_db: Range = (-8.0, 8.0)
    noise_chance: float = 0.6
    snr_db: Range = (5.0, 40.0)
    recorded_chance: float = 0.7  # a recorded noise rather than a made one, where there are recordings
    telephone_chance: float = 0.08
    mu_law_chance: float = 0.05
    quantise_chance: float = 0.08
    quantise_bits: tuple[int, int] = (6, 10)
    overdrive_chance: float = 0.06
    overdrive_gain: Range = (1.2, 5.0)
    level_chance: float = 1.0
    level_dbfs: Range = (_QUIETEST_DBFS, 0.0)  # of the largest sample

    def __post_init__(self) -> None:
        for field in fields(self):
            value = self.__dict__[field.name]
            if field.name.endswith("_chance") and not 0.0 <= value <= 1.0:
                raise DuologueError(f"augmentation: {field.name} is {value}, a chance lies between 0 and 1")
            if isinstance(value, tuple) and not (len(value) == 2 and value[0] <= value[1]):
                raise DuologueError(f"augmentation: {field.name} is {value}, a range is (low, high), low <= high")
        least = {"speed": 0.25, "pitch": 0.25, "tempo": 0.25, "formants": 0.25, "rt60_s": 0.01, "source_pitch": 40.0}
        for name, lowest in least.items():
            if self.__dict__[name][0] < lowest:
                raise DuologueError(f"augmentation: {name} starts at {self.__dict__[name][0]}, at least {lowest}")
        if self.silence_s[0] < 0 or self.overdrive_gain[0] < 1 or self.quantise_bits[0] < 2:
            raise DuologueError("augmentation: silence_s starts at 0, overdrive_gain at 1, quantise_bits at 2 or above")


NO_AUGMENTATION = AugmentConfig(
    speed_chance=0, pitch_chance=0, tempo_chance=0, formants_chance=0, silence_chance=0, room_chance=0,
    equaliser_chance=0, noise_chance=0, telephone_chance=0, mu_law_chance=0, quantise_chance=0, overdrive_chance=0,
    level_chance=0,
)  # fmt: skip


def _ratio(rng: np.random.Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def another_voice(wav: np.ndarray, rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """float32 (n,) -> (round(n / (speed * tempo)) within a few samples,): speed, pitch, tempo, formants and source."""
    speed = _ratio(rng, config.speed) if rng.random() < config.speed_chance else 1.0
    pitch = _ratio(rng, config.pitch) if rng.random() < config.pitch_chance else 1.0
    tempo = _ratio(rng, config.tempo) if rng.random() < config.tempo_chance else 1.0
    # both at once could leave the range either was given
    tape = float(np.clip(speed * pitch, min(config.speed[0], config.pitch[0]), max(config.speed[1], config.pitch[1])))
    if tape != 1.0:
        wav = resample(wav, tape)
    if (stretch := tape / (speed * tempo)) != 1.0:
        wav = time_scale(wav, stretch)
    if rng.random() < config.formants_chance:
        wav = shift_formants(wav, _ratio(rng, config.formants))
    if config.source_chance and rng.random() < config.source_chance:
        pitch, liveliness = _ratio(rng, config.source_pitch), rng.uniform(0.0, 1.3)
        breath = 1.0 if rng.random() < 0.1 else rng.uniform(0.0, 0.4)  # at times a whisper
        wav = revoice(wav, rng, config.sample_rate, pitch, liveliness, breath)
    return wav


def _surround(wav: np.ndarray, rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """Silence before and after: (n,) -> (lead + n + trail,)."""
    lead, trail = (int(rng.uniform(*config.silence_s) * config.sample_rate) for _ in range(2))
    out = np.zeros(lead + len(wav) + trail, np.float32)
    out[lead : lead + len(wav)] = wav
    return out


def augment(
    wav: np.ndarray, rng: np.random.Generator, config: AugmentConfig, noises: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """One clip, float32 (n,) in [-1, 1], -> float32 (m,) in [-1, 1]; the input is left as it was.

    m = n / (speed * tempo) + silence before + silence after; rooms, noise and lines keep the length and do not delay.
    noises: recordings at the same rate, float32 or int16, any length and level; one is mixed in at the SNR drawn, which
    is speech over noise where the speech lasts.
    Raises DuologueError unless `wav` is one-dimensional float32.
    """
    if wav.ndim != 1 or wav.dtype != np.float32:
        raise DuologueError(f"augmentation: audio is {wav.dtype} {wav.shape}, wanted float32 (samples,)")
    if len(wav) == 0:
        return wav.copy()
    wav = another_voice(wav, rng, config)
    power = float(np.dot(wav, wav)) / len(wav)
    if rng.random() < config.silence_chance:
        wav = _surround(wav, rng, config)
    room = gains = None
    if rng.random() < config.room_chance:
        room = room_response(rng, rng.uniform(*config.rt60_s), rng.uniform(*config.direct_db), config.sample_rate)
    if rng.random() < config.equaliser_chance:
        gains = equaliser(rng, config.sample_rate, config.tilt_db, config.bump_db)
    if room is not None or gains is not None:
        before = float(np.dot(wav, wav))
        wav = colour(wav, config.sample_rate, room, gains)
        power *= float(np.dot(wav, wav)) / before if before > 1e-8 else 1.0
    if rng.random() < config.noise_chance:
        noise = draw_noise(len(wav), rng, config.sample_rate, noises or (), config.recorded_chance)
        wav = mix(wav, noise, rng.uniform(*config.snr_db), power)
    wav = _line(wav, rng, config)
    if rng.random() < config.level_chance:
        wav = set_level(wav, rng.uniform(*config.level_dbfs))
    return np.clip(wav, -1.0, 1.0).astype(np.float32, copy=False)


def _line(wav: np.ndarray, rng: np.random.Generator, config: AugmentConfig) -> np.ndarray:
    """Overdrive, telephone, quantisers; a quantiser sees the whole range of its steps, the level comes after."""
    drawn = rng.random(4) < (
        config.overdrive_chance, config.telephone_chance, config.mu_law_chance, config.quantise_chance
    )  # fmt: skip
    if not drawn.any():
        return wav
    wav = set_level(wav, rng.uniform(-12.0, 0.0))
    if drawn[0]:
        wav = overdrive(wav, rng.uniform(*config.overdrive_gain))
    if drawn[1]:
        wav = telephone(wav, config.sample_rate)
    if drawn[2]:
        wav = mu_law(wav)
    if drawn[3]:
        wav = requantise(wav, int(rng.integers(config.quantise_bits[0], config.quantise_bits[1] + 1)))
    return wav
