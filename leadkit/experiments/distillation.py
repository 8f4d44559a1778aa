"""Training stages: warm up, mine, distil (section 4.2.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor, nn

from leadkit import losses
from leadkit.config import Data, Schedule
from leadkit.data.sampling import Batches, Group, Sampler, groups
from leadkit.experiments.method import Method, Step
from leadkit.experiments.store import Negatives, Stage, Trained
from leadkit.experiments.texts import collection, passages_of, queries_of
from leadkit.files import read_tensors, write_json, write_tensors
from leadkit.hardware import DEVICE
from leadkit.models.encoders import check, stamp
from leadkit.models.retriever import Retriever
from leadkit.models.retrievers import architecture, build, load
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower, check_lengths
from leadkit.retrieval.dense import retrieve
from leadkit.retrieval.negatives import hard_negatives
from leadkit.training.loop import LossAt, Operation, fit


@dataclass(frozen=True)
class Mine(Negatives):
    """The hard negatives of the training queries: a DE's best passages that are not relevant."""

    kind = "mine"
    retriever: Trained

    def run(self, operation: Operation) -> None:
        model = self.retriever.model()
        queries = queries_of(model.tower, self.data, "train")
        passages = passages_of(model.tower, self.data)
        training = groups(collection(self.data.collection), "train")
        # A query has a few relevant passages at most: search that much deeper, then drop them.
        most = max(len(group.relevant) for group in training)
        own = collection(self.data.collection).own_rows("train")
        run = retrieve(model, queries, passages, self.data.negatives + most, own)
        mined = hard_negatives(run, training, self.data.negatives)
        rows = torch.full((len(mined), self.data.negatives), -1, dtype=torch.int32)  # (Q, 100)
        for i, group in enumerate(mined):
            rows[i, : len(group.negatives)] = torch.tensor(group.negatives)
        write_tensors(self.folder / "negatives.safetensors", {"rows": rows})

    def groups(self) -> list[Group]:
        rows = read_tensors(self.done() / "negatives.safetensors")["rows"].tolist()
        training = groups(collection(self.data.collection), "train")
        return [
            replace(group, negatives=tuple(p for p in row if p >= 0))
            for group, row in zip(training, rows, strict=True)
        ]


@cache  # a sweep describes the same towers hundreds of times
def _check(tower: Tower, data: Data, stamp: object) -> None:
    """Raises as `encoders.check` and `check_lengths`; looks again where a file's stamp is new."""
    pairs = architecture(tower.architecture).pairs_only
    check(tower.encoder)
    check_lengths(tower, data.query_tokens, data.passage_tokens, pairs, data.pair_tokens)


@dataclass(frozen=True)
class WarmUp(Trained):
    """Train one retriever on its own with the hard loss, Eq. (10) or (11)."""

    kind = "warm-up"
    tower: Tower
    schedule: Schedule
    negatives: Negatives | None = None  # None: random passages
    seed: int = 0

    def __post_init__(self) -> None:
        # Bad input is found here, before the stages that this one waits for have run.
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: it must not be negative")
        _check(self.tower, self.data, stamp(self.tower.encoder))

    def batches(self) -> Batches:
        """Step -> the batch in the tokens of the tower."""
        return draw_batches(self, self.tower, [self.tower], 2 * self.seed, self.negatives)

    def run(self, operation: Operation) -> None:
        torch.manual_seed(self.seed)
        model = build(self.tower)
        batches = self.batches()

        def loss_at(step: int) -> dict[str, Tensor]:
            batch = batches(step).to(DEVICE)
            _, final = model(batch)
            return {"total": losses.student_loss(final, batch.positive).total}

        label = f"warming up {model.layers}{self.tower.architecture}"
        train(self, model, loss_at, self.schedule, label, batches, operation)
        save(model, self, "retriever")


