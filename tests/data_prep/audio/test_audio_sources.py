"""A recording may come as a path, from a pipe, as a file object, or as samples in the forms that people have."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sound_files import encoded, streamed_flac, tone

from duologue.data_prep.audio import from_argument, read_audio, read_pieces, sources
from duologue.data_prep.datasets.recordings import read_recording
from duologue.model.errors import DuologueError

SINE = tone(16_000)
WAV = encoded(SINE, 16_000, "WAV", "PCM_16")


@contextlib.contextmanager
def pipe(data: bytes) -> Iterator[int]:
    """The end of a pipe to read from, into which somebody writes."""
    inward, outward = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), open(outward, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield inward
    finally:
        os.close(inward)
        writer.join()


def same(found: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, SINE, atol=1e-4)


@pytest.mark.parametrize(
    "data",
    [WAV, encoded(SINE, 16_000, "FLAC"), streamed_flac(encoded(SINE, 16_000, "FLAC")), WAV[:4] + b"\xff" * 4 + WAV[8:]],
    ids=["wav", "flac", "streamed flac", "streamed wav"],
)
def test_pipes(data: bytes) -> None:
    with pipe(data) as end:
        same(read_audio(f"/dev/fd/{end}"))  # as <(…) and /dev/stdin are
    with pipe(data) as end:
        same(np.concatenate([piece for _, piece in read_pieces(f"/dev/fd/{end}", 16_000)]))
    with pipe(data) as end, open(end, "rb", closefd=False) as file:
        same(read_audio(file))


def test_a_large_pipe_and_one_without_an_end() -> None:
    long = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 60).astype(np.float32)  # 1.9 MB
    with pipe(encoded(long, 16_000, "WAV")) as end:
        assert len(read_audio(f"/dev/fd/{end}")) == len(long)
    for device in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(DuologueError, match=f"{device} is not a recording that can be read"):
            read_audio(device)
    with pytest.raises(DuologueError, match="/dev/null is empty"):
        read_audio("/dev/null")


def test_a_set_waits_for_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "q.wav")
    with pytest.raises(DuologueError, match=r"q\.wav is no regular file"):
        read_recording(tmp_path / "q.wav", 16_000)


def test_an_argument_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "q.wav").write_bytes(WAV)
    assert from_argument(tmp_path / "q.wav") == tmp_path / "q.wav"
    os.mkfifo(tmp_path / "pipe")
    assert from_argument(tmp_path / "pipe") == tmp_path / "pipe", "and nobody waited for a writer"
    with pytest.raises(DuologueError, match=r"^no such file: .*none\.wav$"):
        from_argument(tmp_path / "none.wav")
    with pytest.raises(DuologueError, match="is a folder, not a recording"):
        from_argument(tmp_path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe(WAV) as end, open(end, "rb", closefd=False) as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
        same(read_audio(from_argument(Path("-"))))
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(DuologueError, match="pipe a recording into it"):
        from_argument("-")


@pytest.mark.parametrize("name", [b"caf\xe9.wav", b"a\nb.wav", "ｑ.wav".encode(), b"\x1b[31m.wav", b"q.raw"])
def test_any_name(tmp_path: Path, name: bytes) -> None:
    """Errors can be printed whatever the name is, in one line."""
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(WAV)
    same(read_audio(os.fsdecode(path)))
    same(read_audio(Path(os.fsdecode(path))))
    with open(path, "wb") as file:
        file.write(np.random.default_rng(0).integers(-999, 999, 4_000, np.int16).tobytes())
    with pytest.raises(DuologueError, match="is not a recording") as caught:
        read_audio(os.fsdecode(path))
    assert str(caught.value).encode() and str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a\0b.wav", "a\ud800b.wav", "n" * 9_000, "-", "http://127.0.0.1:1/q.wav"])
def test_names_that_no_file_has(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for read in (read_audio, lambda name: list(read_pieces(name, 16_000)), lambda name: read_recording(Path(name), 8)):
        with pytest.raises(DuologueError, match=r"no such file|cannot read") as caught:
            read(name)
        assert str(caught.value).encode() and "\n" not in str(caught.value)


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "q.wav").write_bytes(WAV)
    monkeypatch.setenv("HOME", str(tmp_path))
    same(read_audio("~/q.wav"))


def test_file_objects(tmp_path: Path) -> None:
    (tmp_path / "q.wav").write_bytes(WAV)
    (tmp_path / "q.gz").write_bytes(gzip.compress(WAV))
    file = io.BytesIO()
    file.write(WAV)  # it stands at its end
    same(read_audio(file))
    same(read_audio(file))
    with (
        open(tmp_path / "q.wav", "rb") as one,
        open(tmp_path / "q.wav", "rb", 0) as two,
        gzip.open(tmp_path / "q.gz") as z,
    ):
        for opened in (one, two, z):
            opened.read(100)
            same(read_audio(opened))
    for data in (WAV, bytearray(WAV), memoryview(WAV)):
        same(read_audio(data))


class Broken:
    def read(self, count: int) -> bytes:
        raise ZeroDivisionError("two\nlines")


def test_file_objects_that_do_not_serve(tmp_path: Path) -> None:
    (tmp_path / "q.wav").write_bytes(WAV)
    (tmp_path / "notes").write_text("what is two plus two")
    with open(tmp_path / "q.wav", "rb") as closed:
        pass
    with open(tmp_path / "notes") as text:
        for source, told in ((text, "not bytes: open it with 'rb'"), (closed, "closed"), (Broken(), "two lines")):
            with pytest.raises(DuologueError, match=told) as caught:
                read_audio(source)  # type: ignore[arg-type]
            assert "\n" not in str(caught.value)


def pcm(kind: str) -> np.ndarray:
    info = np.iinfo(kind)
    middle = 0.0 if info.min < 0 else (info.max + 1) / 2
    return np.clip(np.round(SINE.astype(float) * (info.max + 1 - middle) + middle), info.min, info.max).astype(kind)


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.FileIO):
        def read(self, count: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    (tmp_path / "q.wav").write_bytes(WAV)
    monkeypatch.setattr(sources, "_open", lambda name, path: Failing(path))
    for read in (read_audio, lambda path: read_recording(path, 16_000), lambda path: list(read_pieces(path, 16_000))):
        with pytest.raises(DuologueError, match=r"cannot read .*q\.wav: Input/output error"):
            read(tmp_path / "q.wav")


FORMS: dict[str, Callable[[], Any]] = {
    "(n,)": lambda: SINE,
    "(n, 2)": lambda: np.stack([SINE] * 2, 1),
    "(2, n)": lambda: np.stack([SINE] * 2),
    "(1, n)": lambda: SINE[None],
    "(n, 1)": lambda: SINE[:, None],
    "list": lambda: SINE.tolist(),
    "float16": lambda: SINE.astype(np.float16),
    "float64": lambda: SINE.astype(np.float64),
    "big-endian": lambda: pcm("int16").astype(">i2"),
    **{kind: lambda kind=kind: pcm(kind) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32")},
    "every second": lambda: np.repeat(SINE, 2)[::2],
    "tensor": lambda: torch.from_numpy(SINE),
    "tensor (1, n)": lambda: torch.from_numpy(SINE)[None],
    "bf16": lambda: torch.from_numpy(SINE).bfloat16(),
    "half": lambda: torch.from_numpy(SINE).half(),
    "int16 tensor": lambda: torch.from_numpy(pcm("int16")),
    "with gradient": lambda: torch.from_numpy(SINE.copy()).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_samples(form: str) -> None:
    samples = FORMS[form]()
    atol = {"int8": 1e-2, "uint8": 1e-2, "bf16": 4e-3, "float16": 1e-3, "half": 1e-3}.get(form, 1e-4)
    rates = (16_000, 16_000.0, np.int64(16_000), torch.tensor(16_000))
    sources = [(rate, samples) for rate in rates] + [(samples, 16_000)]
    for source in [*sources, {"array": samples, "sampling_rate": 16_000, "path": None}]:
        found = read_audio(source)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, SINE, atol=atol)


def test_a_decoder_of_a_data_set() -> None:
    class Samples:
        data, sample_rate = torch.from_numpy(SINE)[None], 16_000

    class Decoder:
        def get_all_samples(self) -> Samples:
            return Samples()

    same(read_audio(Decoder()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (SINE, "{'array': samples, 'sampling_rate': rate}, not ndarray without a rate"),
        (torch.from_numpy(SINE), "not Tensor without a rate"),
        (None, "a recording is a path, .* not NoneType"),
        (16_000, "not int"),
        ((SINE, SINE), r"not \(ndarray, ndarray\)"),
        ((16_000, 8_000), r"not \(int, int\)"),
        ((16_000, SINE, 1), r"not \(int, ndarray, int\)"),
        ({"array": SINE}, "the mapping has 'array'"),
        ((16_000.5, SINE), "sample rate of 16000.5 Hz: a whole number"),
        ((float("nan"), SINE), "sample rate of nan Hz"),
        ((True, SINE), "sample rate of True Hz"),
        ((16_000, np.zeros((1, 1, 8))), r"has the shape \(samples,\).* not \(1, 1, 8\)"),
        ((16_000, np.zeros((99, 100))), "99 channels: from 1 to 64"),
        ((16_000, [1, 2, 3]), "8, 16 or 32 bits, not int64; what is full scale in 64 bits"),
        ((16_000, SINE > 0), "not bool"),
        ((16_000, SINE + 1j), "not complex"),
        ((16_000, ["a", "b"]), "not <U1"),
        ((16_000, [[1.0], [1.0, 2.0]]), "an array of integers or floats, not list: "),
        ((16_000, torch.zeros(8, device="meta")), "not Tensor: "),
        ((16_000, {"a": 1}), "not object"),
        ((16_000, np.full(99, 1e300)), "no number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_recording_is_told_what_is_one(source: object, told: str) -> None:
    with pytest.raises(DuologueError, match=told) as caught:
        read_audio(source)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
