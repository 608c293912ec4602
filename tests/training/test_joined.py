"""A language model and a Whisper from folders, by config: imported, joined, trained, put together, asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from duologue.checkpoints.cards.facts import Card
from duologue.checkpoints.importers.llm import Config as LLMImport
from duologue.checkpoints.importers.llm import run as import_llm
from duologue.checkpoints.parts import EncoderPart, save_part
from duologue.checkpoints.store import read_model_config
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.inference.assistant.assistant import load
from duologue.model.audio_encoder.mel import LogMelConfig
from duologue.model.audio_encoder.whisper import WhisperEncoder, WhisperEncoderConfig
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.training import assemble
from duologue.training.data.chat_tokens import chat_tokens, layout_of
from duologue.training.main import resolve, run

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Families, with the chat template and the special tokens that theirs have: the last is the end of a text.
FAMILIES = {
    "llama": (CHATML, ["<|im_start|>", "<|im_end|>", "<|begin|>", "<|pad|>", "<|end|>"], "<|begin|>"),
    "qwen2": (CHATML, ["<|im_start|>", "<|im_end|>", "<|end|>"], None),  # no bos; pad and end are one
    "qwen3": (CHATML, ["<|im_start|>", "<|im_end|>", "<|end|>"], None),
    "mistral": ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
                "{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}", ["<s>", "</s>"], "<s>"),
    "phi": (None, ["<|end|>"], "<|end|>"),  # never taught to chat; one token for all
}  # fmt: skip


def tokenizer(folder: Path, template: str | None, special: list[str], bos: str | None) -> None:
    """Bytes as tokens, and the special ones behind them."""
    table = {name: i for i, name in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bare = Tokenizer(models.BPE(vocab=table, merges=[]))
    bare.pre_tokenizer, bare.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token=special[-1], bos_token=bos)
    fast.add_special_tokens({"additional_special_tokens": [t for t in special if t not in (special[-1], bos)]})
    fast.chat_template = template
    fast.save_pretrained(folder)


def language_model(folder: Path, kind: str) -> Path:
    """A tiny random model of a family as transformers saves it, imported."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, vocab_size=264, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, pad_token_id=None,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "theirs")
    tokenizer(folder / "theirs", *FAMILIES[kind])
    return import_llm(folder / "theirs", folder / "llm", LLMImport())


def encoder(folder: Path) -> Path:
    torch.manual_seed(1)
    sizes = WhisperEncoderConfig(n_mels=80, n_audio_state=24, n_audio_head=2, n_audio_layer=1)
    part = EncoderPart(mel=LogMelConfig(n_mels=80, norm="whisper"), encoder=sizes)
    return save_part(folder / "encoder", "encoder", WhisperEncoder(sizes), part, Card())


