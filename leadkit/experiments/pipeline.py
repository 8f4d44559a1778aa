"""Named chains of stages: the paper's pipeline and its tables, as rows that can be evaluated."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from leadkit.results import paper
from leadkit.data.sampling import Batches
from leadkit.config import Scale
from leadkit.experiments.distillation import Distil, Mine, WarmUp, batches
from leadkit.models.encoders import MODELS
from leadkit.retrieval.measures import paired_t_test
from leadkit.files import write_json
from leadkit.training.pretraining import OBJECTIVES
from leadkit.models.retrievers import Tower
from leadkit.experiments.store import Evaluate

TEACHERS = ("DE", "CB", "CE")
ROWS = (
    "BM25",
    "12DE (mines)",
    "teacher",
    "student",
    "student, as long",
    "FD",
    "RD",
    "LEAD",
    "teacher after LEAD",
)
WITHOUT_TEACHER = ("BM25", "12DE (mines)", "student", "student, as long")
ABLATED = "CB"  # the teacher of Tables 4 to 8
ABLATIONS = {f"K={k}": {"k": k} for k in (1, 2, 3, 4, 6)} | {
    "Weighted": {"strategy": "weighted"},
    "Last": {"strategy": "last"},
    "Skip": {"strategy": "skip"},
    "without joint training": {"joint": False},
    "without re-weighting": {"reweight": False},
}
LINEAR = {f"linear {method}": method for method in ("RD", "FD", "LEAD")}
STARTS = {
    f"{objective} start": suffix for objective, suffix in OBJECTIVES.items() if suffix
}  # contrastive is the usual one


class Pipeline:
    """The stages of one scale, seed and teacher (section 4.2.2). Nothing runs until a stage is asked for its result.

    The 12DE that mines the hard negatives is shared by all seeds: it is part of the data. Everything after it is seeded.
    linear: width of a linear layer appended to teacher and student before they are warmed up (section 4.6.1), 0 for none.
    larger: the pair of the next size, the scale's larger encoder as teacher and its teacher's as student (section 4.3.1).
    """

    def __init__(
        self,
        scale: Scale,
        seed: int = 0,
        teacher: str = "CB",
        linear: int = 0,
        larger: bool = False,
    ):
        if teacher not in TEACHERS:
            raise ValueError(f"teacher {teacher!r} is unknown: use one of {', '.join(TEACHERS)}")
        self.scale, self.seed, self.linear, data = scale, seed, linear, scale.data
        pair = (
            (scale.larger_encoder, scale.teacher_encoder)
            if larger
            else (scale.teacher_encoder, scale.student_encoder)
        )
        self.miner = WarmUp(
            data, replace(self._tower("DE", scale.teacher_encoder), linear=0), scale.warm_up
        )
        self.negatives = Mine(data, self.miner)
        self.teacher = WarmUp(
            data, self._tower(teacher, pair[0]), scale.teacher, self.negatives, seed
        )
        self.student = WarmUp(data, self._tower("DE", pair[1]), scale.student, self.negatives, seed)

    def _tower(self, architecture: str, encoder: str) -> Tower:
        return Tower(
            architecture,
            encoder,
            self.scale.score_scale[architecture],
            self.linear,
            self.scale.dropout,
            self.scale.bf16,
        )

    def distil(self, method: str, **lead: object) -> Distil:
        """One distillation from the two warm-ups; keywords change fields of `Lead`, e.g. k=1 or joint=False."""
        return Distil(
            self.scale.data,
            method,
            self.student,
            None if method == "student" else self.teacher,
            self.negatives,
            self.scale.distil,
            replace(self.scale.lead, **lead),
            self.seed,
        )

    def batches(self, tower: Tower) -> Batches:
        """Step -> the distillation's batch in this tower's tokens: to look at, outside of training."""
        return batches(self.distil("LEAD"), tower)

    def evaluate(
        self,
        retriever: WarmUp | Distil | None,
        split: str,
        rerank: bool = False,
        teacher: bool = False,
    ) -> Evaluate:
        """The evaluation of a retriever: it searches the collection, or re-ranks the top of the 12DE."""
        own = partial(Evaluate, self.scale.data, retriever, split, self.scale.depth)
        return (
            own(first=self.evaluate(self.miner, split), rerank=self.scale.rerank, teacher=teacher)
            if rerank
            else own()
        )

    def rows(self, split: str = "test") -> dict[str, Evaluate]:
        """The main table (Table 3): its rows in order, each an evaluation that runs when asked."""
        lead = self.distil("LEAD")
        evaluations = (
            self.evaluate(None, split),
            self.evaluate(self.miner, split),
            self.evaluate(self.teacher, split, rerank=True),
            self.evaluate(self.student, split),
            *(self.evaluate(self.distil(method), split) for method in ("student", "FD", "RD")),
            self.evaluate(lead, split),
            self.evaluate(lead, split, rerank=True, teacher=True),
        )
        return dict(zip(ROWS, evaluations, strict=True))


def experiment(row: str, teacher: str) -> str:
    """The name of the main table's row under this teacher among all experiments, e.g. "CB LEAD"."""
    return row if row in WITHOUT_TEACHER else f"{teacher} {row}"


