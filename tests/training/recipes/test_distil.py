"""Recipe distil: students that learn to say what teachers say, of any language model, an encoder and a unit decoder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from any_model import replies, tiny_llm, tiny_whisper

from duologue.model.errors import DuologueError
from duologue.training.losses.distillation import Target, joint
from duologue.training.main import resolve, run
from duologue.training.teaching.cache import TargetCache
from duologue.training.teaching.taught import Teaching

TINY = ["preset=tiny", "warmup=0", "batch_size=4"]


def write_talks(folder: Path) -> str:
    rows = [{"turns": [{"text": f"Is it {n} or {n + 1}?", "reply": f"It is {n}, sure."}]} for n in range(12)]
    (folder / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "talks.jsonl")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two language models of other sizes with one tokenizer, both sure of what they say, and conversations."""
    folder = tmp_path_factory.mktemp("parts")
    small = tiny_llm(folder / "small", hidden_size=16, initializer_range=0.3)
    return {"data": write_talks(folder), "small": small, "large": tiny_llm(folder, initializer_range=0.3)}


def words_of(parts: dict[str, str], *more: str) -> list[str]:
    return [*TINY, f"llm={parts['small']}", f"data={parts['data']}", f"teachers={parts['large']}", *more]


def test_several_teachers_are_one_target() -> None:
    """The divergence from their mean has the gradient of the mean divergence; of logits it is their geometric mean."""
    torch.manual_seed(0)
    teachers, student = torch.randn(2, 5, 7), torch.randn(5, 7, requires_grad=True)
    together = joint(list(teachers), [0.75, 0.25], 2.0).divergence(student, 2.0).sum()
    each = [joint([teacher], [1.0], 2.0).divergence(student, 2.0).sum() for teacher in teachers]
    wanted, found = (torch.autograd.grad(x, student)[0] for x in (0.75 * each[0] + 0.25 * each[1], together))
    assert torch.allclose(wanted, found, atol=1e-6) and together < 0.75 * each[0] + 0.25 * each[1]
    p, q = ((t / 2).softmax(-1) for t in teachers)
    mean = (p**0.75 * q**0.25) / (p**0.75 * q**0.25).sum(-1, keepdim=True)
    assert torch.allclose(joint(list(teachers), [0.75, 0.25], 2.0, True).log_probs.exp(), mean, atol=1e-6)


def test_the_likeliest_classes_and_the_others_as_one() -> None:
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(4, 9), torch.randn(4, 9)
    whole = joint([teacher], [1.0], 1.0)
    few = whole.likeliest(3)
    assert few.tokens is not None and few.log_probs.shape == (4, 4)
    assert torch.allclose(few.log_probs.exp().sum(-1), torch.ones(4))
    assert (few.divergence(student, 1.0) < whole.divergence(student, 1.0)).all()
    assert few.divergence(teacher, 1.0).abs().max() < 1e-5
    assert whole.likeliest(8) is whole and whole.likeliest(20) is whole
    wider = torch.cat([student, torch.full((4, 2), 5.0)], dim=1)  # classes that no teacher has
    assert torch.allclose(whole.divergence(wider, 1.0), whole.divergence(student, 1.0))


