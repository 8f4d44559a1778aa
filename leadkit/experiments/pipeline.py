"""The paper's pipeline as a chain of stages (section 4.2.2)."""

from dataclasses import replace
from typing import Any

from leadkit.config import Scale, Schedule
from leadkit.data.sampling import Batches
from leadkit.experiments.cross_teacher import cross_teacher
from leadkit.experiments.distillation import Distil, Mine, TeacherAfter, WarmUp
from leadkit.experiments.evaluation import Evaluate, searches
from leadkit.experiments.methods import method
from leadkit.experiments.rows import ROWS
from leadkit.experiments.store import Trained
from leadkit.models.encoders import hidden_size
from leadkit.models.retrievers import ARCHITECTURES, architecture
from leadkit.models.tower import Tower

DROPOUT = 0.1  # of the released scripts


def tower(scale: Scale, name: str, encoder: str, linear: bool = False) -> Tower:
    """A tower of this architecture at this scale, its scores scaled as suits the architecture.

    linear: append a linear layer as wide as the encoder, 768 -> 768 in the paper (section 4.6.1).
    """
    width = hidden_size(encoder) if linear else 0
    if scale.lead.variant == "released":
        return Tower(name, encoder, 1.0, width, DROPOUT, scale.bf16, released=True)
    kind = architecture(name)
    pooling = scale.pooling if scale.pooling in kind.poolings else "cls"
    factor = 1.0
    if scale.scaled:
        factor = kind.score_scale(hidden_size(encoder), pooling)
    return Tower(name, encoder, factor, width, scale.dropout, scale.bf16, pooling=pooling)


def schedule(scale: Scale, training: str, *who: str) -> Schedule:
    """The schedule of a training at this scale; arguments as in `Scale.schedule`."""
    chosen = scale.schedule(training, *who)
    return replace(chosen, weight_decay=0.0) if scale.lead.variant == "released" else chosen


class Pipeline:
    """The stages of one scale, seed and teacher. Nothing runs until a stage is asked.

    Where the scale's `lead.variant` is "released" all of them follow the released code: towers,
    texts, schedules and losses.

    The 12DE that mines the hard negatives is shared by all seeds: it is part of the data.
    Everything after it is seeded.

    first_stage: the DE teacher: a DE of the teacher's size, trained like the teacher on the mined
        negatives. A teacher that cannot search re-ranks its list.

    linear: append a linear layer to teacher and student before they are warmed up (section 4.6.1).
    larger: the pair of the next size: the scale's larger encoder as teacher, its teacher's as
        student (section 4.3.1).
    start: the student's encoder, by default the scale's.
    like: the pipeline whose miner and first stage are used, so that a scale with other towers
        trains on the same negatives and re-ranks the same list. By default they are its own.
    """

    def __init__(
        self,
        scale: Scale,
        seed: int = 0,
        teacher: str = "CB",
        linear: bool = False,
        larger: bool = False,
        like: "Pipeline | None" = None,
        start: str = "",
    ):
        if teacher not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"teacher {teacher!r} is unknown: use one of {known}")
        self.scale = scale
        self.seed = seed
        data = scale.data
        teacher_encoder, student_encoder = scale.teacher_encoder, scale.student_encoder
        if larger:
            teacher_encoder, student_encoder = scale.larger_encoder, scale.teacher_encoder
        student_encoder = start or student_encoder
        self.size = ("larger",) if larger else ()
        miner_tower = tower(scale, "DE", scale.teacher_encoder)
        miner = WarmUp(data, miner_tower, schedule(scale, "warm_up"))
        self.miner: WarmUp = like.miner if like else miner
        self.negatives = Mine(data, self.miner)

        def teacher_of(name: str) -> WarmUp:
            chosen = tower(scale, name, teacher_encoder, linear)
            steps = schedule(scale, "teacher", *self.size, name)
            if architecture(name).pairs_only:
                colbert = teacher_of("CB")
                return cross_teacher(scale, data, chosen, steps, self.negatives, seed, colbert)
            return WarmUp(data, chosen, steps, self.negatives, seed)

        self.teacher = teacher_of(teacher)
        self.first_stage: WarmUp = like.first_stage if like else teacher_of("DE")
        student_tower = tower(scale, "DE", student_encoder, linear)
        self.student = WarmUp(data, student_tower, schedule(scale, "student"), self.negatives, seed)

    def distil(self, name: str, **lead: Any) -> Distil:
        """One distillation from the two warm-ups, by the method of this name.

        lead: fields of `Lead` that are changed, e.g. k=1 or joint=False.
        """
        chosen = method(name)
        teacher = self.teacher if chosen.needs_teacher else None
        who = (*self.size, teacher.tower.architecture) if teacher else ()
        return Distil(
            self.scale.data,
            chosen.of(replace(self.scale.lead, **lead)),
            self.student,
            teacher,
            self.negatives,
            schedule(self.scale, "distil", *who),
            self.seed,
        )

    def teacher_as_long(self) -> Distil:
        """The teacher that goes on alone, with LEAD's batches and schedule.

        It is the control of the teacher after LEAD.
        """
        alone = method("student").of(self.scale.lead)
        return replace(self.distil("LEAD"), method=alone, student=self.teacher, teacher=None)

    def batches(self, tower: Tower) -> Batches:
        """Step -> the distillation's batch in this tower's tokens: to look at."""
        return self.distil("LEAD").batches(tower)

    def evaluate(self, retriever: Trained | None, split: str) -> Evaluate:
        """The evaluation of a retriever, None for BM25.

        It searches the collection where it can. Others, as a CB or CE, re-rank the top of the
        DE teacher's search (section 4.2.1).
        """
        scale = self.scale
        if searches(retriever):
            return Evaluate(scale.data, retriever, split, scale.depth)
        first = self.evaluate(self.first_stage, split)
        return Evaluate(scale.data, retriever, split, scale.depth, first, scale.rerank)

    def rows(self, split: str = "test") -> dict[str, Evaluate]:
        """The main table (Table 3): its rows in order, each an evaluation that runs when asked.

        Without joint training there is no teacher after LEAD.
        """
        lead = self.distil("LEAD")
        after = (TeacherAfter(self.scale.data, lead),) if lead.method.trains_teacher else ()
        evaluations = (
            self.evaluate(None, split),
            self.evaluate(self.miner, split),
            self.evaluate(self.teacher, split),
            self.evaluate(self.student, split),
            self.evaluate(self.distil("student"), split),
            self.evaluate(self.distil("FD"), split),
            self.evaluate(self.distil("RD"), split),
            self.evaluate(lead, split),
            *(self.evaluate(each, split) for each in after),
        )
        return dict(zip(ROWS if after else ROWS[:-1], evaluations, strict=True))
