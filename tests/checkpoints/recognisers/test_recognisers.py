"""Recognisers: pocketsphinx understands a synthesiser and does not remember; Whisper, of two libraries."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from duologue.checkpoints.recognisers.pocketsphinx import PocketSphinx
from duologue.checkpoints.recognisers.recogniser import find_recogniser
from duologue.data_prep.audio import read_audio
from duologue.model.errors import DuologueError

pytest.importorskip("pocketsphinx")


@pytest.fixture(scope="module")
def recogniser() -> PocketSphinx:
    return PocketSphinx()


def test_silence_and_scraps(recogniser: PocketSphinx) -> None:
    assert recogniser(np.zeros(16_000, np.float32)) == ""
    assert recogniser(np.zeros(0, np.float32)) == recogniser(np.zeros(10, np.float32)) == ""


def test_understands_and_does_not_remember(recogniser: PocketSphinx, root: Path) -> None:
    text = "what is forty seven plus twelve"  # in flite's voice rms
    waveform = read_audio(root / "demo/assets/examples/plus.flac")
    assert recogniser(waveform) == text
    before = recogniser(0.02 * waveform[::-1])
    recogniser(np.random.default_rng(0).standard_normal(32_000).astype(np.float32))  # loud noise
    assert recogniser(0.02 * waveform[::-1]) == before


def save_whisper(folder: Path, marks: list[str], **config: object) -> None:
    """A folder as transformers saves one, random and tiny; its vocabulary: bytes and ``marks``."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*letters, "<|endoftext|>", "<|startoftranscript|>", *marks])}
    torch.manual_seed(2)
    sizes = WhisperConfig(
        vocab_size=len(vocab), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, init_std=1.0, bos_token_id=256,
        eos_token_id=256, pad_token_id=256, decoder_start_token_id=257,
        begin_suppress_tokens=[256],  # CTranslate2 writes beyond its scores where one is beyond the vocabulary
        **config,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(sizes)
    model.generation_config.alignment_heads = [[0, 0]]
    model.generation_config.lang_to_id = {"<|en|>": 258} if marks else None
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), WhisperTokenizer(vocab=vocab, merges=[])).save_pretrained(folder)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whisper") / "tiny"
    save_whisper(folder, [], max_target_positions=24)
    return folder


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another as CTranslate2 stores it."""
    pytest.importorskip("faster_whisper")
    from ctranslate2.converters import TransformersConverter

    tasks = ("en", "translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
    folder = tmp_path_factory.mktemp("converted")
    save_whisper(folder / "whisper", [f"<|{name}|>" for name in (*tasks, *(f"{i / 50:.2f}" for i in range(1501)))])
    TransformersConverter(str(folder / "whisper"), copy_files=["tokenizer.json"]).convert(str(folder / "ct2"))
    return folder / "ct2"


def test_whisper_is_transformers_own(whisper: Path) -> None:
    import torch
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

    recogniser = find_recogniser(str(whisper))
    noise = (0.3 * np.random.default_rng(0).standard_normal(31 * 16_000)).astype(np.float32)
    noise[16_000 : 30 * 16_000] *= 0.1
    model = WhisperForConditionalGeneration.from_pretrained(whisper)
    features = WhisperFeatureExtractor()(noise[: 30 * 16_000], sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(features.input_features)
    first = WhisperTokenizer.from_pretrained(whisper).batch_decode(ids, skip_special_tokens=True)[0].strip()
    assert first and recogniser(noise[: 30 * 16_000]) == first
    heard = recogniser(noise)  # a second window, of a second
    assert heard.startswith(first + " ") and len(heard) > len(first) + 1
    assert recogniser(noise) == heard and str(whisper) in recogniser.name
    words = recogniser.words(noise)
    assert " ".join(word.text for word in words).split() == heard.split()
    assert 0 <= words[0].start_s < words[0].end_s <= 30 and 30 <= words[-1].start_s < words[-1].end_s <= 31
    assert all(a.end_s <= b.start_s + 1e-6 for a, b in itertools.pairwise(words))
    assert recogniser(np.zeros(16_000, np.float32)) == "" and recogniser.words(np.zeros(0, np.float32)) == []


def test_whisper_of_ctranslate2(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a model.bin; the environment may name it. Words have their own times."""
    monkeypatch.setenv("DUOLOGUE_RECOGNISER", str(converted))
    recogniser = find_recogniser()
    noise = (0.3 * np.random.default_rng(0).standard_normal(3 * 16_000)).astype(np.float32)
    heard = recogniser(noise)
    assert heard and recogniser(noise) == heard and str(converted) in recogniser.name
    words = recogniser.words(noise)
    assert words and heard.startswith(words[0].text[:2])  # of letters at random, some words are lost
    assert all(0 <= word.start_s <= word.end_s <= 3.1 for word in words)
    assert len({word.start_s for word in words}) > 1
    assert recogniser(np.zeros(16_000, np.float32)) == "" and recogniser.words(np.zeros(0, np.float32)) == []
    with pytest.raises(DuologueError, match="does not know the language 'de'"):
        find_recogniser(str(converted), "de")


def test_languages_and_broken_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUOLOGUE_RECOGNISER", raising=False)
    assert find_recogniser().name == "pocketsphinx"
    with pytest.raises(DuologueError, match="pocketsphinx knows English alone, not 'zh': give recogniser="):
        find_recogniser(language="zh")
    pytest.importorskip("faster_whisper")
    (tmp_path / "model.bin").write_bytes(b"no model")
    with pytest.raises(DuologueError, match="no Whisper model at"):
        find_recogniser(str(tmp_path))


def test_no_whisper_there(tmp_path: Path) -> None:
    with pytest.raises(DuologueError, match=r"no Whisper model at .*nothing"):
        find_recogniser(str(tmp_path / "nothing"))
