"""MTA4DPR (Lu et al., EMNLP 2024): a teacher, a pool of assistants, fused ones among them, iterations; and MTA4DPR + LEAD.

The authors published no code that we know of. Where our notes give no value of theirs ("not noted"), the choice is ours.
Shapes: A assistants in the pool, F with the fused ones, 2^A - 1; K layers, B queries, C candidates.
"""

import json
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import Generator, Tensor

from leadkit import losses, processes, selection
from leadkit.retrieval import dense
from leadkit.data.sampling import Group, groups
from leadkit.config import Scale
from leadkit.experiments.distillation import Distil, WarmUp, batches
from leadkit.models.encoders import load_tokenizer
from leadkit.files import read_tensors, write_json, write_tensors
from leadkit.experiments.pipeline import Pipeline
from leadkit.models.retrievers import Tower, depth
from leadkit.retrieval.dense import Run
from leadkit.experiments.store import DEVICE, Evaluate, Stage, Trained, collection
from leadkit.training.loop import fit

DISTANCES = ("kl", "footrule", "rbo")


@dataclass(frozen=True)
class Assistance:
    """MTA4DPR's own settings of a distillation. The temperature is LEAD's tau_d."""

    distance: str = "kl"  # to the teacher: kl, footrule or rbo; paper: all three compared
    rbo_p: float = 0.9  # a reader of a ranking goes on to the next rank with this probability; paper: not noted
    hard: float = 1.0  # weight of the gold label's term; paper: not noted
    soft: float = 1.0  # of the teacher's; paper: not noted
    assist: float = 1.0  # of the selected assistant's; paper: not noted

    def __post_init__(self) -> None:
        if self.distance not in DISTANCES:
            raise ValueError(
                f"distance {self.distance!r} is unknown: use one of {', '.join(DISTANCES)}"
            )
        if not 0 < self.rbo_p < 1:
            raise ValueError(f"rbo_p is {self.rbo_p}: it must be between 0 and 1")
        for name in ("hard", "soft", "assist"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: a weight must not be negative")


# --- which assistant is nearest to the teacher


def fusions(assistants: int) -> list[tuple[int, ...]]:
    """Every subset of the pool by the positions of its members: the A plain assistants first, then the fused ones."""
    return [
        subset
        for size in range(1, assistants + 1)
        for subset in combinations(range(assistants), size)
    ]


def distances(
    teacher: Tensor, assistants: Tensor, settings: Assistance, tau_d: float = 1.0
) -> Tensor:
    """How far each assistant is from the teacher on this batch: scores (B, C) and (F, B, C) -> (F,)."""
    match settings.distance:
        case "kl":
            each = losses.kl(teacher, assistants, tau_d)  # (F, B)
        case "footrule":
            each = losses.footrule(teacher, assistants)  # (F, B)
        case "rbo":
            each = 1 - losses.rbo(teacher, assistants, settings.rbo_p)  # (F, B)
    return each.mean(-1)  # (F,)


# --- the pool and the data of an iteration


def name(stage: Trained) -> str:
    """What an assistant is called: its depth and architecture, or the iteration that it was the student of."""
    return (
        f"student {stage.iteration}"
        if isinstance(stage, Assist)
        else f"{depth(stage.tower)}{stage.tower.architecture}"
    )


@dataclass(frozen=True)
class Pool(Stage):
    """The pool before with one more assistant, an evaluated retriever; when it exceeds `size`, the worst of all leaves.

    An entrant that stays takes the place of the one that left. The best never leaves; of equals, the entrant does.
    """

    kind = "pool"
    entrant: Evaluate
    size: int
    before: "Pool | None" = None

    def candidates(self) -> list[Evaluate]:
        return [*(self.before.members() if self.before else ()), self.entrant]

    def run(self) -> None:
        values = [float(each.values().mean()) for each in self.candidates()]  # MRR@10
        members = list(range(len(values)))
        if len(members) > self.size:
            worst = min(members, key=lambda i: (values[i], -i))
            members[worst] = members[-1]
            members.pop()
        write_json(self.folder / "pool.json", {"RR@10": values, "members": members})

    def members(self) -> list[Evaluate]:
        candidates = self.candidates()
        return [
            candidates[i] for i in json.loads((self.done() / "pool.json").read_text())["members"]
        ]

    def towers(self) -> list[Tower]:
        """Those of every retriever that may be a member."""
        return [*(self.before.towers() if self.before else ()), self.entrant.retriever.tower]


@dataclass(frozen=True)
class Harder(Stage):
    """The next iteration's data: new negatives, merged from three retrievers, and the queries that the student missed once more."""

    kind = "harder"
    student: Evaluate  # all three of the training queries
    dense: Evaluate
    words: Evaluate
    missed: int = 10  # a query is missed that has no relevant passage among the student's first so many; paper: not noted
    k: float = 60.0  # of reciprocal rank fusion; paper: not noted (Cormack et al.: 60)

    def __post_init__(self) -> None:
        if not 1 <= self.missed <= self.student.depth:
            raise ValueError(
                f"missed is {self.missed}: it must be a rank of the student's run, from 1 to {self.student.depth}"
            )

    def run(self) -> None:
        student, found = self.student.ranking(), groups(collection(self.data.collection), "train")
        missed = [
            i
            for i, g in enumerate(found)
            if set(g.relevant).isdisjoint(student.rows[g.query, : self.missed].tolist())
        ]
        if not missed:
            raise ValueError(
                f"{name(self.student.retriever)} has a relevant passage among its first {self.missed} for each of the "
                f"{len(found)} training queries, so there is no harder data: stop here, or lower `missed`"
            )
        runs = [student, self.dense.ranking(), self.words.ranking()]
        merged = dense.reciprocal_rank_fusion(
            runs, self.data.negatives + max(len(g.relevant) for g in found), self.k
        )
        write_tensors(
            self.folder / "harder.safetensors",
            {
                "rows": torch.from_numpy(merged.rows).int(),
                "scores": torch.from_numpy(merged.scores),
                "missed": torch.tensor(missed),
            },
        )

    def groups(self) -> list[Group]:
        kept = {
            key: tensor.numpy()
            for key, tensor in read_tensors(self.done() / "harder.safetensors").items()
        }
        found = groups(collection(self.data.collection), "train")
        hard = dense.hard_negatives(Run(kept["rows"], kept["scores"]), found, self.data.negatives)
        return hard + [hard[i] for i in kept["missed"]]


# --- one iteration


@dataclass(frozen=True)
class Assist(Distil):
    """Distil a frozen teacher and, step by step, the assistant nearest to it into a student.

    Method "RD": the three-term loss; "LEAD": also the layer features of the teacher and of the selected assistant, a fused one's
    averaged like its scores: the future work that the authors name. pool None: without assistants.
    """

    kind = "assist"
    pool: Pool | None = None
    assistance: Assistance = Assistance()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in ("RD", "LEAD"):
            raise ValueError(
                f"method {self.method!r} has no assistants: use RD, or LEAD for layer features as well"
            )
        for field, value in {"joint": False, "variant": "paper"}.items():
            if getattr(self.lead, field) != value:
                raise ValueError(
                    f"{field} is {getattr(self.lead, field)!r}: with assistants it must be {value!r}"
                )
        if self.lead.strategy == "weighted":
            raise ValueError(
                "strategy is 'weighted', which follows one teacher: with assistants use random, last or skip"
            )
        for tower in self.pool.towers() if self.pool else ():
            if tower == self.teacher.tower:
                raise ValueError(
                    f"the pool has the teacher itself, {tower.architecture} {tower.encoder}: nothing would be nearer"
                )
            if tower.architecture == "CE" and self.teacher.tower.architecture != "CE":
                raise ValueError(
                    f"the pool has a CE, which scores a query's own passages only: the teacher must be a CE too, "
                    f"not a {self.teacher.tower.architecture}"
                )
            if self.method == "LEAD":
                selection.select(
                    self.lead.strategy, self.lead.k, depth(self.tower), depth(tower), Generator()
                )

    @property
    def iteration(self) -> int:
        """1 for the first."""
        return (
            self.negatives.student.retriever.iteration + 1
            if isinstance(self.negatives, Harder)
            else 1
        )

    def teachers(self) -> int:
        return 1 + (len(self.pool.members()) if self.pool else 0)

    def run(self) -> None:
        members = [each.retriever for each in self.pool.members()] if self.pool else []
        subsets = fusions(len(members))
        student, *frozen = models = [
            stage.model() for stage in (self.student, self.teacher, *members)
        ]
        at, lead, layered = (
            [batches(self, model.tower) for model in models],
            self.lead,
            self.method == "LEAD",
        )

        def taught(
            own: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], positive: Tensor
        ) -> losses.Loss:
            """What a teacher's or an assistant's layer scores (K, B, C) and final scores (B, C) ask of the student's."""
            if not layered:
                return losses.response_loss(own[1], other[1], positive, tau_d=lead.tau_d)
            return losses.lead_loss(
                own[0],
                other[0],
                own[1],
                other[1],
                positive,
                tau_d=lead.tau_d,
                tau_l=lead.tau_l,
                joint=False,
                reweight=lead.reweight,
            )

        def layers_of(step: int, N: int) -> selection.Layers:
            if not layered:
                return (), ()
            # Seeded alike for every model: the student's layers are drawn first, so they are the same for all.
            generator = Generator().manual_seed(self.seed * 1_000_003 + step)
            return selection.select(lead.strategy, lead.k, student.layers, N, generator)

        def loss_at(step: int) -> dict[str, Tensor]:
            batch, *others = [each(step).to(DEVICE) for each in at]
            with (
                torch.no_grad()
            ):  # teacher and assistants stay as they are, and as loaded, without dropout
                teacher, *assistants = [
                    model(b, layers_of(step, model.layers)[1])
                    for model, b in zip(frozen, others, strict=True)
                ]
            own = student(batch, layers_of(step, frozen[0].layers)[0])
            from_teacher, from_assistant, chosen = taught(own, teacher, batch.positive), None, {}
            if assistants:
                finals = torch.stack([final for _, final in assistants])  # (A, B, C)
                fused = torch.stack(
                    [losses.fuse(finals[list(subset)], lead.tau_d) for subset in subsets]
                )  # (F, B, C)
                far = processes.mean(
                    distances(teacher[1], fused, self.assistance, lead.tau_d)
                )  # (F,)
                nearest = min(range(len(subsets)), key=far.tolist().__getitem__)
                layers = losses.fuse(
                    torch.stack([assistants[i][0] for i in subsets[nearest]]), lead.tau_d
                )  # (K, B, C)
                from_assistant = taught(own, (layers, fused[nearest]), batch.positive)
                chosen = {
                    "chosen": torch.tensor(nearest),
                    **{f"d{i}": d for i, d in enumerate(far)},
                }
            a = self.assistance
            loss = losses.assisted_loss(
                from_teacher, from_assistant, hard=a.hard, soft=a.soft, assist=a.assist
            )
            return {
                part: getattr(loss, part)
                for part in ("total", "layer", "response", "assistant", "student")
            } | chosen

        log = fit(
            student,
            loss_at,
            self.schedule,
            self.seed,
            self.folder,
            f"MTA4DPR {self.method}, iteration {self.iteration}",
            describe=lambda s: str(at[0].sampler(s)[0].tolist()),
        )
        student.save(self.folder / "retriever", load_tokenizer(self.tower.encoder))
        write_json(self.folder / "log.json", log)
        write_json(
            self.folder / "assistants.json",
            [" + ".join(name(members[i]) for i in subset) for subset in subsets],
        )

    def assistants(self) -> list[str]:
        """The F assistants by name, e.g. "12DE + 6CB": row["chosen"] of the log is an index, row["d0"] the first one's distance."""
        return json.loads((self.done() / "assistants.json").read_text())


