"""MTA4DPR's pool of assistants, and the harder data of its later iterations."""

import json
from dataclasses import dataclass

import torch

from leadkit.data.sampling import Group, groups
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.store import Negatives, Stage
from leadkit.experiments.texts import collection
from leadkit.files import read_tensors, write_json, write_tensors
from leadkit.models.tower import Tower
from leadkit.retrieval.negatives import hard_negatives
from leadkit.retrieval.runs import Run, reciprocal_rank_fusion
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class Pool(Stage):
    """The pool before with one more assistant, an evaluated retriever.

    When it exceeds `size`, the worst of all leaves. An entrant that stays takes the place of the
    one that left. The best never leaves; of equals, the entrant does.
    """

    kind = "pool"
    entrant: Evaluate
    size: int
    before: "Pool | None" = None

    def candidates(self) -> list[Evaluate]:
        return [*(self.before.members() if self.before else ()), self.entrant]

    def run(self, operation: Operation) -> None:
        values = [float(each.values().mean()) for each in self.candidates()]  # MRR@10
        members = list(range(len(values)))
        if len(members) > self.size:
            worst = min(members, key=lambda i: (values[i], -i))
            members[worst] = members[-1]
            members.pop()
        write_json(self.folder / "pool.json", {"RR@10": values, "members": members})

    def members(self) -> list[Evaluate]:
        candidates = self.candidates()
        kept = json.loads((self.done() / "pool.json").read_text())["members"]
        return [candidates[i] for i in kept]

    def towers(self) -> list[Tower]:
        """Those of every retriever that may be a member."""
        assert self.entrant.retriever is not None
        return [*(self.before.towers() if self.before else ()), self.entrant.retriever.tower]


@dataclass(frozen=True)
class Harder(Negatives):
    """The next iteration's data: negatives merged from three retrievers, missed queries twice."""

    kind = "harder"
    student: Evaluate  # all three of the training queries
    dense: Evaluate
    words: Evaluate
    # A query is missed that has no relevant passage among the student's first so many.
    missed: int = 10  # paper: not noted
    k: float = 60.0  # of reciprocal rank fusion; paper: not noted (Cormack et al.: 60)

    def __post_init__(self) -> None:
        if not 1 <= self.missed <= self.student.depth:
            raise ValueError(
                f"missed is {self.missed}: it must be a rank of the student's run, from 1 to "
                f"{self.student.depth}"
            )

    def run(self, operation: Operation) -> None:
        student = self.student.ranking()
        training = groups(collection(self.data.collection), "train")
        missed = [
            i
            for i, group in enumerate(training)
            if set(group.relevant).isdisjoint(student.rows[group.query, : self.missed].tolist())
        ]
        if not missed:
            raise ValueError(
                f"the student has a relevant passage among its first {self.missed} for each of the "
                f"{len(training)} training queries, so there is no harder data: stop here, or "
                "lower `missed`"
            )
        runs = [student, self.dense.ranking(), self.words.ranking()]
        depth = self.data.negatives + max(len(group.relevant) for group in training)
        merged = reciprocal_rank_fusion(runs, depth, self.k)
        tensors = {
            "rows": torch.from_numpy(merged.rows).int(),
            "scores": torch.from_numpy(merged.scores),
            "missed": torch.tensor(missed),
        }
        write_tensors(self.folder / "harder.safetensors", tensors)

    def groups(self) -> list[Group]:
        tensors = read_tensors(self.done() / "harder.safetensors")
        run = Run(tensors["rows"].numpy(), tensors["scores"].numpy())
        training = groups(collection(self.data.collection), "train")
        hard = hard_negatives(run, training, self.data.negatives)
        return hard + [hard[i] for i in tensors["missed"].tolist()]
