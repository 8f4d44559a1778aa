"""PROD, progressive distillation (Lin et al., WWW 2023), and Table 9 of LEAD, which plugs LEAD's loss into it.

Teacher progressive distillation: a 12DE, a 12CE and a larger CE teach one student one after another, with negatives mined anew in
between. Data progressive distillation: it goes on with the queries that the last teacher answers and the student nearly answers.
"Published": the authors' settings for MS MARCO passage (microsoft/SimXNS, PROD/README.md).
"""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leadkit import losses
from leadkit.retrieval import dense
from leadkit.data.sampling import Group, groups
from leadkit.config import Scale
from leadkit.experiments.distillation import Distil, Mine, WarmUp, batches
from leadkit.models.encoders import load_tokenizer
from leadkit.files import write_json
from leadkit.experiments.pipeline import TEACHERS, Pipeline
from leadkit.models.retrievers import Tower
from leadkit.experiments.store import (
    DEVICE,
    Evaluate,
    Stage,
    Trained,
    collection,
    passages_of,
    queries_of,
)
from leadkit.training.loop import Schedule, fit

ROWS = ("PROD direct", "PROD stage 1", "PROD stage 2", "PROD stage 3", "PROD")
STRIDE = 1000  # between the seeds of a chain's stages: none sees the batches of another again in the same order