@dataclass(frozen=True)
class Distil(Trained):
    """Train a student with a method, and the teacher too where the method does."""

    kind = "distil"
    method: Method
    student: Trained
    teacher: Trained | None
    negatives: Negatives
    schedule: Schedule
    seed: int = 0

    def __post_init__(self) -> None:
        name, least = self.method.name, self.method.least_passages
        if (self.teacher is None) == self.method.needs_teacher:
            kind = self.teacher and self.teacher.kind
            needed = "one" if self.method.needs_teacher else "none"
            raise ValueError(f"teacher is {kind}: method {name!r} needs {needed}")
        passages = self.data.passages
        if passages < least:
            raise ValueError(f"passages is {passages}: method {name!r} needs at least {least}")
        self.method.check(self.student.tower, self.teacher.tower if self.teacher else None)

    @property
    def tower(self) -> Tower:  # type: ignore[override]
        """The student's."""
        return self.student.tower

    def teacher_passes(self) -> int:
        return self.method.passes * self.schedule.accumulate * len(self.log())

    def batches(self, tower: Tower) -> Batches:
        """Step -> the batch in the tokens of a tower; all towers see the same texts."""
        trained = [stage.tower for stage in (self.student, self.teacher) if stage]
        seed = 2 * self.seed + self.method.batch_stream
        return draw_batches(self, tower, trained, seed, self.negatives)

    def step(
        self, number: int, models: Mapping[str, nn.Module], batches: Mapping[str, Batches]
    ) -> Step:
        """What the method is given with the batch of this number."""
        drawn = number // (self.schedule.accumulate * self.method.redraw_every)
        return Step(
            models=models,
            batches={name: each(number).to(DEVICE) for name, each in batches.items()},
            seed=self.seed * 1_000_003 + drawn,
        )

    def run(self, operation: Operation) -> None:
        student = self.student.model()
        teacher = self.teacher.model() if self.teacher else None
        trained: dict[str, nn.Module] = {"student": student}
        frozen: dict[str, Retriever] = {}
        if teacher:
            (trained if self.method.trains_teacher else frozen)["teacher"] = teacher
        frozen |= self.method.frozen_models(self.student)
        for model in frozen.values():
            model.eval().requires_grad_(False)  # no dropout, no gradient
        torch.manual_seed(self.seed)
        models = nn.ModuleDict(trained | self.method.heads(student, teacher))
        every = {"student": student, **({"teacher": teacher} if teacher else {}), **frozen}
        batches = {name: self.batches(model.tower) for name, model in every.items()}

        def loss_at(number: int) -> dict[str, Tensor]:
            return self.method.parts(self.step(number, {**models, **frozen}, batches))

        towers = [model for model in (teacher, student) if model]
        names = " -> ".join(f"{model.layers}{model.architecture}" for model in towers)
        label = f"{self.method.name}, {names}"
        schedule = self.method.schedule(self.schedule, batches["student"].sampler.steps)
        train(self, models, loss_at, schedule, label, batches["student"], operation)
        save(student, self, "retriever")
        if teacher and self.method.trains_teacher:
            save(teacher, self, "teacher")


@dataclass(frozen=True)
class TeacherAfter(Trained):
    """The teacher that a distillation trained along with its student."""

    kind = "teacher after"
    distillation: Distil

    @property
    def tower(self) -> Tower:  # type: ignore[override]
        assert self.distillation.teacher is not None
        return self.distillation.teacher.tower

    def __post_init__(self) -> None:
        if not self.distillation.method.trains_teacher:
            raise ValueError(
                f"method {self.distillation.method.name!r} does not train its teacher: there is "
                "none after it"
            )

    def run(self, operation: Operation) -> None:
        """Nothing is left to compute."""

    def model(self) -> Retriever:
        return load(self.distillation.done() / "teacher").to(DEVICE)

    def log(self) -> list[dict]:
        return self.distillation.log()

    def training_seconds(self) -> float:
        return self.distillation.seconds()


def train(
    stage: WarmUp | Distil,
    models: nn.Module,
    loss_at: LossAt,
    schedule: Schedule,
    label: str,
    batches: Batches,
    operation: Operation,
) -> None:
    """Fit, and write the log."""

    def describe(step: int) -> str:
        return str(batches.sampler(step)[0].tolist())

    log = fit(models, loss_at, schedule, stage.seed, stage.folder, label, describe, operation)
    write_json(stage.folder / "log.json", log)


def save(model: Retriever, stage: Stage, name: str) -> None:
    """Write a retriever into the stage's folder."""
    model.save(stage.folder / name, load_tokenizer(model.tower.encoder))


def draw_batches(
    stage: WarmUp | Distil,
    tower: Tower,
    trained: list[Tower],
    seed: int,
    negatives: Negatives | None,
) -> Batches:
    """Step -> the batch in the tokens of a tower; negatives None: random passages.

    Where a pairs-only tower is trained or teaches, each query has its own passages only (4.3.2).
    """
    data = stage.data
    own = any(architecture(each.architecture).pairs_only for each in trained)
    training = negatives.groups() if negatives else groups(collection(data.collection), "train")
    passages = passages_of(tower, data)
    sampler = Sampler(training, len(passages), data.batch, data.passages, seed)
    pairs = architecture(tower.architecture).pairs_only
    return Batches(sampler, queries_of(tower, data, "train"), passages, own=own, pairs=pairs)