# --- the recipe


class MTA4DPR:
    """The stages of one scale and seed, on the main pipeline's warm-ups and negatives. Nothing runs until asked for its result.

    assistants: towers of different architecture or size; by default a 12DE, a 6CB and a 6DE, what the student starts from and the
    first to be replaced. Every iteration trains the same student afresh, equally long, so that only assistants and data differ
    (ours; paper: not noted). Pool members are compared by MRR@10 on dev, all re-ranking the top of the 12DE that mines.
    """

    def __init__(
        self,
        scale: Scale,
        seed: int = 0,
        teacher: str = "CB",
        assistants: tuple[Tower, ...] | None = None,
        iterations: int = 3,
        assistance: Assistance = Assistance(),
    ):
        if iterations < 1:
            raise ValueError(f"iterations is {iterations}: at least one is needed")
        shapes = (
            ("DE", scale.teacher_encoder),
            ("CB", scale.student_encoder),
            ("DE", scale.student_encoder),
        )
        towers = (
            assistants
            if assistants is not None
            else tuple(
                Tower(a, encoder, scale.score_scale[a], dropout=scale.dropout, bf16=scale.bf16)
                for a, encoder in shapes
            )
        )
        if len({(tower.architecture, tower.encoder) for tower in towers}) < max(3, len(towers)):
            raise ValueError(
                f"assistants are {', '.join(f'{t.architecture} {t.encoder}' for t in towers) or 'none'}: "
                "at least three are needed, all of different architecture or encoder"
            )
        self.scale, self.seed, self.iterations, self.assistance = (
            scale,
            seed,
            iterations,
            assistance,
        )
        self.pipeline, self.pool = Pipeline(scale, seed, teacher), None
        for tower in towers:
            schedule = scale.student if tower.encoder == scale.student_encoder else scale.teacher
            assistant = WarmUp(scale.data, tower, schedule, self.pipeline.negatives, seed)
            self.pool = Pool(scale.data, self._on_dev(assistant), len(towers), self.pool)

    def _on_dev(self, retriever: Trained) -> Evaluate:
        return self.pipeline.evaluate(retriever, "dev", rerank=True)

    def _on_train(self, retriever: Trained | None) -> Evaluate:
        return Evaluate(
            self.scale.data, retriever, "train", max(self.scale.data.negatives, Harder.missed)
        )

    def chain(self, method: str = "RD", assisted: bool = True) -> list[Assist]:
        """The iterations: after each, its student joins the pool if it beats the worst member, and the data grow harder."""
        data, first, pool = self.scale.data, self.pipeline, self.pool if assisted else None
        negatives, found = first.negatives, []
        for _ in range(self.iterations):
            found.append(
                Assist(
                    data,
                    method,
                    first.student,
                    first.teacher,
                    negatives,
                    self.scale.distil,
                    replace(self.scale.lead, joint=False),
                    self.seed,
                    pool,
                    self.assistance,
                )
            )
            pool = Pool(data, self._on_dev(found[-1]), pool.size, pool) if pool else None
            negatives = Harder(data, *map(self._on_train, (found[-1], first.miner, None)))
        return found

    def experiments(self, split: str = "test") -> dict[str, Evaluate]:
        """By name; "without assistants" and "+ LEAD" are the last iterations of chains of their own, as long."""
        stages = {f"MTA4DPR iteration {i}": stage for i, stage in enumerate(self.chain(), start=1)}
        stages = {
            "MTA4DPR without assistants": self.chain(assisted=False)[-1],
            **stages,
            "MTA4DPR + LEAD": self.chain("LEAD")[-1],
        }
        return {title: self.pipeline.evaluate(stage, split) for title, stage in stages.items()}


TABLES = {
    "mta4dpr": (
        "student",
        "MTA4DPR without assistants",
        *(f"MTA4DPR iteration {i}" for i in (1, 2, 3)),
        "MTA4DPR + LEAD",
    )
}


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """Every row of MTA4DPR by name, each an evaluation that runs when asked."""
    return MTA4DPR(scale, seed).experiments(split)
