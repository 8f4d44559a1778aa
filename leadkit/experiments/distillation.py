"""Training stages: warm up, mine hard negatives, distil (section 4.2.2)."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from leadkit import losses, processes, selection
from leadkit.retrieval import dense
from leadkit.data.sampling import Batch, Batches, Group, Sampler, groups, identity
from leadkit.config import Lead
from leadkit.models.encoders import check, load_tokenizer
from leadkit.files import read_tensors, write_json, write_tensors
from leadkit.models.retrievers import RETRIEVERS, Tower, build, check_lengths, depth
from leadkit.experiments.store import DEVICE, Stage, Trained, collection, passages_of, queries_of
from leadkit.training.loop import Schedule, fit


@dataclass(frozen=True)
class Mine(Stage):
    """The hard negatives of the training queries: a dual encoder's best passages that are not relevant (section 4.2.2)."""

    kind = "mine"
    retriever: Trained

    def run(self) -> None:
        model = self.retriever.model()
        queries, passages = (
            queries_of(model.tower, self.data, "train"),
            passages_of(model.tower, self.data),
        )
        # A query has a few relevant passages at most: search that much deeper, then drop them.
        found = groups(collection(self.data.collection), "train")
        run = dense.retrieve(
            model, queries, passages, self.data.negatives + max(len(g.relevant) for g in found)
        )
        mined = dense.hard_negatives(run, found, self.data.negatives)
        rows = torch.full((len(mined), self.data.negatives), -1, dtype=torch.int32)
        for i, group in enumerate(mined):
            rows[i, : len(group.negatives)] = torch.tensor(group.negatives)
        write_tensors(self.folder / "negatives.safetensors", {"rows": rows})

    def groups(self) -> list[Group]:
        rows = read_tensors(self.done() / "negatives.safetensors")["rows"].tolist()
        found = groups(collection(self.data.collection), "train")
        return [
            Group(g.query, g.relevant, tuple(p for p in row if p >= 0))
            for g, row in zip(found, rows, strict=True)
        ]


def batches(stage: "WarmUp | Distil", tower: Tower) -> Batches:
    """The stage's batches in the tokens of one tower; the same queries and passages for every tower of the same stage.

    Where a CE takes part, every query is scored against its own passages only (section 4.3.2).
    """
    data, teacher = stage.data, getattr(stage, "teacher", None)
    own = "CE" in {part.tower.architecture for part in (stage, teacher) if part}
    found = (
        stage.negatives.groups()
        if stage.negatives
        else groups(collection(data.collection), "train")
    )
    passages = passages_of(tower, data)
    # A distillation does not see the batches of the warm-up again in the same order.
    sampler = Sampler(
        found, len(passages), data.batch, data.passages, 2 * stage.seed + isinstance(stage, Distil)
    )
    return Batches(
        sampler,
        queries_of(tower, data, "train"),
        passages,
        own=own,
        pairs=tower.architecture == "CE",
    )


@dataclass(frozen=True)
class WarmUp(Trained):
    """Train one retriever on its own with the hard loss, Eq. (10) or (11)."""

    kind = "warm-up"
    tower: Tower
    schedule: Schedule
    negatives: Mine | None = None  # None: random passages
    seed: int = 0

    def __post_init__(self) -> None:
        if self.tower.architecture not in RETRIEVERS:
            raise ValueError(
                f"architecture {self.tower.architecture!r} is unknown: use one of {', '.join(RETRIEVERS)}"
            )
        check(self.tower.encoder)  # before the stages that this one waits for
        check_lengths(self.tower, self.data.query_tokens, self.data.passage_tokens)

    def run(self) -> None:
        torch.manual_seed(self.seed)
        model = build(self.tower)
        at = batches(self, self.tower)

        def loss_at(step: int) -> dict[str, Tensor]:
            batch = at(step).to(DEVICE)
            _, final = model(batch)
            return {"total": losses.student_loss(final, batch.positive).total}

        label = f"warming up {model.layers}{self.tower.architecture}"
        log = fit(
            model,
            loss_at,
            self.schedule,
            self.seed,
            self.folder,
            label,
            describe=lambda s: str(at.sampler(s)[0].tolist()),
        )
        model.save(self.folder / "retriever", load_tokenizer(self.tower.encoder))
        write_json(self.folder / "log.json", log)


METHODS = ("student", "RD", "FD", "LEAD")


