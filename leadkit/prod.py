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

from leadkit import losses, search
from leadkit.batches import Group, groups
from leadkit.config import Scale
from leadkit.distil import Distil, Mine, WarmUp, batches
from leadkit.files import write_json
from leadkit.recipes import TEACHERS, Pipeline
from leadkit.retrievers import Tower, load_tokenizer
from leadkit.stages import DEVICE, Evaluate, Stage, Trained, collection
from leadkit.train import Schedule, fit

STRIDE = 1000  # between the seeds of a chain's stages: none sees the batches of another again in the same order


@dataclass(frozen=True)
class Terms:
    """The terms of the loss: their weights and the temperature of teacher, student and copy."""

    hard: float = 0.1  # of the gold label; published: 0.1
    soft: float = 0.9  # of the teacher; published: 0.9
    keep: float = 1.0  # of the student as it entered the stage; published: 1, in the first stage none
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
    first: int = 2  # the student's rank of its first relevant passage in the data stage, from; published: 2
    last: int = 15  # and to; published: 15
    rerank: int = 15  # of the student's passages, so many are ranked by the teacher; published: 1,000

    def __post_init__(self) -> None:
        if not 1 < self.first <= self.last <= self.rerank:
            raise ValueError(f"first, last, rerank are {self.first}, {self.last}, {self.rerank}: they must be ranks in rising "
                             "order, from 2")
        if self.epochs < 1 or self.passages < 2:
            raise ValueError(f"epochs is {self.epochs}, passages {self.passages}: at least 1 and 2 are needed")


@dataclass(frozen=True)
class Lagging(Stage):
    """Where the student lags behind: the training queries that the teacher answers first and the student from `first` to `last`.

    Their negatives are not drawn but the most confusing ones: those with the student's highest scores, n - 1 per query.
    """

    kind = "lagging"
    student: Evaluate  # both of the training queries
    teacher: Evaluate
    first: int
    last: int

    def run(self) -> None:
        found = groups(collection(self.data.collection), "train")
        own, taught = self.student.ranking(), self.teacher.ranking()
        behind = [group for group in found if rank(taught, group) == 1 and self.first <= rank(own, group) <= self.last]
        if len(behind) < self.data.batch:
            raise ValueError(f"{len(behind)} of {len(found)} training queries are answered first by the teacher and {self.first} "
                             f"to {self.last} by the student, fewer than a batch of {self.data.batch}: stop before the data stage, "
                             "or raise `last`")
        confusing = search.hard_negatives(own, behind, self.data.passages - 1)
        write_json(self.folder / "groups.json", [[g.query, g.relevant, g.negatives] for g in confusing])

    def groups(self) -> list[Group]:
        return [Group(query, tuple(relevant), tuple(negatives))
                for query, relevant, negatives in json.loads((self.done() / "groups.json").read_text())]


def rank(run: search.Run, group: Group) -> int:
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

    def run(self) -> None:
        student, teacher = self.student.model(), self.teacher.model().eval()
        before = self.student.model().eval() if self.terms.keep else None
        at, taught = batches(self, student.tower), batches(self, teacher.tower)

        def loss_at(step: int) -> dict[str, Tensor]:
            batch = at(step).to(DEVICE)
            with torch.no_grad():
                _, teacher_final = teacher(taught(step).to(DEVICE))
                before_final = before(batch)[1] if before else None
            _, student_final = student(batch)
            loss = losses.progressive_loss(student_final, teacher_final, before_final, batch.positive, **asdict(self.terms))
            return {part: getattr(loss, part) for part in ("total", "response", "keep", "student")}

        schedule = replace(self.schedule, steps=self.epochs * at.sampler.steps) if self.epochs else self.schedule
        label = f"PROD, {teacher.layers}{teacher.architecture} -> {student.layers}{student.architecture}"
        log = fit(student, loss_at, schedule, self.seed, self.folder, label, describe=lambda s: str(at.sampler(s)[0].tolist()))
        student.save(self.folder / "retriever", load_tokenizer(self.tower.encoder))
        write_json(self.folder / "log.json", log)


class PROD:
    """The stages of one scale and seed, on the main pipeline's warm-ups and negatives. Nothing runs until asked for its result.

    large: the last teacher, a CE; published: 24 layers (ERNIE-2.0-large). Student and 12DE are warmed up on mined negatives at once
    (published: on random ones first). Each CE is trained on the negatives of its stage; the last one also teaches the data stage.
    """

    def __init__(self, scale: Scale, large: Tower, seed: int = 0, progression: Progression = Progression()):
        if large.architecture != "CE":
            raise ValueError(f"large is a {large.architecture}: the last teacher must be a CE")
        self.scale, self.seed, self.progression, self.pipeline = scale, seed, progression, Pipeline(scale, seed, "DE")
        data, first, terms = replace(scale.data, passages=progression.passages), self.pipeline, progression.terms
        alone = replace(terms, keep=0.0)
        self.stages = [Progress(scale.data, first.student, first.teacher, first.negatives, scale.distil, alone, seed=seed + STRIDE)]
        miner = first.teacher  # after the first stage the 12DE mines, then the student itself
        for i, tower in enumerate((Pipeline(scale, seed, "CE").teacher.tower, large), start=2):
            negatives = Mine(scale.data, miner)
            teacher = WarmUp(data, tower, scale.teacher, negatives, seed)
            miner = Progress(data, self.stages[-1], teacher, negatives, scale.distil, terms, seed=seed + STRIDE * i)
            self.stages.append(miner)
        own = Evaluate(scale.data, miner, "train", max(scale.data.negatives, progression.rerank))
        ranked = replace(own, retriever=teacher, first=own, rerank=progression.rerank)
        lagging = Lagging(data, own, ranked, progression.first, progression.last)
        slower = replace(scale.distil, learning_rate=progression.pace * scale.distil.learning_rate)
        self.stages.append(Progress(data, miner, teacher, lagging, slower, terms, progression.epochs, seed + STRIDE * 4))
        # What the progression is compared with: the largest teacher alone, as long.
        longer = replace(scale.distil, steps=3 * scale.distil.steps)
        self.direct = Progress(data, first.student, teacher, negatives, longer, alone, seed=seed + STRIDE)

    def experiments(self, split: str = "test") -> dict[str, Evaluate]:
        """The students by name: after each teacher, after the data stage ("PROD"), and without a progression ("PROD direct")."""
        named = {"PROD direct": self.direct} | {f"PROD stage {i}": stage for i, stage in enumerate(self.stages[:3], start=1)}
        return {name: self.pipeline.evaluate(stage, split) for name, stage in (named | {"PROD": self.stages[3]}).items()}


def prod_star(scale: Scale, seed: int = 0, lead: bool = False) -> dict[str, Distil]:
    """Table 9's chain: 12DE, 12CB and 12CE teach one student one after another, with RD, or with LEAD's loss, by experiment.

    Teachers, negatives and the first stage are those of Table 3 (as its numbers show); mining anew: not said, so left out.
    """
    chain, student = {}, None
    for i, teacher in enumerate(TEACHERS):
        stage = Pipeline(scale, seed, teacher).distil("LEAD" if lead else "RD")
        student = replace(stage, student=student or stage.student, seed=seed + STRIDE * i)
        chain[f"PROD*{' + LEAD' if lead else ''} 12{teacher}"] = student
    return chain


def table_9(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """The rows of Table 9 that are not in Table 3, each an evaluation that runs when asked."""
    chains = prod_star(scale, seed) | prod_star(scale, seed, lead=True)
    return {name: Pipeline(scale, seed).evaluate(stage, split) for name, stage in chains.items()}
