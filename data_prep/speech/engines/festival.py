"""festival, of Debian: diphone and HTS voices. Starting takes most of a second, so one process is fed sentences."""

from __future__ import annotations

import atexit
import os
import select
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from .. import engine
from ..engine import Language, Prosody, SynthesisError, Voice, read_wav, require_program
from ..language import ENGLISH_LETTERS

LETTER_A = "ay"


def require() -> None:
    require_program("festival")


def language(voice: Voice) -> Language:
    return ENGLISH_LETTERS


def speak(text: str, voice: Voice, prosody: Prosody | None) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory(prefix="duologue-") as folder:
        path = Path(folder) / "speech.wav"
        manner, quoted = "", text.replace("\\", "\\\\").replace('"', '\\"')
        if prosody is not None:
            manner = (
                f"(Parameter.set 'Duration_Stretch {prosody.rate})"
                f"(set! int_lr_params '((target_f0_mean {prosody.pitch}) (target_f0_std {prosody.spread})"
                " (model_f0_mean 170) (model_f0_std 34)))"
            )
        _Festival.shared().run(
            # one form, so that an error anywhere ends it: an unknown voice must not be spoken by the last one
            f"(begin (voice_{voice.name}) {manner}"
            f' (utt.save.wave (utt.synth (Utterance Text "{quoted}")) "{path}" \'riff))',
            voice,
        )
        if not path.exists():
            raise SynthesisError(f"festival has no voice {voice.name!r}, or it failed on {text!r}")
        return read_wav(path, voice)


class _Festival:
    """One festival process of this Python process, which evaluates Scheme from its standard input."""

    _instance: _Festival | None = None
    _lock = threading.Lock()

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.count = 0
        self.process = subprocess.Popen(
            ["festival", "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        atexit.register(self.close)

    @classmethod
    def shared(cls) -> _Festival:
        with cls._lock:
            here = cls._instance
            if here is None or here.owner != os.getpid() or here.process.poll() is not None:
                cls._instance = _Festival()
            assert cls._instance is not None
            return cls._instance

    def run(self, scheme: str, voice: Voice) -> None:
        """Evaluate and wait for the end. An error inside Scheme ends quietly: the caller looks for the file."""
        with self._lock:
            assert self.process.stdin is not None and self.process.stdout is not None
            self.count += 1
            marker = f"duologue-{self.count}-done"
            try:
                self.process.stdin.write(f'{scheme}\n(format t "\\n{marker}\\n")(fflush nil)\n'.encode())
                self.process.stdin.flush()
            except BrokenPipeError:
                raise SynthesisError(f"{voice.key}: festival ended unexpectedly") from None
            seen, deadline = b"", time.monotonic() + engine.TIMEOUT
            while marker.encode() not in seen:
                ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
                block = os.read(self.process.stdout.fileno(), 65536) if ready else b""
                if not block:
                    self.close()
                    raise SynthesisError(
                        f"{voice.key}: festival " + ("ended" if ready else f"took over {engine.TIMEOUT:.0f} s")
                    )
                seen += block

    def close(self) -> None:
        if self.owner == os.getpid() and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
