"""Every recording is read right, or refused in one clear line."""

import os
import re
import resource
import struct

import numpy as np
import pytest
import soundfile
from sound_files import box, encoded, gsm_frames, muxed, streamed_flac, tone, with_box

from duologue.data_prep.audio import MAX_SECONDS, read_audio, read_pieces, write_wav
from duologue.model.errors import DuologueError


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


def test_mp3_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """libsndfile's decoder does, for files that it does not like."""
    damaged = bytearray(encoded(tone(16_000, 1.0), 16_000, "MP3", "MPEG_LAYER_III"))
    damaged[1_000:1_100] = bytes(100)
    assert read_audio(bytes(damaged)).size and capfd.readouterr() == ("", "")


STEREO = np.stack([tone(48_000, 1.0)] * 2)
FILES = {
    "m4a": lambda: muxed(tone(16_000, 1.0), 16_000, "ipod", "aac"),
    "m4a alac": lambda: muxed(tone(44_100, 1.0), 44_100, "ipod", "alac"),
    "m4a stereo": lambda: muxed(STEREO, 48_000, "ipod", "aac"),
    "mp4 in fragments": lambda: muxed(STEREO, 48_000, "mp4", "aac", movflags="frag_keyframe+empty_moov"),
    "mp4 with a picture": lambda: muxed(STEREO, 48_000, "mp4", "aac", video=True),
    "webm": lambda: muxed(tone(48_000, 1.0), 48_000, "webm", "libopus"),
    "webm of MediaRecorder": lambda: muxed(tone(48_000, 1.0), 48_000, "webm", "libopus", live="1"),
    "mkv with a picture": lambda: muxed(STEREO, 48_000, "matroska", "pcm_f32le", video=True),
    "aac": lambda: muxed(tone(44_100, 1.0), 44_100, "adts", "aac"),
    "mp3": lambda: muxed(tone(44_100, 1.0), 44_100, "mp3", "libmp3lame"),
    "wav of mp3": lambda: muxed(tone(44_100, 1.0), 44_100, "wav", "libmp3lame"),
    "wav of gsm": lambda: encoded(tone(8_000, 1.0), 8_000, "WAV", "GSM610"),
    "ogg of flac": lambda: muxed(tone(16_000, 1.0), 16_000, "ogg", "flac"),
    "caf": lambda: encoded(tone(16_000, 1.0), 16_000, "CAF", "ALAC_16"),
    "streamed flac": lambda: streamed_flac(encoded(tone(16_000, 1.0), 16_000, "FLAC")),
}


def is_the_tone(waveform: np.ndarray, seconds: float) -> None:
    """440 Hz at half of full scale, so long, but for what a coder adds at the ends."""
    assert -0.01 < len(waveform) / 16_000 - seconds < 0.11 * max(1, seconds)
    middle = waveform[4_000 : 4_000 + 8_000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 220 and 0.4 < np.abs(middle).max() < 0.6


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name: str, tmp_path: os.PathLike) -> None:
    """By its first bytes, whatever it is called, whole and in pieces."""
    data = FILES[name]()
    path = os.path.join(tmp_path, "sound.raw")
    with open(path, "wb") as file:
        file.write(data)
    whole = read_audio(path)
    is_the_tone(whole, 1.0)
    np.testing.assert_array_equal(whole, read_audio(data))
    fractions, pieces = zip(*read_pieces(path, 16_000), strict=True)
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=0.06)  # a coder's overshoot is clipped or scaled
    assert all(0 <= fraction <= 1 for fraction in fractions)


def test_gsm_without_a_header() -> None:
    assert len(read_audio(gsm_frames(50))) == 16_000
    refused(gsm_frames(50)[1:], "not a recording")


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FFFF024])
def test_wav_of_unknown_length(length: int) -> None:
    data = bytearray(encoded(tone(16_000), 16_000, "WAV", "PCM_16"))
    data[4:8] = data[40:44] = length.to_bytes(4, "little")
    np.testing.assert_allclose(read_audio(bytes(data)), tone(16_000), atol=1e-4)


def ogg(seconds: float, rate: int = 16_000, channels: int = 1, subtype: str = "VORBIS") -> bytes:
    return encoded(np.stack([tone(rate, seconds)] * channels, 1), rate, "OGG", subtype)


