"""The synthesisers behind one function: right rate, right manner, and one clear line when something is missing."""

from __future__ import annotations

import itertools
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duologue.data_prep.speech import engine as engines
from duologue.data_prep.speech.engine import ENGINES, Prosody, SynthesisError, Voice
from duologue.data_prep.speech.engine import engine as engine_of
from duologue.data_prep.speech.engines import espeak, festival, kokoro, piper
from duologue.data_prep.speech.engines.espeak import espeak_accents, espeak_command, espeak_variants, library_command
from duologue.data_prep.speech.synthesis import given as given_to
from duologue.data_prep.speech.synthesis import require, synthesise
from duologue.data_prep.speech.voices import (
    ACCEPTANCE_VOICES,
    DEV_VOICES,
    REPLY_VOICE,
    TRAIN_VARIANTS,
    TRAIN_VOICES,
    VOICE_SETS,
    draw_voice,
    find_voices,
)
from duologue.model.errors import DuologueError

pytestmark = pytest.mark.programs
SAMPLES = {
    "espeak": Voice(engine="espeak", name="en-us+f3"),
    "flite": Voice(engine="flite", name="kal16"),
    "festival": Voice(engine="festival", name="kal_diphone"),
    "pico": Voice(engine="pico", name="en-US"),
    "rhvoice": Voice(engine="rhvoice", name="bdl"),
    "kokoro": Voice(engine="kokoro", name="am_adam+bf_alice"),
    "piper": Voice(engine="piper", name="en_US-joe-medium"),
}
# Low and fast, high and slow, in the units of each.
MANNERS = {
    engine: (Prosody(pitch=85, spread=10, rate=0.8), Prosody(pitch=200, spread=10, rate=1.3))
    for engine in ("flite", "festival")
}
MANNERS["espeak"] = Prosody(pitch=20, spread=0, rate=200), Prosody(pitch=80, spread=0, rate=120)
MANNERS["pico"] = MANNERS["rhvoice"] = (
    Prosody(pitch=75, spread=0, rate=120),
    Prosody(pitch=130, spread=0, rate=75),
)
MANNERS["kokoro"] = Prosody(pitch=1, spread=0, rate=130), Prosody(pitch=1, spread=0, rate=80)
PROGRAMS = {"espeak": "espeak-ng", "pico": "ttspico", "rhvoice": "RHVoice-test", "kokoro": "kokoro-onnx",
            "piper": "piper-tts", "flite": "flite", "festival": "festival"}  # fmt: skip
TEXT = "what is forty seven plus thirty five"


def need(engine: str) -> None:
    try:
        require(engine)
    except SynthesisError as error:
        pytest.skip(str(error))


def test_each_engine_is_one() -> None:
    """Each module of the folder that has a `speak` has the rest of the protocol, and a sample here."""
    assert {"command", *SAMPLES} == set(ENGINES.first_lines())
    for name in ENGINES.first_lines():
        found = engine_of(name)
        assert isinstance(found.LETTER_A, str) and callable(found.require) and callable(found.speak)
        assert callable(found.language)


def test_other_rates_become_16_khz() -> None:
    need("espeak")
    raw, rate = espeak.speak(TEXT, SAMPLES["espeak"], None)
    pcm = synthesise(TEXT, SAMPLES["espeak"])
    assert rate == 22050 and len(pcm) / engines.SAMPLE_RATE == pytest.approx(len(raw) / rate, abs=0.001)


def pitch(pcm: np.ndarray) -> float:
    """The median f0 in Hz of the voiced frames, by autocorrelation."""
    x = pcm.astype(float)
    found = []
    for start in range(0, len(x) - 1024, 512):
        frame = x[start : start + 1024] - x[start : start + 1024].mean()
        if (frame**2).mean() < (x**2).mean():
            continue
        correlation = np.correlate(frame, frame, "full")[1023:]
        lags = correlation[50:260]  # 320 to 62 Hz
        if lags.max() > 0.5 * correlation[0]:
            found.append(engines.SAMPLE_RATE / (50 + int(lags.argmax())))
    return float(np.median(found))


