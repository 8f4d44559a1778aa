"""MTA4DPR's method: a teacher, and the assistant of a pool that is nearest to it at each step.

Shapes: A assistants in the pool, F with the fused ones, 2^A - 1; K layers, B queries, C candidates.
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from leadkit import companion_losses, losses, processes
from leadkit.experiments.distillation import Distil
from leadkit.experiments.method import Method, Step, check_selection
from leadkit.experiments.paper_methods import LEAD, RD
from leadkit.experiments.pool import Harder, Pool
from leadkit.experiments.store import Trained
from leadkit.models.retriever import Retriever
from leadkit.models.retrievers import architecture
from leadkit.models.tower import Tower, depth

DISTANCES = ("kl", "footrule", "rbo")
PARTS = ("total", "layer", "response", "assistant", "student")  # of the loss, to be logged


def fusions(assistants: int) -> list[tuple[int, ...]]:
    """Every subset of the pool by its members' positions: the A plain assistants come first."""
    sizes = range(1, assistants + 1)
    return [subset for size in sizes for subset in combinations(range(assistants), size)]


@dataclass(frozen=True)
class Assisted(Method):
    """Distil a frozen teacher and, step by step, the assistant nearest to it.

    taught: RD for the three-term loss. LEAD for layer features as well, of the teacher and of the
        selected assistant, a fused one's averaged like its scores: the authors' future work.
    pool: None for no assistants.
    """

    name = "MTA4DPR"
    taught: RD | LEAD = RD()
    distance: str = "kl"  # to the teacher: kl, footrule or rbo; paper: all three compared
    rbo_p: float = 0.9  # a ranking's reader goes on to the next rank with it; paper: not noted
    hard: float = 1.0  # weight of the gold label's term; paper: not noted
    soft: float = 1.0  # of the teacher's; paper: not noted
    assist: float = 1.0  # of the selected assistant's; paper: not noted
    pool: Pool | None = None

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            known = ", ".join(DISTANCES)
            raise ValueError(f"distance {self.distance!r} is unknown: use one of {known}")
        if not 0 < self.rbo_p < 1:
            raise ValueError(f"rbo_p is {self.rbo_p}: it must be between 0 and 1")
        for name in ("hard", "soft", "assist"):
            weight = getattr(self, name)
            if not weight >= 0:
                raise ValueError(f"{name} is {weight}: a weight must not be negative")
        if not isinstance(self.taught, RD | LEAD):
            raise ValueError(
                f"method {self.taught.name!r} has no assistants: use RD, or LEAD for layer "
                "features as well"
            )
        if self.taught.variant != "paper":
            raise ValueError(
                f"variant is {self.taught.variant!r}: with assistants it must be 'paper'"
            )
        if isinstance(self.taught, LEAD):
            self._check_layers(self.taught)

    @staticmethod
    def _check_layers(lead: LEAD) -> None:
        if lead.joint:
            raise ValueError("joint is True: with assistants it must be False")
        if lead.layer_weight != 1:
            raise ValueError(
                f"layer_weight is {lead.layer_weight}: with assistants it must be 1; the weights "
                "are soft and assist"
            )
        if lead.even_spread:
            raise ValueError("even_spread is True: with assistants it must be False")
        if lead.strategy == "weighted":
            raise ValueError(
                "strategy is 'weighted', which follows one teacher: with assistants use random, "
                "last or skip"
            )

    @property
    def passes(self) -> int:
        return 1 + (len(self.pool.members()) if self.pool else 0)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        assert teacher is not None
        self.taught.check(student, teacher)
        for assistant in self.pool.towers() if self.pool else ():
            if assistant == teacher:
                raise ValueError(
                    f"the pool has the teacher itself, {assistant.architecture} "
                    f"{assistant.encoder}: nothing would be nearer"
                )
            pairs_only = architecture(assistant.architecture).pairs_only
            if pairs_only and not architecture(teacher.architecture).pairs_only:
                raise ValueError(
                    f"the pool has a {assistant.architecture}, which scores a query's own passages "
                    f"only: the teacher must be a {assistant.architecture} too, not a "
                    f"{teacher.architecture}"
                )
            if isinstance(self.taught, LEAD):
                check_selection(self.taught, student, assistant)

    def frozen_models(self, student: Trained) -> dict[str, Retriever]:
        return {f"assistant {i}": each.model() for i, each in enumerate(self._members())}

    def _members(self) -> list[Trained]:
        members = self.pool.members() if self.pool else []
        return [each.retriever for each in members if each.retriever]

    def assistants(self) -> list[str]:
        """The F assistants by name, e.g. "12DE + 6CB".

        In the log, row["chosen"] is an index of this list and row["d0"] the first one's distance,
        means where a step has several batches.
        """
        members = [assistant_name(each) for each in self._members()]
        return [" + ".join(members[i] for i in subset) for subset in fusions(len(members))]

    def parts(self, step: Step) -> dict[str, Tensor]:
        positive = step.batches["student"].positive
        assistants = [name for name in step.models if name.startswith("assistant")]
        with torch.no_grad():  # teacher and assistants stay as they are
            teacher = self._answer(step, "teacher")
            answers = [self._answer(step, name) for name in assistants]
        student_layers = self._layers(step, "teacher")[0]
        student = step.models["student"](step.batches["student"], student_layers)
        from_teacher = self._loss(student, teacher, positive)
        from_assistant = None
        chosen: dict[str, Tensor] = {}
        if answers:
            nearest, far, scores = self._nearest(teacher[1], answers)
            from_assistant = self._loss(student, scores, positive)
            chosen = {"chosen": torch.tensor(nearest, device=far.device)}
            chosen |= {f"d{i}": distance for i, distance in enumerate(far)}
        loss = companion_losses.assisted_loss(
            from_teacher, from_assistant, hard=self.hard, soft=self.soft, assist=self.assist
        )
        return {name: getattr(loss, name) for name in PARTS} | chosen

    def _layers(self, step: Step, teacher: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The aligned layers of the student and one teacher; none for RD."""
        return step.layers(self.taught, teacher) if isinstance(self.taught, LEAD) else ((), ())

    def _answer(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        """Layer scores (K, B, C) and final scores (B, C) of the teacher or an assistant."""
        return step.models[name](step.batches[name], self._layers(step, name)[1])

    def _loss(
        self, student: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], positive: Tensor
    ) -> losses.Loss:
        """What the scores of a teacher or an assistant ask of the student's."""
        taught = self.taught
        if isinstance(taught, RD):
            return losses.response_loss(student[1], other[1], positive, tau_d=taught.tau_d)
        return losses.lead_loss(
            student[0],
            other[0],
            student[1],
            other[1],
            positive,
            tau_d=taught.tau_d,
            tau_l=taught.tau_l,
            joint=False,
            reweight=taught.reweight,
        )

    def _nearest(
        self, teacher_final: Tensor, answers: list[tuple[Tensor, Tensor]]
    ) -> tuple[int, Tensor, tuple[Tensor, Tensor]]:
        """The nearest assistant: its index, the distances (F,) of all, and its scores."""
        tau_d = self.taught.tau_d
        subsets = fusions(len(answers))
        finals = torch.stack([final for _, final in answers])  # (A, B, C)
        fused = [companion_losses.fuse(finals[list(subset)], tau_d) for subset in subsets]
        every = torch.stack(fused)  # (F, B, C)
        far = processes.mean(distances(teacher_final, every, self, tau_d))  # (F,)
        nearest = min(range(len(subsets)), key=far.tolist().__getitem__)
        members = torch.stack([answers[i][0] for i in subsets[nearest]])  # (members, K, B, C)
        return nearest, far, (companion_losses.fuse(members, tau_d), every[nearest])


def distances(teacher: Tensor, assistants: Tensor, method: Assisted, tau_d: float = 1.0) -> Tensor:
    """How far each assistant is from the teacher: scores (B, C) and (F, B, C) -> (F,)."""
    match method.distance:
        case "kl":
            each = losses.kl(teacher, assistants, tau_d)  # (F, B)
        case "footrule":
            each = companion_losses.footrule(teacher, assistants)  # (F, B)
        case _:
            each = 1 - companion_losses.rbo(teacher, assistants, method.rbo_p)  # (F, B)
    return each.mean(-1)  # (F,)


def assistant_name(stage: Trained) -> str:
    """An assistant by its depth and architecture, or by the iteration it was the student of."""
    if isinstance(stage, Distil):
        return f"student {iteration(stage)}"
    return f"{depth(stage.tower)}{stage.tower.architecture}"


def iteration(stage: Distil) -> int:
    """Which iteration a distillation is, from 1."""
    if not isinstance(stage.negatives, Harder):
        return 1
    student = stage.negatives.student.retriever
    assert isinstance(student, Distil)
    return iteration(student) + 1