JOINED = {
    "wav": lambda s: encoded(tone(16_000, s), 16_000, "WAV"),
    "vorbis": ogg,
    "vorbis of other rates": lambda s: ogg(s, 16_000 if s < 1.2 else 44_100),
    "opus": lambda s: ogg(s, 48_000, 1, "OPUS"),
    "opus and stereo": lambda s: ogg(s, 48_000, 1 if s < 1.2 else 2, "OPUS"),
    "ogg of flac": lambda s: muxed(tone(16_000, s), 16_000, "ogg", "flac"),
    "mp3": lambda s: encoded(tone(16_000, s), 16_000, "MP3", "MPEG_LAYER_III"),
    "m4a": lambda s: muxed(tone(44_100, s), 44_100, "ipod", "aac"),
    "mp4 in fragments": lambda s: muxed(tone(44_100, s), 44_100, "mp4", "aac", movflags="frag_keyframe+empty_moov"),
    "webm": lambda s: muxed(tone(48_000, s), 48_000, "webm", "libopus", live="1"),
    "aac": lambda s: muxed(tone(44_100, s), 44_100, "adts", "aac"),
}


@pytest.mark.parametrize("kind", JOINED)
def test_files_joined_by_cat_are_read_whole(kind: str) -> None:
    one, two = (JOINED[kind](seconds) for seconds in (1.0, 1.5))
    for data, seconds in ((one + two, 2.5), (two + one, 2.5), (one + one + one, 3.0)):
        is_the_tone(read_audio(data), seconds)


