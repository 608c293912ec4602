"""How much clips are changed on their way into training, by name: ``augment=light``."""

from __future__ import annotations

from dataclasses import dataclass

from ...model.errors import DuologueError
from .augment import AugmentConfig
from .spec import SpecAugmentConfig


@dataclass(frozen=True, kw_only=True)
class AugmentPreset:
    """How much a clip is changed on its way into training: the sound, and what is masked of its mel."""

    sound: AugmentConfig
    masks: SpecAugmentConfig


AUGMENTATIONS = {
    "none": None,
    "light": AugmentPreset(  # another voice, now and then another room: an encoder learns in hours, not days
        sound=AugmentConfig(
            noise_chance=0.3, room_chance=0.12, equaliser_chance=0.3, telephone_chance=0.03, mu_law_chance=0.02,
            quantise_chance=0.03, overdrive_chance=0.02, silence_s=(0.0, 0.3), level_dbfs=(-25.0, 0.0),
        ),
        masks=SpecAugmentConfig(mel_masks=1, mel_width=12, time_masks=1, time_width=12),
    ),
    "voices": AugmentPreset(  # most clips in a voice that nobody has, little else
        sound=AugmentConfig(
            speed_chance=0.5, pitch_chance=0.5, pitch=(0.8, 1.3), tempo_chance=0.25, tempo=(0.75, 1.3),
            formants_chance=0.4, formants=(0.8, 1.25), source_chance=0.3, noise_chance=0.3, room_chance=0.15,
            equaliser_chance=0.5, telephone_chance=0.12, mu_law_chance=0.02, quantise_chance=0.03,
            overdrive_chance=0.02, silence_s=(0.0, 0.3), level_dbfs=(-25.0, 0.0),
        ),
        masks=SpecAugmentConfig(mel_masks=2, mel_width=16, time_masks=2, time_width=16),
    ),
    "full": AugmentPreset(sound=AugmentConfig(), masks=SpecAugmentConfig()),
    "still": AugmentPreset(  # another place and line, at times another pitch; every sound stays when it was
        sound=AugmentConfig(
            speed_chance=0.0, tempo_chance=0.0, silence_chance=0.0, pitch_chance=0.2, noise_chance=0.3,
            room_chance=0.12, equaliser_chance=0.3, telephone_chance=0.03, mu_law_chance=0.02, quantise_chance=0.03,
            overdrive_chance=0.02, level_dbfs=(-25.0, 0.0),
        ),
        masks=SpecAugmentConfig(),
    ),
}  # fmt: skip


def keeps_time(sound: AugmentConfig) -> bool:
    """Whether what is heard comes when it came."""
    return not (sound.speed_chance or sound.tempo_chance or sound.silence_chance)


def augmentation_of(name: str) -> AugmentPreset | None:
    """The augmentation of that name. Raises DuologueError for another name."""
    if name not in AUGMENTATIONS:
        raise DuologueError(f"augment is {name!r}; it must be one of {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
