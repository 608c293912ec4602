"""UTMOS: how natural speech sounds, as a mean opinion score that a network predicts. Waveform at 16 kHz in, score out.

The "strong learner" of UTMOS22 without its phoneme encoder, as the field's papers use it: a wav2vec 2.0, a domain and a
judge that are always the same, a bidirectional LSTM, one score a frame; their mean is the clip's. It judges the quality
of replies in the evaluation and takes no part in a conversation.

Source: Saeki et al., "UTMOS: UTokyo-SaruLab System for VoiceMOS Challenge 2022" (arXiv 2204.02152), section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import DuologueError

SAMPLE_RATE = 16_000  # Hz
SHORTEST = 400  # samples that wav2vec 2.0's convolutions see for a frame
STRIDES, KERNELS = (5, 2, 2, 2, 2, 2, 2), (10, 3, 3, 3, 3, 2, 2)


@dataclass(frozen=True, kw_only=True)
class UTMOSConfig:
    """Sizes; the defaults are the released network's."""

    conv_channels: int = 512
    hidden: int = 768  # D, of wav2vec 2.0
    ffn: int = 3072
    heads: int = 12
    layers: int = 12
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    domain_emb: int = 128
    judge_emb: int = 128
    lstm: int = 512  # in each direction
    projection: int = 2048


class UTMOS(nn.Module):
    """Samples (B, n) in [-1, 1] at 16 kHz, n at least 400 -> scores (B,), 1 (bad) to 5 (excellent).

    The clips of a batch must be of one length: silence behind a clip would be judged as well.
    """

    def __init__(self, config: UTMOSConfig) -> None:
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        c = self.config = config
        self.wav2vec2 = Wav2Vec2Model(
            Wav2Vec2Config(
                conv_dim=(c.conv_channels,) * len(STRIDES),
                conv_stride=STRIDES,
                conv_kernel=KERNELS,
                conv_bias=False,
                feat_extract_norm="group",
                do_stable_layer_norm=False,
                hidden_size=c.hidden,
                intermediate_size=c.ffn,
                num_attention_heads=c.heads,
                num_hidden_layers=c.layers,
                num_conv_pos_embeddings=c.pos_conv_kernel,
                num_conv_pos_embedding_groups=c.pos_conv_groups,
                mask_time_prob=0.0,  # nothing is masked, so that there is no embedding of a mask
                mask_feature_prob=0.0,
            )
        )
        self.domain_emb = nn.Parameter(torch.empty(1, c.domain_emb))
        self.judge_emb = nn.Parameter(torch.empty(1, c.judge_emb))
        self.blstm = nn.LSTM(c.hidden + c.domain_emb + c.judge_emb, c.lstm, batch_first=True, bidirectional=True)
        self.projection = nn.Sequential(nn.Linear(2 * c.lstm, c.projection), nn.ReLU(), nn.Linear(c.projection, 1))

    def features(self, waveform: Tensor) -> Tensor:
        """(B, n) -> wav2vec 2.0's last layer (B, T, D), T = (n - 400) // 320 + 1: 50 Hz."""
        if waveform.shape[-1] < SHORTEST:
            raise DuologueError(f"the clip has {waveform.shape[-1]} samples; UTMOS judges at least {SHORTEST}")
        hidden: Tensor = self.wav2vec2(waveform).last_hidden_state
        return hidden

    def forward(self, waveform: Tensor) -> Tensor:
        hidden = self.features(waveform)
        who = torch.cat([self.domain_emb, self.judge_emb], dim=1).expand(*hidden.shape[:2], -1)  # (B, T, E)
        frames, _ = self.blstm(torch.cat([hidden, who], dim=2))  # (B, T, 2 H)
        # The network was trained on opinions moved from 1 … 5 to -1 … 1.
        score: Tensor = self.projection(frames)[..., 0].mean(dim=1) * 2 + 3  # (B,)
        return score