def test_a_chain_whose_first_link_is_cut() -> None:
    one = encoded(0.1 * np.random.default_rng(0).standard_normal(48_000), 16_000, "OGG", "VORBIS")
    found = len(read_audio(one[: len(one) // 2] + ogg(1.5)))
    assert 1.5 * 16_000 + 8_000 < found < 4.5 * 16_000


def test_flac_with_a_tag_behind_it() -> None:
    whole = encoded(tone(16_000, 0.5), 16_000, "FLAC")
    for flac in (whole, streamed_flac(whole)):
        assert len(read_audio(flac + b"TAG" + b"x" * 125)) == 8_000
    refused(whole + b"x" * 128, "cut short or damaged")


def test_joined_flac_is_refused() -> None:
    flac = encoded(tone(16_000), 16_000, "FLAC")
    refused(flac + flac, "cut short or damaged")


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.2])
def test_files_that_end_early(kept: float) -> None:
    """Streams are read as far as they go; what announces its length is refused, and what needs its end."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(96_000).astype(np.float32)
    for container, codec in (("webm", "libopus"), ("adts", "aac"), ("mp3", "libmp3lame")):
        data = muxed(noise, 48_000, container, codec)
        assert len(read_audio(data[: int(kept * len(data))])) == pytest.approx(kept * 32_000, rel=0.25)
    data = muxed(noise, 48_000, "ipod", "aac")
    refused(data[: int(kept * len(data))], "no sound that can be read, or is cut short or damaged")
    data = muxed(noise, 48_000, "mp4", "aac", movflags="frag_keyframe+empty_moov")
    refused(data[: int(kept * len(data))], r"cut short or damaged: at most [01]\.\d\d s of the 2\.\d\d s")
    refused(streamed_flac(encoded(noise, 48_000, "FLAC"))[:30_000], r"damaged: at most \d\.\d\d s can be read")


def test_a_damaged_m4a_is_refused_and_a_stream_goes_on() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(96_000).astype(np.float32)
    m4a, aac = bytearray(muxed(noise, 48_000, "ipod", "aac")), bytearray(muxed(noise, 48_000, "adts", "aac"))
    for data in (m4a, aac):
        data[8_000:8_400] = b"\xff" * 400
    refused(bytes(m4a), "cut short or damaged")
    assert len(read_audio(bytes(aac))) > 28_000


def test_stereo_is_averaged() -> None:
    left, right = tone(16_000), tone(16_000, hz=880)
    waveform = read_audio(encoded(np.stack([left, right], axis=1), 16_000, "WAV", "FLOAT"))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


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
    refused((8_000, np.zeros(int(MAX_SECONDS * 8_000) + 800, np.int8)), r"lasts 600\.1 s: at most 600 s")


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_as_long_as_can_be_is_not_too_long(rate: int) -> None:
    """Seconds of many blocks, added in floats, would come to 600.0000000000002."""
    assert len(read_audio((rate, np.zeros(int(MAX_SECONDS) * rate, np.int8)), 4_000)) == MAX_SECONDS * 4_000


def test_length_is_counted_while_decoding() -> None:
    """Where no header says it, or says it wrong: nothing is decoded beyond the limit."""
    for data in (
        muxed(tone(48_000, 2.0), 48_000, "webm", "libopus", live="1"),
        streamed_flac(encoded(tone(16_000, 2.0), 16_000, "FLAC")),
        gsm_frames(100),
        2 * ogg(1.0),
    ):
        assert len(read_audio(data, longest=2.1)) > 31_000
        with pytest.raises(DuologueError, match=r"lasts [12][.0-9]* s: at most 1 s can be read"):
            read_audio(data, longest=1.45)


def test_channels_and_all_samples_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_audio(encoded(np.zeros((800, 64)), 16_000, "WAV"))) == 800
    refused(encoded(np.zeros((800, 65)), 16_000, "WAV"), "has 65 channels: from 1 to 64")
    monkeypatch.setattr("duologue.data_prep.audio.reading.MAX_SAMPLES_PER_S", 100)
    refused(encoded(np.zeros((20_000, 8)), 16_000, "FLAC"), "8 channels at 16000 Hz .* at most 0 million samples")


@pytest.mark.parametrize("kind", ["stsz", "trun"])
def test_room_is_made_for_no_more_samples_than_there_can_be(kind: str) -> None:
    """Such a file of 5 kB took 2.4 GB."""
    import resource

    many = struct.pack(">III", 0 if kind == "stsz" else 1, 1 if kind == "stsz" else 2**25, 2**25)
    if kind == "trun":
        data = muxed(tone(16_000), 16_000, "mp4", "aac", movflags="frag_keyframe+empty_moov")
        data = with_box(data, (b"moof", b"traf", b"trun"), box(b"trun", many))
    else:
        table = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
        data = with_box(muxed(tone(16_000), 16_000, "ipod", "alac"), (*table, b"stsz"), box(b"stsz", many))
        data = with_box(data, (*table, b"stsc"), box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 2**25, 1)))
        data = with_box(data, (*table, b"stts"), box(b"stts", struct.pack(">IIII", 0, 1, 2**25, 1024)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(data, "no sound that can be read")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@pytest.mark.parametrize("seed", range(4))
def test_damaged_files_are_read_or_refused_in_one_line(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Bytes changed, lost and put in, mostly in the headers, of small files of every kind."""
    rng = np.random.default_rng(seed)
    for make in FILES.values():
        good = make()
        for _ in range(8):
            data = bytearray(good)
            for _ in range(int(rng.choice([1, 2, 8]))):
                at = int(rng.integers(min(len(data), int(rng.choice([48, 400, 10**9])))))
                what = rng.integers(4)
                if what == 0:
                    data[at] = rng.integers(256)
                elif what == 1:
                    data[at : at + 4] = bytes([int(rng.choice([0, 127, 255]))] * 4)
                elif what == 2:
                    del data[at : at + int(rng.integers(1, 40))]
                else:
                    data[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8))
            try:
                assert np.abs(read_audio(bytes(data))).max() <= 1
            except DuologueError as error:
                assert "\n" not in str(error)
    assert "Traceback" not in capfd.readouterr().err


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


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_a_disk_that_is_full_is_one_line(seconds: float, tmp_path: os.PathLike, capfd: pytest.CaptureFixture) -> None:
    """libsndfile is given a file of Python's, out of which no exception comes."""
    file = os.path.join(tmp_path, "reply.wav")
    write_wav(file, tone(16_000, 0.1), 16_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
    try:
        with pytest.raises(DuologueError, match=r"cannot write .*reply\.wav: File too large"):
            write_wav(file, tone(16_000, seconds), 16_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["reply.wav"] and len(read_audio(file)) == 1_600
    assert capfd.readouterr().err == ""
