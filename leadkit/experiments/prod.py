"""PROD, progressive distillation (Lin et al., WWW 2023), and Table 9 of LEAD, which plugs LEAD in.

Teacher progressive distillation: a 12DE, a 12CE and a larger CE teach one student one after
another, with negatives mined anew in between. Data progressive distillation: it goes on with the
queries that the last teacher answers and the student nearly answers.

"Published": the authors' settings for MS MARCO passage (microsoft/SimXNS, PROD/README.md).
"""

from dataclasses import dataclass, replace
from typing import Any

from leadkit.config import Scale, Schedule
from leadkit.experiments.cross_teacher import cross_teacher
from leadkit.experiments.distillation import Distil, Mine
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.lagging import Lagging
from leadkit.experiments.pipeline import Pipeline, schedule, tower
from leadkit.experiments.progressive import Progressive
from leadkit.experiments.rows import STAR, STAR_LEAD, TEACHERS
from leadkit.experiments.store import Trained
from leadkit.models.retrievers import architecture
from leadkit.models.tower import Tower

ROWS = ("PROD direct", "PROD stage 1", "PROD stage 2", "PROD stage 3", "PROD")
STRIDE = 1000  # between the seeds of a chain's stages: none sees batches again in the same order
TABLES = {"9": ("student", *STAR, *STAR_LEAD), "prod": ("student", *ROWS)}


@dataclass(frozen=True)
class Progression:
    """PROD's own settings of a chain of stages.

    Its teacher stages have the schedule of any distillation at their scale; `published` gives them
    the authors'.
    """

    method: Progressive = Progressive()
    passages: int = 4  # per query, wherever a CE is trained or teaches; published: 16
    taught: int | None = None  # queries in a batch with a CE teacher, None: any; published: 64
    trained: int | None = None  # where a CE is trained; published: 32, 8 batches a step
    pace: float = 0.2  # learning rate of the data stage over a teacher stage's; published: 0.2
    epochs: int = 3  # passes of the data stage over its queries; published: 3 to 4
    first: int = 2  # the student's rank of its first relevant passage there, from; published: 2
    last: int = 15  # and to; published: 15
    rerank: int = 15  # of the student's passages, the teacher ranks so many; published: 1,000

    def __post_init__(self) -> None:
        if not 1 < self.first <= self.last <= self.rerank:
            raise ValueError(
                f"first, last, rerank are {self.first}, {self.last}, {self.rerank}: they must be "
                "ranks in rising order, from 2"
            )
        if self.epochs < 1 or self.passages < 2:
            raise ValueError(
                f"epochs is {self.epochs}, passages {self.passages}: at least 1 and 2 are needed"
            )


PUBLISHED = Progression(passages=16, taught=64, trained=32, rerank=1000)


def published(scale: Scale) -> Scale:
    """The scale with PROD's own encoders, batches and schedules (MS MARCO passages).

    Not said: weight decay, here 0. On documents the lengths of the scale stay, which is ours.
    """
    base = "nghuyong/ernie-2.0-base-en"
    warm_up = Schedule(40_000, weight_decay=0.0)
    data = scale.data
    return replace(
        scale,
        teacher_encoder=base,
        student_encoder=f"layers:1,2,3,4,5,6:{base}",
        data=replace(data, batch=128, passages=2, pair_tokens=data.pair_tokens or 160),
        warm_up=warm_up,
        teacher=warm_up,
        student=warm_up,
        distil=Schedule(40_000, 5e-5, weight_decay=0.0),
        own={
            "teacher CE": Schedule(6000, 1e-5, warmup=1 / 6, weight_decay=0.0, accumulate=8),
            "teacher larger CE": Schedule(6000, 5e-6, weight_decay=0.0, accumulate=8),
        },
    )


