"""Students for the made world: residual blocks, trained by this package's losses and selections.

A training takes about a second of one core. Shapes: B queries, C candidates, N teacher layers,
M student layers, K selected layers, R texts, F features, H hidden size.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from leadkit import losses, scores, selection
from leadkit.lessons.world.made import FEATURES, Data, Texts

HIDDEN, BLOCKS, K = 32, 4, 3  # H, M, and the selected layers
STEPS, RATE, DECAY = 200, 0.01, 0.5
CLOSE = 2.0  # points of MRR@10: one student is ahead of another by more


class Student(nn.Module):
    """A dual encoder of M residual blocks. It returns the states after every block."""

    def __init__(self, blocks: int = BLOCKS):
        super().__init__()
        self.embed = nn.Linear(FEATURES, HIDDEN)
        self.blocks = nn.ModuleList(_block() for _ in range(blocks))

    def forward(self, seen: Tensor) -> Tensor:
        """Texts (R, F) -> (M, R, H)."""
        state = self.embed(seen)  # (R, H)
        states = []
        for block in self.blocks:
            state = state + block(state)
            states.append(state)
        return torch.stack(states)

    def scores(self, queries: Texts, passages: Texts) -> Tensor:
        """Layer scores (M, B, C)."""
        states = self(torch.cat([queries.seen, passages.seen]))  # (M, B + C, H)
        q, p = states.split([len(queries.seen), len(passages.seen)], dim=1)
        return scores.dot(q, p) / math.sqrt(HIDDEN)


def _block() -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN)
    )


# Student scores (M, B, C), teacher scores (N, B, C), positives (B,), what draws layers -> the loss
Method = Callable[[Tensor, Tensor, Tensor, Generator], Tensor]


def _control(student: Tensor, teacher: Tensor, positive: Tensor, generator: Generator) -> Tensor:
    return losses.student_loss(student[-1], positive).total


def _response(student: Tensor, teacher: Tensor, positive: Tensor, generator: Generator) -> Tensor:
    return losses.response_loss(student[-1], teacher[-1], positive).total


def _labels(student: Tensor, teacher: Tensor, positive: Tensor, generator: Generator) -> Tensor:
    """Deep supervision: the label teaches K layers, drawn as LEAD draws them."""
    k = min(K, len(student))
    chosen, _ = selection.random_layers(k, len(student), len(student), generator)
    layers = student[_rows(chosen)]  # (K, B, C)
    return losses.student_loss(student[-1], positive).total + losses.nll(layers, positive).mean()


def _lead(
    student: Tensor,
    teacher: Tensor,
    positive: Tensor,
    generator: Generator,
    *,
    strategy: str = "random",
    ordered: bool = True,
    reweight: bool = True,
) -> Tensor:
    k = min(K, len(student))
    chosen, taught = selection.select(strategy, k, len(student), len(teacher), generator)
    rows = _rows(taught)
    if not ordered:
        rows = rows[torch.randperm(k, generator=generator)]
    s, t = student[_rows(chosen)], teacher[rows]  # (K, B, C) each
    return losses.lead_loss(
        s, t, student[-1], teacher[-1], positive, joint=False, reweight=reweight
    ).total


def _rows(layers: tuple[int, ...]) -> Tensor:
    return torch.tensor(layers) - 1  # (K,)


METHODS: dict[str, Method] = {
    "control": _control,
    "labels": _labels,
    "RD": _response,
    "LEAD": _lead,
    "LEAD, Last": partial(_lead, strategy="last"),
    "LEAD, equal weights": partial(_lead, reweight=False),
    "LEAD, any order": partial(_lead, ordered=False),
}


def train(data: Data, method: Method, seed: int, blocks: int = BLOCKS) -> Student:
    """A new student, taught by a method. All training queries are one batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = Student(blocks)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), RATE, weight_decay=DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    positive = torch.arange(len(data.queries.seen))  # (B,)
    for _ in range(STEPS):
        table = student.scores(data.queries, data.passages)  # (M, B, C)
        loss = method(table, data.teacher, positive, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return student


@torch.no_grad()
def mrr(student: Student, data: Data) -> float:
    """MRR@10 in percent: 300 held-out queries, 600 passages, the last layer's scores."""
    return 100 * reciprocal_ranks(student.scores(data.test_queries, data.test_passages)[-1])


def reciprocal_ranks(table: Tensor) -> float:
    """RR@10, a mean over queries: scores (B, C), of which passage i is relevant to query i.

    >>> reciprocal_ranks(torch.tensor([[1.0, 2.0, 0.0], [0.0, 3.0, 0.0]]))
    0.75
    """
    rank = 1 + (table > table.diagonal()[:, None]).sum(1)  # (B,)
    return float((1 / rank).where(rank <= 10, 0.0).mean())  # (B,) -> ()


def ahead(lead: float, rd: float) -> str:
    """Whose MRR@10 is ahead: LEAD, RD or neither.

    >>> ahead(70.0, 60.0), ahead(70.0, 71.0)
    ('LEAD', 'neither')
    """
    if abs(lead - rd) <= CLOSE:
        return "neither"
    return "LEAD" if lead > rd else "RD"