def recordings(folder: Path) -> Path:
    """Questions with answers as people write them, and one without; units for the answers' speech."""
    writer = ShardWriter(folder, name="mine", sample_rate=16000, seed=0, parameters={})
    rng, clips, rows = np.random.default_rng(0), [], []
    for i, answer in enumerate(("It's 4, sure.", "Grüß Gott!", "No <|im_end|> here.", None)):
        meta = {"id": f"c{i}", "text": answer or "?", "question": f"Who is no. {i}?", "voice": "x"}
        clips.append(
            Clip((3000 * rng.standard_normal(9600)).astype(np.int16), meta | ({"answer": answer} if answer else {}))
        )
        rows.append({"id": f"c{i}", "units": [i, 5, 7], "durations": [10, 10, 10]})
    writer.write(0, clips)
    writer.finish()
    (folder / "units.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


ONCE = ("preset=tiny", "steps=2", "warmup=0", "save_every=2", "batch_size=3", "lr=0.01")


@pytest.mark.parametrize("kind", FAMILIES)
def test_from_a_folder_of_theirs_to_an_answer(tmp_path: Path, kind: str) -> None:
    llm, hears, data = language_model(tmp_path, kind), encoder(tmp_path), recordings(tmp_path / "data")
    joined = (*ONCE, f"data={data}", f"llm={llm}")
    speech, decoder_run = tmp_path / "speech", tmp_path / "decoder"
    assert 0 < run("speech_to_text", [*joined, f"encoder={hears}", "learn=adaptor", f"out={speech}"])["loss"] < 20
    spoken = [f"data={data}", f"llm={speech}", f"out={decoder_run}"]  # the language model of the run
    assert 0 < run("unit_decoder", [*ONCE, *spoken])["loss"] < 1000
    sizes = UnitVocoderConfig(units=200, embedding_dim=8, channels=32, duration_hidden=8)
    voice = save_part(tmp_path / "voice", "vocoder", UnitVocoder(sizes), sizes, Card())
    heard = dict.fromkeys(("encoder", "adaptor", "llm"), str(speech))
    config = assemble.Config(**heard, unit_decoder=str(decoder_run), vocoder=str(voice))
    assistant = load(str(assemble.run(tmp_path / "whole", config)))
    model: Any = assistant.model
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").state_dict()
    for name, tensor in model.llm.lm.state_dict().items():
        assert torch.equal(tensor, theirs[name].half().float()), name  # learn=adaptor left it as it was
    question = np.random.default_rng(1).standard_normal(8000).astype(np.float32) / 10
    turn = assistant.stream((16000, (question * 32768).clip(-32768, 32767).astype(np.int16)), as_recorded=True)
    assert "".join(chunk.text_delta for chunk in turn) and not turn.reply().transcript
    assert assistant.ask(text="Who are you?").text is not None


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_are_what_the_model_reads_in_use(tmp_path: Path, kind: str) -> None:
    """What is learnt stands behind just the ids that a conversation feeds before it generates."""
    llm, hears = language_model(tmp_path, kind), encoder(tmp_path)
    task = resolve(
        "speech_to_text",
        ["preset=tiny", f"data={recordings(tmp_path / 'data')}", f"llm={llm}", f"encoder={hears}", "row_tokens=1"],
    ).build()
    model, tokens = task._model[0], task.tokens
    fed: list[torch.Tensor] = []
    extend = model.llm.extend
    model.llm.extend = lambda embeds, state: (fed.append(embeds), extend(embeds, state))[1]  # type: ignore[method-assign]
    batch = task.batch(0)
    rows = [row for row in range(len(batch["ids"])) if (batch["ids"][row] == tokens.eos).sum() >= 1]
    row = rows[0]
    ids, weights = batch["ids"][row], batch["weights"][row]
    clip = sum(int((batch["ids"][r] == SPEECH).any()) for r in range(row)) if row else 0
    wave = batch["samples"][clip : clip + 1, : batch["lengths"][clip]]
    state = model.init_state()
    model.begin_turn(state)
    model.listen(wave, state)
    model.end_turn(state)
    first = int((weights > 0).nonzero()[0])  # of what is learnt
    heard = torch.cat(fed, dim=1)[0]
    assert len(heard) == first
    task.eval()
    with torch.no_grad():
        speech, lengths, _ = task.hear(batch)
        from duologue.training.data.turns import embed_rows

        read = embed_rows(task.llm, batch["ids"], tokens, speech, lengths)[row, :first]
    assert torch.allclose(read, heard, atol=1e-4)
    after = ids[first:].tolist()
    said = tokens.decode(after[: after.index(tokens.eos)])
    assert said in ("It's 4, sure.", "Grüß Gott!", "No <|im_end|> here.")


def test_templates_and_layouts(tmp_path: Path) -> None:
    """The ids around speech spell the template; marked words in a text stay text."""
    for kind, (template, special, bos) in FAMILIES.items():
        tokenizer(tmp_path / kind, template, special, bos)
        tokens = chat_tokens(str(tmp_path / kind))
        fast = PreTrainedTokenizerFast.from_pretrained(tmp_path / kind)
        assert fast.decode([tokens.eos]) == ("<|im_end|>" if template is CHATML else special[-1])
        layout = layout_of(tokens, str(tmp_path / kind), 264, 200)
        assert layout.text == (0, 256) and layout.eos == tokens.eos and layout.units == 200
        assert all(layout.is_text(id_) for id_ in tokens.encode(f"a {special[0]} b"))
    tokenizer(tmp_path / "full", None, ["<|end|>"], "<|end|>")
    with pytest.raises(DuologueError, match="leaves no id for bos and pad"):
        layout_of(chat_tokens(str(tmp_path / "full")), str(tmp_path / "full"), 257, 0)
    tokenizer(tmp_path / "broken", "{{ messages[0]['content'][:2] }}", ["<|end|>"], None)
    with pytest.raises(DuologueError, match=r"broken: the chat template leaves out"):
        chat_tokens(str(tmp_path / "broken"))


def test_presets_and_what_is_refused(tmp_path: Path) -> None:
    llm, hears = language_model(tmp_path, "llama"), encoder(tmp_path)
    recipe: Any = resolve("speech_to_text", ["preset=llama-omni", f"llm={llm}", f"encoder={hears}"])
    assert (recipe.adaptor.in_dim, recipe.adaptor.hidden_dim, recipe.adaptor.out_dim, recipe.adaptor.stack) == (
        24, 2048, 32, 5)  # fmt: skip
    assert recipe.start == (f"llm={llm}", f"encoder={hears}") and recipe.tokenizer == str(llm)
    decoder: Any = resolve("unit_decoder", ["preset=llama-omni", f"llm={llm}"])
    assert (decoder.unit_decoder.in_dim, decoder.unit_decoder.dim, decoder.unit_decoder.units) == (32, 4096, 1000)
    nano: Any = resolve("unit_decoder", ["preset=codec", "llm=nano"])  # a whole checkpoint, with nano's own words
    assert nano.llm == read_model_config("nano").llm and nano.tokenizer is None and nano.history == 0.3
    assert nano.start[-1].startswith("llm=") and nano.start[-1].endswith("nano")
    also: Any = resolve("unit_decoder", ["llm=nano", "start=unit_decoder=runs/before"])  # neither drops the other
    assert also.start == ("unit_decoder=runs/before", nano.start[-1])
    for stage, entries, message in (
        ("text_sft", [f"encoder={hears}"], r"recipe text_sft takes no encoder="),
        ("word_monitor", [f"llm={llm}", f"encoder={hears}"], r"reads the transcript, .* writes none"),
        ("unit_decoder", [f"encoder={hears}"], r"recipe unit_decoder takes no encoder="),
        ("speech_to_text", [f"llm={hears}"], r"is a 'encoder' .* wanted: 'llm'"),
        ("speech_to_text", [f"llm={tmp_path / 'theirs'}"], r"is not that of an imported llm"),
        ("speech_to_text", ["llm=./nowhere"], r"unknown model './nowhere'"),
    ):
        with pytest.raises(DuologueError, match=message):
            resolve(stage, entries)