@dataclass(frozen=True)
class Terms:
    """The terms of the loss: their weights and the temperature of teacher, student and copy."""

    hard: float = 0.1  # of the gold label; published: 0.1
    soft: float = 0.9  # of the teacher; published: 0.9
    keep: float = (
        1.0  # of the student as it entered the stage; published: 1, in the first stage none
    )
    tau_d: float = 4.0  # published: 4

    def __post_init__(self) -> None:
        losses.check_temperature("tau_d", self.tau_d)
        for name in ("hard", "soft", "keep"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: a weight must not be negative")


@dataclass(frozen=True)
class Progression:
    """PROD's own settings of a chain of stages. The teacher stages have the schedule of any distillation at their scale."""

    # published: 12DE 10,000 steps at 2e-5, 12CE 6,000 at 1e-5, 24CE 6,000 at 5e-6; teacher stages 40,000 each, data stage 2,000
    terms: Terms = Terms()
    passages: int = 4  # per query, wherever a CE is trained or teaches; published: 16 (one positive, 15 negatives)
    pace: float = 0.2  # learning rate of the data stage over that of a teacher stage; published: 1e-5 over 5e-5
    epochs: int = 3  # passes of the data stage over its queries; published: 3 to 4
    first: int = (
        2  # the student's rank of its first relevant passage in the data stage, from; published: 2
    )
    last: int = 15  # and to; published: 15
    rerank: int = (
        15  # of the student's passages, so many are ranked by the teacher; published: 1,000
    )

    def __post_init__(self) -> None:
        if not 1 < self.first <= self.last <= self.rerank:
            raise ValueError(
                f"first, last, rerank are {self.first}, {self.last}, {self.rerank}: they must be ranks in rising "
                "order, from 2"
            )
        if self.epochs < 1 or self.passages < 2:
            raise ValueError(
                f"epochs is {self.epochs}, passages {self.passages}: at least 1 and 2 are needed"
            )


@dataclass(frozen=True)
class Lagging(Stage):
    """Where the student lags behind: the training queries that the teacher answers first and the student from `first` to `last`.

    Their negatives are not drawn but the most confusing ones: those with the student's highest scores, n - 1 per query.
    """

    kind = "lagging"
    student: Evaluate  # of the training queries
    teacher: Trained  # re-ranks the student's top `rerank` of the near queries, those with a student's rank from `first` to `last`
    first: int
    last: int
    rerank: int

    def run(self) -> None:
        own, found = self.student.ranking(), groups(collection(self.data.collection), "train")
        near = [group for group in found if self.first <= rank(own, group) <= self.last]
        model, at = self.teacher.model(), [group.query for group in near]
        queries = queries_of(model.tower, self.data, "train").take(at)
        top = dense.Run(own.rows[at], own.scores[at])
        taught = dense.rerank(model, queries, passages_of(model.tower, self.data), top, self.rerank)
        confusing = dense.hard_negatives(own, near, self.data.passages - 1)
        write_json(
            self.folder / "near.json",
            [
                {
                    **asdict(group),
                    "student": rank(own, group),
                    "teacher": rank(taught, replace(group, query=i)),
                }
                for i, group in enumerate(confusing)
            ],
        )

    def near(self) -> list[dict]:
        """The near queries: query, relevant, negatives; the student's and the teacher's rank of its first relevant passage."""
        return json.loads((self.done() / "near.json").read_text())

    def groups(self) -> list[Group]:
        """Those that the teacher answers first. ValueError where they do not fill a batch."""
        first = [row for row in self.near() if row["teacher"] == 1]
        behind = [
            Group(row["query"], tuple(row["relevant"]), tuple(row["negatives"])) for row in first
        ]
        if len(behind) < self.data.batch:
            found = groups(collection(self.data.collection), "train")
            raise ValueError(
                f"{len(behind)} of {len(found)} training queries are answered first by the teacher and {self.first} "
                f"to {self.last} by the student, fewer than a batch of {self.data.batch}: stop before the data stage, "
                "or raise `last`"
            )
        return behind


def rank(run: dense.Run, group: Group) -> int:
    """The rank of the query's first relevant passage, from 1; 0 where the run has none."""
    hits = np.isin(run.rows[group.query], group.relevant)
    return int(hits.argmax()) + 1 if hits.any() else 0


@dataclass(frozen=True)
class Progress(Trained):
    """One stage: distil a frozen teacher, and a frozen copy of the student as it enters the stage, into the student."""

    kind = "progress"
    student: Trained
    teacher: Trained
    negatives: Mine | Lagging
    schedule: Schedule
    terms: Terms
    epochs: int | None = None  # passes over the queries instead of the schedule's steps
    seed: int = 0

    @property
    def tower(self) -> Tower:
        """The student's."""
        return self.student.tower

    def teachers(self) -> int:
        return 1 + bool(self.terms.keep)

    def run(self) -> None:
        at, taught = batches(self, self.tower), batches(self, self.teacher.tower)
        student, teacher = self.student.model(), self.teacher.model().eval()
        before = self.student.model().eval() if self.terms.keep else None

        def loss_at(step: int) -> dict[str, Tensor]:
            batch = at(step).to(DEVICE)
            with torch.no_grad():
                _, teacher_final = teacher(taught(step).to(DEVICE))
                before_final = before(batch)[1] if before else None
            _, student_final = student(batch)
            loss = losses.progressive_loss(
                student_final, teacher_final, before_final, batch.positive, **asdict(self.terms)
            )
            return {part: getattr(loss, part) for part in ("total", "response", "keep", "student")}

        schedule = (
            replace(self.schedule, steps=self.epochs * at.sampler.steps)
            if self.epochs
            else self.schedule
        )
        label = f"PROD, {teacher.layers}{teacher.architecture} -> {student.layers}{student.architecture}"
        log = fit(
            student,
            loss_at,
            schedule,
            self.seed,
            self.folder,
            label,
            describe=lambda s: str(at.sampler(s)[0].tolist()),
        )
        student.save(self.folder / "retriever", load_tokenizer(self.tower.encoder))
        write_json(self.folder / "log.json", log)


class PROD:
    """The stages of one scale and seed, on the main pipeline's warm-ups and negatives. Nothing runs until asked for its result.

    large: the last teacher, a CE, by default with the scale's larger encoder; published: 24 layers (ERNIE-2.0-large). Student and
    12DE are warmed up on mined negatives at once (published: on random ones first). Each CE is trained on the negatives of its
    stage; the last one also teaches the data stage.
    """

    def __init__(
        self,
        scale: Scale,
        large: Tower | None = None,
        seed: int = 0,
        progression: Progression = Progression(),
    ):
        smaller = Pipeline(scale, seed, "CE").teacher.tower
        large = large or replace(smaller, encoder=scale.larger_encoder)
        if large.architecture != "CE":
            raise ValueError(f"large is a {large.architecture}: the last teacher must be a CE")
        self.scale, self.seed, self.progression, self.pipeline = (
            scale,
            seed,
            progression,
            Pipeline(scale, seed, "DE"),
        )
        data, first, terms = (
            replace(scale.data, passages=progression.passages),
            self.pipeline,
            progression.terms,
        )
        alone = replace(terms, keep=0.0)
        self.stages = [
            Progress(
                scale.data,
                first.student,
                first.teacher,
                first.negatives,
                scale.distil,
                alone,
                seed=seed + STRIDE,
            )
        ]
        miner = first.teacher  # after the first stage the 12DE mines, then the student itself
        for i, tower in enumerate((smaller, large), start=2):
            negatives = Mine(scale.data, miner)
            teacher = WarmUp(data, tower, scale.teacher, negatives, seed)
            miner = Progress(
                data,
                self.stages[-1],
                teacher,
                negatives,
                scale.distil,
                terms,
                seed=seed + STRIDE * i,
            )
            self.stages.append(miner)
        own = Evaluate(scale.data, miner, "train", max(scale.data.negatives, progression.rerank))
        lagging = Lagging(
            data, own, teacher, progression.first, progression.last, progression.rerank
        )
        slower = replace(scale.distil, learning_rate=progression.pace * scale.distil.learning_rate)
        self.stages.append(
            Progress(
                data, miner, teacher, lagging, slower, terms, progression.epochs, seed + STRIDE * 4
            )
        )
        # What the progression is compared with: the largest teacher alone, as long.
        longer = replace(scale.distil, steps=3 * scale.distil.steps)
        self.direct = Progress(
            data, first.student, teacher, negatives, longer, alone, seed=seed + STRIDE
        )

    def experiments(self, split: str = "test") -> dict[str, Evaluate]:
        """The students by name: after each teacher, after the data stage ("PROD"), and without a progression ("PROD direct")."""
        return {
            name: self.pipeline.evaluate(stage, split)
            for name, stage in zip(ROWS, (self.direct, *self.stages), strict=True)
        }


STAR = tuple(
    f"PROD*{plus} 12{teacher}" for plus in ("", " + LEAD") for teacher in TEACHERS
)  # with RD, with LEAD's loss


def prod_star(scale: Scale, seed: int = 0, lead: bool = False) -> dict[str, Distil]:
    """Table 9's chain: 12DE, 12CB and 12CE teach one student one after another, with RD, or with LEAD's loss, by experiment.

    Teachers, negatives and the first stage are those of Table 3 (as its numbers show); mining anew: not said, so left out.
    """
    chain, student = {}, None
    for i, (name, teacher) in enumerate(zip(STAR[3:] if lead else STAR[:3], TEACHERS, strict=True)):
        stage = Pipeline(scale, seed, teacher).distil("LEAD" if lead else "RD")
        student = chain[name] = replace(
            stage, student=student or stage.student, seed=seed + STRIDE * i
        )
    return chain


def table_9(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """The rows of Table 9 that are not in Table 3, each an evaluation that runs when asked."""
    chains = prod_star(scale, seed) | prod_star(scale, seed, lead=True)
    return {name: Pipeline(scale, seed).evaluate(stage, split) for name, stage in chains.items()}


TABLES = {
    "9": ("student", *STAR),
    "prod": ("student", *ROWS),
}  # the student where every chain starts: recipes.py


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """Every row of PROD and of Table 9 by name that recipes.py does not have, each an evaluation that runs when asked."""
    return PROD(scale, seed=seed).experiments(split) | table_9(scale, seed, split)
