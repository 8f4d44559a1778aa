"""Rows that the paper lacks: controls that its claims are held against."""

from dataclasses import replace
from itertools import product
from typing import Any

from leadkit.config import Scale
from leadkit.experiments.deep_supervision import SoftResponse
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.label_smoothing import SmoothAlone, SmoothLabel
from leadkit.experiments.own_passages import OwnPassages, ResponseOnOwn
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.ready import as_it_came
from leadkit.experiments.rescaled import Rescaled
from leadkit.experiments.rows import RAW, RELEASED, TEACHERS, WIDE, experiment
from leadkit.experiments.tables import ABLATED, BASELINES
from leadkit.experiments.tables import TABLES as PAPER

# Experiment -> its method and the settings of LEAD that it changes.
TRAININGS: dict[str, tuple[str, dict[str, Any]]] = {
    "student, as long": ("student", {}),
    "CB RD": ("RD", {}),
    "CB LEAD": ("LEAD", {}),
    "CB frozen LEAD": ("LEAD", {"joint": False}),
}
CHAIN = ("CB teacher", "student", *TRAININGS)  # what is trained anew in another regime
CROSS = experiment(ResponseOnOwn.name, "CE")  # is it the CE or its candidates?
SOFT = "CB RD, tau_d = 2"  # do softer targets alone do what the layer loss does?
# Does a CE teach better where each query has more passages of its own?
OWN: dict[str, tuple[str, str]] = {  # experiment -> teacher and method
    OwnPassages.name: (ABLATED, OwnPassages.name),
    "CE RD": ("CE", "RD"),
}
ENCODER = "encoder as it came"  # the student's with all its layers: what does training add to it?
# By how much the student's scores are multiplied: is its gain only that it is surer, or less so?
TIMES = {", scores / 2": 0.5, ", scores x 2": 2.0, ", scores x 4": 4.0}
RESCALED: dict[str, tuple[str, dict[str, Any]]] = {
    **TRAININGS,
    SmoothAlone.name: (SmoothAlone.name, {}),
    **{experiment(each.name, ABLATED): (each.name, {}) for each in (SoftResponse, SmoothLabel)},
}
TABLES = {
    "primary": (*PAPER["main"], "without joint training", "CB teacher, as long"),
    "controls": (
        "student",
        "student, as long",
        *(experiment(row, each) for each in TEACHERS for row in ("RD", "LEAD")),
        "DE frozen LEAD",
        "without joint training",  # frozen LEAD with the CB teacher
        "CE frozen LEAD",
        *(
            experiment(row, each)
            for each in TEACHERS
            for row in ("teacher", "teacher, as long", "teacher after LEAD")
        ),
        *(experiment(name, ABLATED) for name in BASELINES),
        CROSS,
        SOFT,
        *(name + times for times in TIMES for name in RESCALED),
        ENCODER,
        *(name + WIDE for name in (*TRAININGS, *OWN)),
        *(name + regime for regime in (RAW, RELEASED) for name in CHAIN),
    ),
}


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """The rows of the table that tables.py does not have, by name."""
    every: dict[str, Evaluate] = {}
    for teacher in TEACHERS:
        chain = Pipeline(scale, seed, teacher)
        every[f"{teacher} teacher, as long"] = chain.evaluate(chain.teacher_as_long(), split)
        if teacher != ABLATED:
            frozen = chain.distil("LEAD", joint=False)
            every[f"{teacher} frozen LEAD"] = chain.evaluate(frozen, split)
    cross = Pipeline(scale, seed, "CE")
    every[CROSS] = cross.evaluate(cross.distil(ResponseOnOwn.name), split)
    plain = Pipeline(scale, seed, ABLATED)
    every[ENCODER] = plain.evaluate(as_it_came(plain.student), split)
    every[SOFT] = plain.evaluate(plain.distil("RD", tau_d=2.0), split)
    for part in (_wide, _rescaled, _raw, _released):
        every |= part(plain, split)
    return every


def _wide(chain: Pipeline, split: str) -> dict[str, Evaluate]:
    """Fewer queries and more negatives of each in a batch; the warm-ups stay as they are."""
    data = replace(chain.scale.data, batch=16, passages=8)
    every = {name: chain.distil(method, **changes) for name, (method, changes) in TRAININGS.items()}
    for name, (teacher, method) in OWN.items():
        every[name] = Pipeline(chain.scale, chain.seed, teacher).distil(method)
    return {
        name + WIDE: chain.evaluate(replace(stage, data=data), split)
        for name, stage in every.items()
    }


def _rescaled(chain: Pipeline, split: str) -> dict[str, Evaluate]:
    """Distillations of a student whose scores are multiplied; its teacher is as it was."""
    every = {}
    for (label, times), (name, (method, changes)) in product(TIMES.items(), RESCALED.items()):
        student = Rescaled(chain.scale.data, chain.student, times)
        distilled = replace(chain.distil(method, **changes), student=student)
        every[name + label] = chain.evaluate(distilled, split)
    return every


def _raw(plain: Pipeline, split: str) -> dict[str, Evaluate]:
    """Raw scores with the dropout and the temperature of the released scripts.

    Teacher and student are warmed up in this regime. The mined negatives and the list that the
    teacher re-ranks are the same as elsewhere.
    """
    lead = replace(plain.scale.lead, tau_l=10.0)
    regime = replace(plain.scale, scaled=False, dropout=0.1, lead=lead)
    return _chain(Pipeline(regime, plain.seed, ABLATED, like=plain), RAW, split)


def _released(plain: Pipeline, split: str) -> dict[str, Evaluate]:
    """Everything as the authors released it: losses and retrievers, the scripts' temperatures.

    The mined negatives and the list that the teacher re-ranks are the same as elsewhere.
    """
    lead = replace(plain.scale.lead, variant="released", tau_d=1.0, tau_l=10.0)
    regime = replace(plain.scale, lead=lead)
    return _chain(Pipeline(regime, plain.seed, ABLATED, like=plain), RELEASED, split)


def _chain(chain: Pipeline, label: str, split: str) -> dict[str, Evaluate]:
    """Both warm-ups of a regime and the distillations from them."""
    distilled = {
        name: chain.distil(method, **changes) for name, (method, changes) in TRAININGS.items()
    }
    stages = dict(zip(CHAIN, (chain.teacher, chain.student, *distilled.values()), strict=True))
    return {name + label: chain.evaluate(stage, split) for name, stage in stages.items()}
