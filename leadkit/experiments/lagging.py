"""The data of PROD's last stage: the queries that the teacher answers and the student nearly."""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np

from leadkit.data.sampling import Group, groups
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.store import Negatives, Trained
from leadkit.experiments.texts import collection, passages_of, queries_of
from leadkit.files import write_json
from leadkit.retrieval.negatives import hard_negatives
from leadkit.retrieval.reranking import rerank
from leadkit.retrieval.runs import Run
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class Lagging(Negatives):
    """The training queries that the teacher answers first and the student from `first` to `last`.

    Their negatives are not drawn but the most confusing ones: those with the student's highest
    scores, n - 1 per query.
    """

    kind = "lagging"
    student: Evaluate  # of the training queries
    teacher: Trained  # a CB or CE: re-ranks the student's top `rerank` of the near queries
    first: int
    last: int
    rerank: int

    def run(self, operation: Operation) -> None:
        run = self.student.ranking()
        training = groups(collection(self.data.collection), "train")
        near = [group for group in training if self.first <= rank(run, group) <= self.last]
        rows = [group.query for group in near]
        model = self.teacher.model()
        queries = queries_of(model.tower, self.data, "train").take(rows)
        passages = passages_of(model.tower, self.data)
        top = Run(run.rows[rows], run.scores[rows])
        taught = rerank(model, queries, passages, top, self.rerank)
        confusing = hard_negatives(run, near, self.data.passages - 1)
        described = [
            {
                **asdict(group),
                "student": rank(run, group),
                "teacher": rank(taught, replace(group, query=i)),
            }
            for i, group in enumerate(confusing)
        ]
        write_json(self.folder / "near.json", described)

    def near(self) -> list[dict]:
        """The near queries: query, relevant, negatives.

        And the student's and the teacher's rank of its first relevant passage.
        """
        return json.loads((self.done() / "near.json").read_text())

    def groups(self) -> list[Group]:
        """Those that the teacher answers first. ValueError where they do not fill a batch."""
        behind = [
            Group(row["query"], tuple(row["relevant"]), tuple(row["negatives"]), row["own"])
            for row in self.near()
            if row["teacher"] == 1
        ]
        if len(behind) < self.data.batch:
            training = groups(collection(self.data.collection), "train")
            raise ValueError(
                f"{len(behind)} of {len(training)} training queries are answered first by the "
                f"teacher and {self.first} to {self.last} by the student, fewer than a batch of "
                f"{self.data.batch}: stop before the data stage, or raise `last`"
            )
        return behind


def rank(run: Run, group: Group) -> int:
    """The rank of the query's first relevant passage, from 1; 0 where the run has none."""
    hits = np.isin(run.rows[group.query], group.relevant)
    return int(hits.argmax()) + 1 if hits.any() else 0
