"""Weights between a trained retriever and its encoder as it came.

After Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, section 3.
"""

from dataclasses import dataclass

import torch

from leadkit.experiments.ready import Ready
from leadkit.experiments.store import Trained
from leadkit.models.retriever import Retriever
from leadkit.models.tower import Tower
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class TakenBack(Trained):
    """A retriever whose weights are moved back towards those with which its encoder came.

    share: of the way; 0 leaves the weights, 1 is the encoder before any training.
    """

    kind = "taken back"
    retriever: Trained
    share: float = 0.25  # ours

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}: it must be from 0 to 1")

    @property
    def tower(self) -> Tower:  # type: ignore[override]
        return self.retriever.tower

    def run(self, operation: Operation) -> None:
        """Nothing is left to compute."""

    @torch.no_grad()
    def model(self) -> Retriever:
        model = self.retriever.model()
        before = Ready(self.data, self.tower).model()
        for weight, old in zip(model.parameters(), before.parameters(), strict=True):
            # (1 - \alpha) \theta + \alpha \theta_0
            weight.lerp_(old, self.share)
        return model

    def log(self) -> list[dict]:
        return self.retriever.log()
