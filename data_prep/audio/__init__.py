"""Sound in and out of files: the one reader of recordings, for every way in, and the writer of WAV files.

Whatever opens or decodes a recording that a user gives belongs here, and nothing else does. sources.py opens it,
libsndfile.py and pyav.py decode it, arrays.py takes samples, channels.py makes one channel of several; reading.py joins
them.
"""

from .arrays import mono, resampled
from .reading import MAX_RATE, MAX_SECONDS, MIN_RATE, read_audio, read_pieces
from .sources import AudioSource, from_argument, shown
from .writing import require_wav, write_wav, writing_wav

__all__ = [
    "MAX_RATE", "MAX_SECONDS", "MIN_RATE", "AudioSource", "from_argument", "mono", "read_audio", "read_pieces",
    "require_wav", "resampled", "shown", "write_wav", "writing_wav",
]  # fmt: skip
