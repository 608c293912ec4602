"""The command line: what it prints, where, and with which status. The models are tiny and their weights random."""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import soundfile
from tiny_assistant import HEARD, SAID, Loudness, tiny_assistant

from duologue.checkpoints import store
from duologue.demo import cli
from duologue.model.errors import DuologueError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that hears HEARD and says SAID, whatever the question."""
    assistant = tiny_assistant()
    return str(store.save(tmp_path_factory.mktemp("models") / "tiny", assistant.model, assistant.tokenizer))


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sound") / "question.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(12_000), 16_000)
    return str(path)


@pytest.fixture(autouse=True)
def loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings here are noise, which silero would not take for speech."""
    monkeypatch.setattr("duologue.checkpoints.importers.silero_vad.load_vad", Loudness)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """``run(*arguments)`` -> (status, stdout, stderr)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def test_ask(run: Any, model: str, question: str, tmp_path: Path) -> None:
    status, out, err = run("ask", question, "--model", model, "-o", str(tmp_path / "reply.wav"))
    assert (status, out) == (0, f"{SAID}\n")  # stdout is the reply and nothing else
    heard, written = err.splitlines()
    assert heard == f"heard: {HEARD}"
    seconds = re.fullmatch(r".*reply\.wav: ([\d.]+) s of speech, ready to start \d+ ms after the question", written)
    samples, rate = soundfile.read(tmp_path / "reply.wav")
    assert seconds is not None and rate == 16_000
    assert len(samples) / rate == pytest.approx(float(seconds[1]), abs=0.006) and len(samples) > 0.3 * rate


def test_the_manner_of_a_question(run: Any, model: str, question: str, tmp_path: Path) -> None:
    telling = tiny_assistant(manners=("calm", "shout"))
    folder = str(store.save(tmp_path / "telling", telling.model, telling.tokenizer))
    status, out, err = run("ask", question, "--model", folder, "--manner")
    assert (status, out) == (0, f"{SAID}\n") and re.fullmatch(r"manner: (calm|shout) \(\d+%\)", err.splitlines()[1])
    _, out, _ = run("ask", question, "--model", folder, "--manner", "--json")
    assert sum(json.loads(out)["manner"].values()) == pytest.approx(1)
    _, out, _ = run("ask", question, "--model", folder, "--json")
    assert "manner" not in json.loads(out)
    status, out, err = run("ask", "--text", HEARD, "--model", folder, "--manner")
    assert status == 2 and "the manner of speaking is told of a recording" in err
    status, out, err = run("ask", question, "--model", model, "--manner")
    assert (status, out, err.count("\n")) == (2, "", 1) and "this model has no head for the manner of speaking" in err


def test_replies_in_ssml_need_a_voice_that_renders_them(run: Any, model: str, question: str, tmp_path: Path) -> None:
    status, out, _ = run("ask", question, "--model", model, "--ssml")
    assert (status, out) == (0, f"{SAID}\n")
    mute = tiny_assistant(speech=False)
    folder = str(store.save(tmp_path / "mute", mute.model, mute.tokenizer))
    for command in (["ask", question], ["listen", question, "-o", str(tmp_path / "replies.wav")]):
        status, out, err = run(*command, "--model", folder, "--ssml")
        assert (status, out) == (2, "") and "SSML" in err.splitlines()[-1]


def test_a_process_of_its_own_says_no_more(model: str, root: Path) -> None:
    """Libraries that are installed beside it, torchao for one, have nothing to say to a user."""
    question = str(root / "demo/assets/examples" / "plus.flac")
    command = [sys.executable, "-m", "duologue", "ask", question, "--model", model]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{SAID}\n", f"heard: {HEARD}\n")


def test_ask_in_writing(run: Any, model: str) -> None:
    assert run("ask", "--text", "what is two plus two", "-m", model) == (0, f"{SAID}\n", "")


def test_ask_json(run: Any, model: str, question: str, tmp_path: Path) -> None:
    status, out, err = run("ask", question, "-m", model, "--json", "-o", str(tmp_path / "reply.wav"))
    assert (status, err) == (0, "")
    reply = json.loads(out)
    assert out.count("\n") == 1
    assert (reply["text"], reply["transcript"], reply["warning"]) == (SAID, HEARD, None)
    assert reply["sample_rate"] == 16_000 and reply["output"].endswith("reply.wav")
    assert len(reply["units"]) > 3 and all(type(unit) is int for unit in reply["units"])
    assert reply["timings"]["audio_s"] == 0.75
    assert reply["timings"]["compute_delay_ms"] > 0


def test_a_silent_recording_is_not_answered(run: Any, model: str, tmp_path: Path) -> None:
    silent = str(tmp_path / "silence.wav")
    soundfile.write(silent, np.zeros(8_000), 16_000)
    status, out, err = run("ask", silent, "-m", model)
    assert (status, out) == (0, "\n") and err.startswith("duologue: warning: no speech was heard")
    assert run("ask", silent, "-m", model, "-o", str(tmp_path / "reply.wav"))[0] == 2
    assert not (tmp_path / "reply.wav").exists()


def test_ask_in_writing_about_a_recording(run: Any, model: str, question: str) -> None:
    status, out, err = run("ask", question, "--text", "what is two", "-m", model)
    assert (status, out, err) == (0, f"{SAID}\n", f"heard: {HEARD} what is two\n")


def test_a_model_without_a_voice(run: Any, question: str, tmp_path: Path) -> None:
    assistant = tiny_assistant(speech=False)
    folder = str(store.save(tmp_path / "mute", assistant.model, assistant.tokenizer))
    assert run("ask", question, "-m", folder)[:2] == (0, f"{SAID}\n")
    status, out, err = run("ask", question, "-m", folder, "-o", str(tmp_path / "reply.wav"))
    assert (status, out) == (2, f"{SAID}\n")
    assert "has no speech" in err and not (tmp_path / "reply.wav").exists()


@pytest.mark.parametrize("where", ["-", "/dev/fd/{}"])
def test_a_recording_from_a_pipe(
    run: Any, model: str, question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    out = str(tmp_path / "out.wav")
    for command in (["ask", "-m", model], ["listen", "-m", model, "-o", out], ["codec", "encode"]):
        inward, outward = os.pipe()
        with open(inward, "rb") as file, open(outward, "wb") as pipe:  # 24 kB: there is room in a pipe
            pipe.write(Path(question).read_bytes())
            pipe.close()
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(file))
            where_to = [str(tmp_path / "codes")] if command[0] == "codec" else []
            status, _, err = run(*command, where.format(inward), *where_to)
            assert status == 0, err
    assert (tmp_path / "codes").stat().st_size > 1_000 and soundfile.info(out).duration == pytest.approx(0.75, abs=0.01)


def test_the_help_says_which_files_are_read(run: Any) -> None:
    from duologue.data_prep.audio.formats import FORMATS

    for command in (["ask"], ["listen"], ["codec", "encode"]):
        assert FORMATS in " ".join(run(*command, "--help")[1].split())


# Bad input: one line on stderr, status 2.


def bad(name: str, folder: Path) -> str:
    """Make the bad recording ``name``; its path."""
    path = folder / name
    tone = 0.1 * np.sin(np.arange(32_000) / 9)
    if name == "empty.wav":
        path.touch()
    elif name == "text.wav":
        path.write_text("what is two plus two")
    elif name == "nosamples.wav":
        soundfile.write(path, tone[:0], 16_000)
    elif name == "nan.wav":
        tone[100] = np.nan
        soundfile.write(path, tone, 16_000, subtype="FLOAT")
    elif name == "cut.flac":
        soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 32_000), 16_000)
        path.write_bytes(path.read_bytes()[:9_000])
    elif name == "folder.wav":
        path.mkdir()
    return str(path)


@pytest.mark.parametrize(
    "name", ["missing.wav", "empty.wav", "text.wav", "nosamples.wav", "nan.wav", "cut.flac", "folder.wav"]
)
def test_bad_recordings(run: Any, model: str, tmp_path: Path, name: str) -> None:
    path = bad(name, tmp_path)
    status, out, err = run("ask", path, "--model", model)
    assert (status, out) == (2, "")
    assert err.startswith("duologue: error: ") and err.count("\n") == 1 and path in err


def test_words_are_looked_for_where_a_model_hears_them(run: Any, model: str, question: str, tmp_path: Path) -> None:
    for command in (("ask", question), ("listen", question, "-o", str(tmp_path / "reply.wav"))):
        status, out, err = run(*command, "--model", model, "--hotwords", "Olly")
        assert (status, out) == (2, "") and "the hot word 'Olly' cannot be spelt" in err
    assert run("ask", question, "--model", model, "--hotwords", "zero", "--beam", "2")[0] == 0


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(8_000, 1, "PCM_16"), (96_000, 1, "PCM_24"), (44_100, 2, "PCM_16")]
)
def test_unusual_recordings(run: Any, model: str, tmp_path: Path, rate: int, channels: int, subtype: str) -> None:
    sound = 0.1 * np.random.default_rng(0).standard_normal((rate, channels))
    soundfile.write(tmp_path / "q.wav", sound, rate, subtype=subtype)
    assert run("ask", str(tmp_path / "q.wav"), "--model", model)[:2] == (0, f"{SAID}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask"], r"give a recording .* or --text"),
        (["ask", __file__, "--text", " "], "has no words"),
        (["ask", "--text", "hi", "--lm", "no.arpa"], r"no such file: no\.arpa"),
        (["listen", __file__, "-o", "x.wav", "--grammar", "no.jsgf"], r"no such file: no\.jsgf"),
        (["ask", "--text", "hi", "--hotwords", "names/no.txt"], r"no such file: names/no\.txt"),
        (["ask", "--text", "hi", "--hotwords", "Olly, !"], "the hot word '!' has no letters"),
        (["ask", __file__, "--model", "nanno"], "unknown model 'nanno': not a bundled name .* could not be reached: "),
        (["ask", __file__, "--model", "./nanno"], "unknown model './nanno'"),
        (["chat", "--model", "./nanno", "--port", "0"], "unknown model './nanno'"),
        (["train", "asr"], "unknown recipe 'asr'.*; there are: asr_pretrain, "),
        (["train", "asr_pretrain", "step=3"], "unknown key 'step' for recipe asr_pretrain"),
        (["train", "asr_pretrain", "steps"], "'steps', given to recipe asr_pretrain, must be KEY=VALUE"),
        (["prepare", "question"], "unknown recipe 'question'"),
        (["prepare", "questions", "out=x", "m=3"], "unknown key 'm'"),
        (["evaluate", "s3s", "-o", "x"], "unknown suite 's3s'"),
        (["ask", "--text", "hello", "--voice", "a", "--voice-from", "b.wav"], "are two voices: give one of them"),
        (["chat", "--terminal", "--url", "http://localhost:1", "--voice", "deep"], "--url takes no voice"),
    ],
)
def test_bad_arguments(run: Any, arguments: list[str], message: str) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert re.match(f"duologue: error: .*{message}", err), err


def test_a_bad_checkpoint(run: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    status, _, err = run("ask", "--text", "x", "--model", str(tmp_path))
    assert status == 2
    assert err == f"duologue: error: {tmp_path}/config.json has format None; this version reads 'duologue/1'\n"


@pytest.mark.parametrize("output", ["nowhere/reply.wav", "reply.mp3", "."])
def test_an_output_that_cannot_be_written(
    run: Any, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("ask", "--text", "what", "-m", model, "-o", output)
    assert status == 2 and err.startswith("duologue: error: ") and err.count("\n") == 1 and output in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["nonsense"], ["ask", "--nonsense"], ["evaluate", "s2s"], ["chat", "--port=x"]])
def test_usage(run: Any, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and "Usage: duologue" in err and "Traceback" not in err


# What functions raise, and what becomes of it.


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DuologueError("a\nb"), 2, "duologue: error: a b\n"),
        (PermissionError(13, "Permission denied", "/x"), 2, "duologue: error: /x: Permission denied\n"),
        (OSError(28, "No space left on device"), 2, "duologue: error: [Errno 28] No space left on device\n"),
        (ModuleNotFoundError("", name="fastapi.routing"), 2, "needs fastapi: pip install 'duologue[serve]'\n"),
        (ModuleNotFoundError("", name="sklearn"), 2, "needs sklearn: pip install 'duologue[train]'\n"),
        (ModuleNotFoundError("", name="openai"), 2, "needs openai: pip install 'duologue[serve]'\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors(run: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("duologue.training.main.run", fail)
    ended, out, err = run("train", "asr_pretrain")
    assert (ended, out) == (status, "")
    assert err.endswith(message) and err.count("\n") <= 1


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'duologue.nonsense'", name="duologue.nonsense")

    monkeypatch.setattr("duologue.training.main.run", fail)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["train", "asr_pretrain"])


def test_ctrl_c(tmp_path: Path) -> None:
    """A real interrupt of a real process ends with status 130 and no traceback."""
    script = (
        "import signal, time, duologue.training.main as main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs are started deaf to it
        "def run(*_):\n"
        "    print('started', flush=True)\n"
        "    time.sleep(60)\n"
        "main.run = run\n"
        "from duologue.demo.cli import main\n"
        "main(['train', 'asr_pretrain'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (130, "")


def test_a_reader_that_leaves(model: str) -> None:
    """``duologue ask … | head -0`` is no error worth a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "duologue", "ask", "--text", "what", "-m", model],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in err


