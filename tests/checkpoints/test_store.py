"""The store gives back what it was given, and says in one line what does not fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from duologue.checkpoints import folders, source, store
from duologue.checkpoints.cards.facts import Card, read_card
from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoderConfig
from duologue.model.errors import DuologueError
from duologue.model.speech_decoder.unit_decoder import UnitDecoderConfig
from duologue.model.speech_decoder.unit_vocoder import UnitVocoderConfig
from duologue.model.speech_lm import PromptConfig, SpeechLM, SpeechLMConfig
from duologue.model.tokens import TokenLayout

MARKERS = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<transcript>", "<reply>")
WORDS = ("one", "two", "three", "plus", "is")


def make_tokenizer(folder: Path, tokens: tuple[str, ...] = MARKERS + WORDS) -> Path:
    """A word-level tokenizer.json in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: index for index, token in enumerate(tokens)}
    added = [
        {"id": ids[token], "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for token in tokens
        if token.startswith("<")
    ]
    data = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return folder


def make_config(*, tied: bool = True, speaks: bool = True, vocab: int = 12) -> SpeechLMConfig:
    unit_decoder = UnitDecoderConfig(
        in_dim=16, dim=16, layers=1, heads=2, ffn_dim=24, units=10, upsample=4, band=5, fuse_token=True,
        sub_position=True,
    )  # fmt: skip
    vocoder = UnitVocoderConfig(
        units=10, embedding_dim=8, channels=16, upsample_rates=(5, 4), upsample_kernels=(11, 8), resblock_kernels=(3,),
        resblock_dilations=(1, 3), duration_hidden=8,
    )  # fmt: skip
    return SpeechLMConfig(
        mel=LogMelConfig(n_mels=20),
        encoder=WhisperEncoderConfig(
            n_mels=20, n_audio_ctx=100, n_audio_state=16, n_audio_head=2, n_audio_layer=1, chunk=8, left_context=16,
            causal_conv=True,
        ),
        adaptor=StackConfig(in_dim=16, hidden_dim=24, out_dim=16, stack=4),
        llm={
            "model_type": "llama", "vocab_size": vocab, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "tie_word_embeddings": tied,
        },
        unit_decoder=unit_decoder if speaks else None,
        vocoder=vocoder if speaks else None,
        layout=TokenLayout(
            bos=1, eos=2, pad=0, user=4, transcript=5, reply=6, text=(7, 12), units=10 if speaks else 0
        ),
        prompt=PromptConfig(prefix_ids=(1, 4), suffix_ids=(5,), next_prefix_ids=(4,)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return store.load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model() -> SpeechLM:
    torch.manual_seed(0)
    return SpeechLM(make_config()).eval()


@pytest.fixture(scope="module")
def saved(model: SpeechLM, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store.save(tmp_path_factory.mktemp("store") / "model", model, tokenizer)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of a good checkpoint, to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def assert_same(left: SpeechLM, right: SpeechLM) -> None:
    ours, theirs = left.state_dict(), right.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def reply(model: SpeechLM) -> tuple[list[int], torch.Tensor]:
    """What the model answers to half a second of noise: tokens and samples."""
    from duologue.model.speech_lm import Sampling, TokenKind

    state = model.init_state()
    model.begin_turn(state)
    model.listen(torch.randn(1, 8000, generator=torch.Generator().manual_seed(1)), state)
    model.end_turn(state)
    tokens, pcm = [], []
    while True:
        step = model.reply_step(state, Sampling(max_tokens=6))
        pcm.append(step.pcm)
        if step.kind is TokenKind.END:
            return tokens, torch.cat([*pcm, model.reply_flush(state)], dim=1)
        tokens.append(step.token)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("speaks", [True, False])
def test_what_goes_in_comes_out(tmp_path: Path, tokenizer: Any, tied: bool, speaks: bool) -> None:
    model = SpeechLM(make_config(tied=tied, speaks=speaks)).eval()
    loaded = store.load(store.save(tmp_path / "m", model, tokenizer))
    assert loaded.model.config == model.config
    assert not loaded.model.training
    assert_same(model, loaded.model)
    assert loaded.tokenizer("one plus two").input_ids == tokenizer("one plus two").input_ids
    assert loaded.path == tmp_path / "m"


def test_it_answers_the_same(model: SpeechLM, saved: Path) -> None:
    tokens, pcm = reply(model)
    again, samples = reply(store.load(saved).model)
    assert tokens == again and torch.equal(pcm, samples)


def test_half_is_half_as_big(tmp_path: Path, model: SpeechLM, tokenizer: Any, saved: Path) -> None:
    half = store.save(tmp_path / "half", model, tokenizer, half=True)
    stored = load_file(half / "model.safetensors")
    names = dict(model.named_parameters())
    assert all(stored[name].dtype is torch.float16 for name in stored if name in names)
    assert os.path.getsize(half / "model.safetensors") < 0.65 * os.path.getsize(saved / "model.safetensors")
    loaded = store.load(half).model
    for name, parameter in loaded.named_parameters():
        assert parameter.dtype is torch.float32
        assert torch.equal(parameter, names[name].half().float())


def test_tied_weights_are_stored_once(tmp_path: Path, model: SpeechLM, tokenizer: Any, saved: Path) -> None:
    untied = store.save(tmp_path / "m", SpeechLM(make_config(tied=False)), tokenizer)
    both = {"llm.lm.lm_head.weight", "llm.lm.model.embed_tokens.weight"}
    assert both <= set(load_file(untied / "model.safetensors"))
    assert len(both & set(load_file(saved / "model.safetensors"))) == 1


def test_buffers_keep_their_precision() -> None:
    third = torch.tensor([1 / 3])
    assert torch.equal(store._to_disk("buffer", third, half=True), third)
    assert store._to_disk("parameter", torch.nn.Parameter(third), half=True).dtype is torch.float16


def test_too_big_for_half(tmp_path: Path, tokenizer: Any) -> None:
    model = SpeechLM(make_config())
    model.adaptor.linear1.weight.data[0, 0] = 1e6
    with pytest.raises(DuologueError, match=r"adaptor\.linear1\.weight.*1e\+06.*65504"):
        store.save(tmp_path / "m", model, tokenizer, half=True)
    assert list(tmp_path.iterdir()) == []


def test_another_dtype(saved: Path) -> None:
    loaded = store.load(saved, dtype=torch.bfloat16).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_loading_leaves_random_numbers_alone(saved: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    store.load(saved)
    assert torch.equal(torch.rand(1), expected)


def test_card(saved: Path, tmp_path: Path, model: SpeechLM, tokenizer: Any) -> None:
    assert "adaptor" in (saved / "README.md").read_text()
    written = store.save(tmp_path / "m", model, tokenizer, card=Card(summary="It is mine."))
    assert "# m\n\nIt is mine.\n" in (written / "README.md").read_text() and read_card(written).name == "m"
    assert sorted(p.name for p in written.iterdir()) == [
        "README.md", "card.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_a_tokenizer_from_a_folder(tmp_path: Path, model: SpeechLM) -> None:
    loaded = store.load(store.save(tmp_path / "m", model, make_tokenizer(tmp_path / "t")))
    assert loaded.tokenizer.get_vocab()["three"] == 9


def test_files_can_be_read_by_others(saved: Path) -> None:
    assert saved.stat().st_mode & 0o055 == 0o055
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in saved.iterdir())


# Saving in place.


def test_saving_again_replaces(folder: Path, tokenizer: Any) -> None:
    torch.manual_seed(5)
    other = SpeechLM(make_config(tied=False)).eval()
    store.save(folder, other, tokenizer)
    assert_same(other, store.load(folder).model)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing is left beside it


def test_nothing_else_is_replaced(tmp_path: Path, model: SpeechLM, tokenizer: Any) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for target in (tmp_path, tmp_path / "thesis.txt"):
        with pytest.raises(DuologueError, match="not a model folder"):
            store.save(target, model, tokenizer)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert store.save(tmp_path / "empty", model, tokenizer).is_dir()


@pytest.mark.parametrize("moment", ["save_file", "swap"])
def test_a_failed_save_changes_nothing(
    folder: Path, model: SpeechLM, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store if moment == "save_file" else folders, moment, fail)
    with pytest.raises(OSError, match="disk full"):
        store.save(folder, model, tokenizer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_failed_rename_puts_the_old_one_back(
    folder: Path, model: SpeechLM, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="no"):
        store.save(folder, model, tokenizer)
    assert store.load(folder).path == folder


def test_killed_between_the_renames(folder: Path, model: SpeechLM, tokenizer: Any) -> None:
    """The old checkpoint is still found, and the next save goes through."""
    script = f"""
        import os, signal
        from pathlib import Path
        from duologue.checkpoints import store
        rename = Path.rename
        def kill(self, target):
            if ".new-" in self.name:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(self, target)
        loaded = store.load({str(folder)!r})
        Path.rename = kill
        store.save({str(folder)!r}, loaded.model, loaded.tokenizer)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr[-2000:]
    assert not folder.exists()
    assert_same(store.load(folder).model, model)
    store.save(folder, model, tokenizer)
    assert store.load(folder).path == folder
    assert not source.previous(folder).exists()


# Loading is strict.


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def drop(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: (tensors.pop(name), None)[1]


def put(name: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], None]:
    return lambda tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("adaptor.linear1.bias"), r"'adaptor\.linear1\.bias' \(24,\) is missing$"),
        (put("adaptor.linear9.bias", torch.zeros(3)), r"'adaptor\.linear9\.bias' \(3,\) has no place in the model$"),
        (put("adaptor.linear1.bias", torch.zeros(23)), r"'adaptor\.linear1\.bias' has shape \(23,\).*says \(24,\)$"),
        (put("adaptor.linear1.bias", torch.zeros(24, dtype=torch.long)), r"linear1\.bias' is I64; .*float32$"),
        (lambda tensors: tensors.clear(), r"is missing \(and \d+ more\)$"),
    ],
)
def test_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str) -> None:
    edit_tensors(folder, change)
    with pytest.raises(DuologueError, match=message) as caught:
        store.load(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["model"]["encoder"].pop("chunk"), r"field 'model\.encoder\.chunk' is missing"),
        (lambda c: c["model"]["encoder"].update(chunks=8), r"unknown field 'model\.encoder\.chunks'; .* has: n_mels, "),
        (lambda c: c["model"]["encoder"].update(chunk="8"), r"model\.encoder\.chunk is '8'; it must be of type int"),
        (lambda c: c["model"]["encoder"].update(chunk=True), r"model\.encoder\.chunk is True; it must be of type int"),
        (lambda c: c["model"]["encoder"].update(n_audio_head=3), r"16 is not a multiple of its 3 heads"),
        (lambda c: c["model"]["mel"].update(norm="loud"), r"model\.mel\.norm is 'loud'; it must be 'causal' or"),
        (lambda c: c["model"]["layout"].update(reply=99), r"99"),
        (lambda c: c["model"]["layout"].update(units=11), r"unit_decoder\.units is 10; it must be 11"),
        (lambda c: c["model"]["layout"].update(text=[7]), r"model\.layout\.text has 1 values; it must have 2"),
        (lambda c: c["model"]["llm"].update(vocab_size=11), r"11|12"),
        (lambda c: c["model"].update(vocoder=3), r"model\.vocoder is 3; it must be of type UnitVocoderConfig"),
        (lambda c: c.update(format="duologue/9"), r"format 'duologue/9'; this version reads 'duologue/1'"),
        (lambda c: c.clear(), r"format None"),
    ],
)
def test_config(folder: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit_config(folder, change)
    with pytest.raises(DuologueError, match=message) as caught:
        store.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("<pad>", "<eos>", "<bos>", *MARKERS[3:], *WORDS), r"token 1 \(bos\) is '<eos>' in token.*, '<bos>' in"),
        ((*MARKERS, "two", "one", *WORDS[2:]), r"not the tokenizer that the model was saved with"),
        ((*MARKERS, *WORDS, "more"), r"not the tokenizer that the model was saved with"),
    ],
)
def test_another_tokenizer(folder: Path, tokens: tuple[str, ...], message: str) -> None:
    """A permuted vocabulary would make a model that talks nonsense, fluently."""
    make_tokenizer(folder, tokens)
    with pytest.raises(DuologueError, match=message):
        store.load(folder)


def test_tokenizer_and_model_must_fit_when_saved(tmp_path: Path, model: SpeechLM) -> None:
    with pytest.raises(DuologueError, match="the tokenizer has 13 tokens, the language model 12"):
        store.save(tmp_path / "m", model, make_tokenizer(tmp_path / "t", (*MARKERS, *WORDS, "more")))
    with pytest.raises(DuologueError, match="text ids go to 11, the tokenizer's only to 10"):
        store.save(tmp_path / "m", model, make_tokenizer(tmp_path / "t", (*MARKERS, *WORDS[:-1])))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_damaged_files(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DuologueError, match=rf"{name}.*(cannot be read|is not JSON)") as caught:
        store.load(folder)
    assert "\n" not in str(caught.value)
    (folder / name).unlink()
    with pytest.raises(DuologueError, match=rf"has no {name}"):
        store.load(folder)


def test_no_pickle_is_read(folder: Path) -> None:
    """A pickle beside, or in place of, the weights is never opened."""
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(DuologueError, match=r"has no model\.safetensors"):
        store.load(folder)
    torch.save({}, folder / "model.safetensors")
    with pytest.raises(DuologueError, match="cannot be read"):
        store.load(folder)


# Names.


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "__file__", str(tmp_path / "source.py"))
    with pytest.raises(DuologueError, match="'nano' is not in this copy"):
        source.resolve("nano")
    with pytest.raises(
        DuologueError, match=r"'nano-codec' is not in this copy: duologue train codec.*'s folder with --model"
    ):
        source.resolve("nano-codec")
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "config.json").touch()
    assert source.resolve("nano") == tmp_path / "nano"
    monkeypatch.chdir(tmp_path)
    assert source.resolve("./nano") == Path("nano")
    with pytest.raises(DuologueError, match="is a file; a model is a folder"):
        source.resolve(tmp_path / "nano" / "config.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nanno", r"^unknown model 'nanno': not a bundled name \(nano, mini, nano-codec\), not a folder, and the hub "),
        ("someone/nanno", r"not a folder, and the hub could not be reached: "),
        ("./nanno", r"not a folder, and not a hub id$"),
        ("/no/such/folder", r"not a folder, and not a hub id$"),
        ("no such model", r"not a folder, and not a hub id$"),
        ("", r"name is empty"),
    ],
)
def test_unknown(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DuologueError, match=message) as caught:
        source.resolve(name)
    assert "\n" not in str(caught.value)


def test_an_unreachable_hub() -> None:
    """With no network (a closed port stands for it): one line, without the hub library's own words on stderr."""
    script = (
        "from duologue.checkpoints.source import resolve\n"
        "try: resolve('someone/nanno')\n"
        "except ValueError as error: print(error)\n"
    )
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert run.stderr == ""
    assert "the hub could not be reached: " in run.stdout and run.stdout.count("\n") == 1


def test_a_hub_id_is_downloaded(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert store.load("someone/model").path == saved
    ((name, patterns),) = asked
    assert name == "someone/model"
    assert "model.safetensors" in patterns and not any(p.endswith((".bin", ".pt", ".py", "*")) for p in patterns)


def test_the_tokenizer_is_fast(saved: Path) -> None:
    assert isinstance(store.load(saved).tokenizer, PreTrainedTokenizerFast)
