"""Sound files of many kinds, made by code: good ones, and such that would lead a reader to other files."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av
import numpy as np
import soundfile


def tone(rate: int, seconds: float = 0.5, hz: float = 440.0) -> np.ndarray:
    """(n,) float32, at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def encoded(waveform: np.ndarray, rate: int, form: str, subtype: str | None = None) -> bytes:
    """(n,) or (n, channels) as a file by libsndfile."""
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=form, subtype=subtype)
    return file.getvalue()


def muxed(waveform: np.ndarray, rate: int, container: str, codec: str, video: bool = False, **options: str) -> bytes:
    """(n,) or (channels, n) as a file by FFmpeg; with ``video``, of a black picture beside it."""
    waveform = np.atleast_2d(waveform)
    layout = "mono" if len(waveform) == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        sound = out.add_stream(codec, rate=rate, layout=layout)
        picture = out.add_stream("mpeg4", rate=10) if video else None
        if picture is not None:
            picture.width = picture.height = 32
            picture.pix_fmt = "yuv420p"
            for _ in range(5):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                out.mux(picture.encode(image))
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(waveform), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        fit = av.AudioResampler(sound.codec_context.format, layout, rate, sound.codec_context.frame_size or None)
        for part in (*fit.resample(frame), *fit.resample(None)):
            out.mux(sound.encode(part))
        out.mux(sound.encode(None))
        if picture is not None:
            out.mux(picture.encode(None))
    return file.getvalue()


def gsm_frames(count: int) -> bytes:
    """GSM 06.10 without a header, 20 ms a frame; what is heard is some noise."""
    rng = np.random.default_rng(0)
    return b"".join(bytes([0xD0 | int(rng.integers(16)), *rng.integers(0, 256, 32, np.uint8)]) for _ in range(count))


def streamed_flac(flac: bytes) -> bytes:
    """A FLAC as an encoder writes it into a pipe: its header says 0 samples, and has no digest."""
    head = bytearray(flac)
    assert head[:4] == b"fLaC" and head[4] & 127 == 0
    head[21] &= 0xF0
    head[22:42] = bytes(20)
    return bytes(head)


def box(kind: bytes, *content: bytes) -> bytes:
    """A box of an MP4."""
    whole = b"".join(content)
    return struct.pack(">I4s", 8 + len(whole), kind) + whole


def with_box(data: bytes, path: tuple[bytes, ...], new: bytes) -> bytes:
    """An MP4 in which the box at ``path`` is another one."""
    out, at = [], 0
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        if kind == path[0]:
            out.append(box(kind, with_box(body, path[1:], new)) if len(path) > 1 else new)
        else:
            out.append(data[at : at + size])
        at += size
    return b"".join(out)


def elsewhere(path: Path) -> bytes:
    """An M4A whose samples are in another file, by a Macintosh alias as FFmpeg follows it if it is allowed to."""
    name = str(path).encode()
    alias = struct.pack(">I10xB27s12xB63s16xHH16x", 0, 1, b"v", 1, b"f", 0, 0)  # flags 0: not in this file
    alias += struct.pack(">HH", 2, len(name)) + name + bytes(len(name) % 2) + struct.pack(">HH", 0xFFFF, 0)
    dref = box(b"dref", struct.pack(">II", 0, 1), box(b"alis", alias))
    return with_box(muxed(tone(16_000), 16_000, "ipod", "alac"), _DREF, dref)


def playlists(path: Path, url: str) -> dict[str, bytes]:
    """Files that name another one, at a path and at an address, by a name that each may have."""
    m3u8 = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
    mpd = '<?xml version="1.0"?><MPD type="static"><Period><BaseURL>{}</BaseURL></Period></MPD>'
    return {
        "path.m3u8": m3u8.format(path).encode(),
        "url.m3u8": m3u8.format(url).encode(),
        "path.wav": f"ffconcat version 1.0\nfile '{path}'\n".encode(),
        "url.mp3": f"ffconcat version 1.0\nfile '{url}'\n".encode(),
        "mark.webm": b"\xef\xbb\xbf" + m3u8.format(path).encode(),
        "key.m4a": m3u8.replace("#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF').format(path).encode(),
        "stream.sdp": sdp.encode(),
        "dash.mpd": mpd.format(url).encode(),
        "elsewhere.m4a": elsewhere(path),
    }


_DREF = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
