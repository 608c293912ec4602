"""The bundled codec: it is there, it streams exactly, and speech that goes through it stays speech."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import duologue
from duologue.data_prep.audio import read_audio
from duologue.demo.cli import main
from duologue.inference.codec.files import fingerprint, load_codec
from duologue.model.codec.codec import Codec
from duologue.training.presets import preset

ASSETS = sorted((Path(duologue.__file__).parent / "demo/assets/examples").glob("*.flac"))


@pytest.fixture(scope="module")
def codec():
    return load_codec("nano-codec")


@pytest.mark.parametrize("size", [1, 80, 216, 1280, 4001])
@torch.inference_mode()
def test_chunks_of_any_size_give_what_the_whole_gives(codec, size: int) -> None:
    samples = torch.from_numpy(read_audio(ASSETS[0], 16_000))[None, : 24_000 if size > 1 else 2_000]
    whole, state = codec(samples), codec.init_state()
    parts = [codec.step(samples[:, at : at + size], state) for at in range(0, samples.shape[1], size)]
    streamed = torch.cat([*parts, codec.flush(state)], dim=1)
    assert streamed.shape == whole.shape
    assert (streamed - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_it_waits_less_than_80_ms_and_needs_at_most_75_tokens_a_second(codec) -> None:
    assert codec.exact and codec.delay_ms <= 80
    assert codec.config.frame_rate <= 75 and codec.config.quantiser.codebooks == 1


def test_codes_stay_readable(codec) -> None:
    """Their fingerprint is of the sizes as the bundled file has them: fields that came later do not count."""
    entries = codec.quantiser.entries.detach().float().numpy().tobytes()
    sizes = json.loads((Path(duologue.__file__).parent / "checkpoints/nano-codec/config.json").read_text())["config"]
    assert fingerprint(codec) == hashlib.sha256(json.dumps(sizes).encode() + entries).hexdigest()[:16]


def test_codes_of_finite_scalars_are_known_by_what_writes_and_reads_them() -> None:
    torch.manual_seed(0)
    sizes = preset("tiny", "codec")["codec"]
    codec = Codec(replace(sizes, quantiser=replace(sizes.quantiser, levels=(4, 4, 4))))
    prints = {fingerprint(codec)}
    for layer in (codec.quantiser.inward, codec.quantiser.outward):
        layer.weight.data[0, 0] += 1
        prints.add(fingerprint(codec))
    assert len(prints) == 3


def test_speech_comes_back_as_speech(codec, tmp_path: Path) -> None:
    """Through the command line, by its default model: intelligible by STOI, and not so once it is out of place."""
    from pystoi import stoi

    scores = []
    for path in ASSETS[:3]:
        codes, again = tmp_path / "talk.codes", tmp_path / "again.wav"
        for arguments in (["encode", str(path), str(codes)], ["decode", str(codes), str(again)]):
            with pytest.raises(SystemExit) as ended:
                main(["codec", *arguments])
            assert not ended.value.code
        before, after = read_audio(path, 16_000), read_audio(again, 16_000)
        assert len(before) == len(after)
        scores.append((stoi(before, after, 16_000), stoi(before, np.roll(after, 16_000), 16_000)))
    right, wrong = np.mean(scores, axis=0)
    assert right > 0.7 and wrong < 0.4, scores
