"""Weights from disk: the same model as one built the usual way, in the dtype asked for, without a second copy of it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from duologue.checkpoints import store, weights
from duologue.checkpoints.weights import assign, fill, made, named_tensors, to_int8, without_storage
from duologue.inference.assistant.assistant import Assistant
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import SpeechLM

from tiny_assistant import SAID, Loudness, tiny_assistant  # isort: skip


@pytest.fixture(scope="module")
def assistant() -> Assistant:
    return tiny_assistant()


@pytest.fixture(scope="module")
def saved(assistant: Assistant, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store.save(tmp_path_factory.mktemp("weights") / "model", assistant.model, assistant.tokenizer)


def question() -> tuple[int, np.ndarray]:
    return 16_000, (0.1 * np.random.default_rng(0).standard_normal(12_000)).astype(np.float32)


def answer(checkpoint: store.Checkpoint) -> tuple[str, np.ndarray]:
    reply = Assistant(checkpoint.model, checkpoint.tokenizer, vad=Loudness()).ask(question())
    return reply.text, reply.waveform


def test_shapes_alone_take_no_storage_and_tables_are_real(assistant: Assistant) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    given: Any = assistant.model
    model = made(lambda: SpeechLM(given.config))
    assert torch.equal(torch.rand(1), expected), "random numbers were drawn"
    big = [p for p in model.parameters() if p.dim() > 1 and p.numel() > 64]
    assert all(parameter.is_meta for parameter in big if parameter is not model.unit_decoder.sub_position)
    tables, real = dict(model.named_buffers()), dict(given.named_buffers())
    assert tables.keys() == real.keys() and tables
    assert all(torch.equal(tables[name], real[name]) for name in real)
    assert not torch.empty(2).is_meta, "the mode has not ended"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what is mapped")
def test_on_a_cpu_nothing_is_copied(saved: Path) -> None:
    """The parameters lie in a private map of the file, so that a change to them reaches no file."""
    before = (saved / "model.safetensors").read_bytes()
    parameters = store.load(saved).model.parameters()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(saved) in line]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in maps]
    for parameter in parameters:
        assert any(low <= parameter.data_ptr() < high for low, high in ranges)
        with torch.no_grad():
            parameter.add_(1)
    assert (saved / "model.safetensors").read_bytes() == before


def test_maps_are_renewed_without_a_trace(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = store.load(saved, dtype=torch.bfloat16).model.state_dict()
    monkeypatch.setattr(weights, "REOPEN", 1000)
    assert all(torch.equal(whole[name], tensor) for name, tensor in
               store.load(saved, dtype=torch.bfloat16).model.state_dict().items())  # fmt: skip


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(3, 4)
            self.second.weight = self.first.weight

    torch.manual_seed(0)
    twins = Twins()
    save_file({name: tensor.detach() for name, tensor in named_tensors(twins).items()}, tmp_path / "twins.safetensors")
    loaded = made(Twins)
    fill(loaded, tmp_path / "twins.safetensors")
    assert loaded.second.weight is loaded.first.weight
    assert torch.equal(loaded.first.weight, twins.first.weight)


def test_modules_without_storage_are_made_without_the_compiler() -> None:
    """To fill such weights with random numbers, torch would import it, which takes seconds."""
    code = (
        "import sys, torch; from duologue.checkpoints.weights import without_storage\n"
        "with without_storage(): layers = [torch.nn.Conv1d(2, 3, 3), torch.nn.Linear(2, 3), torch.nn.Embedding(4, 2)]\n"
        "assert all(x.is_meta for layer in layers for x in layer.parameters())\n"
        "assert torch.empty(3).normal_().abs().sum() > 0\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_assigning_is_strict() -> None:
    with without_storage():
        layer = nn.Linear(3, 4)
    good = {"weight": torch.ones(4, 3), "bias": torch.ones(4)}
    for change, message in (
        ({"bias": None}, r"here: tensor 'bias' \(4,\) is missing$"),
        ({"gate": torch.ones(2)}, r"here: tensor 'gate' \(2,\) has no place in the model$"),
        ({"weight": torch.ones(3, 4)}, r"here: tensor 'weight' has shape \(3, 4\); the config says \(4, 3\)$"),
        ({"bias": torch.ones(4, dtype=torch.long)}, r"here: tensor 'bias' is torch\.int64; it must be torch\.float32$"),
    ):
        with pytest.raises(DuologueError, match=message):
            assign(layer, {name: x for name, x in (good | change).items() if x is not None}, "here")
        assert layer.weight.is_meta, "something was assigned all the same"
    assign(layer, good, "here")
    assert layer(torch.ones(1, 3)).tolist() == [[4.0] * 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_answers_in_half_precision(saved: Path, dtype: torch.dtype) -> None:
    text, waveform = answer(store.load(saved, dtype=dtype))
    assert text == SAID and len(waveform) and np.isfinite(waveform).all()


def test_int8_weights_of_the_language_model(tmp_path: Path) -> None:
    random = tiny_assistant(scripted=False)
    saved = store.save(tmp_path / "model", random.model, random.tokenizer)
    plain, small = store.load(saved), store.load(saved, int8=True)
    embeds = plain.model.llm.embed(torch.arange(20)[None])
    with torch.no_grad():
        wanted, found = plain.model.llm(embeds).hidden, small.model.llm(embeds).hidden
    error = (found - wanted).norm() / wanted.norm()
    assert 0 < error < 0.02, error
    layer = small.model.llm.lm.model.layers[0].mlp.up_proj
    assert type(layer.weight).__name__ == "Int8Tensor" or "int8" in repr(layer.weight).lower()
    assert answer(small)[1].dtype == np.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_assistant_answers_in_int8_on_a_cpu(tmp_path: Path, dtype: torch.dtype) -> None:
    """Also in float32, in which a small model's other matrices are laid out for few rows. Tolerance: 2 % of the states;
    what a scripted model says is the same.
    """
    from duologue.inference.assistant.assistant import load

    random = tiny_assistant(scripted=False)
    folder = store.save(tmp_path / "random", random.model, random.tokenizer)
    models: list[Any] = [load(str(folder), dtype=dtype).model, load(str(folder), dtype=dtype, int8=True).model]
    embeds = models[0].llm.embed(torch.arange(20)[None])
    with torch.no_grad():
        wanted, found = (model.llm(embeds).hidden.float() for model in models)
    assert 0 < (found - wanted).norm() / wanted.norm() < 0.02
    scripted = tiny_assistant()
    folder = store.save(tmp_path / "scripted", scripted.model, scripted.tokenizer)
    reply = load(str(folder), dtype=dtype, int8=True).ask(text="what is two plus two")
    assert reply.text == load(str(folder), dtype=dtype).ask(text="what is two plus two").text == SAID
    assert np.isfinite(reply.waveform).all()


def test_nano_says_the_same_in_int8() -> None:
    from duologue.inference.assistant.loading import load

    reply = load("nano", int8=True).ask(text="what is two plus three")
    assert reply.text == "two plus three is five"


def test_int8_leaves_an_output_layer_that_is_tied_to_the_embeddings() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.inner, self.head = nn.Embedding(64, 64), nn.Linear(64, 64), nn.Linear(64, 64, bias=False)
            self.head.weight = self.embed.weight

    model = Tied()
    to_int8(model)
    assert model.head.weight is model.embed.weight
    assert "int8" in repr(model.inner.weight).lower()


def test_a_device_map_places_parts(saved: Path) -> None:
    """With all of them on one device, where the answer must be the same; what goes where is checked without running."""
    same = store.load(saved, device_map={"llm.lm.model.layers.0": "cpu", "vocoder": "cpu"})
    text, waveform = answer(same)
    wanted, samples = answer(store.load(saved))
    assert text == wanted and np.array_equal(waveform, samples)
    model = store.load(saved, device_map={"llm": "meta", "llm.lm.lm_head": "cpu"}).model
    assert {p.device.type for p in model.llm.lm.model.parameters()} == {"meta"}
    assert {p.device.type for p in (*model.llm.lm.lm_head.parameters(), *model.vocoder.parameters())} == {"cpu"}
    with pytest.raises(DuologueError, match=r"device_map names 'llm\.layers', which is no part of the model"):
        store.load(saved, device_map={"llm.layers": "cpu"})


@pytest.mark.gpu
def test_a_model_over_two_devices_answers_the_same(saved: Path) -> None:
    wanted, _ = answer(store.load(saved, device="cuda"))
    spread = {"llm.lm.model.layers.0": "cpu", "vocoder": "cpu"}
    assert answer(store.load(saved, device="cuda", device_map=spread))[0] == wanted


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_two_gigabytes_are_loaded_within_115_percent(tmp_path: Path, dtype: str) -> None:
    """Peak of resident memory above that of a process which has imported all it needs, over the size of the model.

    In the file's own dtype, every page is touched afterwards, so that the map counts; in another one, twice as wide,
    the model is twice the file.
    """
    script = f"""
        import json, resource, torch
        from duologue.checkpoints.weights import fill, made
        from duologue.model.language_model.causal_lm import LLM
        from pathlib import Path
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        made(lambda: LLM({CONFIG_OF_A_TINY_LLAMA!r}))  # transformers is imported
        before = peak()
        model = made(lambda: LLM({CONFIG_OF_TWO_GIGABYTES!r}))
        fill(model, Path({str(tmp_path / "model.safetensors")!r}), dtype=torch.{dtype})
        total = sum(float(p.sum()) for p in model.parameters())
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        print(json.dumps({{"size": size, "peak": peak() - before, "total": total}}))
    """
    from duologue.model.language_model.causal_lm import LLM

    shapes = named_tensors(made(lambda: LLM(CONFIG_OF_TWO_GIGABYTES)))
    tensors = {name: torch.full(x.shape, 2**-10, dtype=torch.bfloat16) for name, x in shapes.items()}
    size = sum(tensor.numel() * 2 for tensor in tensors.values())
    assert 2.0e9 < size < 2.2e9
    save_file(tensors, tmp_path / "model.safetensors")
    del tensors
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    print(f"{dtype}: model {found['size'] / 1e9:.2f} GB, peak {found['peak'] / 1e9:.2f} GB above the process")
    assert found["total"] == pytest.approx(size / 2 * 2**-10, rel=1e-3)
    assert found["peak"] < 1.15 * found["size"]


CONFIG_OF_A_TINY_LLAMA = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
CONFIG_OF_TWO_GIGABYTES = CONFIG_OF_A_TINY_LLAMA | {
    "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 18,
    "num_attention_heads": 32, "num_key_value_heads": 32,
}  # fmt: skip
