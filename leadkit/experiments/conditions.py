"""When does LEAD help, and when does a smoothed label?

A map on dev: it shows where to look and judges nothing. The miner, its negatives and the list that
a teacher re-ranks are those of the scale itself.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

from leadkit.config import Scale
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.interpolation import TakenBack
from leadkit.experiments.label_smoothing import SmoothAlone
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.store import Trained
from leadkit.models.tower import depth

# Row -> its method and the settings of LEAD that it changes.
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "student, as long": ("student", {}),
    SmoothAlone.name: (SmoothAlone.name, {}),
    "RD": ("RD", {}),
    "frozen LEAD": ("LEAD", {"joint": False}),
}
ROWS = ("teacher", *TRAINED)
STEPS = (150, 600, 2400)  # of the distillation
SHALLOW = "shallow CB teacher"  # as deep as its student
# Their architectures; the figure says how far each is ahead of its student.
TEACHERS = {"DE teacher": "DE", SHALLOW: "CB", "CB teacher": "CB"}
TAU_L = (0.3, 1.0, 10.0)
WEIGHTS = (0.1, 0.3, 3.0)  # of L_lyr; the scale itself has 1
LOWER = "lower layers of the teacher"
SINGLE = "one passage per query"
BACK = "a quarter back to the encoder"  # the weights, when the training is over
RATES = (0.5, 2)  # of the distillation; the scale itself has 1
OTHERS = (
    *(f"layer weight {weight:g}" for weight in WEIGHTS),
    SINGLE,
    LOWER,
    *(f"learning rate x {times:g}" for times in RATES),
    BACK,
)


def point(steps: int, teacher: str, tau_l: float) -> str:
    """The name of a condition of the map."""
    return f"{steps} steps, {teacher}, tau_l {tau_l:g}"


def _rows(conditions: list[str]) -> tuple[str, ...]:
    return tuple(f"{row}, {condition}" for condition in conditions for row in ROWS)


TABLES = {
    **{
        f"map {steps}": _rows([point(steps, *rest) for rest in product(TEACHERS, TAU_L)])
        for steps in STEPS
    },
    "conditions": _rows(list(OTHERS)),
}


def conditions(scale: Scale) -> Iterator[tuple[str, str, Scale]]:
    """The points of the map, then single changes: name, architecture of the teacher, scale."""
    layers = range(1, depth(Pipeline(scale).student.tower) + 1)
    lowest = f"layers:{','.join(map(str, layers))}:{scale.teacher_encoder}"
    for steps, teacher, tau_l in product(STEPS, TEACHERS, TAU_L):
        changed = replace(
            scale,
            teacher_encoder=lowest if teacher == SHALLOW else scale.teacher_encoder,
            lead=replace(scale.lead, tau_l=tau_l),
            distil=replace(scale.distil, steps=steps),
        )
        yield point(steps, teacher, tau_l), TEACHERS[teacher], changed
    for weight in WEIGHTS:
        lead = replace(scale.lead, layer_weight=weight)
        yield f"layer weight {weight:g}", "CB", replace(scale, lead=lead)
    yield SINGLE, "CB", replace(scale, data=replace(scale.data, passages=1))
    yield LOWER, "CB", replace(scale, student_encoder=lowest)
    for times in RATES:
        distil = replace(scale.distil, learning_rate=times * scale.distil.learning_rate)
        yield f"learning rate x {times:g}", "CB", replace(scale, distil=distil)


def experiments(scale: Scale, seed: int = 0, split: str = "dev") -> dict[str, Evaluate]:
    """Every row of the tables by name, each an evaluation that runs when asked."""
    plain = Pipeline(scale, seed)
    every: dict[str, Evaluate] = {}
    for condition, teacher, changed in conditions(scale):
        # The warm-ups keep the batches of the scale; the distillation alone has others.
        usual = replace(changed, data=scale.data)
        chain = Pipeline(usual, seed, teacher, like=plain)
        every[f"teacher, {condition}"] = chain.evaluate(chain.teacher, split)
        for row, (method, lead) in TRAINED.items():
            distilled = replace(chain.distil(method, **lead), data=changed.data)
            every[f"{row}, {condition}"] = chain.evaluate(distilled, split)
    trained: dict[str, Trained] = {"teacher": plain.teacher}
    trained |= {row: plain.distil(method, **lead) for row, (method, lead) in TRAINED.items()}
    for row, stage in trained.items():
        every[f"{row}, {BACK}"] = plain.evaluate(TakenBack(scale.data, stage), split)
    return every