@dataclass(frozen=True)
class Distil(Trained):
    """Distil a teacher into a student, both from their warm-ups. Method "student" has no teacher: it goes on alone, as long."""

    kind = "distil"
    method: str
    student: Trained
    teacher: Trained | None
    negatives: Mine
    schedule: Schedule
    lead: Lead = Lead()  # read by LEAD; RD reads tau_d, FD reads k and draws at random
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown: use one of {', '.join(METHODS)}")
        if (self.teacher is None) != (self.method == "student"):
            raise ValueError(
                f"teacher is {self.teacher and self.teacher.kind}: method {self.method!r} needs "
                + ("none" if self.method == "student" else "one")
            )
        if self.method in ("FD", "LEAD"):  # says what does not fit, before any work starts
            M, N = depth(self.student.tower), depth(self.teacher.tower)
            selection.select(self.lead.strategy, self.lead.k, M, N, torch.Generator())
        if self.method == "FD":
            student, teacher = self.student.tower.encoder, self.teacher.tower.encoder
            if student != teacher and identity(load_tokenizer(student)) != identity(
                load_tokenizer(teacher)
            ):
                raise ValueError(
                    f"method 'FD' compares attention token by token: student {student!r} and teacher {teacher!r} must "
                    "have the same tokeniser"
                )

    @property
    def tower(self) -> Tower:
        """The student's."""
        return self.student.tower

    def teachers(self) -> int:
        return int(self.teacher is not None)

    def run(self) -> None:
        models = nn.ModuleDict(
            {"student": self.student.model()}
            | ({"teacher": self.teacher.model()} if self.teacher else {})
        )
        at = {name: batches(self, model.tower) for name, model in models.items()}
        joint = self.method == "LEAD" and self.lead.joint
        if frozen := self.teacher and not joint:
            models["teacher"].requires_grad_(False)
        step_loss = {"student": _student_alone, "RD": _rd, "FD": _fd, "LEAD": _lead}[self.method]

        def loss_at(step: int) -> dict[str, Tensor]:
            if frozen:
                models["teacher"].eval()  # no dropout
            draw = step // (
                10 if self.lead.variant == "released" else 1
            )  # layers are drawn anew every (tenth) step
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
            loss = step_loss(
                self.lead, generator, models, {name: at[name](step).to(DEVICE) for name in at}
            )
            parts = {
                name: getattr(loss, name)
                for name in ("total", "layer", "response", "teacher", "student")
            }
            if loss.weights is not None:
                parts |= {f"w{i}": w.mean() for i, w in enumerate(loss.weights, start=1)}
            return parts

        towers = (f"{model.layers}{model.architecture}" for model in reversed(models.values()))
        log = fit(
            models,
            loss_at,
            self.schedule,
            self.seed,
            self.folder,
            f"{self.method}, {' -> '.join(towers)}",
            describe=lambda s: str(at["student"].sampler(s)[0].tolist()),
        )
        for name, folder in {"student": "retriever", "teacher": "teacher"}.items():
            if name == "student" or joint:
                models[name].save(self.folder / folder, load_tokenizer(models[name].tower.encoder))
        write_json(self.folder / "log.json", log)


# What a step of each method computes: from the settings, the step's random numbers, the models and their batches.


def _student_alone(
    lead: Lead, generator: Generator, models: nn.ModuleDict, batch: dict[str, Batch]
) -> losses.Loss:
    return losses.student_loss(models["student"](batch["student"])[1], batch["student"].positive)


def _rd(
    lead: Lead, generator: Generator, models: nn.ModuleDict, batch: dict[str, Batch]
) -> losses.Loss:
    with torch.no_grad():
        _, teacher_final = models["teacher"](batch["teacher"])
    _, student_final = models["student"](batch["student"])
    return losses.response_loss(
        student_final, teacher_final, batch["student"].positive, tau_d=lead.tau_d
    )


def _fd(
    lead: Lead, generator: Generator, models: nn.ModuleDict, batch: dict[str, Batch]
) -> losses.Loss:
    student, teacher = models["student"], models["teacher"]
    chosen, taught = selection.random_layers(lead.k, student.layers, teacher.layers, generator)
    with torch.no_grad():
        teacher_maps, _ = teacher.interactions(batch["teacher"], taught)
    student_maps, student_final = student.interactions(batch["student"], chosen)
    return losses.feature_loss(student_maps, teacher_maps, student_final, batch["student"].positive)


def _lead(
    lead: Lead, generator: Generator, models: nn.ModuleDict, batch: dict[str, Batch]
) -> losses.Loss:
    student, teacher, positive = models["student"], models["teacher"], batch["student"].positive
    M, N = student.layers, teacher.layers
    with torch.set_grad_enabled(lead.joint):
        if lead.strategy == "weighted":  # Eq. (7) over all N layers says how likely each is chosen
            every, teacher_final = teacher(batch["teacher"], tuple(range(1, N + 1)))
            weights = processes.mean(
                losses.layer_weights(every, positive, lead.tau_l).mean(1)
            )  # (N,)
            chosen, taught = selection.select("weighted", lead.k, M, N, generator, weights.cpu())
            teacher_layers = every[[layer - 1 for layer in taught]]  # (K, B, C)
        else:
            chosen, taught = selection.select(lead.strategy, lead.k, M, N, generator)
            teacher_layers, teacher_final = teacher(batch["teacher"], taught)
    student_layers, student_final = student(batch["student"], chosen)
    return losses.lead_loss(
        student_layers,
        teacher_layers,
        student_final,
        teacher_final,
        positive,
        tau_d=lead.tau_d,
        tau_l=lead.tau_l,
        joint=lead.joint,
        reweight=lead.reweight,
        variant=lead.variant,
    )
