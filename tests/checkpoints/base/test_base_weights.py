"""Base weights: named in config.json, found or fetched on first use, checked, imported once, and never stored."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from any_model import tiny_adaptor, tiny_llm, tiny_whisper
from hub import Hub
from safetensors.torch import load_file, save_file

from duologue.checkpoints import store
from duologue.checkpoints.base import cache, sources
from duologue.checkpoints.base.declared import BaseFile, BaseWeights, read_base
from duologue.checkpoints.cards.facts import read_card
from duologue.checkpoints.config_io import config_to_dict
from duologue.checkpoints.parts import load_encoder, load_llm, read_part, read_sizes
from duologue.checkpoints.source import CARD, CARD_FACTS, CONFIG, WEIGHTS
from duologue.demo.importing import run as import_run
from duologue.inference.assistant.assistant import load
from duologue.model.audio_encoder.whisper import sinusoids
from duologue.model.errors import DuologueError
from duologue.training.assemble import Config, run
from duologue.training.data.chat_tokens import chat_tokens
from duologue.training.loop.parts import load_parts
from duologue.training.main import resolve

REVISION = "0123456789abcdef0123456789abcdef01234567"
HUBS = {"encoder": "them/whisper-tiny", "llm": "others/tiny-chat"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def declared(part: str, folder: Path, importer: str, *settings: str) -> BaseWeights:
    files = sorted(path for path in folder.iterdir() if path.suffix != ".md")
    return BaseWeights(
        hub=HUBS[part], revision=REVISION, licence="Apache-2.0", importer=importer, settings=settings,
        files=tuple(BaseFile(name=each.name, size=each.stat().st_size, sha256=sha256(each)) for each in files),
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What others trained, as their files (hub/) and imported; an adaptor between them; the file that declares it."""
    folder = tmp_path_factory.mktemp("world")
    llm, encoder = Path(tiny_llm(folder)), Path(tiny_whisper(folder))
    (folder / "hub").mkdir()
    shutil.copytree(folder / "theirs_llama", folder / "hub/tiny-chat")
    (folder / "hub/whisper-tiny").mkdir()
    tensors = {name.removeprefix("encoder."): x for name, x in load_file(encoder / "model.safetensors").items()}
    tensors["positional_embedding"] = sinusoids(torch.arange(1500), 24)
    save_file(tensors, folder / "hub/whisper-tiny/whisper.safetensors")
    base = {
        "encoder": declared("encoder", folder / "hub/whisper-tiny", "whisper", "heads=2"),
        "llm": declared("llm", folder / "hub/tiny-chat", "llm"),
    }
    (folder / "base.json").write_text(json.dumps({part: config_to_dict(each) for part, each in base.items()}))
    adaptor = Path(tiny_adaptor(folder))
    recipe = {"tokenizer": str(llm), "adaptor": read_part(adaptor, "adaptor")}
    (adaptor / "recipe.json").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (sources.FOLDERS, sources.ANY):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache/base"


