"""A decoder of given fusions, in the place of one of a model's words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from duologue.model.decoding.beam import BeamConfig, Found
from duologue.model.decoding.ctc_beam import search, search_part
from duologue.model.decoding.decoder import Decoder
from duologue.model.decoding.fusions import Fusion


class Fused(Decoder):
    def __init__(self, *fusions: Fusion) -> None:
        self.fusions, self.graph = list(fusions), None

    def __call__(self, log_probs: np.ndarray) -> list[Found]:
        return search(log_probs, fusions=self.fusions)

    def part(
        self, log_probs: np.ndarray, before: Sequence[np.ndarray] | None, last: bool
    ) -> tuple[tuple[int, ...], list[np.ndarray]]:
        return search_part(log_probs, BeamConfig(), self.fusions, before, last)
