"""The paper's tables as named experiments.

To add a table, name its rows in `TABLES` and make the new ones in `experiments`.
"""

from typing import Any

from leadkit import paths
from leadkit.config import Scale
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.methods import METHODS
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import ROWS, TEACHERS, experiment
from leadkit.models.tower import depth
from leadkit.training.objectives import OBJECTIVES

ABLATED = "CB"  # the teacher of Tables 4 to 8
ABLATIONS: dict[str, dict[str, Any]] = {
    **{f"K={k}": {"k": k} for k in (1, 2, 3, 4, 6)},  # K = 5 is the paper's LEAD
    "Weighted": {"strategy": "weighted"},
    "Last": {"strategy": "last"},
    "Skip": {"strategy": "skip"},
    "without joint training": {"joint": False},
    "without re-weighting": {"reweight": False},
}
LINEAR = {f"linear {method}": method for method in ("RD", "FD", "LEAD")}
# Contrastive pre-training is the usual start.
STARTS = {f"{name} start": suffix for name, suffix in OBJECTIVES.items() if suffix}
# Methods that the paper's main table does not have.
BASELINES = tuple(name for name in METHODS if name not in (*ROWS, "student"))


TABLES = {
    "main": (*(experiment(row, "CB") for row in ROWS), "DE teacher"),  # whose list CB re-ranks
    "1": ("CB LEAD", "larger LEAD"),
    "2": ("CB LEAD", "larger LEAD"),  # Table 1 on documents
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
    "baselines": ("CB RD", "CB LEAD", *(experiment(name, ABLATED) for name in BASELINES)),
}


def rows_at(scale: Scale) -> dict[str, tuple[str, ...]]:
    """The tables whose rows differ at this scale: those of K, its own being LEAD, and Table 8."""
    changed: dict[str, tuple[str, ...]] = {}
    own = scale.lead.k
    if own != 5:
        changed["4"] = (*(f"K={k}" for k in range(1, 7) if k != own), "CB LEAD")
    if scale.starts:
        changed["8"] = (*scale.starts, "larger LEAD")
    return changed


def experiments(scale: Scale, seed: int = 0, split: str = "test") -> dict[str, Evaluate]:
    """Every row of the tables by name, each an evaluation that runs when asked.

    The starts of Table 8 are there where their encoders are:
    `python -m leadkit pretrain --objective ... --layers 6`. Those of Table 4 are there as far as
    the student has K layers.
    """
    every: dict[str, Evaluate] = {}
    for teacher in TEACHERS:
        for row, evaluation in Pipeline(scale, seed, teacher).rows(split).items():
            every[experiment(row, teacher)] = evaluation
    plain = Pipeline(scale, seed, ABLATED)
    deepest = depth(plain.student.tower)
    ablations = ABLATIONS if scale.lead.k == 5 else ABLATIONS | {"K=5": {"k": 5}}
    possible = {name: lead for name, lead in ablations.items() if lead.get("k", 1) <= deepest}
    for name, changes in possible.items():
        every[name] = plain.evaluate(plain.distil("LEAD", **changes), split)
    for name in BASELINES:
        every[experiment(name, ABLATED)] = plain.evaluate(plain.distil(name), split)
    linear = Pipeline(scale, seed, ABLATED, linear=True)
    for name, method in LINEAR.items():
        every[name] = linear.evaluate(linear.distil(method), split)
    ours = {name: scale.student_encoder + suffix for name, suffix in STARTS.items()}
    starts = scale.starts or {
        name: encoder for name, encoder in ours.items() if (paths.MODELS / encoder).is_dir()
    }
    for name, encoder in starts.items():
        other = Pipeline(scale, seed, ABLATED, larger=bool(scale.starts), start=encoder)
        every[name] = other.evaluate(other.distil("LEAD"), split)
    larger = Pipeline(scale, seed, ABLATED, larger=True)
    every["larger LEAD"] = larger.evaluate(larger.distil("LEAD"), split)
    return every
