"""Linear and convolution layers by oneDNN, with weights that it has laid out beforehand: for models that only run.

    pack(model)     in place, once its weights are there

Torch takes MKL for products of 32-bit floats, which leaves half of some CPUs' vector units unused. For convolutions it
takes oneDNN, but lays their weights out anew each time, which costs a short step more than its arithmetic. The results
differ from torch's own by rounding alone. Packed weights are held twice: see ``most``.

oneDNN compiles a kernel for each number of rows, and keeps a thousand of them. So rows are filled up to one of a few
numbers, and a short convolution is a product of what each output sees.
"""

from __future__ import annotations

import platform
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import StreamingConv1d

MOST = 256 * 2**20  # bytes of weights in one model: beyond, to read them takes longer than the arithmetic
_FEW = 4  # rows: of fewer MKL's product of a matrix and a vector is as fast, and costs less to begin
_STEPS = ((16, 4), (64, 8))  # up to so many rows are filled up to a multiple of so many
_STEP = 64  # and beyond to one of this
_FRAMES = 128  # up to which a convolution is a product
_ROWS = 32  # that weights are laid out for


class PackedLinear(nn.Linear):
    """The same as the layer that it was."""

    packed: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[:-1].numel() < _FEW or not _plain(x):
            return F.linear(x, self.weight, self.bias)
        return _product(x, self.packed, self.bias)


class PackedStreamingConv1d(StreamingConv1d):
    """The same as the layer that it was."""

    packed: Tensor

    def _convolve(self, x: Tensor, padding: int = 0) -> Tensor:
        if padding or not _small(x):
            return super()._convolve(x, padding)
        return _convolved(self, x, self.packed)


class PackedConv1d(nn.Conv1d):
    """The same as the layer that it was."""

    packed: Tensor

    def forward(self, input: Tensor) -> Tensor:
        if not _small(input):
            return super().forward(input)
        padding = int(self.padding[0])
        return _convolved(self, F.pad(input, (padding, padding)) if padding else input, self.packed)


def pack(model: nn.Module, most: int = MOST) -> None:
    """Let the layers of a model be packed, where oneDNN knows this machine; its weights must not change any more.

    most: bytes of weights; a model that has more stays as it is.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return
    layers = [layer for layer in model.modules() if _packs(layer)]
    if sum(cast(Tensor, layer.weight).nbytes for layer in layers) > most:
        return
    with torch.inference_mode(False), torch.no_grad():
        for layer in layers:
            weight = cast(Tensor, layer.weight).detach()
            packed = weight[:, 0].t().contiguous()  # of a depthwise convolution, (kernel, C)
            if isinstance(layer, nn.Linear) or cast(nn.Conv1d, layer).groups == 1:
                packed = torch.ops.mkldnn._reorder_linear_weight(weight.flatten(1), _ROWS)
            object.__setattr__(layer, "__class__", _CLASSES[type(layer)])
            object.__setattr__(layer, "packed", packed)


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: PackedLinear, nn.Conv1d: PackedConv1d, StreamingConv1d: PackedStreamingConv1d
}  # fmt: skip


def _packs(layer: nn.Module) -> bool:
    if type(layer) not in _CLASSES or not _fits(cast(Tensor, layer.weight)):
        return False
    if isinstance(layer, nn.Conv1d):
        return layer.dilation == (1,) and layer.groups in (1, layer.in_channels) and layer.padding_mode == "zeros"
    return True


def _fits(x: Tensor) -> bool:
    return x.dtype is torch.float32 and x.device.type == "cpu"


def _plain(x: Tensor) -> bool:
    return _fits(x) and not torch.is_grad_enabled()


def _small(x: Tensor) -> bool:
    return x.shape[0] * x.shape[-1] <= _FRAMES and _plain(x)


def _product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """(…, n) -> (…, m)."""
    rows = x.reshape(-1, x.shape[-1])
    count = rows.shape[0]
    step = next((step for most, step in _STEPS if count <= most), _STEP)
    if missing := -count % step:
        rows = F.pad(rows, (0, 0, 0, missing))
    y = cast(Tensor, torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], ""))
    return (y[:count] if missing else y).view(*x.shape[:-1], -1)


def _convolved(layer: nn.Conv1d, x: Tensor, packed: Tensor) -> Tensor:
    """(B, C_in, T) -> (B, C_out, T')."""
    seen = x.unfold(2, int(layer.kernel_size[0]), int(layer.stride[0])).transpose(1, 2)  # (B, T', C_in, kernel)
    if layer.groups == 1:
        return _product(seen.flatten(2), packed, layer.bias).transpose(1, 2)
    y = (seen.transpose(2, 3) * packed).sum(2)  # (B, T', C)
    return (y if layer.bias is None else y + layer.bias).transpose(1, 2)
