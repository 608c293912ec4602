"""``duologue codec``: recordings of any length to files of codes and back, in constant memory.

A file of codes is in the safetensors format: one tensor ``codes`` (T, K) of uint16 (uint32 for codebooks of more than
65,536), and in its metadata how many samples the recording had, and a fingerprint of the codec, because codes mean
nothing to another one. It is written a piece at a time behind a header of fixed size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ...checkpoints.config_io import config_to_dict
from ...checkpoints.files import appearing
from ...checkpoints.parts import load_part
from ...data_prep.audio import AudioSource, read_pieces, writing_wav
from ...model.codec.codec import Codec, CodecConfig, CodecDecoding, CodecEncoding
from ...model.errors import DuologueError
from ...model.layers.windowed import Windowed
from ...model.streaming import Streaming

FORMAT = "duologue-codes/1"
HEADER = 1024  # bytes before the codes, the header padded with spaces
# Windows through which a decoder that is no stream is run; up to 40 s of sound are one window, which is the whole run.
BLOCK_S, CONTEXT_S = 32.0, 8.0
PIECE_S = 4.0  # decoded at a time


@dataclass(frozen=True, kw_only=True)
class CodesInfo:
    """What a file of codes says."""

    frames: int  # T
    codebooks: int  # K
    samples: int  # of the recording, at the codec's rate
    sample_rate: int  # Hz
    codec: str  # the codec's fingerprint


def load_codec(name: str) -> Codec:
    """The codec of a bundled name, a folder or a hub id, ready for use.

    Raises:
        DuologueError: one line that says what is missing or does not fit.
    """
    return load_part(name, "codec", CodecConfig, Codec).requires_grad_(False)


def fingerprint(codec: Codec) -> str:
    """What tells codecs apart: a digest of sizes and of the quantiser's weights."""
    digest = hashlib.sha256(json.dumps(config_to_dict(codec.config, newer=False)).encode())
    for weights in codec.quantiser.state_dict().values():
        digest.update(weights.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def decoding(codec: Codec, codebooks: int) -> Streaming:
    """The decoder of codes of so many codebooks as a stream: itself where it is one, else in windows.

    Windows differ from one run over the whole by what group norms and attention do not see: the longer, the less
    (docs/codec.md).
    """
    stage = CodecDecoding(codec)
    if codec.exact:
        return stage
    block, context = (max(1, round(seconds * codec.config.frame_rate)) for seconds in (BLOCK_S, CONTEXT_S))
    like = torch.zeros(1, codebooks, 0, dtype=torch.long)
    return Windowed(stage, like, block, context, context)


@torch.inference_mode()
def encode(
    codec: Codec, source: AudioSource, out: Path, codebooks: int | None = None, progress: bool = True
) -> CodesInfo:
    """A recording -> a file of codes, which appears whole or not at all.

    Raises:
        DuologueError: the recording cannot be read, the file cannot be written, or there are not so many codebooks.
    """
    stage = CodecEncoding(codec, codebooks)
    kind = np.dtype("<u2" if codec.config.quantiser.size <= 2**16 else "<u4")
    state, samples, frames = stage.init_state(), 0, 0
    with appearing(out) as file, _bar("encoding", progress) as show:
        file.write(b" " * HEADER)
        for fraction, piece in read_pieces(source, codec.config.sample_rate):
            samples += len(piece)
            frames += _write_codes(file, stage.step(torch.from_numpy(piece)[None], state), kind)
            show(fraction)
        frames += _write_codes(file, stage.flush(state), kind)
        info = CodesInfo(frames=frames, codebooks=stage.codebooks, samples=samples,
                         sample_rate=codec.config.sample_rate, codec=fingerprint(codec))  # fmt: skip
        file.seek(0)
        file.write(_header(info, kind))
    return info


def _write_codes(file: BinaryIO, codes: Tensor, kind: np.dtype[Any]) -> int:
    """Append (1, K, T) as rows; how many."""
    file.write(np.ascontiguousarray(codes[0].T.cpu().numpy().astype(kind)).tobytes())
    return codes.shape[2]


def _header(info: CodesInfo, kind: np.dtype[Any]) -> bytes:
    """safetensors' header: its length in eight bytes, then JSON, which spaces may follow."""
    size = info.frames * info.codebooks * kind.itemsize
    content = {
        "__metadata__": {
            "format": FORMAT, "samples": str(info.samples), "sample_rate": str(info.sample_rate), "codec": info.codec
        },
        "codes": {
            "dtype": f"U{8 * kind.itemsize}", "shape": [info.frames, info.codebooks], "data_offsets": [0, size]
        },
    }  # fmt: skip
    text = json.dumps(content).encode()
    return (HEADER - 8).to_bytes(8, "little") + text + b" " * (HEADER - 8 - len(text))


def read_info(path: Path) -> tuple[CodesInfo, Any]:
    """What a file of codes says, and its codes, to be sliced from disk.

    Raises:
        DuologueError: no such file, or it is no file of codes.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DuologueError(f"no such file: {path}")
    try:
        file = safe_open(path, "np")
        facts = file.metadata() or {}
        codes = file.get_slice("codes")
        if facts["format"] != FORMAT:
            raise DuologueError(f"{path} has format {facts['format']!r}; this version reads {FORMAT!r}")
        frames, codebooks = codes.get_shape()
        info = CodesInfo(frames=frames, codebooks=codebooks, samples=int(facts["samples"]),
                         sample_rate=int(facts["sample_rate"]), codec=facts["codec"])  # fmt: skip
    except (SafetensorError, KeyError, ValueError, OSError):
        raise DuologueError(f"{path} is no file of codes, or is cut short: duologue codec encode writes one") from None
    return info, codes


@torch.inference_mode()
def decode(codec: Codec, source: Path, out: Path, progress: bool = True) -> CodesInfo:
    """A file of codes -> a 16-bit WAV as long as the recording, which appears whole or not at all.

    Raises:
        DuologueError: not a file of codes, or of another codec's; the file cannot be written.
    """
    info, codes = read_info(source)
    if info.codec != fingerprint(codec):
        raise DuologueError(f"{source} was encoded by another codec than this one: name that one with --model")
    most = info.frames * codec.config.sample_rate / codec.config.frame_rate
    if info.sample_rate != codec.config.sample_rate or not 0 < info.samples <= most:
        raise DuologueError(f"{source} is damaged: {info.frames} frames are not {info.samples} samples at "
                            f"{info.sample_rate} Hz")  # fmt: skip
    stage, left = decoding(codec, info.codebooks), info.samples
    state, size = stage.init_state(), max(1, round(PIECE_S * codec.config.frame_rate))
    with writing_wav(out, info.sample_rate, info.samples) as write, _bar("decoding", progress) as show:
        for start in range(0, info.frames, size):
            rows = codes[start : min(start + size, info.frames)].astype(np.int64)  # (T, K)
            left -= _write_sound(write, stage.step(torch.from_numpy(rows.T)[None], state), left)
            show(min(1.0, (start + size) / info.frames))
        _write_sound(write, stage.flush(state), left)
    return info


def _write_sound(write: Callable[[np.ndarray], None], waveform: Tensor, left: int) -> int:
    """Append (1, n), at most ``left`` samples of it; how many."""
    samples = waveform[0, :left].float().cpu().numpy()
    write(samples)
    return len(samples)


@contextmanager
def _bar(name: str, wanted: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar, where stderr is a terminal; it takes the fraction done."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not wanted or not console.is_terminal:
        yield lambda fraction: None
        return
    with Progress(console=console, transient=True) as bar:
        row = bar.add_task(name, total=1.0)
        yield lambda fraction: bar.update(row, completed=fraction)
