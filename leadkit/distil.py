"""Training stages: warm up, mine hard negatives, distil (section 4.2.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadkit import losses, search, selection
from leadkit.batches import Batches, Group, Sampler, groups
from leadkit.config import Lead
from leadkit.files import read_tensors, write_json, write_tensors
from leadkit.retrievers import RETRIEVERS, Tower, build, check, depth, load_tokenizer
from leadkit.stages import DEVICE, Stage, Trained, collection, passages_of, queries_of
from leadkit.train import Schedule, fit


@dataclass(frozen=True)
class Mine(Stage):
    """The hard negatives of the training queries: a dual encoder's best passages that are not relevant (section 4.2.2)."""

    kind = "mine"
    retriever: Trained

    def run(self) -> None:
        model = self.retriever.model()
        q = search.encode(model, queries_of(model.tower, self.data, "train"), "encoding training queries")
        p = search.encode(model, passages_of(model.tower, self.data), "encoding passages")
        # A query has a few relevant passages at most: search that much deeper, then drop them.
        found = groups(collection(self.data.collection), "train")
        run = search.search(q, p, self.data.negatives + max(len(g.relevant) for g in found))
        mined = search.hard_negatives(run, found, self.data.negatives)
        rows = torch.full((len(mined), self.data.negatives), -1, dtype=torch.int32)
        for i, group in enumerate(mined):
            rows[i, : len(group.negatives)] = torch.tensor(group.negatives)
        write_tensors(self.folder / "negatives.safetensors", {"rows": rows})

    def groups(self) -> list[Group]:
        rows = read_tensors(self.done() / "negatives.safetensors")["rows"].tolist()
        found = groups(collection(self.data.collection), "train")
        return [Group(g.query, g.relevant, tuple(p for p in row if p >= 0)) for g, row in zip(found, rows, strict=True)]


def batches(stage: "WarmUp | Distil", tower: Tower) -> Batches:
    """The stage's batches in the tokens of one tower; the same queries and passages for every tower of the same stage.

    Where a CE takes part, every query is scored against its own passages only (section 4.3.2).
    """
    data, own = stage.data, "CE" in {part.tower.architecture for part in (stage, getattr(stage, "teacher", stage))}
    found = stage.negatives.groups() if stage.negatives else groups(collection(data.collection), "train")
    passages = passages_of(tower, data)
    # A distillation does not see the batches of the warm-up again in the same order.
    sampler = Sampler(found, len(passages), data.batch, data.passages, 2 * stage.seed + isinstance(stage, Distil))
    return Batches(sampler, queries_of(tower, data, "train"), passages, own=own, pairs=tower.architecture == "CE")


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
            raise ValueError(f"architecture {self.tower.architecture!r} is unknown: use one of {', '.join(RETRIEVERS)}")
        check(self.tower.encoder)  # before the stages that this one waits for

    def run(self) -> None:
        torch.manual_seed(self.seed)
        model = build(self.tower)
        at = batches(self, self.tower)

        def loss_at(step: int) -> dict[str, Tensor]:
            batch = at(step).to(DEVICE)
            _, final = model(batch)
            return {"total": losses.student_loss(final, batch.positive).total}

        label = f"warming up {model.layers}{self.tower.architecture}"
        log = fit(model, loss_at, self.schedule, self.seed, self.folder, label, describe=lambda s: str(at.sampler(s)[0].tolist()))
        model.save(self.folder / "retriever", load_tokenizer(self.tower.encoder))
        write_json(self.folder / "log.json", log)


METHODS = ("student", "RD", "FD", "LEAD")


