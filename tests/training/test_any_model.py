"""Every stage with somebody's language model, its own tokens and chat template, and a Whisper: tiny ones of random
weights go from conversations to a whole model."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_model import (
    SYSTEM,
    TALKS,
    TASK,
    replies,
    statements,
    talks,
    tiny_adaptor,
    tiny_ctc_adaptor,
    tiny_llm,
    tiny_whisper,
)
from safetensors.torch import load_file

from duologue.checkpoints import store
from duologue.checkpoints.cards.facts import Card
from duologue.checkpoints.parts import save_part
from duologue.data_prep.datasets.question_sets import QuestionSet
from duologue.inference.assistant.assistant import load
from duologue.model.adaptor.stack import StackConfig
from duologue.model.audio_encoder.windowed import WindowConfig
from duologue.model.duplex.monitor import TURN_STATES, TurnState
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH
from duologue.model.speech_decoder.unit_vocoder import UnitVocoder, UnitVocoderConfig
from duologue.training import assemble
from duologue.training.data.corpus import to_float
from duologue.training.loop.parts import load_parts
from duologue.training.loop.trainer import train
from duologue.training.main import resolve, run
from duologue.training.recipes.duplex import UNKNOWN

ONCE = ("preset=tiny", "steps=2", "warmup=0", "save_every=2", "batch_size=4", "lr=0.01")
KINDS = {"llama": "headers", "qwen2": "chatml"}
QUERY, NOISE, WAIT = (
    TURN_STATES.index(turn_state) for turn_state in (TurnState.QUERY, TurnState.NOISE, TurnState.WAIT)
)


def conversations(folder: Path) -> str:
    """TALKS in writing, as a file of conversations."""
    entries = [{"turns": [{"text": q, "reply": a, "slot": a.split()[0]} for q, a in talk["turns"]]} for talk in TALKS]
    file = folder / "talks.jsonl"
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return str(file)


@pytest.mark.parametrize("kind", KINDS)
def test_from_conversations_to_a_whole_model(tmp_path: Path, kind: str) -> None:
    llm, hears, data = tiny_llm(tmp_path, kind, KINDS[kind]), tiny_whisper(tmp_path), talks(tmp_path / "talks")
    text, speech, duplex, units = (str(tmp_path / name) for name in ("text", "speech", "duplex", "units"))
    written = run("text_sft", [*ONCE, f"llm={llm}", f"data={conversations(tmp_path)}", "held_out=0.5", f"out={text}"])
    assert 0 < written["held_out_loss"] < 20 and written["right"] == 0
    heard = run("speech_to_text", [*ONCE, f"llm={text}", f"encoder={hears}", f"data={data}", f"dev_data={data}",
                                   "text_fraction=0.5", "ctc_weight=0.3", f"out={speech}", "adaptor.stack=5",
                                   "adaptor.hidden_dim=16"])  # fmt: skip
    assert 0 < heard["ctc"] < 1000 and 0 < heard["loss_talks"] < 20
    told = run("duplex", [*ONCE, f"llm={speech}", f"encoder={speech}", f"adaptor={speech}", f"dev_data={data}",
                          f"data={data},{statements(tmp_path / 'asides')}", "window.left_ms=4000",
                          f"out={duplex}"])  # fmt: skip
    assert told["turn_states"] > 0 and {"query_talks", "wait_talks", "ignored_questions"} < told.keys()
    assert not {"words", "ctc", "loss_talks"} & told.keys(), "nothing that is written is learnt or measured"
    assert {name.partition(".")[0] for name in load_file(Path(duplex) / "model.safetensors")} == {"monitor"}
    spoken = run("unit_decoder", [*ONCE, f"llm={speech}", f"data={replies(tmp_path / 'replies')}", "history=1",
                                  f"out={units}"])  # fmt: skip
    assert 0 < spoken["loss"] < 1000
    sizes = UnitVocoderConfig(units=200, embedding_dim=8, channels=32, duration_hidden=8)
    voice = str(save_part(tmp_path / "voice", "vocoder", UnitVocoder(sizes), sizes, Card()))
    heard_by = dict.fromkeys(("encoder", "adaptor", "llm"), speech)
    config = assemble.Config(**heard_by, monitor=duplex, unit_decoder=units, vocoder=voice)
    loaded = store.load(assemble.run(tmp_path / "whole", config))
    assert loaded.model.config.adaptor == StackConfig(in_dim=24, hidden_dim=16, out_dim=32, stack=5)
    assert loaded.model.monitor is not None and loaded.model.monitor.config.calibrated and loaded.model.speaks
    assert loaded.model.config.window == WindowConfig(left_ms=4000)
    config = replace(config, llm_dtype="bfloat16", instructions="Be brief.")
    brief = load(str(assemble.run(tmp_path / "brief", config)))
    model: Any = brief.model
    assert {parameter.dtype for parameter in model.llm.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.unit_decoder.parameters()} == {torch.float32}
    assert brief.ask(text="Who are you?").text is not None
    assert model.init_state().chat.system == "Be brief." and model.init_state(0, "Sing.").chat.system == "Sing."
    with pytest.raises(DuologueError, match=r"instructions is 'Be brief\.', but prompt says already"):
        replace(store.read_model_config("nano"), instructions="Be brief.")
    again = assemble.Config(**dict.fromkeys(("encoder", "adaptor", "llm"), str(tmp_path / "whole")))
    silent = store.load(assemble.run(tmp_path / "silent", again)).model
    assert silent.config == replace(loaded.model.config, unit_decoder=None, vocoder=None, monitor=None, window=None,
                                    layout=replace(loaded.model.config.layout, units=0))  # fmt: skip


def build(tmp_path: Path, stage: str, *words: str, kind: str = "llama", **changes: Any) -> Any:
    """The task of a stage on talks."""
    llm, hears = tiny_llm(tmp_path, kind, KINDS.get(kind, "headers")), tiny_whisper(tmp_path)
    data = talks(tmp_path / "talks")
    parts = [f"llm={llm}", f"encoder={hears}", f"adaptor={tiny_adaptor(tmp_path)}"]
    recipe = resolve(stage, [*ONCE, *parts, f"data={data}", "row_tokens=1", *words])
    return replace(recipe, **changes).build()


def test_rows_of_a_stage_hold_history_system_prompt_and_instruction(tmp_path: Path) -> None:
    task = build(tmp_path, "speech_to_text", "history_speech=1", "batch_size=5")
    texts, tokens = {}, task.tokens
    for number in range(3):
        batch = task.batch(number)
        assert batch["samples"].shape[0] > 5, "earlier turns are heard too"
        assert int((batch["ids"] == SPEECH).sum()) == sum(batch["frames"])
        lengths = task.hear(batch).counts
        assert int(lengths.sum()) == sum(batch["frames"])
        for ids, weights in zip(batch["ids"].tolist(), batch["weights"].tolist(), strict=True):
            learnt = tokens.decode([id_ for id_, weight in zip(ids, weights, strict=True) if weight])
            texts[learnt] = tokens.decode([id_ for id_ in ids if id_ != SPEECH])
    (anna, again), (bert, once_more) = (talk["turns"] for talk in TALKS)
    assert {anna[1] + again[1], bert[1] + once_more[1]} <= texts.keys()
    assert SYSTEM in texts[anna[1] + again[1]] and SYSTEM not in texts[bert[1] + once_more[1]]
    assert again[0] not in texts[anna[1] + again[1]], "speech is not read as well"
    assert any(TASK["instruction"] in text for text in texts.values())
    read = build(tmp_path, "speech_to_text", "history_speech=0", "batch_size=5")
    batch = read.batch(0)
    assert batch["samples"].shape[0] == 5
    assert any(anna[0] in tokens.decode([i for i in ids if i != SPEECH]) for ids in batch["ids"].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_what_a_conversation_feeds(tmp_path: Path, kind: str) -> None:
    """Up to where the answer begins: system prompt, earlier turns, speech and instruction."""
    task = build(tmp_path, "speech_to_text", kind=kind)
    for at, meta in enumerate(task.corpus.metas):
        wave = to_float(task.corpus[at].pcm)
        row = task.tokens.row(meta.get("system"))
        answer = row.add_before(meta, np.random.default_rng(0), QuestionSet())
        row.add_turn(meta["text"], answer, task.frames(len(wave)), instruction=meta.get("instruction"))
        assert task.heard(wave, meta).chat.fed == row.ids[: row.said.start]


def test_rows_of_text_are_the_datas_own(tmp_path: Path) -> None:
    task = build(tmp_path, "speech_to_text", "text_fraction=1")
    texts = {task.tokens.decode(row.ids) for number in range(4) for row in task.written_rows(number, 5)}
    assert all(any(meta["text"] in text for meta in task.corpus.metas) for text in texts) and len(texts) == 5
    assert not any(SPEECH in row.ids for row in task.written_rows(0, 5))


def test_the_monitor_hears_as_in_use(tmp_path: Path) -> None:
    """Through the window: the states that it learns from are those of a conversation, and no later sound is in them."""
    task = build(tmp_path, "duplex", "window.left_ms=400", "window.chunk_ms=200", "window.right_ms=100",
                 "noise_fraction=0", "far_fraction=0", "batch_size=2").eval()  # fmt: skip
    batch = task.batch(0)
    with torch.no_grad():
        speech, lengths, _ = task.hear(batch)
        model = task._model[0]
        model.listen_through(task.scenes.window)
        for row in range(len(lengths)):
            hearing = model.stages.hearing
            state = hearing.init_state(1)
            clip = batch["samples"][row : row + 1]
            pieces = [hearing.step(piece, state) for piece in clip.split(3200, dim=1)] + [hearing.flush(state)]
            heard = torch.cat(pieces, dim=1)[0, : int(lengths[row])]
            assert torch.allclose(speech[row, : int(lengths[row])], heard, atol=1e-5)
        later = batch | {"samples": batch["samples"].clone()}
        later["samples"][:, 12_000:] = 0.1 * torch.randn_like(later["samples"][:, 12_000:])
        same = 12_000 // 3200 * 10 // task.recipe.adaptor.stack - 5
        other = task.hear(later).embeddings
        assert torch.allclose(other[:, :same], speech[:, :same], atol=1e-5)
        assert not torch.allclose(other[:, same : same + 30], speech[:, same : same + 30], atol=1e-3)


def with_ctc(tmp_path: Path, stage: str, *words: str) -> Any:
    """The task of a stage with an adaptor of kind ctc, on talks."""
    adaptor = f"adaptor={tiny_ctc_adaptor(tmp_path)}"
    task = build(tmp_path, stage, adaptor, *words).eval()
    load_parts({"adaptor": task.adaptor}, (adaptor,))
    return task


def test_a_clip_has_as_many_positions_as_words_were_heard_in_it(tmp_path: Path) -> None:
    """With an adaptor of kind ctc rows are laid out once their clips have been heard, as a conversation is."""
    task = with_ctc(tmp_path, "speech_to_text", "history_speech=1", "batch_size=5", "loss=kl", "learn=adaptor")
    batch = task.batch(0)
    with torch.no_grad():
        heard = task.hear(batch)
        _, laid = task.read(batch)
    assert int((batch["ids"] == SPEECH).sum()) == len(heard.counts) < int(heard.counts.sum())
    assert int((laid["ids"] == SPEECH).sum()) == int(heard.counts.sum())
    ids = [id_ for row in laid["ids"].tolist() for id_ in row]
    runs = [len(list(run)) for speech, run in groupby(ids, key=lambda id_: id_ == SPEECH) if speech]
    assert runs == [count for count in heard.counts.tolist() if count]
    loss, metrics = task(batch)
    loss.backward()
    assert metrics["kl"] > 0 and task.adaptor.project.weight.grad.abs().sum() > 0


def test_a_monitor_behind_a_ctc_adaptor_learns_what_a_conversation_holds(tmp_path: Path) -> None:
    """The state behind the last word that was heard, and what is due before the next one is."""
    task = with_ctc(tmp_path, "duplex", "window.left_ms=400", "window.chunk_ms=200", "window.right_ms=100",
                    "noise_fraction=0", "far_fraction=0", "batch_size=5", "history_speech=0")  # fmt: skip
    batch = task.batch(0)
    with torch.no_grad():
        heard = task.hear(batch)
        _, laid = task.read(batch)
    due = laid["turn_states"].split(heard.counts.tolist())
    places = batch["turn_states"].split(batch["places"])
    assert all(one[-1] == other[-1] for one, other in zip(due, places, strict=True) if len(one))
    assert {WAIT, QUERY} <= set(laid["turn_states"].tolist())
    given = heard.given[0, : int(heard.counts[0])]
    for word, at in enumerate(given[1:].tolist()):
        assert due[0][word] == places[0][min(at // 4, len(places[0])) - 1]
    model = task._model[0]
    model.listen_through(task.scenes.window)
    compared = 0
    for row, length in enumerate(batch["lengths"].tolist()):
        state, pieces = model.stages.hearing.init_state(1), []
        for piece in batch["samples"][row : row + 1, :length].split(3200, dim=1):
            pieces.append(model.stages.hearing.step(piece, state))
        words = torch.cat([*pieces, model.stages.hearing.flush(state)], dim=1)[0]
        early = int((heard.given[row, : int(heard.counts[row])] < length // 320 - 60).sum())  # padding comes later
        assert torch.allclose(words[:early], heard.embeddings[row, :early], atol=1e-4)
        compared += early
    assert compared > 9


def test_scenes_of_any_data_have_their_turn_states(tmp_path: Path) -> None:
    """Statements count although they have no answer; nothing is due while an earlier turn is heard."""
    asides = statements(tmp_path / "asides")
    task = build(tmp_path, "duplex", f"data={talks(tmp_path / 'talks')},{asides}", "noise_fraction=0", "far_fraction=0",
                 "history_speech=1", "batch_size=8")  # fmt: skip
    batch = task.batch(0)
    due = batch["turn_states"].tolist()
    assert {QUERY, NOISE, UNKNOWN} < set(due) and len(due) == int((batch["ids"] == SPEECH).sum())
    assert len(task.items) == 8 and batch["samples"].shape[0] == 10
    answered = [build(tmp_path, "duplex", f"learn={learn}", "history_speech=0").batch(0)["weights"].any()
                for learn in ("monitor", "monitor,adaptor")]  # fmt: skip
    assert answered == [False, True], "answers are written where they are learnt"


def test_a_tiny_monitor_learns_to_tell_statements(tmp_path: Path) -> None:
    task = build(tmp_path, "duplex", f"data={talks(tmp_path / 'talks')},{statements(tmp_path / 'asides')}",
                 "noise_fraction=0", "augment=none", "steps=40", "save_every=40", "batch_size=8", "lr=0.02",
                 f"out={tmp_path / 'run'}")  # fmt: skip
    called: list[int] = []
    task.llm.lm.get_output_embeddings().register_forward_hook(lambda *_: called.append(1))
    first = task(task.batch(0))[0].item()
    assert train(task.scenes, task, progress=False)["turn_states"] < 0.7 * first
    assert not called, "no softmax over the vocabulary"


def test_scenes_of_a_frozen_model_may_be_heard_once(tmp_path: Path) -> None:
    words = ("scenes=8", "batch_size=4", "steps=9", "save_every=9", f"out={tmp_path / 'run'}", "lr=0")
    task, new = build(tmp_path, "duplex", *words), build(tmp_path, "duplex", "batch_size=4")
    heard: list[int] = []
    task.adaptor.register_forward_hook(lambda *_: heard.append(1))
    train(task.scenes, task, progress=False)
    assert len(heard) == 2 and set(task.kept) == {0, 1}
    assert task.batch(5) == {"number": 5} and "samples" in new.batch(5)
    with torch.no_grad():
        losses = [float(task(task.batch(number))[0]) for number in (5, 5, 3)]
    assert losses[0] == losses[1] != losses[2] and len(heard) == 2, "drawn of the states of all scenes"
    task.recipe = replace(task.recipe, dev_data=(talks(tmp_path / "held"),))
    first, heard_first = task.evaluate(), len(heard)
    assert heard_first > 2 and task.evaluate() == first and len(heard) == heard_first
    with pytest.raises(DuologueError, match=r"scenes is 8, but monitor,llm learns, so that states change"):
        build(tmp_path, "duplex", *words, "learn=monitor,llm")


def test_a_language_model_overfits_eight_dialogues(tmp_path: Path) -> None:
    """Byte for byte; the second question is the same in all, so its answer needs the first turn."""
    names = ("Anna", "Bert", "Ça", "Dörte", "李", "Eve🙂", "F. G.", "Hans-Uwe")
    entries = [
        {"id": str(at), "turns": [{"text": f"I am number {at}.", "reply": f"Hi, {name}!"},
                                  {"text": "Who am I?", "reply": f"You're {name}, no. {at}."}]}
        for at, name in enumerate(names)
    ]  # fmt: skip
    (tmp_path / "eight.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    llm = tiny_llm(tmp_path, "llama", "headers", hidden_size=64, intermediate_size=128)
    recipe = resolve("text_sft", [*ONCE, f"llm={llm}", f"data={tmp_path / 'eight.jsonl'}", "steps=80", "batch_size=8",
                                  "save_every=80", "lr=0.006", "row_tokens=256", "held_out=0",
                                  f"out={tmp_path / 'run'}"])  # fmt: skip
    task: Any = recipe.build()
    train(recipe, task, progress=False)
    dialogues = {dialogue.turns[0].question: dialogue for dialogue in task.dialogues}
    for turn in (0, 1):
        ordered = [dialogues[entry["turns"][0]["text"]] for entry in entries]
        said = task.generate([dialogue.row(task.tokens, 512, turns=turn + 1) for dialogue in ordered])
        assert said == [entry["turns"][turn]["reply"] for entry in entries]


def test_lora_learns_text_in_the_place_of_the_weights(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="LoRA's layers are peft's")
    llm, out = tiny_llm(tmp_path), tmp_path / "run"
    run("text_sft", [*ONCE, f"llm={llm}", f"data={conversations(tmp_path)}", "lora=2", f"out={out}"])
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (llm, out))
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved and all("proj" in name for name in moved)


def test_a_mixture_of_experts_is_trained_and_speaks(tmp_path: Path) -> None:
    task = build(tmp_path, "speech_to_text", "row_tokens=300", kind="mixtral")
    packed = task.batch(0)
    loss, _ = task(packed)
    loss.backward()
    assert task.llm.lm.model.layers[0].mlp.experts.down_proj.grad.abs().sum() > 0
    alone = build(tmp_path, "speech_to_text", kind="mixtral")
    assert torch.allclose(alone(alone.batch(0))[0], loss, rtol=1e-4)
    said = task.eval().converse(np.zeros(8000, np.float32))
    assert said[0] == "" and isinstance(said[1], str)


def test_what_a_stage_starts_from_brings_its_sizes(tmp_path: Path) -> None:
    llm, hears, data = tiny_llm(tmp_path), tiny_whisper(tmp_path), talks(tmp_path / "talks")
    out = tmp_path / "adaptor"
    run("speech_to_text", [*ONCE, f"llm={llm}", f"encoder={hears}", f"data={data}", "learn=adaptor", f"out={out}",
                           "adaptor.stack=3"])  # fmt: skip
    for words in ([f"start=adaptor={out}"], [f"adaptor={out}"]):
        recipe: Any = resolve("duplex", ["preset=tiny", f"llm={llm}", f"encoder={hears}", *words])
        assert recipe.adaptor.stack == 3 and f"adaptor={out}" in recipe.start and recipe.learn == ("monitor",)
        assert recipe.monitor.in_dim == 32 and recipe.questions is None
    with pytest.raises(DuologueError, match=r"give adaptor=RUN, of stage speech_to_text"):
        resolve("duplex", ["preset=tiny", f"llm={llm}", f"encoder={hears}"]).build()
    with pytest.raises(DuologueError, match=r"questions is none, and no llm brings a tokenizer"):
        resolve("text_sft", ["preset=tiny", "questions=none"]).build()
    with pytest.raises(DuologueError, match=r"nothing in .*empty\.jsonl has an answer"):
        (tmp_path / "empty.jsonl").write_text('{"turns": [{"text": "Hello."}]}\n')
        resolve("text_sft", ["preset=tiny", f"llm={llm}", f"data={tmp_path / 'empty.jsonl'}"]).build()
