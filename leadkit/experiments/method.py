"""What a distillation method is: what it needs, what it checks and what one step computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Generator, Tensor, nn

from leadkit import selection
from leadkit.config import Lead, Schedule
from leadkit.experiments.store import Trained
from leadkit.losses import Loss
from leadkit.models.batch import Batch
from leadkit.models.retriever import Retriever
from leadkit.models.tower import Tower, depth

PARTS = ("total", "layer", "response", "teacher", "student")  # of a `Loss`, to be logged


@dataclass(frozen=True)
class Step:
    """What a method is given: the models of a step and its batch in the tokens of each."""

    models: Mapping[str, Any]  # "student", "teacher" and what the method adds
    batches: Mapping[str, Batch]
    seed: int

    def generator(self) -> Generator:
        """The step's random numbers, from their start at every call."""
        return Generator().manual_seed(self.seed)

    def layers(self, lead: Lead, teacher: str = "teacher") -> selection.Layers:
        """The aligned layers of the student and of one of its teachers.

        The student's are drawn first, so they are the same for all teachers of a step.
        """
        M, N = self.models["student"].layers, self.models[teacher].layers
        return selection.select(lead.strategy, lead.k, M, N, self.generator())


@dataclass(frozen=True)
class Method:
    """What a distillation does beyond fitting, saving and logging. Its fields are its settings."""

    name: ClassVar[str]
    needs_teacher: ClassVar[bool] = True
    least_passages: ClassVar[int] = 1  # of each query in a batch
    batch_stream: ClassVar[int] = 1  # warm-ups have 0: no batch comes again in the same order

    @classmethod
    def of(cls, lead: Lead) -> Self:
        """The method with what it reads of a scale's settings."""
        return cls()

    @property
    def trains_teacher(self) -> bool:
        return False

    @property
    def redraw_every(self) -> int:
        """Steps after which layers are drawn anew."""
        return 1

    @property
    def passes(self) -> int:
        """How many models besides the student answer each batch."""
        return int(self.needs_teacher)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        """ValueError where the method cannot work with these towers, before any work starts.

        By default it is none of the released code, which is reproduced whole or not at all.
        """
        for tower in (student, teacher):
            if tower and tower.released:
                raise ValueError(
                    f"method {self.name!r} is no part of the released code, which the "
                    f"{tower.architecture} follows: use a scale with lead=Lead(variant='paper')"
                )

    def schedule(self, schedule: Schedule, batches_per_epoch: int) -> Schedule:
        return schedule

    def frozen_models(self, student: Trained) -> dict[str, Retriever]:
        """Further models that answer each batch; student: the stage that the student comes from."""
        return {}

    def heads(self, student: Retriever, teacher: Retriever | None) -> dict[str, nn.Module]:
        """Modules that are trained with the student and then thrown away."""
        return {}

    def parts(self, step: Step) -> dict[str, Tensor]:
        """The loss of a step: "total", which is minimised, and parts to be logged."""
        raise NotImplementedError


def logged(loss: Loss) -> dict[str, Tensor]:
    """The parts of a loss, and its layer weights as w1, w2, ..., means over the queries."""
    parts = {name: getattr(loss, name) for name in PARTS}
    if loss.weights is not None:
        parts |= {f"w{i}": weight.mean() for i, weight in enumerate(loss.weights, start=1)}
    return parts


def check_selection(lead: Lead, student: Tower, teacher: Tower) -> None:
    """ValueError where k layers cannot be selected from both towers."""
    selection.select(lead.strategy, lead.k, depth(student), depth(teacher), Generator())