@pytest.mark.parametrize("named", [False, True])
def test_a_record_that_was_cut_short_is_made_again(named: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = joint([torch.randn(3, 6)], [1.0], 1.0)
    target = target.likeliest(2) if named else target
    cache = TargetCache(tmp_path, "a")
    for letter in b"xyz":
        cache.add(bytes([letter]) * 32, target)
    file = next(tmp_path.glob("a-*"))
    os.truncate(file, file.stat().st_size - 1)
    again = TargetCache(tmp_path, "a")
    assert len(again) == 2 and b"z" * 32 not in again
    again.add(b"z" * 32, Target(target.log_probs[:1], None if target.tokens is None else target.tokens[:1]))
    found = TargetCache(tmp_path, "a")
    assert len(found) == 3 and len(found[b"z" * 32].log_probs) == 1 and len(TargetCache(tmp_path, "b")) == 0
    read = found[b"y" * 32]
    assert torch.allclose(read.log_probs, target.log_probs, atol=2e-3)
    assert named == (read.tokens is not None) and (target.tokens is None or torch.equal(read.tokens, target.tokens))


@pytest.mark.parametrize(("more", "left"), [([], 0.5), (["lora=4"], 0.9)])
def test_any_language_model_learns_what_another_says(
    more: list[str], left: float, parts: dict[str, str], tmp_path: Path
) -> None:
    words = words_of(parts, "label_weight=0", "lr=0.02", f"out={tmp_path}", *more)
    task: Any = resolve("distil", words).build()
    before = float(task(task.batch(0))[1]["taught"])
    metrics = run("distil", [*words, "steps=30", "save_every=30"])
    assert metrics["taught"] < left * before


def test_the_loss_is_of_labels_and_teachers(parts: dict[str, str]) -> None:
    built: list[Any] = [resolve("distil", words_of(parts, f"label_weight={w}")).build() for w in (0.0, 0.25, 1.0)]
    batch = built[0].batch(0)
    (taught, shown), (mixed, _), (labels, _) = (task(batch) for task in built)
    assert torch.allclose(shown["labels"], labels) and torch.allclose(shown["taught"], taught)
    assert torch.allclose(mixed, 0.25 * labels + 0.75 * taught)
    sft: Any = resolve("text_sft", [*TINY, f"llm={parts['small']}", f"data={parts['data']}"]).build()
    sft.load_state_dict(built[2].state_dict())  # teachers are no part of it
    assert torch.allclose(labels, sft(batch)[0])


@pytest.mark.parametrize("top_k", [0, 5])
def test_what_teachers_said_is_kept(top_k: int, parts: dict[str, str], tmp_path: Path, monkeypatch: Any) -> None:
    """By row: another batch of the same conversations asks nobody, nor does another student or a run that goes on."""
    words = words_of(parts, f"top_k={top_k}", f"cache={tmp_path / 'said'}", f"out={tmp_path / 'run'}", "held_out=0")
    first: Any = resolve("distil", words).build()
    whole: Any = resolve("distil", words_of(parts, f"top_k={top_k}", "held_out=0")).build()
    batches = [first.batch(number) for number in range(3)]  # an epoch
    for batch in batches:
        assert torch.allclose(first(batch)[0], whole(batch)[0])
    assert len(first.teaching.cache) == 12
    other = whole.batch(4)
    assert not any(torch.equal(other["ids"], batch["ids"]) for batch in batches)
    wanted = whole(other)[0]
    monkeypatch.setattr(Teaching, "_asked", lambda *_: pytest.fail("a teacher was asked again"))
    monkeypatch.setattr(Teaching, "_called", lambda *_: pytest.fail("a teacher was loaded again"))
    again: Any = resolve("distil", words).build()
    assert torch.allclose(again(other)[0], wanted, rtol=2e-3)
    run("distil", [*words, "steps=2", "save_every=1"])
    run("distil", [*words, "steps=3", "save_every=1"])


def test_nano_is_taught_as_any_other(tmp_path: Path) -> None:
    """By a run in its own words, larger than the student."""
    run("text_sft", [*TINY, f"out={tmp_path / 'teacher'}", "steps=2", "save_every=2"])
    words = [*TINY, f"teachers={tmp_path / 'teacher'}", "llm.hidden_size=32", "label_weight=0", "lr=0.02"]
    metrics = run("distil", [*words, f"out={tmp_path / 'student'}", "steps=12", "save_every=12"])
    first: Any = resolve("distil", words).build()
    assert metrics["taught"] < 0.7 * first(first.batch(0))[0].item()


@pytest.mark.parametrize("own", [True, False])
def test_an_encoder_is_taught_by_a_ctc_head(own: bool, questions: Path, tmp_path: Path) -> None:
    words = [*TINY, f"data={questions}", "lr=3e-3", "batch_size=2"]
    theirs = [] if own else [f"encoder={tiny_whisper(tmp_path)}", "learn=ctc_head,decoder"]  # an encoder from elsewhere
    run("asr_pretrain", [*words, *theirs, f"out={tmp_path / 'teacher'}", "steps=1", "save_every=1"])
    words += ["part=encoder", f"teachers={tmp_path / 'teacher'}", "encoder.n_audio_layer=1", "label_weight=0",
              f"cache={tmp_path / 'said'}"]  # fmt: skip
    first: Any = resolve("distil", words).build()
    before = float(first(first.batch(0))[1]["taught"])
    after = run("distil", [*words, f"out={tmp_path / 'student'}", "steps=5", "save_every=5"])
    assert after["taught"] < 0.7 * before
    assert len(TargetCache(tmp_path / "said", first.teaching._name())) == 8, "nothing is augmented here"


def test_a_unit_decoder_is_taught(tmp_path: Path) -> None:
    data = replies(tmp_path / "replies")
    llm, small = tiny_llm(tmp_path / "a"), tiny_llm(tmp_path / "b", hidden_size=16)
    words = [*TINY, f"data={data}", "unit_decoder.upsample=25", "lr=5e-3", "steps=6", "save_every=6", "batch_size=5"]
    run("unit_decoder", [*words, f"llm={llm}", f"out={tmp_path / 'teacher'}"])
    words += ["part=unit_decoder", f"llm={small}", f"teachers={tmp_path / 'teacher'}", "unit_decoder.layers=1",
              "label_weight=0", f"cache={tmp_path / 'said'}"]  # fmt: skip
    first: Any = resolve("distil", words).build()
    before = float(first(first.batch(0))[1]["taught"])
    metrics = run("distil", [*words, f"out={tmp_path / 'student'}"])
    assert metrics["taught"] < 0.8 * before
    with pytest.raises(DuologueError, match=r"teacher .* has a unit decoder .* units=200 upsample=25; the student's"):
        resolve("distil", [*words, "unit_decoder.upsample=30", "cache=none"]).build()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["teachers="], r"recipe distil needs teachers=FOLDER"),
        (["teachers=nano"], r"teacher nano has another vocabulary than the student: '.*' is absent there and \d+ here"),
        (["teacher_weights=1,2"], r"teacher_weights is 1.0,2.0; .* above 0 for each of the 1 teachers"),
        (["temperature=0"], r"temperature is 0.* must be above 0"),
        (["label_weight=2"], r"label_weight is 2.*; a fraction lies between 0 and 1"),
        (["combine=votes"], "combine=votes"),
        (["part=vocoder"], r"part is 'vocoder'; it must be llm or encoder or unit_decoder"),
        (["part=encoder", "data={data}"], r"recipe distil takes no llm="),
    ],
)
def test_what_is_refused(words: list[str], message: str, parts: dict[str, str]) -> None:
    with pytest.raises(DuologueError, match=message):
        resolve("distil", words_of(parts, *(word.format(**parts) for word in words))).build()
