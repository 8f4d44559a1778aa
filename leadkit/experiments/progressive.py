"""PROD's method: a frozen teacher, and a frozen copy of the student that it must not forget."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leadkit import companion_losses
from leadkit.config import Schedule
from leadkit.experiments.method import Method, Step
from leadkit.experiments.store import Trained
from leadkit.losses import check_temperature
from leadkit.models.retriever import Retriever


@dataclass(frozen=True)
class Progressive(Method):
    """Distil a frozen teacher and a frozen copy of the student as it enters the stage.

    epochs: passes over the queries instead of the schedule's steps.
    """

    name = "PROD"
    batch_stream = 0  # its stages' seeds are strides apart instead
    hard: float = 0.1  # weight of the gold label; published: 0.1
    soft: float = 0.9  # of the teacher; published: 0.9
    keep: float = 1.0  # of the copy; published: 1, in the first stage none
    tau_d: float = 4.0  # temperature of teacher, student and copy; published: 4
    epochs: int | None = None

    def __post_init__(self) -> None:
        check_temperature("tau_d", self.tau_d)
        for name in ("hard", "soft", "keep"):
            weight = getattr(self, name)
            if not weight >= 0:
                raise ValueError(f"{name} is {weight}: a weight must not be negative")

    @property
    def passes(self) -> int:
        return 1 + bool(self.keep)

    def schedule(self, schedule: Schedule, batches_per_epoch: int) -> Schedule:
        if self.epochs is None:
            return schedule
        steps = math.ceil(self.epochs * batches_per_epoch / schedule.accumulate)
        return replace(schedule, steps=steps)

    def frozen_models(self, student: Trained) -> dict[str, Retriever]:
        return {"before": student.model()} if self.keep else {}

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        before_final = None
        with torch.no_grad():
            _, teacher_final = step.models["teacher"](step.batches["teacher"])
            if self.keep:
                _, before_final = step.models["before"](step.batches["before"])
        _, student_final = step.models["student"](batch)
        loss = companion_losses.progressive_loss(
            student_final,
            teacher_final,
            before_final,
            batch.positive,
            hard=self.hard,
            soft=self.soft,
            keep=self.keep,
            tau_d=self.tau_d,
        )
        return {name: getattr(loss, name) for name in ("total", "response", "keep", "student")}
