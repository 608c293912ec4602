"""A model over several devices, and a language model in 8-bit integers: what a large one may need to fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..model.errors import DuologueError


def to_int8(module: nn.Module) -> None:
    """Replace the weights of all linear layers below ``module`` by int8 with a scale for each row; they are multiplied
    in the layers' own dtype, whatever that is. An output layer that is tied to the embeddings stays as it is.

    Raises:
        DuologueError: torchao is not installed.
    """
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ModuleNotFoundError:
        raise DuologueError("int8 needs torchao: pip install 'duologue[int8]'") from None
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}

    def wanted(part: nn.Module, name: str) -> bool:
        return isinstance(part, nn.Linear) and id(part.weight) not in embeddings

    quantize_(module, Int8WeightOnlyConfig(), filter_fn=wanted)


def spread(model: nn.Module) -> None:
    """Let each part take its input to where its weights are, for a model whose parts lie on several devices.

    A part whose weights and tables are all on one device moves the tensors that it is called with there; one that spans
    several leaves that to the parts inside it. States move nowhere: keys and values are made where their layer is.
    """
    for name, part in model.named_modules():
        places = {tensor.device for tensor in (*part.parameters(), *part.buffers())}
        if name and len(places) == 1:
            part.register_forward_pre_hook(_bring_to(places.pop()), with_kwargs=True)


def _bring_to(device: torch.device) -> Callable[..., tuple[Any, Any]]:
    def bring(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        return tuple(map(bring, value)) if type(value) is tuple else value  # angles come as a pair

    def hook(part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return bring(args), {name: bring(value) for name, value in kwargs.items()}

    return hook
