"""Words that matter: recall, precision, false ones, and the word error rates of them and of all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_words import RATE, tones, words_assistant

from duologue.data_prep.audio import read_audio, write_wav
from duologue.data_prep.datasets.speech_sets import Utterance
from duologue.inference.evaluation.inputs.joined import join
from duologue.inference.evaluation.metrics.keywords import Keywords
from duologue.inference.evaluation.metrics.words import word_errors
from duologue.inference.evaluation.suites import asr
from duologue.model.errors import DuologueError

LISTED = ("Asiana Airlines", "Olly", "Play")


@pytest.mark.parametrize(
    ("said", "heard", "recall", "precision", "false", "biased", "others"),
    [
        ("does asiana airlines fly", "does asiana airlines fly", (1, 1), (1, 1), 0, (0, 2), (0, 2)),
        ("does asiana airlines fly", "does asia airlines fly", (0, 1), None, 0, (1, 2), (0, 2)),
        ("call olly", "call olly olly", (1, 1), (1, 2), 1, (1, 1), (0, 1)),
        ("hi there", "olly there", None, (0, 1), 1, None, (1, 2)),
        ("olly olly", "olly you", (1, 2), (1, 1), 0, (1, 2), None),
        ("go", "go on", None, None, 0, None, (1, 1)),
    ],
)  # fmt: skip
def test_of_one_pair(
    said: str, heard: str, recall: tuple | None, precision: tuple | None, false: int, biased: tuple, others: tuple
) -> None:
    found = Keywords(LISTED, "english").measures(heard, said)
    wanted = {"keyword_recall": recall, "keyword_precision": precision, "b_wer": biased, "u_wer": others}
    assert {key: tuple(found[key]) for key in wanted if key in found} == {k: v for k, v in wanted.items() if v}
    assert found.get("keyword_false", [0, 1])[0] == false
    errors = found.get("b_wer", [0])[0] + found.get("u_wer", [0])[0]
    assert errors == word_errors([heard], [said], "english").errors, "no error is lost"


def test_nothing_said() -> None:
    found = Keywords(LISTED, "english").measures("olly now", "")
    assert found["b_wer"] == [1, 0] and found["u_wer"] == [1, 0] and found["keyword_false"] == [1, 1]


def test_the_suite_with_hot_words_and_a_model_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["the capital is France", "France of the capital"]
    for at, text in enumerate(texts):  # the second is said as it is heard, the first is vague
        write_wav(tmp_path / f"{at}.wav", tones(text.replace("is", "of"), 0.3, 0.4), RATE)
    lines = (f'{{"audio": "{at}.wav", "set": "mine", "text": "{text}"}}\n' for at, text in enumerate(texts))
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    model = words_assistant(vague=True)

    def figures(out: str, **settings: object) -> dict[str, float]:
        report = asr.run(model=model, data=tmp_path, out=tmp_path / out, quiet=True, **settings)
        return {entry["id"]: entry["value"] for entry in report["metrics"]}

    plain = figures("plain", keywords="is")
    assert plain["wer"] == plain["beam_wer"] == 1 / 8 and plain["keyword_recall"] == 0
    hot = figures("hot", hotwords="is")
    assert hot["keyword_recall"] == 0 and hot["beam_keyword_recall"] == 1 and hot["beam_keyword_false"] == 0.5
    assert hot["beam_keyword_precision"] == 0.5 and hot["beam_wer"] == 1 / 8
    assert (hot["beam_b_wer"], hot["beam_u_wer"]) == (0, 1 / 7)
    (tmp_path / "lm.arpa").write_text(
        "\\data\\\nngram 1=8\nngram 2=1\n\n\\1-grams:\n-1\t<unk>\n-9\t<s>\t0\n-1\t</s>\n-1\tthe\n-1\tcapital\t0\n"
        "-1\tof\n-1\tis\n-1\tfrance\n\n\\2-grams:\n-0.1\tcapital is\n\n\\end\\\n"
    )
    told = figures("told", lm=tmp_path / "lm.arpa", lm_weight=2.0)
    assert told["wer"] == 1 / 8 and told["beam_wer"] == 0, "behind capital alone"
    assert figures("long", joined=2)["wer"] == figures("close", joined=2, pause=0.1)["wer"] == 1 / 8
    with pytest.raises(DuologueError, match="pause is -1"):
        figures("x", joined=2, pause=-1)
    with pytest.raises(DuologueError, match="split is 'dev'; it is of questions"):
        figures("x", split="dev")
    with pytest.raises(DuologueError, match="are for a model"):
        asr.run(outputs=tmp_path, data=tmp_path, out=tmp_path / "x", hotwords="is")


def test_long_recordings() -> None:
    parts = [Utterance(id=str(at), text=f"word{at}", set="ab"[at // 3], sound=lambda: (RATE, tones("of")))
             for at in range(4)]  # fmt: skip
    found = join(parts, 2)
    assert [(each.id, each.text, each.set) for each in found] == [
        ("0+1", "word0 word1", "a"), ("2+0", "word2", "a"), ("3+0", "word3", "b"),
    ]  # fmt: skip
    assert len(read_audio(found[0].sound())) == 2 * (len(tones("of")) + round(0.6 * RATE))
    assert join(parts, 1) == parts