@pytest.fixture(scope="module")
def checkpoint(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Assembled from the declaration and the adaptor's run; afterwards nothing but the checkpoint is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(sources.FOLDERS, str(world / "hub"))
        patch.setenv(cache.CACHE, str(tmp_path_factory.mktemp("cache")))
        return run(world / "model", Config(adaptor=str(world / "adaptor"), base=str(world / "base.json")))


@pytest.fixture
def hub(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {}
    for name in HUBS.values():
        files |= {f"{name}/{path.name}": path for path in (world / "hub" / name.split("/")[1]).iterdir()}
    server = Hub(files, REVISION)
    server.connect(monkeypatch, tmp_path / "hf")
    yield server
    server.close()


def base_of(checkpoint: Path, part: str) -> BaseWeights:
    return read_base(checkpoint)[part]


def check_model(world: Path, checkpoint: Path) -> None:
    """The base parts are the imported ones to the bit."""
    model = store.load(checkpoint).model
    for folder in ("llama", "encoder"):
        for name, tensor in load_file(world / folder / "model.safetensors").items():
            assert torch.equal(model.state_dict()[name], tensor), name


# What is stored, and what reads it.


def test_what_is_stored(world: Path, checkpoint: Path) -> None:
    """Tensors of what we trained, the sizes of all; no tokenizer, and a card that lists the rest."""
    assert {path.name for path in checkpoint.iterdir()} == {CONFIG, WEIGHTS, CARD, CARD_FACTS}
    assert {name.split(".")[0] for name in load_file(checkpoint / "model.safetensors")} <= {"adaptor", "mel"}
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["base"] == json.loads((world / "base.json").read_text())
    assert store.read_model_config(checkpoint).llm["hidden_size"] == 32  # without weights
    assert read_sizes(checkpoint, "encoder")["encoder"].n_audio_state == 24
    card = read_card(checkpoint)
    assert card.base == read_base(checkpoint) and {part.name.split(".")[0] for part in card.parts} == {"adaptor"}
    text = (checkpoint / "README.md").read_text()
    assert "not stored here" in text and "Apache-2.0" in text and base_of(checkpoint, "encoder").files[0].sha256 in text
    assert 'base_model: ["them/whisper-tiny", "others/tiny-chat"]' in text


def test_a_folder_of_the_user(world: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """Whatever their names there and however deep, files are known by their bytes; afterwards the cache has all."""
    mine = own_cache.parent / "mine/a/b"
    mine.mkdir(parents=True)
    for number, path in enumerate(sorted((world / "hub").rglob("*.*"))):
        shutil.copy(path, mine / f"{number}.bin")
    monkeypatch.setenv(sources.FOLDERS, str(own_cache.parent / "mine"))
    check_model(world, checkpoint)
    assert sorted(path.name.split("-")[0] for path in own_cache.iterdir() if path.is_dir()) == ["encoder", "llm"]
    shutil.rmtree(own_cache.parent / "mine")
    monkeypatch.delenv(sources.FOLDERS)
    check_model(world, checkpoint)


def test_all_that_reads_weights(world: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An assistant, an encoder by itself, the tokenizer, the start of a run, the importer of a part."""
    monkeypatch.setenv(sources.FOLDERS, str(world / "hub"))
    assert isinstance(load(str(checkpoint)).ask(text="Who are you?").text, str)
    _, encoder = load_encoder(checkpoint)
    wanted = load_encoder(world / "encoder")[1].state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in encoder.state_dict().items())
    vocabulary = store.load_tokenizer(world / "llama").get_vocab()
    assert store.load_tokenizer(checkpoint).get_vocab() == vocabulary
    llm, tokenizer = load_llm(checkpoint)
    assert torch.equal(llm.embed(torch.arange(9)), load_llm(world / "llama")[0].embed(torch.arange(9)))
    assert tokenizer.get_vocab() == vocabulary
    load_parts({"encoder": encoder}, [f"encoder={checkpoint}"])
    load_parts({"adaptor": store.load(checkpoint).model.adaptor}, [f"adaptor={checkpoint}"])
    recipe = resolve("text_sft", ["preset=tiny", f"llm={checkpoint}", f"data={world / 'none.jsonl'}"])
    assert vars(recipe)["tokenizer"] == str(checkpoint) and chat_tokens(str(checkpoint)).eos > 0
    load_parts({"llm": store.load(world / "model").model.llm}, recipe.start)
    for source in (checkpoint, world / "base.json"):
        part = import_run("base", str(source), tmp_path / "part", ["part=llm"])
        assert (part / "model.safetensors").read_bytes() == (world / "llama/model.safetensors").read_bytes()
    with pytest.raises(DuologueError, match=r"names no base weights 'adaptor'; there are: encoder, llm$"):
        import_run("base", str(checkpoint), tmp_path / "other", ["part=adaptor"])
    again = run(tmp_path / "again", Config(encoder=str(checkpoint), llm=str(checkpoint), adaptor=str(checkpoint)))
    assert not read_base(again) and (again / "tokenizer.json").is_file()
    models = [store.load(folder).model.llm.half() for folder in (again, checkpoint)]
    assert all(torch.equal(x, y) for x, y in zip(*(model.parameters() for model in models), strict=True))


def test_checkpoints_without_them_are_as_before(world: Path, tmp_path: Path) -> None:
    config = {"adaptor": str(world / "adaptor"), "llm": str(world / "llama"), "encoder": str(world / "encoder")}
    folder = run(tmp_path / "whole", Config(**config))
    assert "base" not in json.loads((folder / "config.json").read_text())
    assert not list(tmp_path.glob("cache/*")) and store.load(folder).model is not None
    assert "Base weights" not in (folder / "README.md").read_text()


def test_loading_is_strict(world: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A base part's tensor in the checkpoint, a tensor that is missing there, or from the cache."""
    monkeypatch.setenv(sources.FOLDERS, str(world / "hub"))
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {"llm.lm.lm_head.weight": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(DuologueError, match=r"model.safetensors: tensor 'llm\.lm\.lm_head\.weight' \(1,\) has no"):
        store.load(folder)
    save_file({name: tensor for name, tensor in tensors.items() if name != "adaptor.linear1.bias"}, folder / WEIGHTS)
    with pytest.raises(DuologueError, match=r"model.safetensors: tensor 'adaptor\.linear1\.bias' \(16,\) is missing$"):
        store.load(folder)
    cached = cache.weights_of(checkpoint, "encoder")
    tensors = load_file(cached)
    save_file({name: tensor for name, tensor in tensors.items() if name != "encoder.conv1.bias"}, cached)
    with pytest.raises(DuologueError, match=r"encoder-\S+: tensor 'encoder\.conv1\.bias' \(24,\) is missing$"):
        store.load(checkpoint)


# The hub.


def test_the_hub(world: Path, checkpoint: Path, hub: Hub, capsys: pytest.CaptureFixture[str], own_cache: Path) -> None:
    """Fetched once; from then on nobody is asked, and where the cache was lost, the hub's own cache is enough."""
    check_model(world, checkpoint)
    said = capsys.readouterr().err
    assert "the encoder needs whisper.safetensors of them/whisper-tiny (0 MB, Apache-2.0), once" in said
    hub.asked.clear()
    check_model(world, checkpoint)
    shutil.rmtree(own_cache)
    check_model(world, checkpoint)
    assert hub.asked == []


def test_a_broken_download_goes_on(checkpoint: Path, hub: Hub, own_cache: Path) -> None:
    hub.break_after = 10_000
    base = base_of(checkpoint, "encoder")
    try:
        cache.imported("encoder", base)
    except DuologueError as error:
        assert "\n" not in str(error)
        cache.imported("encoder", base)
    ranges = [wanted for method, _, wanted in hub.asked if method == "GET"]
    assert len(ranges) == 2 and ranges[1] is not None and ranges[1].startswith("bytes=10000-")


@pytest.mark.parametrize("how", ["longer", "as long"])
def test_other_bytes_on_the_hub(
    checkpoint: Path, hub: Hub, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, own_cache: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Are refused in one line, and taken with a warning where the user takes any."""
    name = "them/whisper-tiny/whisper.safetensors"
    tensors = load_file(hub.files[name])
    tensors["conv1.bias"] += 1
    save_file(tensors, tmp_path / "changed", metadata={"more": "1"} if how == "longer" else None)
    hub.files[name] = tmp_path / "changed"
    base = base_of(checkpoint, "encoder")
    with pytest.raises(DuologueError, match=r"is not the whisper\.safetensors of them/whisper-tiny") as caught:
        cache.imported("encoder", base)
    assert base.files[0].sha256 in str(caught.value) and sha256(tmp_path / "changed") in str(caught.value)
    assert "\n" not in str(caught.value) and not [path for path in own_cache.iterdir() if path.is_dir()]
    monkeypatch.setenv(sources.ANY, "1")
    capsys.readouterr()
    folder = cache.imported("encoder", base)
    assert "warning: the encoder is read from" in (said := capsys.readouterr().err) and "figures do not hold" in said
    assert torch.equal(load_file(folder / "model.safetensors")["encoder.conv1.bias"], tensors["conv1.bias"])
    monkeypatch.delenv(sources.ANY)
    with pytest.raises(DuologueError, match=r"remove it to fetch it again, or set DUOLOGUE_WEIGHTS_ANY=1"):
        cache.imported("encoder", base)  # what was made of others is not taken for it


def test_the_hub_has_no_such_file(checkpoint: Path, hub: Hub) -> None:
    del hub.files["them/whisper-tiny/whisper.safetensors"]
    with pytest.raises(DuologueError, match=r"whisper\.safetensors .* and the hub does not give it: 404") as caught:
        cache.imported("encoder", base_of(checkpoint, "encoder"))
    assert "\n" not in str(caught.value)


def test_offline(checkpoint: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which file to put where: with HF_HUB_OFFLINE, and where nobody answers."""
    from huggingface_hub import constants

    wanted = (
        r"^the llm of this model is \S+ \(0 MB\) of others/tiny-chat at 0123\w+, and {}. "
        r"Put the file into a folder and set DUOLOGUE_WEIGHTS to it$"
    )
    hub.close()
    with pytest.raises(DuologueError, match=wanted.format(r"it could not be fetched from the hub: .*")):
        store.load(checkpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DuologueError, match=wanted.format("HF_HUB_OFFLINE is set")):
        store.load(checkpoint)


# The user's folder.


def test_other_bytes_in_the_users_folder(
    world: Path, checkpoint: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of that name with other bytes is refused, unless the right one lies somewhere beside it; with any, it is
    taken although the right ones are in the cache."""
    mine, base = tmp_path / "mine", base_of(checkpoint, "encoder")
    mine.mkdir()
    tensors = load_file(world / "hub/whisper-tiny/whisper.safetensors")
    tensors["conv1.bias"] += 1
    save_file(tensors, mine / "whisper.safetensors")
    monkeypatch.setenv(sources.FOLDERS, str(mine))
    with pytest.raises(DuologueError, match=r"mine/whisper\.safetensors is not the .*; take it away, or set "):
        cache.imported("encoder", base)
    (mine / "deep").mkdir()
    shutil.copy(world / "hub/whisper-tiny/whisper.safetensors", mine / "deep/right")
    right = cache.imported("encoder", base)
    monkeypatch.setenv(sources.ANY, "1")
    other = cache.imported("encoder", base)
    assert other != right and other == cache.imported("encoder", base)
    assert torch.equal(load_file(other / "model.safetensors")["encoder.conv1.bias"], tensors["conv1.bias"])
    assert hub.asked == []
    monkeypatch.setenv(sources.FOLDERS, str(tmp_path / "nowhere"))
    with pytest.raises(DuologueError, match=r"^DUOLOGUE_WEIGHTS is '.*nowhere'; there is no folder "):
        cache.imported("encoder", base)


def test_any_still_checks_shapes(
    world: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine/whisper-tiny"
    mine.mkdir(parents=True)
    tensors = load_file(world / "hub/whisper-tiny/whisper.safetensors")
    tensors |= {name.replace("blocks.0", "blocks.1"): x.clone() for name, x in tensors.items() if "blocks.0" in name}
    save_file(tensors, mine / "whisper.safetensors")
    monkeypatch.setenv(sources.FOLDERS, f"{mine.parent}:{world / 'hub'}")
    monkeypatch.setenv(sources.ANY, "1")
    with pytest.raises(DuologueError, match=r"tensor 'encoder\.blocks\.1\.\S+ \(.*\) has no place in the model"):
        store.load(checkpoint)


# The cache.


def test_two_at_once(world: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """One makes it, the others wait; what a killed one left is cleared away."""
    monkeypatch.setenv(sources.FOLDERS, str(world / "hub"))
    base = base_of(checkpoint, "encoder")
    importer = cache.IMPORTERS.module("whisper")
    made, theirs = [], importer.run
    monkeypatch.setattr(importer, "run", lambda *args: made.append(1) or theirs(*args))
    place = cache.imported("encoder", base)
    shutil.rmtree(place)
    left = own_cache / f".{place.name}.new-abc"
    left.mkdir()
    found: list[Path] = []
    together = threading.Barrier(4)

    def one() -> None:
        together.wait()
        found.append(cache.imported("encoder", base))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [place] * 4 and len(made) == 2 and not left.exists()


def test_a_part_that_is_another(world: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.FOLDERS, str(world / "hub"))
    with pytest.raises(DuologueError, match=r"^base\.vocoder: importer whisper makes a encoder of \S+, no "):
        cache.imported("vocoder", base_of(checkpoint, "encoder"))
    with pytest.raises(DuologueError, match=r"unknown importer 'whispr'"):
        cache.imported("encoder", replace(base_of(checkpoint, "encoder"), importer="whispr"))


def test_a_cache_that_cannot_be_written(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.CACHE, str(tmp_path / "file"))
    with pytest.raises(DuologueError, match=r"the cache cannot be written: .*; set DUOLOGUE_CACHE to "):
        store.load(checkpoint)


# What is declared.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hub": "whisper"}, r"base\.encoder: hub is 'whisper'; it must be an id, owner/name"),
        ({"files": []}, r"them/whisper-tiny names no files"),
        ({"revision": None}, r"base\.encoder\.revision is None; it must be of type str"),
        ({"size": 5}, r"unknown field 'base\.encoder\.size'"),
    ],
)
def test_what_is_declared_is_checked(world: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    said = json.loads((world / "base.json").read_text())
    said["encoder"] |= change
    (tmp_path / "base.json").write_text(json.dumps(said))
    with pytest.raises(DuologueError, match=message):
        run(tmp_path / "out", Config(adaptor=str(world / "adaptor"), base=str(tmp_path / "base.json")))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", "..\\b"])
def test_a_name_stays_in_its_repository(name: str) -> None:
    with pytest.raises(DuologueError, match="must be a path within a repository"):
        BaseFile(name=name, size=1, sha256="0" * 64)


def test_assembling_what_does_not_fit(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(sources.FOLDERS, str(world / "hub"))
    base, adaptor = str(world / "base.json"), str(world / "adaptor")
    with pytest.raises(DuologueError, match=r"^llm=x: \S+base\.json names the llm already; leave one out$"):
        run(tmp_path / "out", Config(adaptor=adaptor, llm="x", base=base))
    other = tmp_path / "other"
    shutil.copytree(world / "adaptor", other)
    recipe = json.loads((other / "recipe.json").read_text())
    (other / "recipe.json").write_text(json.dumps(recipe | {"tokenizer": None}))
    with pytest.raises(DuologueError, match=r"the adaptor learnt turns of nano's tokenizer, which is not that of "):
        run(tmp_path / "out", Config(adaptor=str(other), base=base))
    with pytest.raises(DuologueError, match=r"no such file: \S+nothing\.json"):
        run(tmp_path / "out", Config(adaptor=adaptor, base=str(tmp_path / "nothing.json")))
    assert not (tmp_path / "out").exists()
