"""What is written is whole or not there, goes where it was meant to go, and is read back as it was."""

from __future__ import annotations

import os
import re
import resource
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.checkpoints.files import (
    appearing,
    append_whole,
    lines,
    read_json,
    read_json_lines,
    read_text,
    write_atomically,
    write_json,
    write_json_lines,
    write_text,
)
from duologue.model.errors import DuologueError


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link, far = tmp_path / "folder" / "real", tmp_path / "link", tmp_path / "far"
    link.symlink_to("folder/real")  # leads nowhere yet
    far.symlink_to(link)
    for data in (b"new", b"again"):
        write_atomically(far, data)
        assert far.is_symlink() and link.is_symlink() and real.read_bytes() == data
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "folder", "link", "real"]


def test_what_cannot_be_written_is_one_line_and_stays(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("text")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("round", "folder", "socket", "none/file", "text/file"):
            with pytest.raises(DuologueError, match=r"^cannot write [^\n]+$"):
                write_atomically(tmp_path / name, b"x")
        assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    assert (tmp_path / "round").is_symlink() and (tmp_path / "text").read_text() == "text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "round", "socket", "text"]


def test_a_file_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), appearing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_fifo_is_written_into(tmp_path: Path) -> None:
    path, read = tmp_path / "fifo", []
    os.mkfifo(path)
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    with appearing(path) as file:  # in which one can go back all the same, as a WAV's header needs
        file.write(b"....sound")
        file.seek(0)
        file.write(b"RIFF")
    reader.join()
    assert read == [b"RIFFsound"] and stat.S_ISFIFO(path.stat().st_mode)


def test_a_device_is_written_into(tmp_path: Path) -> None:
    write_atomically("/dev/null", b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device takes root")
    write_atomically(tmp_path / "null", b"x")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)


@pytest.mark.parametrize("way", ["pipe", "file", "append"])
def test_standard_output_is_written_into(tmp_path: Path, way: str) -> None:
    program = (
        "from duologue.checkpoints.files import write_atomically\n"
        "print('before', flush=True); write_atomically('/dev/stdout', b'written\\n'); print('behind')"
    )
    out = tmp_path / "out"
    if way == "pipe":
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    else:
        with out.open("ab" if way == "append" else "wb") as file:
            subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
        found = out.read_bytes()
    assert found == b"before\nwritten\nbehind\n"


def test_permissions_stay_or_are_those_of_any_new_file(tmp_path: Path) -> None:
    plain, ours, kept = tmp_path / "plain", tmp_path / "ours", tmp_path / "kept"
    plain.touch()
    write_atomically(ours, b"x")
    assert ours.stat().st_mode == plain.stat().st_mode
    kept.touch()
    kept.chmod(0o640)
    write_atomically(kept, b"x")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640


def test_another_hard_link_keeps_what_it_had(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"old")
    os.link(tmp_path / "a", tmp_path / "b")
    write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new" and (tmp_path / "b").read_bytes() == b"old"


def test_the_home_folder_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_text("~/file", "text")
    assert read_text("~/file") == "text" and (tmp_path / "file").is_file()
    monkeypatch.chdir(tmp_path)
    write_text("~nobody-of-that-name.txt", "text")
    assert (tmp_path / "~nobody-of-that-name.txt").is_file()


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("é" * 127), b"x")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "file").write_text('{"text": "Café 😀"}\n', encoding=encoding)
    assert read_json_lines(tmp_path / "file") == [{"text": "Café 😀"}]


def test_another_encoding_is_one_line_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for data, message in (
        ("two\ncafé".encode("latin-1"), "is not UTF-8: byte 7 is 0xe9; save it as UTF-8"),
        (b"\xef\xbb\xbfcaf\xe9", "is not UTF-8: byte 6 is 0xe9"),
        ("text".encode("utf-16-le"), "is no text: byte 1 is zero"),
        (b"\xff\xfea\x00b", "is not UTF-16-LE: byte 4 is 0x62"),
    ):
        path.write_bytes(data)
        with pytest.raises(DuologueError, match=f"^{path} {message}"):
            read_text(path)


def test_lines_end_at_no_other_character() -> None:
    within = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    assert lines(f"{within}\r\n\n{within}") == [within, "", within]
    assert lines(f"{within}\r{within}\r") == [within, within], "of an old Macintosh"
    assert lines("") == [] and lines("\n") == [""]
    assert lines("\ufeffone\n\ufefftwo") == ["one", "two"]


@pytest.mark.parametrize("line", ["{", "[1]", "null", '{"a": 1} {"a": 2}', "[" * 9000, "1" * 5000])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows").write_text(f'{{"a": 1}}\n\n   \n{line}\n')
    with pytest.raises(DuologueError, match=rf"^{tmp_path}/rows, line 4(:| is not JSON) [^\n]+$"):
        read_json_lines(tmp_path / "rows")


ANY_TEXT = st.text(st.characters(exclude_categories=())) | st.sampled_from(["\ud83d", "a\u2028b\x85", "\ufeffx", "\0"])


@given(rows=st.lists(st.fixed_dictionaries({"id": ANY_TEXT, "text": ANY_TEXT})))
def test_json_comes_back_as_it_was(rows: list[dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every character, half surrogate pairs included (two halves side by side are one character to JSON)."""
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    whole = [{name: _joined(text) for name, text in row.items()} for row in rows]
    write_json_lines(path, rows)
    assert read_json_lines(path) == whole
    write_json(path, rows)
    assert read_json(path) == whole


def _joined(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def test_an_addition_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    append_whole(path, b"one\n")
    append_whole(path, b"two\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # a part of the next one would fit
    try:
        with pytest.raises(DuologueError, match=f"^cannot write {re.escape(str(path))}: File too large$"):
            append_whole(path, b"three\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"one\ntwo\n"