# The functions behind.


def test_what_is_passed_on(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []

    def prepare(recipe: str, overrides: list[str]) -> dict[str, int]:
        calls.append((recipe, overrides))
        return {"clips": 3, "failed": 0}

    monkeypatch.setattr("duologue.data_prep.prepare.main", prepare)
    monkeypatch.setattr("duologue.training.main.run", lambda *arguments: calls.append(arguments))
    assert run("prepare", "questions", "out=x", "n=3") == (0, "clips: 3, failed: 0\n", "")
    assert run("train", "text_sft") == (0, "", "")
    assert run("train", "text_sft", "steps=3", "lr=1e-3") == (0, "", "")
    assert calls == [("questions", ["out=x", "n=3"]), ("text_sft", []), ("text_sft", ["steps=3", "lr=1e-3"])]


def test_evaluate(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("duologue.inference.evaluation.suites.s2s.run", _noted(calls, "s2s"))
    monkeypatch.setattr("duologue.inference.evaluation.suites.compare.run", _noted(calls, "compare"))
    assert run("evaluate", "s2s", "-m", "m", "questions=5", "judge.url=http://localhost/v1", "judge.model=j", "-o", "f",
               "seed=3") == (0, "", "")  # fmt: skip
    assert run("evaluate", "compare", "a", "b", "-o", "f") == (0, "", "")
    status, _, err = run("evaluate", "s2s", "--profile", "card", "-o", "f")
    assert status == 2 and err.endswith("must be KEY=VALUE, profile=…\n")
    first, second = calls
    assert (first["model"], first["questions"], first["out"], first["seed"]) == ("m", 5, Path("f"), 3)
    assert (first["judge"].url, first["judge"].model) == ("http://localhost/v1", "j")
    assert second["reports"] == [Path("a"), Path("b")] and second["out"] == Path("f")


def _noted(calls: list[Any], suite: str) -> Any:
    """Stands in for the suite's function, with its arguments."""
    real = importlib.import_module(f"duologue.inference.evaluation.suites.{suite}").run

    @functools.wraps(real)
    def note(**given: Any) -> None:
        calls.append(given)

    return note


def test_serve(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    from duologue.inference.serving import run as server

    calls: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda *arguments, **named: calls.append(arguments))
    monkeypatch.setenv("DUOLOGUE_API_KEY", "from-the-environment")
    status, out, err = run("serve", "--port", "0", "--workers", "2", "--sessions", "3", "--minutes", "5")
    assert (status, out, err) == (0, "", "importing libraries …\n")
    ((config, *where),) = calls
    assert config.model == "nano" and where == ["127.0.0.1", 0]
    assert config.pool.workers == 2 and config.pool.sessions == 3
    assert config.access.keys == ("from-the-environment",) and config.access.session_s == 300
    status, out, err = run("serve", "--api-key", "short")
    assert status == 2 and not out and "at least 8 characters" in err and "short" not in err


def test_chat(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    page = pytest.importorskip("duologue.demo.page.page")
    calls: list[Any] = []
    monkeypatch.setattr(page, "launch", lambda *arguments, **named: calls.append((arguments, named)))
    assert run("chat", "--port", "0", "--host", "0.0.0.0")[:2] == (0, "")
    ((config, *where), named), *more = calls
    assert config.model == "nano" and where == ["0.0.0.0", 0] and not more
    assert set(named) == {"listening", "progress"} and not config.access.keys
    for arguments in (
        ("--api-key", "first-key", "--api-key", "second-key", "--origin", "https://a.example/"),
        ("--allow-host", "a.example", "--allow-host", "b.example", "--root-path", "/talk/"),
    ):
        assert run("chat", "--port", "0", *arguments)[0] == 0
    keyed, hosted = calls[1][0][0].access, calls[2][0][0].access
    assert keyed.keys == ("first-key", "second-key") and keyed.origins == ("https://a.example",)
    assert hosted.hosts == ("a.example", "b.example") and hosted.root_path == "/talk"


@pytest.mark.parametrize("command", ["chat", "serve"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--keyfile", "key.pem"], "--keyfile goes with --certfile"),
        (["--certfile", "no.pem"], "no.pem is no file"),
        (["--certfile", __file__], "cannot be used"),
        (["--origin", "example.org"], "the origin is 'example.org'; it must be like https://example.org"),
        (["--allow-host", "https://example.org"], "the host is 'https://example.org'; it must be a name"),
        (["--root-path", "talk"], "the root path is 'talk'; it must be like /talk"),
        (["--host", "no such host"], "cannot serve on 'no such host'"),
    ],
)
def test_what_a_service_cannot_be_started_with(run: Any, command: str, arguments: list[str], message: str) -> None:
    pytest.importorskip("fastapi")
    status, out, err = run(command, "--port", "0", *arguments)
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1, err


@pytest.mark.parametrize("command", ["chat", "serve"])
def test_a_taken_port_is_said_before_anything_is_loaded(run: Any, command: str, monkeypatch: Any) -> None:
    pytest.importorskip("fastapi")
    monkeypatch.setattr("duologue.inference.assistant.loading.load", lambda *_: pytest.fail("it loads"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        status, out, err = run(command, "--port", str(taken.getsockname()[1]))
    assert (status, out) == (2, "") and "the port is taken" in err and err.count("\n") == 1


def test_help_teaches(run: Any) -> None:
    """Each command shows examples of itself, and train lists the recipes that there are."""
    from duologue.data_prep.prepare import RECIPES as PREPARED
    from duologue.demo.importing import IMPORTERS
    from duologue.inference.evaluation.main import SUITES
    from duologue.training.main import RECIPES

    status, out, _ = run("--help")
    commands = re.findall(r"^  (\w+) ", out.partition("Commands:")[2], flags=re.MULTILINE)
    wanted = {
        "ask",
        "listen",
        "chat",
        "serve",
        "prepare",
        "train",
        "evaluate",
        "import",
        "bench",
        "codec",
        "assemble",
        "grow",
        "card",
        "lm",
        "feedback",
    }
    assert status == 0 and set(commands) == wanted
    for command in commands:
        status, out, _ = run(command, "--help")
        assert status == 0 and f"  duologue {command}" in out
    catalogues = {"train": RECIPES, "prepare": PREPARED, "import": IMPORTERS, "evaluate": SUITES, "bench": cli.BENCHES}
    for command, catalogue in catalogues.items():
        listed = dict(re.findall(r"^    ([\w-]+) +(\S.*)$", run(command, "--help")[1], flags=re.MULTILINE))
        assert catalogue.first_lines().items() <= listed.items()


def test_version(run: Any) -> None:
    import duologue

    assert run("--version") == (0, f"{duologue.__version__}\n", "")


def test_listen(run: Any, model: str, tmp_path: Path) -> None:
    """As long out as in, at the model's rate; events on stdout and as JSON lines; a bad preset is one line."""
    rng = np.random.default_rng(0)
    wave = np.concatenate([np.zeros(8_000), 0.1 * rng.standard_normal(16_000), np.zeros(120_001)])
    soundfile.write(tmp_path / "talk.wav", wave, 16_000)
    with mock.patch("duologue.checkpoints.importers.silero_vad.load_vad", Loudness):
        status, out, _ = run(
            "listen", str(tmp_path / "talk.wav"), "-m", model, "-o", str(tmp_path / "said.wav"),
            "--events", str(tmp_path / "events.jsonl"), "--preset", "responsive",
        )  # fmt: skip
    assert status == 0
    said, rate = soundfile.read(tmp_path / "said.wav")
    assert rate == 16_000 and len(said) == len(wave) and not said[:24_000].any() and said[24_000:].any()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[0] == {"at_ms": 480, "kind": "speech_started", "text": ""}
    assert " ".join(event["text"] for event in events if event["kind"] == "answer_text") == SAID
    assert out.splitlines()[0] == "    0.48 s  speech started" and len(out.splitlines()) == len(events)
    status, _, err = run("listen", str(tmp_path / "talk.wav"), "-o", "x.wav", "--preset", "hasty")
    assert (
        status == 2 and err == "duologue: error: there is no preset 'hasty'; it must be responsive, balanced, patient\n"
    )