@pytest.mark.parametrize("engine", SAMPLES)
def test_every_engine_speaks_as_it_is_told(engine: str) -> None:
    """One test for each engine, so that a machine without it skips one."""
    need(engine)
    pcm = synthesise(TEXT, SAMPLES[engine])
    assert pcm.dtype == np.int16 and pcm.ndim == 1
    assert 1.2 < len(pcm) / engines.SAMPLE_RATE < 4.5
    assert np.abs(pcm.astype(int)).max() > 3000
    np.testing.assert_array_equal(pcm, synthesise(TEXT, SAMPLES[engine]))

    low, high = MANNERS[engine]
    fast_low, slow_high = (synthesise(TEXT, SAMPLES[engine], manner) for manner in (low, high))
    assert len(slow_high) > 1.3 * len(fast_low)
    assert engine == "kokoro" or pitch(slow_high) > 1.3 * pitch(fast_low)
    if engine in ("flite", "festival"):
        assert pitch(slow_high) == pytest.approx(200, rel=0.15)
    # and one manner leaves no trace in the next sentence
    np.testing.assert_array_equal(synthesise(TEXT, SAMPLES[engine], low), fast_low)

    if engine != "rhvoice":
        with pytest.raises(SynthesisError, match="nobody"):
            synthesise(TEXT, Voice(engine=engine, name="nobody"))
        np.testing.assert_array_equal(synthesise(TEXT, SAMPLES[engine]), pcm)  # and does no harm


def test_espeaks_library_speaks_as_the_program_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same length and pitch, pace and manner obeyed, in any order; the samples are the version's own."""
    library, program = library_command(), shutil.which("espeak-ng")
    assert library is not None, "duologue[test] brings espeakng-loader"
    voices = [Voice(engine="espeak", name=name) for name in ("en-us+f3", "en-gb", "en-us")]
    manners = (None, *MANNERS["espeak"])
    monkeypatch.setattr(espeak, "espeak_command", lambda: library)
    said = [synthesise(TEXT, voice, manner) for voice in voices for manner in manners]
    again = [synthesise(TEXT, voice, manner) for voice in voices[::-1] for manner in manners[::-1]]
    for pcm, same in zip(said, again[::-1], strict=True):
        np.testing.assert_array_equal(pcm, same)
    monkeypatch.setattr(espeak, "espeak_command", lambda: [program])
    for pcm, voice_and_manner in zip(said, itertools.product(voices, manners), strict=True):
        if program is None:  # nothing to compare with
            break
        other = synthesise(TEXT, *voice_and_manner)
        assert len(other) == pytest.approx(len(pcm), rel=0.02) and pitch(other) == pytest.approx(pitch(pcm), rel=0.05)


def test_an_unknown_variant_is_an_error() -> None:
    need("espeak")
    with pytest.raises(SynthesisError, match="nobody"):
        synthesise(TEXT, Voice(engine="espeak", name="en-us+nobody"))


