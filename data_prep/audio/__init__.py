"""Sound in and out of files: the one reader of recordings, for every way in, and the writer of WAV files.

Whatever opens or decodes a recording that a user gives belongs here, and nothing else does.
"""

from .reading import MAX_SECONDS, AudioSource, read_audio, read_pieces
from .writing import write_wav

__all__ = ["MAX_SECONDS", "AudioSource", "read_audio", "read_pieces", "write_wav"]
