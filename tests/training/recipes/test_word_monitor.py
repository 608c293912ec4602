"""What the word monitor learns from is what it will read: the state behind the model's own words."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tone_clips import tone_clips

from duologue.data_prep.nano.vocabulary import token_ids
from duologue.model.dialogue_state import DialogueState
from duologue.model.duplex.monitor import TURN_STATES, Monitor, TurnState
from duologue.model.errors import DuologueError
from duologue.model.speech_lm import Sampling
from duologue.training.data.marked_turns import marked_tokens
from duologue.training.loop.trainer import train
from duologue.training.recipes import word_monitor
from duologue.training.recipes.duplex import UNKNOWN

QUERY, NOISE = (TURN_STATES.index(turn_state) for turn_state in (TurnState.QUERY, TurnState.NOISE))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> str:
    """And one word alone, of which nothing is due."""
    return tone_clips(tmp_path_factory.mktemp("clips") / "set", alone=1)


def tiny(clips: str, **changes: object) -> word_monitor.WordMonitorRecipe:
    return replace(word_monitor.recipe("tiny"), data=(clips,), **changes)  # type: ignore[arg-type]


def let_write(task: word_monitor.WordMonitor, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model writes down these words, whatever it hears."""
    model, ids = task._model[0], marked_tokens("nano").encode(words)
    layout, real = model.config.layout, model.next_logits

    def next_logits(state: DialogueState) -> torch.Tensor:
        at = sum(map(layout.is_text, state.written))
        token = ids[at] if at < len(ids) else layout.reply
        return torch.nn.functional.one_hot(torch.tensor(token), real(state).numel()).float()

    monkeypatch.setattr(model, "next_logits", next_logits)


def test_it_learns_from_the_state_that_a_conversation_judges(clips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny(clips).build()
    model, states = task._model[0], []
    let_write(task, "one two", monkeypatch)
    begin = model.init_state
    monkeypatch.setattr(model, "init_state", lambda **_: states.append(begin()) or states[-1])
    model.word_monitor, seen = Monitor(task.words.word_monitor), []
    model.word_monitor.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    for scene in range(4):
        state, _ = task.listen(task.corpus, int(task.of_corpus[scene]), scene)
        assert not seen and marked_tokens("nano").decode(states[-1].written) == "one two"
        model.reply_step(states[-1], Sampling(), aloud=False)
        assert torch.equal(seen.pop(), state), "what it will be asked about"


def test_a_scene_is_its_number_and_is_heard_once(clips: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, again = tiny(clips).build(), tiny(clips).build()
    for each in (task, again):
        let_write(each, "one", monkeypatch)
    heard: list[int] = []
    listen = task.listen
    monkeypatch.setattr(task, "listen", lambda *scene: heard.append(scene[2]) or listen(*scene))
    states, due = task.read_behind([3, 1, 3])
    assert heard == [3, 1] and torch.equal(states[0], states[2]) and set(due.tolist()) <= {QUERY, NOISE, UNKNOWN}
    other, same = again.read_behind([1, 3])
    assert torch.equal(other[0], states[1]) and torch.equal(other[1], states[0]) and same.tolist() == due.tolist()[1:]
    epoch = [scene for step in range(4) for scene in tiny(clips, batch_size=2).build().batch(step)["scenes"].tolist()]
    assert len(set(epoch)) == 8, "eight of the nine, each once"


def test_words_without_end_are_left_out(clips: str) -> None:
    task = tiny(clips).build()
    task._model[0].reply_step = functools.partial(task._model[0].reply_step, forced=token_ids()["<eos>"])
    state, due = task.listen(task.corpus, 0, 0)
    assert due == UNKNOWN and not state.any()


def test_it_learns_to_tell_questions_from_asides_and_nothing_else_changes(clips: str, tmp_path: Path) -> None:
    recipe = tiny(clips, out=str(tmp_path / "run"), dev_data=(clips,))
    task = recipe.build()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    metrics = train(recipe, task, progress=False)
    assert metrics["loss"] < 0.2 and metrics["right"] > 0.9
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, before[name]) == (not name.startswith("word_monitor.")), name
    scores = task.evaluate()
    assert set(scores) == {"query_set", "noise_set"} and min(scores.values()) > 0.7
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert torch.equal(saved["word_monitor.linear1.weight"], task.word_monitor.linear1.weight)


@pytest.mark.parametrize(("changes", "message"), [({"scenes": 0}, "scenes is 0"), ({"blur": 2.0}, r"blur is 2\.0")])
def test_bad_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(DuologueError, match=message):
        replace(word_monitor.recipe("tiny"), **changes)  # type: ignore[arg-type]