@pytest.mark.parametrize(("options", "wanted"), [("-D\n\tdeterministic", ["-D"]), ("-q\n\tquiet", [])])
def test_breath_is_the_same_noise_each_time(
    options: str, wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """espeak-ng seeds it by the time of day from 1.52 on, unless told not to."""
    program = tmp_path / "espeak-ng"
    program.write_text(f"#!{sys.executable}\nprint('usage:\\n' + {options!r})\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert espeak_command() == [str(program), *wanted]


RHVOICE = """#!{python}
import subprocess, sys, wave
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert set(options) <= {{"--profile", "--output", "--pitch", "--rate"}}
text = sys.stdin.read()
if options["--profile"] != "bdl":
    sys.exit("no such voice: " + options["--profile"])
with wave.open(options["--output"], "wb") as file:
    file.setparams((1, 2, 24000, 0, "NONE", ""))
    step = int(100 * int(options.get("--pitch", 100)) / 100)
    count = len(text) * 240000 // int(options.get("--rate", 100))
    file.writeframes(b"".join((i * step % 20000 - 10000).to_bytes(2, "little", signed=True) for i in range(count)))
"""


def test_rhvoice_is_asked_as_its_manual_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes RHVoice-test's options stands in for it: profile, per cent of pitch and rate, stdin."""
    program = tmp_path / "RHVoice-test"
    program.write_text(RHVOICE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    voice = SAMPLES["rhvoice"]
    plain, slow = (synthesise(TEXT, voice, manner) for manner in (None, Prosody(pitch=100, spread=0, rate=80)))
    assert len(plain) == len(TEXT) * 1600
    assert len(slow) == pytest.approx(1.25 * len(plain), abs=2)
    with pytest.raises(SynthesisError, match="no such voice: nobody"):
        synthesise(TEXT, Voice(engine="rhvoice", name="nobody"))


class Kokoro:
    """Takes what kokoro-onnx's class takes; a style of a, b, ... says so many samples a letter."""

    def __init__(self, session: object, voices: str) -> None:
        assert session == ("kokoro-v1.0.onnx", 1) and Path(voices).name == "voices-v1.0.bin"
        self.voices = {"af_one": np.full((4, 1, 2), 2000.0), "bm_two": np.full((4, 1, 2), 4000.0)}

    from_session = classmethod(lambda cls, session, voices: cls(session, voices))

    def get_voice_style(self, name: str) -> np.ndarray:
        return self.voices[name]

    def create(self, text: str, voice: np.ndarray, speed: float, lang: str) -> tuple[np.ndarray, int]:
        assert text == TEXT + "." and voice.shape == (4, 1, 2)
        samples = int(voice[0, 0, 0] * len(TEXT) / speed)
        return np.resize(np.float32([0.5, 0.5, -1.5, -0.5] if lang == "en-gb" else [0.25, -0.25]), samples), 24_000


def test_kokoro_is_asked_as_its_package_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that takes kokoro-onnx's calls stands in for it: a voice, half of each of two, accent and speed."""
    monkeypatch.setenv("DUOLOGUE_KOKORO", str(tmp_path))
    (tmp_path / "kokoro-v1.0.onnx").touch()
    monkeypatch.setattr(kokoro.importlib.util, "find_spec", lambda name: name == "kokoro_onnx")
    one = Voice(engine="kokoro", name="af_one")
    with pytest.raises(SynthesisError, match=r"has no voices\*\.bin"):
        synthesise(TEXT, one)
    (tmp_path / "voices-v1.0.bin").touch()
    monkeypatch.setitem(sys.modules, "kokoro_onnx", types.SimpleNamespace(Kokoro=Kokoro))
    options = types.SimpleNamespace
    session = lambda model, options, providers: (Path(model).name, options.intra_op_num_threads)  # noqa: E731
    runtime = types.SimpleNamespace(SessionOptions=options, InferenceSession=session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    plain, slow = (synthesise(TEXT, one, manner) for manner in (None, Prosody(pitch=1, spread=0, rate=80)))
    assert len(plain) == pytest.approx(2000 * len(TEXT) * 2 / 3, abs=2) and abs(plain.astype(int)).max() < 10_000
    assert len(slow) == pytest.approx(1.25 * len(plain), abs=2)
    half = synthesise(TEXT, Voice(engine="kokoro", name="bm_two+af_one"))
    assert len(half) == pytest.approx(1.5 * len(plain), abs=2) and abs(half.astype(int)).max() > 20_000
    with pytest.raises(SynthesisError, match="kokoro has no voice 'nobody', only af_one, bm_two"):
        synthesise(TEXT, Voice(engine="kokoro", name="af_one+nobody"))


class Piper:
    """Takes what piper-tts's class takes; two chunks of as many samples as letters, by manner and speaker."""

    def __init__(self, session: object, config: dict) -> None:
        assert session == ("en_US-two-low.onnx", 1)
        self.config = types.SimpleNamespace(sample_rate=22_050, speaker_id_map=config["people"], length_scale=1.5)

    def synthesize(self, text: str, manner: types.SimpleNamespace) -> list[types.SimpleNamespace]:
        assert text == TEXT and manner.noise_scale == manner.noise_w_scale == 0
        level = 2000 if manner.speaker_id is None else 4000 * (1 + manner.speaker_id)
        samples = round(1000 * len(text) * manner.length_scale)
        return [types.SimpleNamespace(audio_int16_array=np.full(samples, level, np.int16)) for _ in range(2)]


def test_piper_is_asked_as_its_package_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that takes piper-tts's calls stands in for it: one voice of two people, faster and slower."""
    monkeypatch.setattr(piper.importlib.util, "find_spec", lambda name: name == "piper")
    monkeypatch.delenv("DUOLOGUE_PIPER", raising=False)
    one = Voice(engine="piper", name="en_US-two-low")
    with pytest.raises(SynthesisError, match="DUOLOGUE_PIPER is not set"):
        synthesise(TEXT, one)
    monkeypatch.setenv("DUOLOGUE_PIPER", str(tmp_path))
    (tmp_path / "en_US-two-low.onnx").touch()
    with pytest.raises(SynthesisError, match=r"has no NAME\.onnx with its NAME\.onnx\.json"):
        synthesise(TEXT, one)
    (tmp_path / "en_US-two-low.onnx.json").write_text('{"people": {"ann": 0, "bob": 1}}')
    package = types.SimpleNamespace(
        PiperVoice=Piper, SynthesisConfig=types.SimpleNamespace, PiperConfig=types.SimpleNamespace(from_dict=dict)
    )
    monkeypatch.setitem(sys.modules, "piper", package)
    session = lambda model, options, providers: (Path(model).name, options.intra_op_num_threads)  # noqa: E731
    runtime = types.SimpleNamespace(SessionOptions=types.SimpleNamespace, InferenceSession=session)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    plain, slow = (synthesise(TEXT, one, manner) for manner in (None, Prosody(pitch=1, spread=0, rate=80)))
    assert len(plain) == pytest.approx(3000 * len(TEXT) * 16_000 / 22_050, abs=2)
    assert len(slow) == pytest.approx(1.25 * len(plain), abs=2)
    bob = synthesise(TEXT, Voice(engine="piper", name="en_US-two-low#bob"))
    assert np.median(bob) == pytest.approx(4 * np.median(plain), rel=0.01)
    with pytest.raises(SynthesisError, match="piper has no voice 'en_US-x', only en_US-two-low"):
        synthesise(TEXT, Voice(engine="piper", name="en_US-x"))
    with pytest.raises(SynthesisError, match="nobody 'eve', only ann, bob"):
        synthesise(TEXT, Voice(engine="piper", name="en_US-two-low#eve"))


def test_sets_and_voices_join() -> None:
    """Each set and each voice as often as the other; whom training hears, nobody is tested on."""
    both = find_voices("train, dev_neural,piper:en_US-joe-medium")
    assert both[: len(TRAIN_VOICES)] == TRAIN_VOICES and both[-1] == Voice(engine="piper", name="en_US-joe-medium")
    assert len(both) == len(TRAIN_VOICES) + len(find_voices("dev_neural")) + 1
    assert not {voice.key for voice in TRAIN_VOICES} & {voice.key for voice in ACCEPTANCE_VOICES}


@pytest.mark.parametrize("engine", SAMPLES)
def test_a_missing_program_is_named(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(kokoro.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SynthesisError, match=f"not installed: {PROGRAMS[engine]}") as caught:
        synthesise(TEXT, SAMPLES[engine])
    assert "\n" not in str(caught.value)
    with pytest.raises(SynthesisError, match=r"not installed: flite .*; not installed: festival"):
        require("flite", "festival")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there is nothing to say"), ("  ", "there is nothing to say"), ("?!…", "nothing in .* can be said"),
        ("😀 👍🏽", "nothing in .* can be said"), ("half \ud83d", "half a surrogate pair"), ("a\0b", "or a zero"),
        ("a" * 20_001, "20001 characters, more than 20000"), ("法国的首都是哪里？", "cannot say '法'"),
        ("Привет", "cannot say 'П'.*voices=espeak:LANGUAGE"),
    ],
)  # fmt: skip
def test_what_no_english_voice_says(text: str, reason: str) -> None:
    for name in SAMPLES.keys() - {"rhvoice"}:
        with pytest.raises(SynthesisError, match=reason) as caught:
            given_to(text, SAMPLES[name])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("voice", "text", "given"),
    [
        ("espeak:en-us", "What's 2 + 2? Café, $5 😀!", "What's 2 + 2? Café, $5  !"),
        ("espeak:de", "Wie heißt die Hauptstadt von Österreich?", "Wie heißt die Hauptstadt von Österreich?"),
        ("espeak:cmn", "法国的首都是哪里？", "法国的首都是哪里？"),
        ("espeak:en-us", "[[x]]\nb", "[ [x]] b"),
        ("flite:rms", "It’s “fine” – 50% of $5…", "It's \"fine\" - 50% of $5..."),
        ("command:tts", "Привет 😀", "Привет 😀"),
    ],
)
def test_a_text_is_said_as_it_is_written(voice: str, text: str, given: str) -> None:
    name, _, of = voice.partition(":")
    assert given_to(text, Voice(engine=name, name=of)) == given


@pytest.mark.parametrize(
    ("voice", "text"),
    [
        ("flite:rms", "Österreich"), ("festival:kal_diphone", "½"), ("pico:en-US", "€5"), ("kokoro:af_heart", "naïve"),
        ("espeak:ja", "日本"), ("espeak:de", "Γειά"),
    ],
)  # fmt: skip
def test_a_letter_without_a_sound_is_named(voice: str, text: str) -> None:
    name, _, of = voice.partition(":")
    with pytest.raises(SynthesisError, match=f"^{voice} cannot say "):
        given_to(text, Voice(engine=name, name=of))


@given(text=st.text(max_size=30))
def test_whatever_is_given_to_a_voice_has_no_trap_in_it(text: str) -> None:
    for voice in (SAMPLES["espeak"], SAMPLES["flite"], Voice(engine="espeak", name="cmn")):
        try:
            said = given_to(text, voice)
        except SynthesisError as error:
            assert "\n" not in str(error)
            continue
        assert said.strip() and "[[" not in said and "\0" not in said and "\n" not in said
        assert voice.engine == "espeak" or said.isascii()


@pytest.mark.parametrize("engine", ["espeak", "flite", "festival"])
def test_what_means_something_to_a_program_is_only_said(engine: str) -> None:
    need(engine)
    for text in ("-v", "--help me", 'say ") (exit) "(', "\\", "a; rm b"):
        try:
            assert len(synthesise(f"{text} two", SAMPLES[engine])) > 0.2 * engines.SAMPLE_RATE
        except SynthesisError as error:
            pytest.fail(str(error))


@pytest.mark.parametrize(
    ("voice", "text"),
    [
        ("de", "Wie heißt die Hauptstadt von Österreich?"), ("cmn", "法国的首都是哪里？"),
        ("fr-fr+f2", "Où est la gare, s'il vous plaît ?"),
    ],
)  # fmt: skip
def test_espeak_speaks_languages(voice: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program and by the library."""
    for command in (shutil.which("espeak-ng") and espeak_command(), library_command()):
        if command:
            monkeypatch.setattr(espeak, "espeak_command", lambda command=command: command)
            assert {"de", "cmn", "fr-fr"} <= {line.split()[1] for line in espeak._listed()}
            assert len(synthesise(text, Voice(engine="espeak", name=voice))) > engines.SAMPLE_RATE


def test_festival_that_died_or_hangs_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    need("festival")
    first = synthesise("hello", SAMPLES["festival"])
    festival._Festival.shared().process.kill()
    festival._Festival.shared().process.wait()
    np.testing.assert_array_equal(synthesise("hello", SAMPLES["festival"]), first)
    monkeypatch.setattr(engines, "TIMEOUT", 0.0)
    with pytest.raises(SynthesisError, match="took over"):
        synthesise(TEXT, SAMPLES["festival"])
    monkeypatch.undo()
    np.testing.assert_array_equal(synthesise("hello", SAMPLES["festival"]), first)


def test_a_letter_is_called_by_its_name() -> None:
    """A lone a is an article, the a of c a t is the letter: the sentence gets longer."""
    need("flite")
    voice = SAMPLES["flite"]
    assert not np.array_equal(synthesise("s e a", voice)[-3000:], synthesise("see a", voice)[-3000:])
    np.testing.assert_array_equal(synthesise("s e a", voice), synthesise("s e ay", voice))


def test_acceptance_voices_are_never_in_training() -> None:
    train, dev, acceptance = (
        {voice.key for voice in voices} for voices in (TRAIN_VOICES, DEV_VOICES, ACCEPTANCE_VOICES)
    )
    assert not train & dev and not (train | dev) & acceptance
    assert acceptance == {"flite:awb", "flite:slt", "festival:ked_diphone", "festival:cmu_us_slt_arctic_hts"}
    assert len(dev) == 12
    assert not {key.partition("+")[2] for key in dev} & set(TRAIN_VARIANTS)  # new in any accent
    for key in train:
        assert not any(name in key for name in ("awb", "slt", "ked")), key


def test_the_training_mix() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_voice(TRAIN_VOICES, rng) for _ in range(4000)]
    for prefix, fraction in (
        ("espeak:", 0.5),
        ("flite:rms", 0.2),
        ("flite:kal16", 0.15),
        ("festival:kal_diphone", 0.15),
    ):
        assert sum(voice.key.startswith(prefix) for voice in drawn) / 4000 == pytest.approx(fraction, abs=0.03)
    assert len({voice.key for voice in drawn}) > 300
    for voice in drawn[:200]:
        manner = voice.draw(rng)
        assert manner is not None and voice.pitch is not None and voice.rate is not None
        assert voice.pitch[0] <= manner.pitch <= voice.pitch[1] and voice.rate[0] <= manner.rate <= voice.rate[1]
    assert REPLY_VOICE.draw(rng) is None


def test_all_espeak_voices_exist() -> None:
    need("espeak")
    for voice in (voice for voices in VOICE_SETS.values() for voice in voices if voice.engine == "espeak"):
        accent, _, variant = voice.name.partition("+")
        assert accent in espeak_accents() and variant in espeak_variants(), voice.name


def test_voices_are_found_by_name() -> None:
    assert find_voices("acceptance") == ACCEPTANCE_VOICES
    assert [voice.key for voice in find_voices("flite:awb, festival:ked_diphone")] == [
        "flite:awb",
        "festival:ked_diphone",
    ]
    for name in ("nobody", "sox:hello", "flite:", "train,nobody"):
        with pytest.raises(DuologueError, match="unknown voice"):
            find_voices(name)


def test_a_voice_of_half_a_manner_is_refused() -> None:
    with pytest.raises(DuologueError, match="together"):
        Voice(engine="flite", name="rms", pitch=(80, 100))
    with pytest.raises(DuologueError, match="above"):
        Voice(engine="flite", name="rms", pitch=(180, 100), spread=(1, 2), rate=(1, 1))
