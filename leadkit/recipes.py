"""Named chains of stages: the paper's pipeline and its tables, as rows that can be evaluated."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from leadkit.batches import Batches
from leadkit.config import Scale
from leadkit.distil import Distil, Mine, WarmUp, batches
from leadkit.evaluate import paired_t_test
from leadkit.files import write_json
from leadkit.retrievers import Tower
from leadkit.stages import Evaluate

TEACHERS = ("DE", "CB", "CE")

# Table 3, MS MARCO passage: MRR@10, MAP@1k, R@1k of each row, by teacher (in percent).
PAPER = {
    "DE": {"teacher": (36.45, 37.04, 98.31), "FD": (33.50, 34.10, 95.69), "RD": (35.36, 35.99, 96.99), "LEAD": (36.26, 36.85, 96.51)},
    "CB": {"teacher": (39.46, 40.02, 98.31), "FD": (33.92, 34.56, 96.12), "RD": (36.02, 36.62, 97.18), "LEAD": (37.80, 38.32, 97.42)},
    "CE": {"teacher": (40.54, 41.10, 98.31), "FD": (34.18, 34.81, 95.52), "RD": (35.74, 36.31, 96.55), "LEAD": (36.73, 37.23, 96.13)},
}
PAPER_STUDENT, PAPER_BM25 = (32.62, 33.30, 96.45), (18.7, 19.6, 85.7)


class Pipeline:
    """The stages of one scale, seed and teacher (section 4.2.2). Nothing runs until a stage is asked for its result.

    The 12DE that mines the hard negatives is shared by all seeds: it is part of the data. Everything after it is seeded.
    linear: width of a linear layer appended to teacher and student before they are warmed up (section 4.6.1), 0 for none.
    """

    def __init__(self, scale: Scale, seed: int = 0, teacher: str = "CB", linear: int = 0):
        if teacher not in TEACHERS:
            raise ValueError(f"teacher {teacher!r} is unknown: use one of {', '.join(TEACHERS)}")
        self.scale, self.seed, self.linear, data = scale, seed, linear, scale.data
        self.miner = WarmUp(data, replace(self._tower("DE", scale.teacher_encoder), linear=0), scale.warm_up)
        self.negatives = Mine(data, self.miner)
        self.teacher = WarmUp(data, self._tower(teacher, scale.teacher_encoder), scale.teacher, self.negatives, seed)
        self.student = WarmUp(data, self._tower("DE", scale.student_encoder), scale.student, self.negatives, seed)

    def _tower(self, architecture: str, encoder: str) -> Tower:
        return Tower(architecture, encoder, self.scale.score_scale[architecture], self.linear, self.scale.dropout)

    def distil(self, method: str, **lead: object) -> Distil:
        """One distillation from the two warm-ups; keywords change fields of `Lead`, e.g. k=1 or joint=False."""
        return Distil(self.scale.data, method, self.student, self.teacher, self.negatives, self.scale.distil,
                      replace(self.scale.lead, **lead), self.seed)

    def batches(self, tower: Tower) -> Batches:
        """Step -> the distillation's batch in this tower's tokens: to look at, outside of training."""
        return batches(self.distil("LEAD"), tower)

    def evaluate(self, retriever: WarmUp | Distil | None, split: str, rerank: bool = False, teacher: bool = False) -> Evaluate:
        """The evaluation of a retriever: it searches the collection, or re-ranks the top of the 12DE."""
        own = partial(Evaluate, self.scale.data, retriever, split, self.scale.depth)
        return own(first=self.evaluate(self.miner, split), rerank=self.scale.rerank, teacher=teacher) if rerank else own()

    def rows(self, split: str = "test") -> dict[str, Evaluate]:
        """The main table (Table 3): its rows in order, each an evaluation that runs when asked."""
        lead = self.distil("LEAD")
        return {
            "BM25": self.evaluate(None, split),
            "12DE (mines)": self.evaluate(self.miner, split),
            "teacher": self.evaluate(self.teacher, split, rerank=True),
            "student": self.evaluate(self.student, split),
            "student, as long": self.evaluate(self.distil("student"), split),
            "FD": self.evaluate(self.distil("FD"), split),
            "RD": self.evaluate(self.distil("RD"), split),
            "LEAD": self.evaluate(lead, split),
            "teacher after LEAD": self.evaluate(lead, split, rerank=True, teacher=True),
        }


def main_table(pipelines: list[Pipeline], split: str = "test") -> pd.DataFrame:
    """Row x (MRR@10, MAP@1k, R@100, R@1k: mean over seeds, in percent; p of a paired t-test against RD; the paper's MRR@10)."""
    every = [pipeline.rows(split) for pipeline in pipelines]
    paper = PAPER[pipelines[0].teacher.tower.architecture] | {"student": PAPER_STUDENT, "BM25": PAPER_BM25}
    table = {}
    for name in every[0]:
        records = [rows[name].record()["measures"] for rows in every]
        mean = {m: 100 * sum(r[m] for r in records) / len(records) for m in records[0]}
        # One value per query: its mean over the seeds.
        ours, rd = (sum(rows[row].values() for rows in every) / len(every) for row in (name, "RD"))
        table[name] = {"MRR@10": mean["RR@10"], "MAP@1k": mean["AP@1000"], "R@100": mean["R@100"], "R@1k": mean["R@1000"],
                       "p vs RD": paired_t_test(ours, rd)[1], "paper MRR@10": paper.get(name, (float("nan"),))[0]}
    return pd.DataFrame(table).T


def save_records(pipelines: list[Pipeline], split: str, folder: Path) -> None:
    """Write the result record of every row of every seed as `folder`/{seed}-{row}.json."""
    for pipeline in pipelines:
        for row, stage in pipeline.rows(split).items():
            name = re.sub(r"\W+", "-", row.lower()).strip("-")
            write_json(folder / f"{pipeline.seed}-{name}.json", {"row": row, "seed": pipeline.seed} | stage.record())
