"""The committed plan: with which settings, on which collections, test queries are looked at."""

import json
from dataclasses import asdict
from pathlib import Path

from leadkit import paths
from leadkit.config import Scale
from leadkit.results.comparable import settings

FREE = ("name", "bf16", "data.collection")  # bf16: the processor decides


def planned() -> dict[str, dict]:
    """Scale -> its "collections" and its "settings" by path, as in "distil.steps".

    Where the results have no plan.json nothing is planned.
    """
    path = paths.RESULTS / "plan.json"
    return json.loads(path.read_text()) if path.exists() else {}


def chosen(scale: Scale) -> dict[str, object]:
    """Every setting of a scale that decides a result, by path, as JSON has it."""
    described = json.loads(json.dumps(asdict(scale)))
    return {path: value for path, value in settings(described).items() if path not in FREE}


def check(scale: Scale, split: str) -> None:
    """ValueError, naming the field and both values, where a test run is not the plan's.

    Other splits, and scales that the plan does not have, are free.
    """
    plan = planned().get(scale.name)
    if split != "test" or plan is None:
        return
    remedy = "; give records of another run a folder of their own with --out"
    collection = Path(scale.data.collection.partition(":")[2] or scale.data.collection).name
    if collection not in plan["collections"]:
        raise ValueError(
            f"scale {scale.name}: collection is {collection!r}, the plan has "
            f"{', '.join(plan['collections'])}{remedy}"
        )
    ours, theirs = chosen(scale), plan["settings"]
    for field in sorted(ours.keys() | theirs.keys()):
        if ours.get(field) != theirs.get(field):
            raise ValueError(
                f"scale {scale.name}: {field} is {ours.get(field)!r}, the plan "
                f"(data/results/plan.json) has {theirs.get(field)!r}{remedy}"
            )
