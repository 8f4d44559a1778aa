"""The recipe for one's own texts and encoders: as `Pipeline`, each checkpoint with its own head."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from leadkit.config import Scale, Schedule
from leadkit.experiments.cross_teacher import cross_teacher
from leadkit.experiments.distillation import Distil, Mine, WarmUp
from leadkit.experiments.evaluation import Evaluate, searches
from leadkit.experiments.methods import method
from leadkit.experiments.pipeline import schedule, tower
from leadkit.experiments.ready import Ready, ready_tower, saved
from leadkit.experiments.rescaled import Rescaled
from leadkit.experiments.store import Trained
from leadkit.models import checkpoints, names
from leadkit.models.encoders import hidden_size
from leadkit.models.retrievers import ARCHITECTURES, architecture
from leadkit.models.tower import Tower
from leadkit.retrieval.measures import MEASURES


class Recipe:
    """The stages of `distil`. Nothing runs until a stage is asked.

    teacher: the architecture of the teacher; by default CB, or what a ready teacher is.
    ready: the teacher is a retriever already. A DE then mines the hard negatives itself; for a CB
        or CE a DE of the student's encoder mines.

    ValueError where a head would be dropped, or a ready teacher is another than `teacher` says.
    """

    def __init__(self, scale: Scale, seed: int = 0, teacher: str = "", ready: bool = False):
        self.scale = scale
        self.seed = seed
        data = scale.data
        encoder = scale.teacher_encoder
        student_tower = own_tower(scale, "DE", scale.student_encoder)
        came = Ready(data, ready_tower(encoder, scale.dropout, scale.bf16)) if ready else None
        kind = came.tower.architecture if came else teacher or "CB"
        if kind not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise ValueError(f"teacher {kind!r} is unknown: use one of {known}")
        if came and teacher not in ("", kind):
            raise ValueError(
                f"architecture is {teacher!r}: the ready teacher {encoder!r} is a {kind}"
            )
        self.miner: Trained
        if came and architecture(kind).searches:
            self.miner = came
        else:
            mines = student_tower if came else own_tower(scale, "DE", encoder)
            self.miner = WarmUp(data, mines, schedule(scale, "warm_up"))
        self.negatives = Mine(data, self.miner)
        self.teacher: Trained = came or self._warmed_up(kind)
        self.came = Ready(data, student_tower)
        steps = schedule(scale, "student")
        self.student = WarmUp(data, student_tower, steps, self.negatives, seed)

    def _warmed_up(self, kind: str) -> WarmUp:
        scale, data = self.scale, self.scale.data
        chosen = own_tower(scale, kind, scale.teacher_encoder)
        steps = schedule(scale, "teacher", kind)
        if not architecture(kind).pairs_only:
            return WarmUp(data, chosen, steps, self.negatives, self.seed)
        colbert = self._warmed_up("CB")
        return cross_teacher(scale, data, chosen, steps, self.negatives, self.seed, colbert)

    def distil(self, name: str, times: float = 1.0) -> Distil:
        """The distillation by the method of this name.

        times: multiplies the student's scores. ValueError unless positive and finite.
        """
        scale, chosen = self.scale, method(name)
        student = self.student if times == 1 else Rescaled(scale.data, self.student, times)
        teacher = self.teacher if chosen.needs_teacher else None
        steps = schedule(scale, "distil", *([teacher.tower.architecture] if teacher else []))
        how = chosen.of(scale.lead)
        return Distil(scale.data, how, student, teacher, self.negatives, steps, self.seed)

    def evaluate(self, retriever: Trained | None, split: str) -> Evaluate:
        """The evaluation of a retriever, None for BM25; a CB or CE re-ranks the miner's list."""
        scale = self.scale
        if searches(retriever):
            return Evaluate(scale.data, retriever, split, scale.depth)
        first = self.evaluate(self.miner, split)
        return Evaluate(scale.data, retriever, split, scale.depth, first, scale.rerank)


def own_tower(scale: Scale, name: str, encoder: str) -> Tower:
    """The tower of an encoder that will be trained: a DE with the head of its checkpoint, if any.

    Says what a CB or CE leaves out. ValueError for a saved head that would be dropped.
    """
    if saved(encoder) and (Path(names.root(encoder)) / "head" / "head.safetensors").is_file():
        raise ValueError(
            f"encoder {encoder!r}: its head (head/head.safetensors) would be dropped; use it with "
            "its head, as a ready teacher"
        )
    plain = tower(scale, name, encoder)
    came_as = checkpoints.architecture_of(encoder)
    if not came_as or came_as != name:
        if came_as:
            print(
                f"encoder {encoder!r} is a {came_as}: a {name} starts from its layers, without its "
                "pooling and normalisation",
                file=sys.stderr,
            )
        return plain
    if name != "DE":
        return plain
    came = checkpoints.tower(encoder, scale.dropout, scale.bf16)
    return came if came.head else tower(replace(scale, pooling=came.pooling), name, encoder)


def suited_rate(encoder: str, usual: float) -> float:
    """A learning rate for an encoder: at most 2e-5 to 5e-5 for a pre-trained one that is wide."""
    hidden = 0 if names.untrained(encoder) else hidden_size(encoder)
    if hidden <= 128:  # our miniatures
        return usual
    return min(usual, 5e-5 if hidden < 768 else 2e-5)


def suited(
    scale: Scale,
    rate: float | None,
    steps: int | None,
    warm_up_steps: int | None,
    rise: float | None,
) -> Scale:
    """A scale with schedules that suit its encoders, or with what is given.

    rate: of every training. steps: of the distillation. warm_up_steps: of each training before.
    """
    teacher, student = scale.teacher_encoder, scale.student_encoder

    def changed(old: Schedule, count: int | None, *encoders: str) -> Schedule:
        suits = min(suited_rate(encoder, old.learning_rate) for encoder in encoders)
        chosen = replace(
            old,
            learning_rate=suits if rate is None else rate,
            warmup=old.warmup if rise is None else rise,
        )
        return chosen if count is None else replace(chosen, steps=count)

    return replace(
        scale,
        warm_up=changed(scale.warm_up, warm_up_steps, teacher, student),
        teacher=changed(scale.teacher, warm_up_steps, teacher),
        student=changed(scale.student, warm_up_steps, student),
        distil=changed(scale.distil, steps, teacher, student),
        own={
            name: changed(old, steps if name.startswith("distil") else warm_up_steps, teacher)
            for name, old in scale.own.items()
        },
    )


def verdict(rows: Mapping[str, Evaluate]) -> str:
    """One sentence where the distilled student is no better than before; else nothing."""
    measure = MEASURES[0]
    values = {row: float(rows[row].values(measure).mean()) for row in rows if row != "BM25"}
    distilled = values.pop("distilled")
    best = max(values, key=values.__getitem__)
    if distilled > values[best]:
        return ""
    return (
        f"The distillation did not help: {measure} is {distilled:.4f} after it and "
        f"{values[best]:.4f} {best}."
    )