@dataclass(frozen=True)
class Distil(Trained):
    """Distil a teacher into a student, both from their warm-ups. Method "student": the student goes on alone, as long."""

    kind = "distil"
    method: str
    student: Trained
    teacher: Trained
    negatives: Mine
    schedule: Schedule
    lead: Lead = Lead()  # read by LEAD; RD reads tau_d, FD reads k and draws at random
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r} is unknown: use one of {', '.join(METHODS)}")
        if self.method != "student":  # says what does not fit, before any work starts
            M, N = depth(self.student.tower), depth(self.teacher.tower)
            selection.select(self.lead.strategy, self.lead.k, M, N, torch.Generator())

    @property
    def tower(self) -> Tower:
        """The student's."""
        return self.student.tower

    def run(self) -> None:
        student, teacher = self.student.model(), self.teacher.model()
        joint = self.method == "LEAD" and self.lead.joint
        for_student, for_teacher = batches(self, student.tower), batches(self, teacher.tower)
        teacher.requires_grad_(joint)
        step_loss = {"student": _student_alone, "RD": _rd, "FD": _fd, "LEAD": _lead}[self.method]

        def loss_at(step: int) -> dict[str, Tensor]:
            teacher.train(joint)
            batch, same = for_student(step).to(DEVICE), for_teacher(step).to(DEVICE)
            draw = step // (10 if self.lead.variant == "released" else 1)  # layers are drawn anew every (tenth) step
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + draw)
            loss = step_loss(self.lead, student, teacher, batch, same, generator)
            parts = {name: getattr(loss, name) for name in ("total", "layer", "response", "teacher", "student")}
            if loss.weights is not None:
                parts |= {f"w{i}": w.mean() for i, w in enumerate(loss.weights, start=1)}
            return parts

        both = nn.ModuleDict({"student": student, "teacher": teacher} if joint else {"student": student})
        label = f"{self.method}, {teacher.layers}{teacher.architecture} -> {student.layers}{student.architecture}"
        log = fit(both, loss_at, self.schedule, self.seed, self.folder, label,
                  describe=lambda s: str(for_student.sampler(s)[0].tolist()))
        student.save(self.folder / "retriever", load_tokenizer(student.tower.encoder))
        if joint:
            teacher.save(self.folder / "teacher", load_tokenizer(teacher.tower.encoder))
        write_json(self.folder / "log.json", log)


def _student_alone(lead, student, teacher, batch, same, generator) -> losses.Loss:
    return losses.student_loss(student(batch)[1], batch.positive)


def _rd(lead, student, teacher, batch, same, generator) -> losses.Loss:
    with torch.no_grad():
        _, teacher_final = teacher(same)
    return losses.response_loss(student(batch)[1], teacher_final, batch.positive, tau_d=lead.tau_d)


def _fd(lead, student, teacher, batch, same, generator) -> losses.Loss:
    chosen, taught = selection.random_layers(lead.k, student.layers, teacher.layers, generator)
    with torch.no_grad():
        teacher_maps, _ = teacher.interactions(same, taught)
    student_maps, student_final = student.interactions(batch, chosen)
    return losses.feature_loss(student_maps, teacher_maps, student_final, batch.positive)


def _lead(lead, student, teacher, batch, same, generator) -> losses.Loss:
    M, N = student.layers, teacher.layers
    with torch.set_grad_enabled(lead.joint):
        if lead.strategy == "weighted":  # Eq. (7) over all N layers says how likely each is chosen
            every, teacher_final = teacher(same, tuple(range(1, N + 1)))
            weights = losses.layer_weights(every, batch.positive, lead.tau_l).mean(1)  # (N,)
            chosen, taught = selection.select("weighted", lead.k, M, N, generator, weights.cpu())
            teacher_layers = every[[layer - 1 for layer in taught]]  # (K, B, C)
        else:
            chosen, taught = selection.select(lead.strategy, lead.k, M, N, generator)
            teacher_layers, teacher_final = teacher(same, taught)
    student_layers, student_final = student(batch, chosen)
    return losses.lead_loss(student_layers, teacher_layers, student_final, teacher_final, batch.positive, tau_d=lead.tau_d,
                            tau_l=lead.tau_l, joint=lead.joint, reweight=lead.reweight, variant=lead.variant)