class PROD:
    """The stages of one scale and seed, on the main pipeline's warm-ups and negatives.

    Nothing runs until asked for its result. Student and 12DE are warmed up on mined negatives at
    once (published: on random ones first). Each CE is trained on the negatives of its stage; the
    last one also teaches the data stage.

    large: the last teacher, which sees pairs only; by default a CE with the scale's larger encoder
        (published: ERNIE-2.0-large, 24 layers).
    progression: by default the published one where the scale says so.
    """

    def __init__(
        self,
        scale: Scale,
        large: Tower | None = None,
        seed: int = 0,
        progression: Progression | None = None,
    ):
        if scale.prod_published:
            scale = published(scale)
            progression = progression or PUBLISHED
        progression = progression or Progression()
        smaller = Pipeline(scale, seed, "CE").teacher.tower
        large = large or replace(smaller, encoder=scale.larger_encoder)
        if not architecture(large.architecture).pairs_only:
            raise ValueError(f"large is a {large.architecture}: the last teacher must be a CE")
        self.scale = scale
        self.seed = seed
        self.progression = progression
        self.pipeline = first = Pipeline(scale, seed, "DE")
        data = replace(
            scale.data, passages=progression.passages, batch=progression.taught or scale.data.batch
        )
        trained = replace(data, batch=progression.trained or scale.data.batch)
        method = progression.method
        alone = replace(method, keep=0.0)
        steps = schedule(scale, "distil")

        def stage(number: int, data, method, student, teacher, negatives, schedule) -> Distil:
            seeds = seed + STRIDE * number
            return Distil(data, method, student, teacher, negatives, schedule, seeds)

        taught = stage(1, scale.data, alone, first.student, first.teacher, first.negatives, steps)
        self.stages = [taught]
        miner: Trained = first.teacher  # after the first stage the 12DE mines, then the student
        for number, (chosen, size) in enumerate(((smaller, ()), (large, ("larger",))), start=2):
            negatives = Mine(scale.data, miner)
            training = schedule(scale, "teacher", *size, chosen.architecture)
            colbert = replace(
                first.teacher,
                tower=tower(scale, "CB", chosen.encoder),
                schedule=schedule(scale, "teacher", *size, "CB"),
            )
            teacher = cross_teacher(scale, trained, chosen, training, negatives, seed, colbert)
            taught = stage(number, data, method, taught, teacher, negatives, steps)
            miner = taught
            self.stages.append(taught)
        depth = max(scale.data.negatives, progression.rerank)
        own = Evaluate(scale.data, taught, "train", depth)
        lagging = Lagging(
            data, own, teacher, progression.first, progression.last, progression.rerank
        )
        slower = replace(steps, learning_rate=progression.pace * steps.learning_rate)
        passes = replace(method, epochs=progression.epochs)
        self.stages.append(stage(4, data, passes, taught, teacher, lagging, slower))
        # What the progression is compared with: the largest teacher alone, as long.
        longer = replace(steps, steps=3 * steps.steps)
        self.direct = stage(1, data, alone, first.student, teacher, negatives, longer)

    def experiments(self, split: str = "test") -> dict[str, Evaluate]:
        """The students by name.

        After each teacher, after the data stage ("PROD"), and without a progression ("PROD
        direct").
        """
        stages = zip(ROWS, (self.direct, *self.stages), strict=True)
        return {name: self.pipeline.evaluate(stage, split) for name, stage in stages}


def prod_star(scale: Scale, seed: int = 0, lead: bool = False) -> dict[str, Distil]:
    """Table 9's chain by experiment: 12DE, 12CB and 12CE teach one student one after another.

    lead: with LEAD's loss instead of RD. Teachers, negatives and the first stage are those of
    Table 3 (as its numbers show); mining anew is not said, so it is left out.
    """
    chain: dict[str, Distil] = {}
    student: Trained | None = None
    names = STAR_LEAD if lead else STAR
    for i, (name, teacher) in enumerate(zip(names, TEACHERS, strict=True)):
        stage = Pipeline(scale, seed, teacher).distil("LEAD" if lead else "RD")
        changes: dict[str, Any] = {"seed": seed + STRIDE * i}
        if student:
            changes["student"] = student
        student = chain[name] = replace(stage, **changes)
    return chain


def table_9(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """The rows of Table 9 that are not in Table 3, each an evaluation that runs when asked."""
    chains = prod_star(scale, seed) | prod_star(scale, seed, lead=True)
    return {name: Pipeline(scale, seed).evaluate(stage, split) for name, stage in chains.items()}


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """Every row of PROD and of Table 9 by name that tables.py does not have."""
    return PROD(scale, seed=seed).experiments(split) | table_9(scale, seed, split)
