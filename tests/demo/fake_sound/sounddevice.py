"""In the place of the library of this name, where there is no sound card: the microphone is a WAV file, played in real
time and silent behind its end, and what the loudspeaker plays is written to another. FAKE_MICROPHONE and
FAKE_LOUDSPEAKER name them; without the first there is no device, and the library says so as the real one does."""

import os
import threading
import time
import wave


class PortAudioError(Exception):
    pass


class RawStream:
    def __init__(self, *, samplerate, blocksize, channels, dtype, latency, callback):
        if "FAKE_MICROPHONE" not in os.environ:
            raise PortAudioError("Error querying device -1")
        with wave.open(os.environ["FAKE_MICROPHONE"], "rb") as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (samplerate, 2, channels)
            self._sound = file.readframes(file.getnframes())
        assert dtype == "int16"
        self._rate, self._block, self._callback = samplerate, blocksize, callback
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended = threading.Event()

    def start(self):
        self._thread.start()

    def close(self):
        self._ended.set()
        self._thread.join()

    def _run(self):
        began, size = time.monotonic(), 2 * self._block
        with wave.open(os.environ["FAKE_LOUDSPEAKER"], "wb") as out:
            out.setparams((1, 2, self._rate, 0, "NONE", ""))
            for i in range(10**9):
                if self._ended.wait(max(0.0, began + i * self._block / self._rate - time.monotonic())):
                    return
                heard = self._sound[i * size : (i + 1) * size].ljust(size, b"\0")
                played = bytearray(size)
                self._callback(memoryview(heard), memoryview(played), self._block, None, None)
                out.writeframes(played)
