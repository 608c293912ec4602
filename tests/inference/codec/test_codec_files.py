"""`duologue codec`: what is written is what the codec says of the whole, in constant memory, or nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from duologue.checkpoints.cards.facts import Card
from duologue.checkpoints.parts import save_part
from duologue.data_prep.audio import write_wav
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.demo.cli import main
from duologue.inference.codec.files import decode, decoding, encode, fingerprint, load_codec
from duologue.model.codec.codec import Codec, CodecConfig, CodecDecoding, published
from duologue.model.codec.quantiser import QuantiserConfig
from duologue.model.codec.seanet import SEANetConfig
from duologue.model.codec.vocos import VocosConfig
from duologue.model.errors import DuologueError
from duologue.model.layers.windowed import Windowed


def codec(causal: bool, seed: int = 0) -> Codec:
    """A tiny one with random weights; with two codebooks, causal or after WavTokenizer."""
    torch.manual_seed(seed)
    encoder = SEANetConfig(dim=8, filters=4, ratios=(5, 4, 4, 4), lstm_layers=1, causal=causal, reflect=not causal)
    decoder = VocosConfig(
        in_dim=8, dim=16, ffn_dim=24, layers=2, residual_blocks=1, groups=4, n_fft=1280, hop=320, causal=causal,
        chunk=2 if causal else None, left_context=50 if causal else 0,
    )  # fmt: skip
    quantiser = QuantiserConfig(dim=8, size=32, codebooks=2)
    made = Codec(CodecConfig(sample_rate=16000, encoder=encoder, quantiser=quantiser, decoder=decoder)).eval()
    for parameter in made.decoder.parameters():
        parameter.data.mul_(2)  # or the output would be next to silence
    return made.requires_grad_(False)


def sound(seconds: float, rate: int = 16000) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(t))
    return (0.2 * np.sin(2 * np.pi * 300 * t * (1 + 0.1 * np.sin(t))) + 0.05 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = codec(causal=True)
    return save_part(tmp_path_factory.mktemp("codec") / "tiny", "codec", made, made.config, Card())


def run(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert not ended.value.code


@torch.inference_mode()
def test_there_and_back_is_what_the_whole_gives(folder, tmp_path):
    """A stereo recording at another rate; codes and sound are those of one pass over all of it."""
    write_wav(tmp_path / "plain.wav", sound(11.3), 16000)
    plain, _ = soundfile.read(tmp_path / "plain.wav", dtype="float32")
    run("codec", "encode", tmp_path / "plain.wav", tmp_path / "plain.codes", "-m", folder)
    run("codec", "decode", tmp_path / "plain.codes", tmp_path / "back.wav", "-m", folder)
    model = load_codec(str(folder))
    codes = model.encode(torch.from_numpy(plain)[None])
    assert torch.equal(load_file(tmp_path / "plain.codes")["codes"].long().T, codes[0])
    back, rate = soundfile.read(tmp_path / "back.wav", dtype="float32")
    whole = model.decode(codes)[0, : len(plain)].clamp(-1, 1).numpy()
    assert rate == 16000 and len(back) == len(plain)
    assert np.abs(whole).max() > 0.01 and np.abs(back - whole).max() < 2 / 32768

    other = np.stack([sound(3.0, 44100)] * 2, axis=1)
    soundfile.write(tmp_path / "other.flac", other, 44100)
    run("codec", "encode", tmp_path / "other.flac", tmp_path / "other.codes", "-m", folder, "--codebooks", 1)
    run("codec", "decode", tmp_path / "other.codes", tmp_path / "other.wav", "-m", folder)
    assert soundfile.info(tmp_path / "other.wav").frames == pytest.approx(48000, abs=1)


@pytest.mark.parametrize("seconds", [3, 90])
def test_a_decoder_that_is_no_stream_goes_through_windows(tmp_path, seconds):
    """A short recording is decoded whole, to the numbers of the whole; a long one differs between its windows."""
    model = codec(causal=False)
    write_wav(tmp_path / "in.wav", sound(seconds), 16000)
    encode(model, tmp_path / "in.wav", tmp_path / "one", codebooks=1, progress=False)
    assert decode(model, tmp_path / "one", tmp_path / "one.wav", progress=False).codebooks == 1
    info = encode(model, tmp_path / "in.wav", tmp_path / "codes", progress=False)
    decode(model, tmp_path / "codes", tmp_path / "out.wav", progress=False)
    out, _ = soundfile.read(tmp_path / "out.wav", dtype="float32")
    plain, _ = soundfile.read(tmp_path / "in.wav", dtype="float32")
    with torch.inference_mode():
        codes = model.encode(torch.from_numpy(plain)[None])
        whole = model.decode(codes)[0].clamp(-1, 1).numpy()
    assert torch.equal(load_file(tmp_path / "codes")["codes"].long().T, codes[0]) and info.frames == 50 * seconds
    assert not decoding(model, 2).exact and np.abs(whole).max() > 0.01
    if seconds <= 40:
        assert np.abs(out - whole).max() < 2 / 32768
    else:
        assert np.linalg.norm(out - whole) < 0.05 * np.linalg.norm(whole)


@torch.inference_mode()
def test_windows_come_out_in_time_and_together():
    model = codec(causal=False)
    codes = torch.randint(32, (1, 2, 171))
    stage = Windowed(CodecDecoding(model), codes[..., :0], block=20, left=10, right=15)
    outputs = []
    for size in (1, 16, 171):
        state, pieces, ready = stage.init_state(), [], 0
        for at in range(0, 171, size):
            pieces.append(stage.step(codes[..., at : at + size], state))
            ready += pieces[-1].shape[1]
            assert ready >= (min(at + size, 171) - stage.latency) * 320
            assert state.held.shape[2] <= 10 + 20 + 15 + size
        outputs.append(torch.cat([*pieces, stage.flush(state)], dim=1))
    assert outputs[0].shape == (1, 171 * 320)
    assert all(torch.allclose(outputs[0], other, atol=1e-5) for other in outputs[1:])
    assert not torch.allclose(outputs[0], stage(codes), atol=1e-5)


@pytest.mark.parametrize(
    "arguments,message",
    [
        (("encode", "missing.wav", "codes"), "no such file: .*missing.wav"),
        (("encode", "text.wav", "codes"), "not a recording that can be read"),
        (("encode", "empty.wav", "codes"), "has no samples"),
        (("encode", ".", "codes"), "is a folder"),
        (("encode", "in.wav", "codes", "--codebooks", "3"), "codebooks is 3; this codec has 2"),
        (("encode", "in.wav", "codes", "--kbps", "0.1"), r"0\.1 kbit/s is too little .* one codebook is 0\.25 kbit/s"),
        (("encode", "in.wav", "codes", "--kbps", "nan"), "nan kbit/s is too little"),
        (("encode", "in.wav", "codes", "--kbps", "1", "--codebooks", "1"), "not both"),
        (("encode", "in.wav", "nowhere/codes"), "cannot write .*nowhere/codes"),
        (("decode", "in.wav", "out.wav"), "is no file of codes"),
        (("decode", "missing", "out.wav"), "no such file: .*missing"),
        (("decode", "cut", "out.wav"), "is no file of codes, or is cut short"),
        (("decode", "other", "out.wav"), "encoded by another codec"),
        (("decode", "good", "out.mp3"), r"ends in \.wav"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_wav("in.wav", sound(0.5), 16000)
    soundfile.write("empty.wav", np.zeros(0), 16000)
    (tmp_path / "text.wav").write_text("no sound")
    model = load_codec(str(folder))
    encode(model, tmp_path / "in.wav", tmp_path / "good", progress=False)
    (tmp_path / "cut").write_bytes((tmp_path / "good").read_bytes()[:-10])
    encode(codec(causal=True, seed=1), tmp_path / "in.wav", tmp_path / "other", progress=False)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        main(["codec", *arguments, "-m", str(folder)])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    with pytest.raises(DuologueError, match=message):
        raise DuologueError(error)
    assert sorted(tmp_path.iterdir()) == before


def test_pairs_are_clips_beside_what_became_of_them(folder, tmp_path):
    writer = ShardWriter(tmp_path / "data", name="recordings", sample_rate=8000, seed=0, parameters={})
    clips = [
        Clip((20000 * sound(seconds, 8000)).astype(np.int16), {"id": f"set/{i}.flac", "text": "", "voice": "x"})
        for i, seconds in enumerate((0.5, 1.2, 1.5, 2.0))
    ]
    writer.write(0, clips)
    writer.finish()
    run("codec", "pairs", tmp_path / "data", tmp_path / "pairs", "-m", folder, "--limit", 2)
    facts = json.loads((tmp_path / "pairs" / "codec.json").read_text())
    assert facts["codebook_size"] == 32 and sorted(facts["times"]) == ["set/1", "set/2"]  # the first is too short
    for name in facts["times"]:
        sides = [soundfile.info(tmp_path / "pairs" / side / f"{name}.wav") for side in ("reference", "decoded")]
        assert sides[0].frames == sides[1].frames and sides[0].samplerate == 16000
        codes = json.loads((tmp_path / "pairs" / "codes" / f"{name}.json").read_text())
        assert len(codes) == 2 and len(codes[0]) == -(-sides[0].frames // 320)


def test_codes_out_of_range_are_refused(folder, tmp_path):
    model = load_codec(str(folder))
    facts = {"format": "duologue-codes/1", "samples": "320", "sample_rate": "16000", "codec": fingerprint(model)}
    save_file({"codes": torch.full((1, 2), 40, dtype=torch.uint16)}, tmp_path / "codes", metadata=facts)
    with pytest.raises(DuologueError, match="codes go from 40 to 40; they must be 0 to 31"):
        decode(model, tmp_path / "codes", tmp_path / "out.wav", progress=False)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    ("samples", "rate"), [("9999", "16000"), ("-5", "16000"), ("0", "16000"), ("320", "0"), ("320", "24000")]
)
def test_codes_whose_facts_do_not_fit_are_refused(folder, tmp_path, samples, rate):
    model = load_codec(str(folder))
    facts = {"format": "duologue-codes/1", "samples": samples, "sample_rate": rate, "codec": fingerprint(model)}
    save_file({"codes": torch.zeros(1, 2, dtype=torch.uint16)}, tmp_path / "codes", metadata=facts)
    with pytest.raises(DuologueError, match=r"codes is damaged: 1 frames are not .* samples"):
        decode(model, tmp_path / "codes", tmp_path / "out.wav", progress=False)
    assert not (tmp_path / "out.wav").exists()


def test_a_codec_says_what_its_rates_are():
    config = codec(causal=True).config
    assert config.frame_rate == 50 and config.bit_rate() == 500 and config.bit_rate(1) == 250
    assert config.codebooks_for(0.3) == 1 and config.codebooks_for(9) == 2
    with pytest.raises(DuologueError, match="give 320 samples a frame"):
        replace(config, decoder=replace(config.decoder, hop=160, n_fft=640))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sizes,minutes", [("tiny", 120), ("published", 2)])
def test_two_hours_stay_under_a_gigabyte(folder, tmp_path, sizes, minutes):
    """Both ways, each in a process of its own, whose peak of memory is measured (torch alone is 300 MB of it).

    At WavTokenizer's sizes, whose weights alone are 300 MB, for less long: after two windows the peak is reached.
    """
    if sizes == "published":
        made = Codec(published(75)).eval().requires_grad_(False)
        folder = save_part(tmp_path / "real", "codec", made, made.config, Card())
        del made
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 16000, 1, "PCM_16") as file:
        minute = sound(60.0)
        for _ in range(minutes):
            file.write(minute)
    command = (
        "import resource, sys\n"
        "from duologue.demo.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as e:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, e.code or 0)"
    )
    for arguments in (("encode", "long.wav", "long.codes"), ("decode", "long.codes", "back.wav")):
        done = subprocess.run(
            [sys.executable, "-c", command, "codec", *arguments, "-m", str(folder)],
            cwd=tmp_path, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        kilobytes, code = done.stdout.split()
        assert code == "0", done.stderr
        assert int(kilobytes) < 1_000_000, arguments
    back = soundfile.info(tmp_path / "back.wav")
    assert back.frames == minutes * 60 * back.samplerate
