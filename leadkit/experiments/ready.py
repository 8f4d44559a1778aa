"""A retriever as it came: a checkpoint with its head, or a folder of `Retriever.save`."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from leadkit.experiments.store import Trained
from leadkit.hardware import DEVICE
from leadkit.models import checkpoints, names
from leadkit.models.encoders import check
from leadkit.models.retriever import Retriever
from leadkit.models.retrievers import architecture, build, load
from leadkit.models.tower import Tower, check_lengths, saved_tower
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class Ready(Trained):
    """It needs no training. Raises as `encoders.check` and `check_lengths`."""

    kind = "ready"
    tower: Tower

    def __post_init__(self) -> None:
        data, pairs = self.data, architecture(self.tower.architecture).pairs_only
        head = "saved" if saved(self.tower.encoder) else self.tower.head
        check(self.tower.encoder, head)
        check_lengths(self.tower, data.query_tokens, data.passage_tokens, pairs, data.pair_tokens)

    def run(self, operation: Operation) -> None:
        """Nothing is left to compute."""

    def model(self) -> Retriever:
        encoder = self.tower.encoder
        with torch.random.fork_rng():
            torch.manual_seed(0)  # an untrained encoder is the same each time
            model = load(names.root(encoder)) if saved(encoder) else build(self.tower)
        return model.eval().to(DEVICE)

    def log(self) -> list[dict]:
        return []


def as_it_came(retriever: Trained) -> Ready:
    """A retriever's encoder with all of its layers, before any training of ours."""
    _, whole = names.reshaped(retriever.tower.encoder)
    return Ready(retriever.data, replace(retriever.tower, encoder=whole, linear=0))


def saved(encoder: str) -> bool:
    """Whether a folder is one of `Retriever.save`, with all of its layers."""
    cut, _ = names.reshaped(encoder)
    return not cut and _settings(encoder).is_file()


def ready_tower(encoder: str, dropout: float, bf16: bool) -> Tower:
    """The tower of a retriever as it came.

    ValueError for an encoder alone, or for a head that is not known. Raises as `checkpoints.read`
    and `saved_tower`.
    """
    if not saved(encoder):
        return checkpoints.tower(encoder, dropout, bf16)
    return saved_tower(_settings(encoder), encoder)


def _settings(encoder: str) -> Path:
    return Path(names.root(encoder)) / "retriever.json"
