"""Every recording is read right, or refused in one clear line."""

import io
import os
import re

import numpy as np
import pytest

from duologue.data_prep.audio import MAX_SECONDS, read_audio, write_wav
from duologue.model.errors import DuologueError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def tone(rate: int, seconds: float = 0.5, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encoded(waveform: np.ndarray, rate: int, form: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=form, subtype=subtype)
    return file.getvalue()


def refused(source: object, like: str) -> None:
    with pytest.raises(DuologueError, match=like) as caught:
        read_audio(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_gives_the_same_tone(rate: int) -> None:
    waveform = read_audio(encoded(tone(rate, 0.4), rate, "WAV", "FLOAT"))
    assert waveform.dtype == np.float32 and waveform.shape == (6_400,)
    np.testing.assert_allclose(waveform[800:-800], tone(16_000, 0.4)[800:-800], atol=2e-3)


@pytest.mark.parametrize(
    ("form", "subtype", "error"),
    [
        ("WAV", "PCM_U8", 2e-2), ("WAV", "PCM_16", 1e-4), ("WAV", "PCM_24", 1e-6), ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 1e-7), ("WAV", "DOUBLE", 1e-7), ("FLAC", "PCM_24", 1e-6), ("AIFF", "PCM_16", 1e-4),
    ],
)  # fmt: skip
def test_any_width(form: str, subtype: str, error: float) -> None:
    np.testing.assert_allclose(read_audio(encoded(tone(16_000), 16_000, form, subtype)), tone(16_000), atol=error)


@pytest.mark.parametrize(("form", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_lossy_formats(form: str, subtype: str) -> None:
    waveform = read_audio(encoded(tone(16_000, 1.0), 16_000, form, subtype))
    spectrum = np.abs(np.fft.rfft(waveform[4_000:12_000]))
    assert np.argmax(spectrum) == 220  # 440 Hz in bins of 2 Hz
    assert 0.4 < np.abs(waveform[4_000:12_000]).max() < 0.6


def test_stereo_is_averaged() -> None:
    left, right = tone(16_000), tone(16_000, hz=880)
    waveform = read_audio(encoded(np.stack([left, right], axis=1), 16_000, "WAV", "FLOAT"))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_arrays(dtype: type) -> None:
    sine = tone(16_000).astype(np.float64)
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        samples = np.round((sine if info.min < 0 else sine + 1) * (info.max + 1) / (1 if info.min < 0 else 2))
        samples = np.clip(samples, info.min, info.max).astype(dtype)
    else:
        samples = sine.astype(dtype)
    np.testing.assert_allclose(read_audio((16_000, samples)), sine, atol=1e-2 if dtype is np.uint8 else 1e-4)
    assert read_audio((16_000, np.stack([samples] * 2, axis=1))).shape == (8_000,)


def test_beyond_full_scale_is_scaled_not_clipped() -> None:
    np.testing.assert_allclose(read_audio((16_000, 4 * tone(16_000))), tone(16_000) / 0.5, atol=1e-3)


def test_blocks_join_without_a_seam() -> None:
    """Longer than one decoding block, at another rate: the same as the tone made at 16 kHz."""
    waveform = read_audio(encoded(tone(48_000, 4.0), 48_000, "WAV", "FLOAT"))
    np.testing.assert_allclose(waveform[800:-800], tone(16_000, 4.0)[800:-800], atol=2e-3)


def test_silence_is_a_recording() -> None:
    assert read_audio((16_000, np.zeros(16_000, np.int16))).shape == (16_000,)


def test_a_path(tmp_path: os.PathLike) -> None:
    path = os.path.join(tmp_path, "tone.flac")
    soundfile.write(path, tone(16_000), 16_000)
    assert read_audio(path).shape == read_audio(os.fspath(path)).shape == (8_000,)


def test_no_such_file(tmp_path: os.PathLike) -> None:
    refused(os.path.join(tmp_path, "gone.wav"), "no such file: .*gone.wav")


def test_folder(tmp_path: os.PathLike) -> None:
    refused(tmp_path, "is a folder")


def test_empty_file(tmp_path: os.PathLike) -> None:
    path = os.path.join(tmp_path, "empty.wav")
    open(path, "w").close()
    refused(path, r"empty.wav is empty \(0 bytes\)")
    refused(b"", "is empty")


def test_text_called_wav(tmp_path: os.PathLike) -> None:
    path = os.path.join(tmp_path, "notes.wav")
    with open(path, "w") as file:
        file.write("what is three plus four\n" * 9)
    refused(path, "notes.wav is not a recording")


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_no_samples(rate: int) -> None:
    refused(encoded(np.zeros(0, np.float32), rate, "WAV"), r"no samples \(0 s\)")
    refused((rate, np.zeros(0, np.float32)), r"no samples \(0 s\)")
    refused((rate, np.zeros((0, 2), np.int16)), r"no samples \(0 s\)")


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
def test_truncated_flac(kept: float) -> None:
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.1
    whole = encoded(noise, 16_000, "FLAC")
    refused(whole[: int(len(whole) * kept)], r"cut short or damaged: at most [012]\.\d\d s of the 3\.00 s")


def test_stopped_wav_is_read_as_far_as_it_goes() -> None:
    whole = encoded(tone(16_000), 16_000, "WAV", "PCM_16")
    np.testing.assert_allclose(read_audio(whole[: 44 + 2 * 4_000]), tone(16_000)[:4_000], atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_numbers(bad: float) -> None:
    waveform = tone(16_000)
    waveform[1_600] = bad
    refused(encoded(waveform, 16_000, "WAV", "FLOAT"), r"no number \(NaN or infinite\) at 0\.100 s")
    refused((16_000, waveform), "no number")


def test_too_long() -> None:
    silence = encoded(np.zeros(int((MAX_SECONDS + 1) * 8_000), np.float32), 8_000, "FLAC")
    refused(silence, "lasts 601 s: at most 600 s")
    refused((8_000, np.zeros(int((MAX_SECONDS + 1) * 8_000), np.int8)), "lasts 601 s")


@pytest.mark.parametrize("rate", [0, -1, 100, 2_000_000])
def test_impossible_rate(rate: int) -> None:
    refused((rate, tone(16_000)), f"sample rate of {re.escape(str(rate))} Hz")


@pytest.mark.parametrize("samples", [np.zeros((2, 2, 2)), np.zeros(5, bool), np.array(["a"])])
def test_arrays_that_are_no_sound(samples: np.ndarray) -> None:
    with pytest.raises(DuologueError):
        read_audio((16_000, samples))


def test_write_and_read_back(tmp_path: os.PathLike) -> None:
    path = os.path.join(tmp_path, "reply.wav")
    write_wav(path, tone(16_000) * 4, 16_000)  # clipped
    write_wav(path, tone(16_000), 16_000)  # replaced
    np.testing.assert_allclose(read_audio(path), tone(16_000), atol=1e-4)
    assert os.listdir(tmp_path) == ["reply.wav"]


def test_a_failed_write_leaves_nothing(tmp_path: os.PathLike) -> None:
    with pytest.raises(DuologueError, match=r"cannot write .*: there is no folder"):
        write_wav(os.path.join(tmp_path, "no", "reply.wav"), tone(16_000), 16_000)
    with pytest.raises(DuologueError, match=r"ends in \.wav"):
        write_wav(os.path.join(tmp_path, "reply.mp3"), tone(16_000), 16_000)
    os.mkdir(os.path.join(tmp_path, "folder.wav"))
    with pytest.raises(DuologueError, match="is a folder"):
        write_wav(os.path.join(tmp_path, "folder.wav"), tone(16_000), 16_000)
    assert os.listdir(tmp_path) == ["folder.wav"]
