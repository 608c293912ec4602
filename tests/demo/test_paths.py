"""Paths on the command line: what is written is nothing that is read, and ``~`` is the home folder everywhere."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from duologue.checkpoints.files import with_home
from duologue.checkpoints.outputs import keep_apart
from duologue.demo.cli import app, main
from duologue.demo.codec_commands import codec_commands
from duologue.demo.feedback.commands import feedback_commands
from duologue.model.errors import DuologueError
from duologue.training import assemble, grow

# Every command that writes, with each pair of paths that must not be one: FILE and FOLDER stand for the two.
COMMANDS = {
    "ask": ["FILE -o FILE", "--text hello -m FOLDER -o FOLDER/config.json", "--text hello --voice-from FILE -o FILE"],
    "listen": ["FILE -o FILE", "FILE -o other.wav --events FILE", "in.wav -o FILE --events FILE",
               "in.wav -o out.wav --events FOLDER/config.json -m FOLDER"],
    "codec encode": ["FILE FILE", "in.wav FOLDER/config.json -m FOLDER"],
    "codec decode": ["FILE FILE"],
    "codec pairs": ["FOLDER FOLDER", "data FOLDER -m FOLDER"],
    "feedback rounds": ["model=FOLDER out=FOLDER", "questions=FILE out=FILE"],
    "feedback talks": ["openings=FILE out=FILE", "model=FOLDER out=FOLDER/config.json"],
    "assemble": ["FOLDER encoder=other llm=0.5*other+0.5*FOLDER", "FOLDER codec=FOLDER"],
    "grow": ["FOLDER llm=FOLDER"],
    "card": ["FOLDER before=FOLDER", "FOLDER like=FOLDER"],
    "import": ["whisper FOLDER FOLDER", "whisper FOLDER/config.json FOLDER", "llama-omni model FOLDER whisper=FOLDER",
               "hubert-kmeans model FOLDER kmeans=FOLDER/config.json layer=1"],
    "evaluate": ["asr --data FOLDER -o FOLDER", "asr --outputs FOLDER -o FOLDER", "s2s --outputs FOLDER -o FOLDER",
                 "codec --data FOLDER -o FOLDER", "duplex --data FOLDER -o FOLDER",
                 "duplex --data FOLDER -o FOLDER/figures", "duplex --outputs FOLDER -o FOLDER/figures",
                 "full_duplex_bench --data FOLDER -o FOLDER/figures",
                 "full_duplex_bench --outputs FOLDER -o FOLDER/figures",
                 "voicebench --data FOLDER -o FOLDER",
                 "audio_analysis --data data --outputs FOLDER/rows.jsonl -o FOLDER", "s2s -m FOLDER -o FOLDER",
                 "compare other FOLDER -o FOLDER", "compare other FOLDER/config.json -o FOLDER"],
    "bench": ["encoder data=FOLDER -o FOLDER", "workers model=FOLDER -o FOLDER"],
    "prepare": ["recordings source=FOLDER out=FOLDER", "turns source=FOLDER out=FOLDER",
                "sounds source=FOLDER out=FOLDER", "spliced source=FOLDER out=FOLDER",
                "dialogues source=FOLDER out=FOLDER", "units data=FOLDER quantiser=FOLDER",
                "units data=FOLDER codec=nano-codec file=shard-00000.jsonl",
                "rewrite source=FILE out=FILE endpoint=http://127.0.0.1:9/v1 model=x"],
    "train": ["asr_pretrain preset=tiny data=other,FOLDER out=FOLDER", "duplex preset=tiny dev_data=FOLDER out=FOLDER",
              "text_sft preset=tiny start=llm=0.5*other+0.5*FOLDER out=FOLDER",
              "ssl preset=tiny data=FOLDER out=FOLDER",
              "codec preset=tiny data=FOLDER out=FOLDER", "probe preset=tiny source=FOLDER out=FOLDER"],
}  # fmt: skip
WRITE_NOTHING = {"chat", "serve"}  # no option of theirs names a file to write


def test_no_command_that_writes_is_forgotten() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    for group, commands in (("codec", codec_commands), ("feedback", feedback_commands)):
        names |= {f"{group} {command.name}" for command in commands.registered_commands}
    assert names - WRITE_NOTHING == set(COMMANDS)


def places(folder: Path) -> dict[str, str]:
    """Ways to name the same file and folder: plain, by a dot, by a link, by a hard link, from the home folder."""
    (folder / "FILE").write_bytes(b"as it was")
    (folder / "FOLDER").mkdir()
    for name in ("config.json", "rows.jsonl"):
        (folder / "FOLDER" / name).write_text("{}")
    (folder / "link").symlink_to("FILE")
    (folder / "folder-link").symlink_to("FOLDER")
    os.link(folder / "FILE", folder / "hard")
    return {"FILE": "FILE", "./FILE": "FOLDER/../FILE", "link": "link", "hard": "hard", "~": "~/FILE"}


@pytest.mark.parametrize(("command", "arguments"), [(name, one) for name, all_ in COMMANDS.items() for one in all_])
def test_an_output_that_is_an_input_is_refused(command, arguments, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    ways = places(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    first, _, rest = arguments.partition("FILE")
    spellings = {first + way + rest for way in ways.values()} if "FILE" in arguments else {arguments}
    if arguments.count("FOLDER") > 1:
        head, _, tail = arguments.rpartition("FOLDER")
        spellings = {head + way + tail for way in ("FOLDER", "./FOLDER", "folder-link", "~/FOLDER")}
    for spelling in sorted(spellings):
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), *spelling.split()])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.count("\n") == 1, said
        assert any(word in said for word in ("write to", "data set itself")), (spelling, said)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_programs_of_their_own_refuse_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places(tmp_path)
    (tmp_path / "FOLDER" / "README.md").write_text("card")
    for act in (
        lambda: assemble.run("FOLDER", assemble.Config(encoder="other", llm="0.5*other+0.5*folder-link")),
        lambda: assemble.run("FOLDER", assemble.Config(codec="FOLDER")),
        lambda: grow.run("FOLDER", grow.Config(llm="FOLDER")),
    ):
        with pytest.raises(DuologueError, match="write to"):
            act()
    assert (tmp_path / "FOLDER" / "README.md").read_text() == "card"


def test_what_does_no_harm_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places(tmp_path)
    keep_apart({"-o": "new"}, {"a hub id": "new"})  # nothing is there
    keep_apart({"-o": "/dev/null", "--events": "/dev/null"}, {"the recording": "/dev/null"})
    keep_apart({"-o": "FOLDER/new"}, {"--data": "FOLDER"})
    keep_apart({"-o": None}, {"--data": "FOLDER", "--model": None})
    with pytest.raises(DuologueError, match="would replace"):
        keep_apart({"DEST": "FOLDER"}, {"SOURCE": "folder-link/config.json"}, replaces=True)


def test_the_home_folder_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    for text, wanted in (
        ("out=~/q", "out=/h/q"),
        ("data=~/a,~/b", "data=/h/a,/h/b"),
        ("start=llm=0.3*~/a+0.7*~/b", "start=llm=0.3*/h/a+0.7*/h/b"),
        ("features=hubert:~/m", "features=hubert:/h/m"),
        ("tts_command=~/bin/say --text {text}", "tts_command=/h/bin/say --text {text}"),
        ("out=~", "out=/h"),
        ("out=a~b/~c", "out=a~b/~c"),
        ("text=about ~ 5", "text=about ~ 5"),
        ("endpoint=http://x/~me/v1", "endpoint=http://x/~me/v1"),
    ):
        assert with_home(text) == wanted


@pytest.mark.parametrize(
    "line",
    [
        "codec decode ~/none.codes ~/out.wav", "codec pairs ~/none pairs", "evaluate asr --data=~/none -o f",
        "evaluate compare ~/none ~/none2 -o figures", "prepare recordings source=~/none out=~/out",
        "prepare turns source=~/none out=out", "prepare dialogues source=~/none out=out",
        "prepare units data=~/none quantiser=q",
        "prepare rewrite source=~/none out=o endpoint=http://x/v1 model=m",
        "train codec preset=tiny data=~/none out=~/run",
    ],
)  # fmt: skip
def test_a_tilde_is_the_home_folder_on_the_command_line(line, tmp_path, monkeypatch, capsys) -> None:
    """What is asked for is not there, and the error names it where it was looked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(line.split())
    assert str(tmp_path / "none") in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


REPORT = {
    "settings": {"suite": "x"},
    "metrics": [
        {"id": "m", "key": "m", "name": "m", "unit": "%", "better": "higher", "value": 1.0, "low": 1.0, "high": 1.0}
    ],
    "rows": [{"id": "α−≠", "measures": {"m": [1, 1]}}],
}


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii"])
def test_a_console_that_lacks_a_character_loses_no_more(tmp_path, monkeypatch, encoding) -> None:
    """Tables have U+2212, bars and names what they have; files are UTF-8 whatever the console is."""
    monkeypatch.chdir(tmp_path)
    for name in ("ä−≠", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(REPORT), encoding="utf-8")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True))
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "compare", "ä−≠", "b", "-o", "out−"])
    assert ended.value.code == 0 and b"out?" in sys.stdout.buffer.getvalue()
    assert "B − A" in (tmp_path / "out−" / "summary.md").read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "compare", "≠none", "b", "-o", "other"])
    assert ended.value.code == 2 and b"error: there is no" in sys.stderr.buffer.getvalue()
