"""When does LEAD help? The student alone, RD and frozen LEAD under changed conditions.

A map on dev: it shows where to look and judges nothing. The miner, its negatives and the list that
a teacher re-ranks are those of the scale itself.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from leadkit.config import Scale
from leadkit.experiments.controls import TRAININGS
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.tables import ABLATED
from leadkit.models.tower import depth

TRAINED = ("student, as long", "CB RD", "CB frozen LEAD")
ROWS = ("CB teacher", *TRAINED)
STEPS = (150, 600, 2400)  # of the distillation
TAUGHT = (10, 30, 120)  # steps of the teacher: how far it is ahead of its student
TAU_L = (0.3, 1.0, 10.0)
WEIGHTS = (0.1, 0.3, 3.0)  # of L_lyr; the scale itself has 1
LOWER = "lower layers of the teacher"
SINGLE = "one passage per query"
OTHERS = (*(f"layer weight {weight:g}" for weight in WEIGHTS), SINGLE, LOWER)


def point(steps: int, taught: int, tau_l: float) -> str:
    """The name of a condition of the map."""
    return f"{steps} steps, teacher of {taught}, tau_l {tau_l:g}"


def _rows(conditions: list[str]) -> tuple[str, ...]:
    return tuple(f"{row}, {condition}" for condition in conditions for row in ROWS)


TABLES = {
    **{
        f"map {steps}": _rows([point(steps, *rest) for rest in product(TAUGHT, TAU_L)])
        for steps in STEPS
    },
    "conditions": _rows(list(OTHERS)),
}


def conditions(scale: Scale) -> Iterator[tuple[str, Scale]]:
    """The points of the map, then changes of one thing: a name and the scale that is run."""
    for steps, taught, tau_l in product(STEPS, TAUGHT, TAU_L):
        yield (
            point(steps, taught, tau_l),
            replace(
                scale,
                lead=replace(scale.lead, tau_l=tau_l),
                distil=replace(scale.distil, steps=steps),
                teacher=replace(scale.teacher, steps=taught),
            ),
        )
    for weight in WEIGHTS:
        lead = replace(scale.lead, layer_weight=weight)
        yield f"layer weight {weight:g}", replace(scale, lead=lead)
    yield SINGLE, replace(scale, data=replace(scale.data, passages=1))
    lowest = range(1, depth(Pipeline(scale).student.tower) + 1)
    encoder = f"layers:{','.join(map(str, lowest))}:{scale.teacher_encoder}"
    yield LOWER, replace(scale, student_encoder=encoder)


def experiments(scale: Scale, seed: int = 0, split: str = "dev") -> dict[str, Evaluate]:
    """Every row of the tables by name, each an evaluation that runs when asked."""
    plain = Pipeline(scale, seed, ABLATED)
    every: dict[str, Evaluate] = {}
    for condition, changed in conditions(scale):
        # The warm-ups keep the batches of the scale; the distillation alone has others.
        usual = replace(changed, data=scale.data)
        chain = Pipeline(usual, seed, ABLATED, like=plain)
        every[f"CB teacher, {condition}"] = chain.evaluate(chain.teacher, split)
        for row in TRAINED:
            method, lead = TRAININGS[row]
            distilled = replace(chain.distil(method, **lead), data=changed.data)
            every[f"{row}, {condition}"] = chain.evaluate(distilled, split)
    return every
