"""RD + matching of the last [CLS] states through a projection (EmbedDistill, Kim et al., 2023)."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from leadkit import losses
from leadkit.config import Lead
from leadkit.experiments.method import Method, Step
from leadkit.models.batch import Batch
from leadkit.models.retriever import Retriever, TwoTowers
from leadkit.models.retrievers import architecture
from leadkit.models.tower import Tower


def states_and_scores(model: TwoTowers, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Final states of the queries (B, H) and passages (B * n, H), final scores (B, C).

    Those of [CLS], or the means where a DE compares means.
    """
    last = (model.layers,)
    queries = model.token_states(batch.queries, last)
    passages = model.token_states(batch.passages, last)
    last_queries = model.final_states(queries[0])
    last_passages = model.final_states(passages[0])
    final = model.score_states([last_queries], [last_passages], batch)[0]  # (B, C)
    # A CB compares every state: that of [CLS].
    query_vectors = model.compared(queries[0], batch.queries.mask)[:, 0]
    passage_vectors = model.compared(passages[0], batch.passages.mask)[:, 0]
    return query_vectors, passage_vectors, final


@dataclass(frozen=True)
class StateMatching(Method):
    """RD, and the student's projected states of queries and passages near the teacher's."""

    name = "RD + states"
    tau_d: float = 1.0  # of RD
    weight: float = 1.0  # of the distance of the states; ours

    def __post_init__(self) -> None:
        losses.check_temperature("tau_d", self.tau_d)
        if not self.weight >= 0:
            raise ValueError(f"weight is {self.weight}: it must not be negative")

    @classmethod
    def of(cls, lead: Lead) -> Self:
        return cls(lead.tau_d)

    def check(self, student: Tower, teacher: Tower | None) -> None:
        super().check(student, teacher)
        for tower in (student, teacher):
            if tower and architecture(tower.architecture).pairs_only:
                raise ValueError(
                    f"method {self.name!r} compares the states of single texts: a "
                    f"{tower.architecture} has none, it sees pairs only"
                )

    def heads(self, student: Retriever, teacher: Retriever | None) -> dict[str, nn.Module]:
        assert teacher is not None
        return {"projection": nn.Linear(student.width, teacher.width, bias=False)}

    def parts(self, step: Step) -> dict[str, Tensor]:
        batch = step.batches["student"]
        with torch.no_grad():
            *teacher_cls, teacher_final = states_and_scores(
                step.models["teacher"], step.batches["teacher"]
            )
        *student_cls, student_final = states_and_scores(step.models["student"], batch)
        rd = losses.response_loss(student_final, teacher_final, batch.positive, tau_d=self.tau_d)
        project = step.models["projection"]
        pairs = zip(student_cls, teacher_cls, strict=True)
        # L_{emb} = \frac{1}{H} \sum_{x \in \{q, p\}} \lVert W E_s(x) - E_t(x) \rVert^2
        states = torch.stack([mse_loss(project(own), other) for own, other in pairs]).sum()
        total = rd.total + self.weight * states
        return {"total": total, "response": rd.response, "states": states, "student": rd.student}
