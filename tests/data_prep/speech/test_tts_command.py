"""A command that speaks: any template, never a shell, one clear line when it fails."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from test_synthesis import need

from duologue.data_prep.datasets.shards import ShardedDataset
from duologue.data_prep.prepare import main
from duologue.data_prep.speech.engine import SynthesisError, Voice
from duologue.data_prep.speech.engines import command as tts_command
from duologue.data_prep.speech.engines.command import arguments_of, speak_by_command
from duologue.data_prep.speech.engines.espeak import espeak_command
from duologue.data_prep.speech.synthesis import synthesise
from duologue.data_prep.speech.voices import find_voices
from duologue.model.errors import DuologueError

TEXT = "what is forty seven plus thirty five"
COMMANDS = {
    "flite": "flite -voice kal16 -t {text} -o {wav}",
    "espeak": f"{shlex.join(espeak_command() or ['espeak-ng'])} -v en-us -w {{wav}} {{text}}",
}


def script(folder: Path, body: str) -> str:
    """A command that runs Python with the text and the WAV's path as its arguments."""
    path = folder / "my tts.py"
    path.write_text(f"import sys, wave\ntext, wav = sys.argv[1:]\n{body}\n")
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))} {{text}} {{wav}}"


TONE = """
import math, struct
with wave.open(wav, "wb") as file:
    file.setnchannels(2); file.setsampwidth(2); file.setframerate(8000)
    file.writeframes(b"".join(struct.pack("<hh", *2 * [int(9000 * math.sin(i / 3))]) for i in range(400 * len(text))))
"""


@pytest.mark.programs
@pytest.mark.parametrize("engine", list(COMMANDS))
def test_a_real_synthesiser_as_a_command(engine: str) -> None:
    need(engine)
    (voice,) = find_voices("train", COMMANDS[engine])
    pcm = synthesise(TEXT, voice)
    assert voice.key == f"command:{Path(COMMANDS[engine].split()[0]).name}"
    assert pcm.dtype == np.int16 and 1.2 < len(pcm) / 16000 < 4.5 and np.abs(pcm.astype(int)).max() > 3000
    if engine == "flite":  # what the engine of that name says
        same = synthesise(TEXT, Voice(engine="flite", name="kal16"))
        assert np.abs(pcm.astype(int) - same).max() <= 1


def test_any_rate_and_channels_become_16_khz(tmp_path: Path) -> None:
    wav = speak_by_command("hello", script(tmp_path, TONE), 16_000)
    assert wav.dtype == np.float32 and len(wav) == pytest.approx(5 * 400 * 2, abs=4)
    assert np.abs(wav).max() == pytest.approx(9000 / 32768, rel=0.05)


def test_no_shell_sees_the_text(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = script(tmp_path, f"open({str(told)!r}, 'w').write(text)\n" + TONE)
    text = f"$(touch {tmp_path}/a) `touch {tmp_path}/b`; touch {tmp_path}/c 'two  words' {{wav}}"
    speak_by_command(text, command, 16_000)
    assert told.read_text() == text
    assert {path.name for path in tmp_path.iterdir()} == {"told", "my tts.py"}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("sys.exit('first line\\nno such voice')", r"ended with status 1: .*first line no such voice$"),
        ("sys.exit(3)", "ended with status 3: it said nothing on stderr"),
        ("pass", "wrote no WAV for 'hello'"),
        ("open(wav, 'w').write('no sound')", "'hello': speech.wav is not a recording"),
        (TONE.replace("9000", "0"), "'hello': speech.wav is silent"),
        ("import time; time.sleep(30)", "took longer than 1 s for 'hello'"),
    ],
    ids=["fails", "fails quietly", "writes nothing", "writes no sound", "silent", "hangs"],
)
def test_a_command_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, complaint: str) -> None:
    if "sleep" in body:
        monkeypatch.setattr(tts_command, "TIMEOUT", 1.0)
    with pytest.raises(SynthesisError, match=complaint) as caught:
        synthesise("hello", Voice(engine="command", name=script(tmp_path, body)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("my-tts {text}", "no argument has {wav}"),
        ("my-tts", "no argument has {text} or {wav}"),
        ("{text} {wav}", "no argument has {text}"),
        ("my-tts '{text} {wav}", "No closing quotation"),
    ],
)
def test_a_wrong_template(template: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=complaint):
        arguments_of(template)
    with pytest.raises(DuologueError, match=complaint):
        main("replies", [f"out={tmp_path / 'x'}", f"tts_command={template}"])
    assert not (tmp_path / "x").exists()


def test_a_missing_program_is_named_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match="there is no program 'nobody-tts'"):
        main("replies", [f"out={tmp_path / 'x'}", "tts_command=nobody-tts {text} {wav}"])
    assert not (tmp_path / "x").exists()


def test_the_recipes_take_it(tmp_path: Path) -> None:
    """Four replies by two commands: one speaks, and one refuses the longest."""
    settings = ["n=4", "seed=3", "drills=0", "workers=1"]
    speaks = script(tmp_path, TONE)
    counts = main("replies", [f"out={tmp_path / 'all'}", *settings, f"tts_command={speaks}"])
    dataset = ShardedDataset(tmp_path / "all")
    assert counts["clips"] == 4 and dataset.header["parameters"]["tts_command"] == speaks
    assert {meta["voice"] for meta in dataset.metas} == {f"command:{Path(sys.executable).name}"}
    texts = [meta["text"] for meta in dataset.metas]
    assert len(set(texts)) == 4
    (tmp_path / "my tts.py").write_text(
        (tmp_path / "my tts.py").read_text() + f"\nif text == {max(texts, key=len)!r}: sys.exit('too long')\n"
    )
    assert main("replies", [f"out={tmp_path / 'some'}", *settings, f"tts_command={speaks}"])["failed"] == 1
    (failure,) = (json.loads(line) for line in (tmp_path / "some/failed.jsonl").read_text().splitlines())
    assert failure["reason"].endswith("ended with status 1: too long")


def test_when_it_always_fails_nothing_is_left(tmp_path: Path) -> None:
    command = script(tmp_path, "sys.exit('no GPU')")
    with pytest.raises(DuologueError, match=r"every clip failed, .*: tts_command: .* status 1: no GPU$"):
        main("replies", [f"out={tmp_path / 'out'}", "n=3", "workers=1", f"tts_command={command}"])
    assert not (tmp_path / "out").exists()
    script(tmp_path, TONE)  # mended: the same command works now
    assert main("replies", [f"out={tmp_path / 'out'}", "n=3", "workers=1", f"tts_command={command}"])["clips"] == 3


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    """As the system kills one that takes too much memory; what the others have made is kept."""
    command = script(tmp_path, "import os; os.kill(os.getppid(), 9)")
    with pytest.raises(DuologueError, match="a worker was killed, perhaps for memory"):
        main("replies", [f"out={tmp_path / 'out'}", "n=4", "shard_size=2", "workers=2", f"tts_command={command}"])
    script(tmp_path, TONE)
    counts = main("replies", [f"out={tmp_path / 'out'}", "n=4", "shard_size=2", "workers=1", f"tts_command={command}"])
    assert counts["clips"] == 4 and not list((tmp_path / "out").glob(".*"))
