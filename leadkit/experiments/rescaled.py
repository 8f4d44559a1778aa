"""A retriever whose scores are multiplied by a constant: how sure should a student be?"""

import math
from dataclasses import dataclass, replace

from leadkit.experiments.store import Trained
from leadkit.models.retriever import Retriever
from leadkit.models.tower import Tower
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class Rescaled(Trained):
    """A retriever with the same weights and `times` its scores, in every layer.

    It ranks as before. If it is trained further, smaller distances make it equally sure.
    """

    kind = "rescaled"
    retriever: Trained
    times: float

    def __post_init__(self) -> None:
        if not (self.times > 0 and math.isfinite(self.times)):
            raise ValueError(f"times is {self.times}: it must be positive and finite")

    @property
    def tower(self) -> Tower:  # type: ignore[override]
        before = self.retriever.tower
        return replace(before, scale=self.times * before.scale)

    def run(self, operation: Operation) -> None:
        """Nothing is left to compute."""

    def model(self) -> Retriever:
        model = self.retriever.model()
        model.tower = replace(model.tower, scale=self.tower.scale)
        return model

    def log(self) -> list[dict]:
        return self.retriever.log()
