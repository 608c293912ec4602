"""Codes that carry words: what a frozen speech encoder hears of a recording is predicted from the quantised embeddings.

Embeddings (B, D, T) and samples (B, n) in, a scalar out: one less the correlation, over the frames of a crop, of what a
linear map makes of the embeddings with each channel of the encoder's frames, whose rate is made the embeddings'. A code
that is the same for two sounds cannot predict what differs between them, so that sounds that an encoder of words tells
apart get codes of their own.

Source: Zhang et al. 2023, "SpeechTokenizer" (arXiv 2308.16692), section 3.3, with its cosine over time (its D-axis)
of centred channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...model.errors import DuologueError
from .perceptual import listener


@dataclass(frozen=True, kw_only=True)
class SemanticConfig:
    encoder: str = ""  # an imported Whisper, a run or a model whose encoder's frames are predicted; empty: none
    crops: int = 0  # of a batch that it hears, the first ones; 0: all
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.crops < 0:
            raise DuologueError(f"semantic.crops is {self.crops}; it must be at least 0")


class SemanticLoss(nn.Module):
    """See the module's docstring. The encoder learns nothing; the linear map does.

    Raises:
        DuologueError: no encoder there, or one of another sample rate.
    """

    def __init__(self, config: SemanticConfig, dim: int, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.mel, self.encoder = listener("semantic", config.encoder, sample_rate)
        self.head = nn.Linear(dim, self.encoder.config.width)

    def forward(self, embedding: Tensor, samples: Tensor) -> Tensor:
        crops = self.config.crops or len(samples)
        embedding, samples = embedding[:crops], samples[:crops]
        with torch.no_grad():
            heard = self.encoder(self.mel(samples)).float()  # (B, T', W)
            heard = F.interpolate(heard.transpose(1, 2), embedding.shape[2], mode="linear")  # (B, W, T)
        said = self.head(embedding.transpose(1, 2)).float().transpose(1, 2)
        said, heard = (each - each.mean(2, keepdim=True) for each in (said, heard))
        return 1 - F.cosine_similarity(said, heard, dim=2).mean()
