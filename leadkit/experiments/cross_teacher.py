"""A CE teacher that teaches: it starts from the trained CB teacher.

A CE sees no in-batch negatives. From a plain encoder it needs far more steps than a DE or CB before
it tells passages apart. This recipe is ours; the paper does not say how its CE was warmed up.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from leadkit import losses
from leadkit.config import CrossStart, Data, Scale, Schedule
from leadkit.data.sampling import Batches
from leadkit.experiments.distillation import WarmUp, draw_batches, save, train
from leadkit.experiments.store import Negatives
from leadkit.hardware import DEVICE
from leadkit.models.retriever import Retriever
from leadkit.models.retrievers import build
from leadkit.models.tower import Tower
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class WarmUpFrom(WarmUp):
    """Train a CE that starts as a trained CB and listens to it at first.

    Its first batches have random negatives. ValueError where the CB has another encoder or linear
    layer.
    """

    kind = "warm-up from CB"
    start: WarmUp = field(kw_only=True)
    how: CrossStart = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder", "linear"):
            ours, theirs = getattr(self.tower, name), getattr(self.start.tower, name)
            if ours != theirs:
                raise ValueError(
                    f"start has {name} {theirs!r}, the tower {ours!r}: a CE starts from a CB with "
                    "the same"
                )

    def batches(self) -> Batches:
        """Step -> the batch with mined negatives."""
        return self._batches(self.negatives)

    def _batches(self, negatives: Negatives | None) -> Batches:
        return draw_batches(self, self.tower, [self.tower], 2 * self.seed, negatives)

    def listens(self, batch: int) -> float:
        """The weight of the CB in this batch: 1 at first, 0 from `how.fade` of the training on."""
        batches = self.schedule.steps * self.schedule.accumulate
        return max(0.0, 1 - batch / (self.how.fade * batches))

    def teacher_passes(self) -> int:
        batches = self.schedule.steps * self.schedule.accumulate
        return sum(self.listens(batch) > 0 for batch in range(batches))

    def run(self, operation: Operation) -> None:
        colbert = self.start.model().eval().requires_grad_(False)
        torch.manual_seed(self.seed)
        model = started_from(colbert, self.tower)
        easy, hard = self._batches(None), self._batches(self.negatives)
        random_until = self.how.easy * self.schedule.steps * self.schedule.accumulate

        def loss_at(number: int) -> dict[str, Tensor]:
            batch = (easy if number < random_until else hard)(number).to(DEVICE)
            _, final = model(batch)  # (B, n)
            student = losses.student_loss(final, batch.positive).total
            weight = self.listens(number)
            if not weight:
                return {"total": student, "student": student, "response": torch.zeros_like(student)}
            with torch.no_grad():
                _, taught = colbert(batch)  # (B, n)
            response = losses.kl(taught, final).mean()
            return {"total": student + weight * response, "student": student, "response": response}

        label = f"warming up {model.layers}{self.tower.architecture} from a CB"
        train(self, model, loss_at, self.schedule, label, hard, operation)
        save(model, self, "retriever")


def started_from(colbert: Retriever, tower: Tower) -> Retriever:
    """A CE with the CB's layers, whose projection w is zero: it scores all pairs alike.

    A CB never sees token type 1, which marks the passage of a pair. It becomes a copy of type 0.
    """
    model = build(tower)
    model.load_state_dict(colbert.state_dict(), strict=False)  # a CB has no w
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "projection":
                parameter.zero_()
            if name.endswith("token_type_embeddings.weight"):  # (types, H)
                parameter[1:] = parameter[0]
    return model


def cross_teacher(
    scale: Scale,
    data: Data,
    tower: Tower,
    schedule: Schedule,
    negatives: Negatives,
    seed: int,
    colbert: WarmUp,
) -> WarmUp:
    """The warm-up of a CE: from the trained CB where the scale says how, else from its encoder.

    That of the released code always starts from its encoder.
    """
    how = scale.cross_start
    if not how or tower.released:
        return WarmUp(data, tower, schedule, negatives, seed)
    data = replace(data, batch=how.batch, passages=how.passages)
    return WarmUpFrom(data, tower, schedule, negatives, seed, start=colbert, how=how)
