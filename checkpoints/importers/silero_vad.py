"""Silero's weights, from the package that brings them. Nothing is downloaded."""

from __future__ import annotations

from importlib.resources import files

import torch

from ...model.duplex.vad import VAD
from ...model.errors import DuologueError
from . import KeyTable, rename_keys

KEYS: KeyTable = {
    r"_model\.stft\.forward_basis_buffer": r"stft_conv.weight",
    **{rf"_model\.encoder\.{i}\.reparam_conv\.(weight|bias)": rf"conv{i + 1}.\1" for i in range(4)},
    r"_model\.decoder\.rnn\.((?:weight|bias)_[ih]h)": r"lstm.\1_l0",
    r"_model\.decoder\.decoder\.2\.(weight|bias)": r"final_conv.\1",
    r"_model_8k\..*": None,
}


def load_vad() -> VAD:
    """The voice activity detector, in evaluation mode.

    Raises:
        DuologueError: the package silero-vad is not installed, or is of another version than this network.
    """
    # Not the safetensors file that lies beside it, which holds the weights of an older version.
    try:
        with (files("silero_vad") / "data" / "silero_vad.jit").open("rb") as file:
            weights = torch.jit.load(file, map_location="cpu").state_dict()
    except (ModuleNotFoundError, FileNotFoundError):
        raise DuologueError("voice activity needs silero-vad 6.2 or later: pip install 'silero-vad>=6.2'") from None
    vad = VAD()
    try:
        vad.load_state_dict(rename_keys(weights, KEYS, "silero-vad"))
    except RuntimeError as error:
        raise DuologueError(f"the weights of silero-vad do not fit: {' '.join(str(error).split())}") from None
    return vad.eval().requires_grad_(False)
