"""Distillation methods: each says what it needs, what it checks and what one step computes.

To add a method, write a subclass of `Method` and name it in `METHODS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from leadkit import losses, processes, selection
from leadkit.config import Lead, Schedule
from leadkit.experiments.store import Trained
from leadkit.losses import Loss
from leadkit.models.batch import Batch
from leadkit.models.retriever import Retriever
from leadkit.models.tokenizers import identity, load_tokenizer
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
        """ValueError where the method cannot work with these towers, before any work starts."""

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


def logged(loss: Loss, names: tuple[str, ...] = PARTS) -> dict[str, Tensor]:
    """The named parts of a loss, and its layer weights as w1, w2, ..., means over the queries."""
    parts = {name: getattr(loss, name) for name in names}
    if loss.weights is not None:
        parts |= {f"w{i}": weight.mean() for i, weight in enumerate(loss.weights, start=1)}
    return parts


@dataclass(frozen=True)
class Alone(Method):
    """No teacher: the student goes on alone, as long. The control."""

    name = "student"
    needs_teacher = False

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        _, final = step.models["student"](batch)
        return logged(losses.student_loss(final, batch.positive))


@dataclass(frozen=True)
class RD(Method):
    """Response-based distillation."""

    name = "RD"
    tau_d: float = 1.0

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.tau_d)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        with torch.no_grad():
            _, teacher_final = step.models["teacher"](step.batches["teacher"])
        _, student_final = step.models["student"](batch)
        loss = losses.response_loss(student_final, teacher_final, batch.positive, tau_d=self.tau_d)
        return logged(loss)


@dataclass(frozen=True)
class FD(Method):
    """Feature-based distillation, after VIRT: attention maps of k layers drawn at random."""

    name = "FD"
    k: int = 5

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.k)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        check_selection(Lead(self.k), student, teacher)
        encoders = student.encoder, teacher.encoder
        if len({str(identity(load_tokenizer(encoder))) for encoder in encoders}) > 1:
            raise ValueError(
                f"method 'FD' compares attention token by token: student {student.encoder!r} and "
                f"teacher {teacher.encoder!r} must have the same tokeniser"
            )

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        student_layers, teacher_layers = step.layers(Lead(self.k))
        with torch.no_grad():
            teacher_maps, _ = step.models["teacher"].interactions(
                step.batches["teacher"], teacher_layers
            )
        student_maps, final = step.models["student"].interactions(batch, student_layers)
        return logged(losses.feature_loss(student_maps, teacher_maps, final, batch.positive))


@dataclass(frozen=True)
class LEAD(Lead, Method):
    """LEAD (sections 3.3 and 3.4)."""

    name = "LEAD"

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(**vars(lead))

    @property
    def trains_teacher(self) -> bool:
        return self.joint

    @property
    def redraw_every(self) -> int:
        return 10 if self.variant == "released" else 1

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        check_selection(self, student, teacher)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        with torch.set_grad_enabled(self.joint):
            student_layers, teacher_scores, teacher_final = self._teacher_scores(step)
        student_scores, student_final = step.models["student"](batch, student_layers)
        loss = losses.lead_loss(
            student_scores,
            teacher_scores,
            student_final,
            teacher_final,
            batch.positive,
            tau_d=self.tau_d,
            tau_l=self.tau_l,
            joint=self.joint,
            reweight=self.reweight,
            variant=self.variant,
        )
        return logged(loss)

    def _teacher_scores(self, step: Step) -> tuple[tuple[int, ...], Tensor, Tensor]:
        """The student's layers, the teacher's layer scores (K, B, C) and final scores (B, C)."""
        teacher, batch = step.models["teacher"], step.batches["teacher"]
        if self.strategy != "weighted":
            student_layers, teacher_layers = step.layers(self)
            return student_layers, *teacher(batch, teacher_layers)
        # Eq. (7) over all N layers says how likely each is chosen.
        M, N = step.models["student"].layers, teacher.layers
        every, final = teacher(batch, tuple(range(1, N + 1)))  # (N, B, C), (B, C)
        weights = losses.layer_weights(every, batch.positive, self.tau_l).mean(1)  # (N,)
        weights = processes.mean(weights).cpu()
        student_layers, teacher_layers = selection.select(
            self.strategy, self.k, M, N, step.generator(), weights
        )
        rows = [layer - 1 for layer in teacher_layers]
        return student_layers, every[rows], final  # K of the N layers


def check_selection(lead: Lead, student: Tower, teacher: Tower) -> None:
    """ValueError where k layers cannot be selected from both towers."""
    selection.select(lead.strategy, lead.k, depth(student), depth(teacher), Generator())


METHODS: dict[str, type[Method]] = {method.name: method for method in (Alone, RD, FD, LEAD)}


def method(name: str) -> type[Method]:
    """The class of a method. ValueError for an unknown one."""
    if name not in METHODS:
        raise ValueError(f"method {name!r} is unknown: use one of {', '.join(METHODS)}")
    return METHODS[name]
