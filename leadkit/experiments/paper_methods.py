"""The methods of LEAD's main table: the control, RD, FD and LEAD itself."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from leadkit import losses, processes, selection
from leadkit.config import Lead
from leadkit.experiments.identity import added
from leadkit.experiments.method import Method, Step, check_selection, logged
from leadkit.models.tokenizers import identity, load_tokenizer
from leadkit.models.tower import Tower

REDRAWN = 10  # steps between two draws of layers in the released code


def check_variant(variant: str, *towers: Tower | None) -> None:
    """ValueError unless the loss and all towers follow the paper, or all the released code."""
    for tower in towers:
        if tower and tower.released != (variant == "released"):
            raise ValueError(
                f"variant is {variant!r}, but the {tower.architecture} has released = "
                f"{tower.released}: the released code is reproduced whole or not at all; set it "
                "in the scale, lead=Lead(variant='released'), and build its Pipeline"
            )


@dataclass(frozen=True)
class Alone(Method):
    """No teacher: the student goes on alone, as long. The control."""

    name = "student"
    needs_teacher = False

    def check(self, student: Tower, teacher: Tower | None) -> None:
        """The released code has it too."""

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        _, final = step.models["student"](batch)
        return logged(losses.student_loss(final, batch.positive))


@dataclass(frozen=True)
class RD(Method):
    """Response-based distillation."""

    name = "RD"
    tau_d: float = 1.0
    variant: str = added("paper")

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.tau_d, lead.variant)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        check_variant(self.variant, student, teacher)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        with torch.no_grad():
            _, teacher_final = step.models["teacher"](step.batches["teacher"])
        _, student_final = step.models["student"](batch)
        loss = losses.response_loss(
            student_final, teacher_final, batch.positive, tau_d=self.tau_d, variant=self.variant
        )
        return logged(loss)


@dataclass(frozen=True)
class FD(Method):
    """Feature-based distillation, after VIRT: attention maps of k layers drawn at random."""

    name = "FD"
    k: int = 5
    variant: str = added("paper")

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.k, lead.variant)

    @property
    def redraw_every(self) -> int:
        return REDRAWN if self.variant == "released" else 1

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        check_variant(self.variant, student, teacher)
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
        if self.variant == "released":  # a ColBERT's [MASK]s have no counterpart in the student
            mask = batch.queries.mask[:, None, :, None]  # (B, 1, X, 1)
            teacher_maps = teacher_maps[..., : mask.shape[2], :] * mask  # (K, B, N, X, Y)
        student_maps = as_wide(student_maps, teacher_maps.shape[-1])
        return logged(losses.feature_loss(student_maps, teacher_maps, final, batch.positive))


def as_wide(maps: Tensor, Y: int) -> Tensor:
    """Maps over the first Y tokens of the passages: a CE's passages may be cut, and so shorter."""
    if maps.shape[-1] == Y:
        return maps
    cut = maps[..., :Y]
    return cut / cut.sum(-1, keepdim=True).clamp_min(1e-9)  # (K, B, n, X, Y)


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
        return REDRAWN if self.variant == "released" else 1

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        check_variant(self.variant, student, teacher)
        if self.variant == "released" and (self.layer_weight != 1 or self.even_spread):
            raise ValueError(
                f"layer_weight is {self.layer_weight} and even_spread {self.even_spread}: variant "
                "'released' has neither, so they must be 1 and False"
            )
        check_selection(self, student, teacher)

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        with torch.set_grad_enabled(self.joint):
            student_layers, teacher_scores, teacher_final = self._teacher_scores(step)
        student_scores, student_final = step.models["student"](batch, student_layers)
        if self.even_spread:
            student_scores = evened(student_scores, student_final)
            teacher_scores = evened(teacher_scores, teacher_final)
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
            # With own passages the released code exchanges nothing between processes.
            average=Tensor.detach if batch.own else processes.mean,
        )
        parts = logged(self.weigh(loss, student_final, batch.positive))
        if self.reweight:
            assert loss.weights is not None
            parts["layers_heard"] = selection.layers_heard(loss.weights).mean()
        return parts

    def weigh(self, loss: losses.Loss, final: Tensor, positive: Tensor) -> losses.Loss:
        """The loss with `layer_weight` times its layer part in the total.

        final: the student's scores (B, C), positive: (B,).
        """
        return replace(loss, total=loss.total + (self.layer_weight - 1) * loss.layer)

    def _teacher_scores(self, step: Step) -> tuple[tuple[int, ...], Tensor, Tensor]:
        """The student's layers, the teacher's layer scores (K, B, C) and final scores (B, C)."""
        teacher, batch = step.models["teacher"], step.batches["teacher"]
        if self.strategy != "weighted":
            student_layers, teacher_layers = step.layers(self)
            return student_layers, *teacher(batch, teacher_layers)
        # Eq. (7) over all N layers says how likely each is chosen.
        M, N = step.models["student"].layers, teacher.layers
        every, final = teacher(batch, tuple(range(1, N + 1)))  # (N, B, C), (B, C)
        heard = evened(every, final) if self.even_spread else every  # (N, B, C)
        weights = losses.layer_weights(heard, batch.positive, self.tau_l).mean(1)  # (N,)
        weights = processes.mean(weights).cpu()
        student_layers, teacher_layers = selection.select(
            self.strategy, self.k, M, N, step.generator(), weights
        )
        rows = [layer - 1 for layer in teacher_layers]
        return student_layers, every[rows], final  # K of the N layers


def evened(scores: Tensor, final: Tensor) -> Tensor:
    """Layer scores (K, B, C), each layer times the factor that gives it the final scores' spread.

    The spread is the standard deviation of a query's scores, a mean over the queries of all
    processes. The factors carry no gradient. final: (B, C).
    """
    spread = processes.mean(_spread(scores))  # (K,)
    factors = processes.mean(_spread(final)) / spread.clamp(min=1e-6)  # (K,)
    return scores * factors[:, None, None]  # (K, B, C)


def _spread(scores: Tensor) -> Tensor:
    return scores.detach().std(-1).mean(-1)  # (..., B, C) -> (...)
