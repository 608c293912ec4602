"""`duologue import faster-whisper`: model.bin as CTranslate2's own code writes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_files import TINY_WHISPER, check_whisper, nothing_written, openai_whisper
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from duologue.checkpoints.importers.faster_whisper import convert, read_variables
from duologue.demo.importing import run
from duologue.model.errors import DuologueError

ctranslate2 = pytest.importorskip("ctranslate2")
torch.manual_seed(0)
REFERENCE = WhisperForConditionalGeneration(TINY_WHISPER).eval()
for parameter in REFERENCE.model.encoder.parameters():  # equal tensors (biases of zeros) are stored as aliases
    if parameter.dim() == 1 and parameter.requires_grad:
        torch.nn.init.normal_(parameter, std=0.1)
torch.nn.init.zeros_(REFERENCE.model.encoder.layers[1].fc1.bias)
torch.nn.init.zeros_(REFERENCE.model.encoder.layers[0].fc1.bias)


def write(folder: Path, quantization: str | None = None) -> Path:
    """The tiny Whisper as a folder of CTranslate2."""
    from ctranslate2.converters.transformers import WhisperLoader

    spec = WhisperLoader().get_model_spec(copy.deepcopy(REFERENCE))  # it scales these very tensors
    spec.register_vocabulary([f"<{i}>" for i in range(60)])
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir()
    spec.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def model_bin(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (write(tmp_path_factory.mktemp("ct2") / "whisper", "float16") / "model.bin").read_bytes()


def test_the_same_numbers_as_from_openais_file(tmp_path: Path) -> None:
    """Its folder, or the file in it."""
    folder = run("faster-whisper", str(write(tmp_path / "ct2")), tmp_path / "encoder", [])
    check_whisper(folder, REFERENCE)
    torch.save(openai_whisper(REFERENCE), tmp_path / "tiny.pt")
    other = run("whisper", str(tmp_path / "tiny.pt"), tmp_path / "other", [])
    again = run("faster-whisper", str(tmp_path / "ct2/model.bin"), tmp_path / "again", [])
    assert (folder / "config.json").read_bytes() == (other / "config.json").read_bytes()
    for ours in (folder, again):
        assert (ours / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("quantization", "error"),
    [("float16", 1e-3), ("bfloat16", 8e-3), ("int8", 2e-2), ("int8_float16", 2e-2), ("int16", 2e-2)],
)
def test_smaller_numbers(tmp_path: Path, quantization: str, error: float) -> None:
    folder = run("faster-whisper", str(write(tmp_path / "ct2", quantization)), tmp_path / "encoder", [])
    tensors = load_file(folder / "model.safetensors")
    wanted = {name: tensor for name, tensor in openai_whisper(REFERENCE)["model_state_dict"].items() if name in tensors}
    assert wanted.keys() == tensors.keys()
    for name, tensor in tensors.items():
        kind = torch.bfloat16 if quantization == "bfloat16" else torch.float16
        assert tensor.dtype in (kind, torch.float32)
        assert (tensor.float() - wanted[name]).norm() <= error * wanted[name].norm(), name


@given(st.data())
def test_a_damaged_file_is_one_line(model_bin: bytes, tmp_path_factory: Any, data: st.DataObject) -> None:
    """Cut off anywhere, or with any one byte of its beginning or end changed: no error but one line."""
    path = tmp_path_factory.getbasetemp() / "model.bin"
    damaged = bytearray(model_bin)
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(0, len(model_bin) - 1)) :]
    else:
        damaged[data.draw(st.integers(-400, 400))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        assert len(read_variables(path)) and len(damaged) == len(model_bin)
    except DuologueError as error:
        assert "\n" not in str(error) and "model.bin" in str(error)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"\x06\0\0\0", b"\x07\0\0\0", r"its format has version 7; known are 4 to 6$"),
        (b"WhisperSpec", b"WhisperSpeq", r"it holds a 'WhisperSpeq', not a 'WhisperSpec'$"),
        (b"encoder/conv1/bias", b"encoder/conv7/bias", r"unknown tensor 'encoder/conv7/bias' \(32,\)"),
        (b"linear_0/bias\0\x01\x60", b"linear_0/bias\0\x01\x61", r"\(97,\) is damaged: it has 192 bytes"),
        (b"", b"\0", r"no model.bin of CTranslate2 Whisper: its format has version "),
    ],
)
def test_what_does_not_fit(tmp_path: Path, model_bin: bytes, before: bytes, after: bytes, message: str) -> None:
    assert before in model_bin
    (tmp_path / "model.bin").write_bytes(model_bin.replace(before, after, 1))
    with pytest.raises(DuologueError, match=message):
        run("faster-whisper", str(tmp_path), tmp_path / "encoder", [])
    assert nothing_written(tmp_path, {"model.bin"})


def test_keys_with_a_bias_are_refused(model_bin: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(model_bin)
    variables = read_variables(tmp_path / "model.bin")
    found = {name: value for name, value in variables.items() if name.startswith("encoder/") and value.dim()}
    assert "blocks.0.attn.key.bias" not in convert(found)
    found["encoder/layer_0/self_attention/linear_0/bias"][40] = 1.0
    assert "blocks.0.attn.key.bias" in convert(found)  # which no Whisper has: loading names it
    found["encoder/conv1/weight_scale"] = torch.ones(3)
    with pytest.raises(DuologueError, match=r"'encoder/conv1/weight_scale' \(3,\) fits no tensor"):
        convert(found)
