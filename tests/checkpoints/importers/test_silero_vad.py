"""Silero's network here against silero's own, window for window."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch

import duologue
from duologue.checkpoints.importers import silero_vad
from duologue.data_prep.audio import read_audio
from duologue.model.duplex.vad import SAMPLE_RATE, WINDOW
from duologue.model.errors import DuologueError

QUESTION = Path(duologue.__file__).parent / "demo/assets/examples" / "capital.flac"


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    """A question between two seconds of faint noise each."""
    speech = torch.from_numpy(read_audio(QUESTION, SAMPLE_RATE))
    noise = 1e-3 * torch.randn(2, 2 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    return torch.cat([noise[0], speech, noise[1]])


@torch.inference_mode()
def test_the_probabilities_are_silero_s(clip: torch.Tensor) -> None:
    theirs = torch.jit.load(str(files("silero_vad") / "data" / "silero_vad.jit")).eval()
    theirs.reset_states()
    windows = clip[: len(clip) // WINDOW * WINDOW].view(-1, WINDOW)
    wanted = torch.stack([theirs(window, SAMPLE_RATE)[0, 0] for window in windows])
    ours = silero_vad.load_vad()(clip[None])[0]
    assert wanted.min() < 0.1 and wanted.max() > 0.9, "the clip has both"
    assert (ours - wanted).abs().max() < 1e-5


@torch.inference_mode()
def test_a_batch_is_its_rows(clip: torch.Tensor) -> None:
    vad = silero_vad.load_vad()
    both = torch.stack([clip, clip.flip(0)])
    for row, alone in zip(vad(both), both, strict=True):
        torch.testing.assert_close(row, vad(alone[None])[0], rtol=0, atol=1e-5)


def test_weights_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero_vad, "KEYS", {r"_model\.decoder\.decoder\.2\.bias": None} | silero_vad.KEYS)
    with pytest.raises(DuologueError, match="silero-vad do not fit"):
        silero_vad.load_vad()
    monkeypatch.setattr(silero_vad, "files", lambda name: Path("/nowhere"))
    with pytest.raises(DuologueError, match="pip install"):
        silero_vad.load_vad()