TABLES = {
    "main": tuple(experiment(row, "CB") for row in ROWS),
    "1": ("CB LEAD", "larger LEAD"),
    "3": tuple(
        dict.fromkeys(experiment(row, teacher) for teacher in TEACHERS for row in ROWS[:-1])
    ),
    "4": (*(f"K={k}" for k in (1, 2, 3, 4)), "CB LEAD", "K=6"),
    "5": ("CB LEAD", "Weighted", "Last", "Skip"),
    "6": ("CB RD", "CB LEAD", "without joint training", "without re-weighting"),
    "7": ("CB RD", "CB FD", "CB LEAD", *LINEAR),
    "8": (*STARTS, "CB LEAD"),
    "10": tuple(
        f"{teacher} {row}" for teacher in TEACHERS for row in ("teacher", "teacher after LEAD")
    ),
}


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """Every row of the paper's tables by name, each an evaluation that runs when asked. `TABLES` says which table has which.

    The starts of Table 8 are there where their encoders are: `python -m leadkit pretrain --objective ... --layers 6`.
    """
    every = {
        experiment(row, teacher): evaluation
        for teacher in TEACHERS
        for row, evaluation in Pipeline(scale, seed, teacher).rows(split).items()
    }
    plain, linear = Pipeline(scale, seed, ABLATED), Pipeline(scale, seed, ABLATED, linear=128)
    every |= {
        name: plain.evaluate(plain.distil("LEAD", **changes), split)
        for name, changes in ABLATIONS.items()
    }
    every |= {
        name: linear.evaluate(linear.distil(method), split) for name, method in LINEAR.items()
    }
    for name, suffix in STARTS.items():
        encoder = scale.student_encoder + suffix
        if (MODELS / encoder).is_dir():
            other = Pipeline(replace(scale, student_encoder=encoder), seed, ABLATED)
            every[name] = other.evaluate(other.distil("LEAD"), split)
    larger = Pipeline(scale, seed, ABLATED, larger=True)
    return every | {"larger LEAD": larger.evaluate(larger.distil("LEAD"), split)}


def main_rows(records: dict[str, list[dict]], teacher: str = "CB") -> dict[str, list[dict]]:
    """The rows of the main table among the records of `claims.read_records`."""
    return {row: records[name] for row in ROWS if (name := experiment(row, teacher)) in records}


def main_table(
    pipelines: list[Pipeline], split: str = "test", rows: tuple[str, ...] = ROWS
) -> pd.DataFrame:
    """The main table of these pipelines, one per seed, or some of its rows: runs what is missing. Columns as in `summarise`."""
    every = [pipeline.rows(split) for pipeline in pipelines]
    return summarise({row: [evaluations[row].record() for evaluations in every] for row in rows})


def summarise(records: dict[str, list[dict]]) -> pd.DataFrame:
    """Row -> its records, one per seed; returns one line per row: means over the seeds in percent, sd of MRR@10 over the seeds,
    p of a paired t-test of MRR@10 against RD (over queries, each the mean of its seeds), the paper's MRR@10.

    ValueError where the records are of more than one collection or split: they are never averaged together.
    """
    kinds = {
        (r["collection"], r["fingerprint"], r["split"]) for rows in records.values() for r in rows
    }
    if len(kinds) > 1:
        raise ValueError(
            f"records of different collections cannot be averaged together: {sorted(kinds)}"
        )
    per_query = {
        row: np.mean([r["per_query"]["RR@10"] for r in found], axis=0)
        for row, found in records.items()
    }
    teacher = next(
        (r["stage"]["retriever"]["tower"]["architecture"] for r in records.get("teacher", ())), "CB"
    )
    published = (
        pd.concat([paper.TABLES[number]["MS-Pas", "MRR@10"] for number in (1, 10, 3)])
        .groupby(level=0)
        .last()
    )
    table = {}
    for row, found in records.items():
        values = {
            name: 100 * np.array([r["measures"][name] for r in found])
            for name in found[0]["measures"]
        }
        p = (
            paired_t_test(per_query[row], per_query["RD"])[1]
            if "RD" in per_query and row != "RD"
            else np.nan
        )
        table[row] = {
            "MRR@10": values["RR@10"].mean(),
            "sd": values["RR@10"].std(ddof=1) if len(found) > 1 else np.nan,
            "MAP@1k": values["AP@1000"].mean(),
            "R@100": values["R@100"].mean(),
            "R@1k": values["R@1000"].mean(),
            "p vs RD": p,
            "paper MRR@10": published.get(experiment(row, teacher), np.nan),
        }
    return pd.DataFrame(table).T


def save_records(evaluations: dict[str, Evaluate], seed: int, folder: Path) -> None:
    """Write the result record of every experiment as `folder`/{seed}-{experiment}.json."""
    for name, stage in evaluations.items():
        slug = re.sub(r"\W+", "-", name.lower()).strip("-")
        write_json(
            folder / f"{seed}-{slug}.json",
            {"experiment": name, "seed": seed, "cost": stage.cost()} | stage.record(),
        )


def markdown(table: pd.DataFrame) -> str:
    """A table of `summarise` as Markdown, rounded for print."""
    digits = {"p vs RD": 4}
    lines = [["", *table.columns], ["---", *["---:"] * len(table.columns)]]
    for row, values in table.iterrows():
        lines.append(
            [
                str(row),
                *(
                    "" if np.isnan(v) else f"{v:.{digits.get(name, 2)}f}"
                    for name, v in values.items()
                ),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
