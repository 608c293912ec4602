"""Recipe ctc_adaptor: it learns words by heart, goes on where it stopped, and gives assemble its adaptor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_model import tiny_adaptor, tiny_llm, tiny_whisper
from safetensors.torch import load_file

from duologue.checkpoints import store
from duologue.checkpoints.source import WORDS as WORDS_FILE
from duologue.data_prep.datasets.shards import Clip, ShardWriter
from duologue.data_prep.text import ngram_files
from duologue.model.audio_encoder.windowed import WindowConfig
from duologue.model.decoding.ngrams.counts import count, vocabulary
from duologue.model.decoding.ngrams.smoothing import estimate
from duologue.model.decoding.reply import transcript
from duologue.model.dialogue_state import Sampling
from duologue.model.errors import DuologueError
from duologue.model.language_model.chat_template import SPEECH
from duologue.training import assemble
from duologue.training.data.corpus import Corpus, to_float
from duologue.training.main import resolve, run

WORDS = ("what is the capital", "the capital is paris", "it's lovely", "you are helpful", "", "paris paris",
         "what are you", "the assistant")  # fmt: skip


def tones(folder: Path, texts: tuple[str, ...] = WORDS) -> str:
    """Clips in which each letter is a tone of its own; without words, silence."""
    writer = ShardWriter(folder, name=folder.name, sample_rate=16_000, seed=0, parameters={})
    time = np.arange(1600) / 16_000
    clips = []
    for at, text in enumerate(texts):
        parts = [np.sin(2 * np.pi * (200 + 60 * (ord(letter) % 32)) * time) for letter in text] or [np.zeros(8000)]
        meta: dict[str, Any] = {"id": str(at), "voice": "tones", "text": text.title()}
        meta |= {} if text else {"verdict": "noise"}
        clips.append(Clip((8000 * np.concatenate(parts)).astype(np.int16), meta))
    writer.write(0, clips)
    writer.finish()
    return str(folder)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("parts")
    return ["preset=tiny", f"llm={tiny_llm(folder)}", f"encoder={tiny_whisper(folder)}", "augment=none",
            f"data={tones(folder / 'tones')}", f"dev_data={folder / 'tones'}"]  # fmt: skip


def test_it_learns_eight_clips_by_heart(tmp_path: Path, parts: list[str]) -> None:
    metrics = run("ctc_adaptor", [*parts, f"out={tmp_path / 'run'}", "steps=120", "save_every=120", "lr=5e-3",
                                  "window.left_ms=4000"])  # fmt: skip
    assert metrics["wer_tones"] < 0.1 and metrics["quiet_tones"] == 1
    assert 0 <= metrics["wer_window_tones"] <= 1.5
    assert set(load_file(tmp_path / "run/model.safetensors")) == {
        f"adaptor.{name}" for name in resolve("ctc_adaptor", parts).build().adaptor.state_dict()  # type: ignore
    }, "neither the encoder nor the language model"
    llm, encoder = (next(word for word in parts if word.startswith(f"{name}=")).partition("=")[2] for name in
                    ("llm", "encoder"))  # fmt: skip
    config = assemble.Config(adaptor=str(tmp_path / "run"), llm=llm, encoder=encoder)
    loaded = store.load(assemble.run(tmp_path / "whole", config))
    model = loaded.model
    assert model.config.window == WindowConfig(left_ms=4000)
    assert torch.equal(model.adaptor.tokens, load_file(tmp_path / "run/model.safetensors")["adaptor.tokens"])
    clips = Corpus((next(word for word in parts if word.startswith("data=")).partition("=")[2],))
    for at in (0, 4):
        state = model.init_state()
        model.begin_turn(state)
        model.listen(torch.from_numpy(to_float(clips[at].pcm))[None], state)
        model.end_turn(state)
        assert state.empty == (not WORDS[at])
        ids = [step.token for step in transcript(model, state, Sampling())]
        assert loaded.tokenizer.decode(ids).strip() == WORDS[at]
        assert state.chat.fed.count(SPEECH) == len(ids)


def test_a_checkpoint_says_how_words_are_looked_for(tmp_path: Path, parts: list[str]) -> None:
    """Its n-gram model is a file beside its weights; what is wrong with it is one line."""
    run("ctc_adaptor", [*parts, f"out={tmp_path / 'run'}", "steps=1", "dev_data="])
    given = {name: next(word for word in parts if word.startswith(f"{name}=")).partition("=")[2]
             for name in ("llm", "encoder")}  # fmt: skip
    sentences = [text.split() for text in WORDS if text]
    lm = estimate(count(lambda: sentences, vocabulary(sentences), 2), units="plain")
    ngram_files.save(lm, tmp_path / "said.arpa")
    config = assemble.Config(adaptor=str(tmp_path / "run"), **given, lm=str(tmp_path / "said.arpa"), lm_bonus=2.5)
    folder = assemble.run(tmp_path / "whole", config)
    decoder = store.load(folder).model.decoder
    assert decoder is not None and decoder.lm is not None
    assert (decoder.beam.width, decoder.lm_weight, decoder.lm_bonus) == (8, 0.5, 2.5)
    assert decoder.lm.words == lm.words and decoder.lm.units == "plain"
    assert all(np.allclose(a.log_probs, b.log_probs, rtol=1e-4) and np.array_equal(a.keys, b.keys)
               for a, b in zip(decoder.lm.tables, lm.tables, strict=True))  # fmt: skip
    again = assemble.run(tmp_path / "plain", assemble.Config(adaptor=str(tmp_path / "run"), **given))
    assert store.load(again).model.decoder is None and not (again / WORDS_FILE).exists()
    (folder / WORDS_FILE).write_bytes((folder / WORDS_FILE).read_bytes()[:-20])
    with pytest.raises(DuologueError, match=r"words\.arpa\.gz cannot be read"):
        store.load(folder)
    (folder / WORDS_FILE).unlink()
    with pytest.raises(DuologueError, match=r"words\.arpa\.gz cannot be read: .*No such file"):
        store.load(folder)
    with pytest.raises(DuologueError, match="a beam of width 0"):
        assemble.run(tmp_path / "wrong", assemble.Config(adaptor=str(tmp_path / "run"), **given, beam=0,
                                                         lm=str(tmp_path / "said.arpa")))  # fmt: skip


def test_a_stopped_run_goes_on(tmp_path: Path, parts: list[str]) -> None:
    words = [*parts, "save_every=2", "dev_data=", "batch_size=4", "schedule=constant"]
    run("ctc_adaptor", [*words, f"out={tmp_path / 'whole'}", "steps=4"])
    run("ctc_adaptor", [*words, f"out={tmp_path / 'parts'}", "steps=2"])
    run("ctc_adaptor", [*words, f"out={tmp_path / 'parts'}", "steps=4"])
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    other = tones(tmp_path / "other", ("you are my assistant", "hello"))
    with pytest.raises(DuologueError, match="its vocabulary was chosen from other data; adaptor=RUN goes on with it"):
        run("ctc_adaptor", [*words, f"data={other}", f"out={tmp_path / 'parts'}", "steps=6"])
    more = [*words, f"data={other}", f"adaptor={tmp_path / 'parts'}", f"out={tmp_path / 'more'}", "steps=2"]
    run("ctc_adaptor", more)
    assert torch.equal(load_file(tmp_path / "more/model.safetensors")["adaptor.tokens"], again["adaptor.tokens"])


def test_frames_of_a_frozen_encoder_serve_several_steps(tmp_path: Path, parts: list[str]) -> None:
    words = [*parts, "augment=light", "echo=2", "batch_size=4", "dev_data=", "save_every=1", "schedule=constant"]
    task: Any = resolve("ctc_adaptor", words).build()
    heard = []
    task.encoder.register_forward_hook(lambda *_: heard.append(1))
    batches = [task.batch(number) for number in range(4)]
    assert ["samples" in batch for batch in batches] == [True, False] * 2
    assert batches[0]["samples"].shape != batches[2]["samples"].shape
    frames = [task.train().frames_of(batch)[0] for batch in batches]
    assert len(heard) == 2 and not torch.equal(frames[0], frames[1]), "masked anew"
    assert frames[0].shape == frames[1].shape != frames[2].shape
    run("ctc_adaptor", [*words, f"out={tmp_path / 'whole'}", "steps=4"])
    for steps in (3, 4):  # it stops between two steps that learn from the same frames
        run("ctc_adaptor", [*words, f"out={tmp_path / 'parts'}", f"steps={steps}"])
    whole, again = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    with pytest.raises(DuologueError, match="echo is 2, but the encoder learns"):
        resolve("ctc_adaptor", [*words, "learn=adaptor,encoder"])


def test_the_steps_go_round_a_pool_of_batches(tmp_path: Path, parts: list[str]) -> None:
    words = [*parts, "augment=light", "echo=2", "pool=2", "batch_size=2", "dev_data=", "save_every=1"]
    task: Any = resolve("ctc_adaptor", words).build()
    heard = []
    task.encoder.register_forward_hook(lambda *_: heard.append(1))
    batches = [task.batch(number) for number in range(8)]
    assert [batch["clips"] for batch in batches] == [0, 1, 0, 1, 2, 3, 2, 3]
    frames = [task.train().frames_of(batch)[0] for batch in batches]
    assert len(heard) == 4 and len(task.encoded) == 2
    again: Any = resolve("ctc_adaptor", words).build()  # it goes on behind the sixth step
    assert torch.equal(again.train().frames_of(batches[6])[0], frames[6])
    with pytest.raises(DuologueError, match="pool is 2, but echo is 1"):
        resolve("ctc_adaptor", [*words, "echo=1"])


def test_what_it_leaves_out_is_counted(
    tmp_path: Path, parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = tones(tmp_path / "odd", ("what is the capital", "北京", "you are helpful " * 9))
    task = resolve("ctc_adaptor", [*parts, f"data={data}", "longest_s=3"]).build()
    assert list(task.items) == [0]  # type: ignore[attr-defined]
    assert "2 of 3 clips are left out: longer than 3 s" in capsys.readouterr().err
    with pytest.raises(DuologueError, match=r"no clip in .* fits"):
        resolve("ctc_adaptor", [*parts, f"data={data}", "longest_s=0.1"]).build()


def test_mistakes_are_one_line(tmp_path: Path, parts: list[str]) -> None:
    with pytest.raises(DuologueError, match="recipe ctc_adaptor needs llm=FOLDER"):
        resolve("ctc_adaptor", ["preset=tiny", *parts[2:]]).build()
    with pytest.raises(DuologueError, match=r"trains an adaptor of kind ctc; that of adaptor= is StackConfig"):
        resolve("ctc_adaptor", [*parts, f"adaptor={tiny_adaptor(tmp_path)}"]).build()
