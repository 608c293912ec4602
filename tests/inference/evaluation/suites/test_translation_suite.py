"""BLEU and chrF are sacrebleu's own figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_chat import brief
from tiny_words import RATE, tones, words_assistant

from duologue.data_prep.audio import write_wav
from duologue.inference.evaluation.suites import compare, translation
from duologue.model.errors import DuologueError

sacrebleu = pytest.importorskip("sacrebleu")
REFERENCES = ("The cat sits on the mat, and it sleeps.", "Where is the next station?", "It is raining today.")
TEXTS = ("The cat sat on the mat and it sleeps.", "Where is the station?", "It rains today.")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    lines = [{"audio": f"{at}.wav", "set": "de", "translation": text} for at, text in enumerate(REFERENCES)]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"audio": "x.wav"}]))
    for at in range(len(REFERENCES)):
        write_wav(tmp_path / f"{at}.wav", tones("the capital"), RATE)
    return tmp_path


def theirs(folder: Path, texts: tuple[str, ...]) -> Path:
    folder.mkdir()
    lines = [{"id": f"{at}.wav", "text": text} for at, text in enumerate(texts)]
    (folder / "hypotheses.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_figures_are_sacrebleus(recordings: Path) -> None:
    outputs = theirs(recordings / "theirs", TEXTS)
    report = translation.run(data=recordings, outputs=outputs, out=recordings / "a", quiet=True)
    found = {metric["id"]: metric for metric in report["metrics"]}
    assert found["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(TEXTS, [REFERENCES]).score)
    assert found["chrf"]["value"] == pytest.approx(sacrebleu.corpus_chrf(TEXTS, [REFERENCES]).score)
    assert found["bleu"]["low"] <= found["bleu"]["value"] <= found["bleu"]["high"] and found["bleu"]["count"] == 3
    each = [sacrebleu.sentence_chrf(text, [wanted]).score for text, wanted in zip(TEXTS, REFERENCES, strict=True)]
    assert found["sentence_chrf"]["value"] == pytest.approx(sum(each) / 3)
    assert "tok:13a" in report["figures"]["signatures"]["bleu"]
    better = theirs(recordings / "better", REFERENCES)
    report = translation.run(data=recordings, outputs=better, out=recordings / "b", quiet=True)
    assert [metric["value"] for metric in report["metrics"]] == pytest.approx([100, 100, 100])
    compared = compare.run([recordings / "a", recordings / "b"], recordings / "c", quiet=True)
    assert [d["metric"] for d in compared["pairs"][0]["differences"]] == ["sentence_chrf"]


def test_words_of_unspaced_languages(recordings: Path) -> None:
    texts, references = ("我们明天去学校。", "你好吗？"), ("我们后天去学校。", "你好！")
    (bleu, chrf), signatures = translation.corpus_findings(texts, references, "zh")
    assert bleu.value == pytest.approx(sacrebleu.corpus_bleu(texts, [references], tokenize="zh").score)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(texts, [references]).score) and "zh" in signatures["bleu"]


def test_a_model_is_asked_and_what_is_refused(recordings: Path) -> None:
    assistant = brief(words_assistant())
    report = translation.run(data=recordings, model=assistant, out=recordings / "m", limit=2, quiet=True)
    assert [row["translation"] for row in report["rows"]] == [assistant.ask((RATE, tones("the capital")),
                                                                    translation.INSTRUCTION).text] * 2  # fmt: skip
    for given, message in (({}, "give a model, or"), ({"outputs": recordings, "reference": "de"}, "has a field 'de'")):
        with pytest.raises(DuologueError, match=message):
            translation.run(data=recordings, out=recordings / "x", **given)
