"""How long a stage takes, and how long what is left takes.

It is read from the seals of finished stages, and where none is like it from the committed records.
"""

import json
from collections import Counter, defaultdict
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from leadkit import paths
from leadkit.experiments.store import Stage
from leadkit.files import fingerprint


def missing(wanted: list[Stage]) -> list[Stage]:
    """The unfinished stages among these and all that they need, each once, inputs first."""
    seen: set[str] = set()
    order: list[Stage] = []

    def visit(stage: Stage) -> None:
        if stage.key in seen:
            return
        seen.add(stage.key)
        if stage.finished():  # it needs nothing
            return
        for needed in stage.inputs():
            visit(needed)
        order.append(stage)

    for stage in wanted:
        visit(stage)
    return order


def chains(todo: list[Stage], seconds: dict[str, float]) -> dict[str, float]:
    """Key -> seconds of the longest chain of stages that starts with it. todo: inputs first."""
    total: dict[str, float] = {}
    after: dict[str, float] = defaultdict(float)
    for stage in reversed(todo):
        total[stage.key] = seconds[stage.key] + after[stage.key]
        for needed in stage.inputs():
            after[needed.key] = max(after[needed.key], total[stage.key])
    return total


FLOAT32 = 3.9  # times as long as in bfloat16, where a processor multiplies that: a LEAD step


class Estimates:
    """Seconds that a stage takes: the median of the finished stages most like it.

    borrowed: whether an answer came from the committed records, so from another machine.
    """

    def __init__(self) -> None:
        self.seen: dict[str, list[float]] = defaultdict(list)
        self.borrowed = False
        self.likenesses: dict[str, list[tuple[str, int]]] = {}
        for folder in paths.RUNS.glob("*/"):
            self.learn(folder)

    def learn(self, folder: Path) -> None:
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # not finished
            seal = json.loads((folder / "stage.json").read_text())
            for likeness, work in likenesses(seal["stage"]):
                self.seen[likeness].append(seal["seconds"] / work)

    def __call__(self, stage: Stage) -> float | None:
        """None: nothing like it was ever finished."""
        if stage.key not in self.likenesses:
            self.likenesses[stage.key] = likenesses(stage.describe())
        for likeness, work in self.likenesses[stage.key]:
            if likeness in self.seen:
                return median(self.seen[likeness]) * work
        for likeness, units in _elsewhere(stage.describe()):
            if likeness in self.committed:
                self.borrowed = True
                return median(self.committed[likeness]) * units
        return None

    @cached_property
    def committed(self) -> dict[str, list[float]]:
        """Likeness -> seconds of the evaluations and trainings of the committed records."""
        seconds: dict[str, list[float]] = defaultdict(list)
        for table in sorted(paths.RESULTS.glob("*/records.jsonl")):
            for line in table.read_text().splitlines():
                with suppress(ValueError, KeyError, TypeError, AttributeError):  # says nothing
                    for described, taken in _timed(json.loads(line)):
                        for likeness, work in _elsewhere(described):
                            seconds[likeness].append(taken / work)
        return seconds


def _timed(record: dict) -> list[tuple[dict, float]]:
    """The evaluation of a record and the training of its retriever, with their seconds."""
    evaluation = record["stage"]
    timed = [(evaluation, record["seconds"])]
    retriever = evaluation["retriever"]
    if retriever:
        training = retriever.get("distillation", retriever)  # of a teacher after LEAD
        timed.append(({"data": evaluation["data"]} | training, record["training_seconds"]))
    return timed


def likenesses(described: dict) -> list[tuple[str, int]]:
    """What the stage shares with those that take as long, and its units of work; closest first.

    The same but for the seeds; by the step, the same kind, method and towers, whatever the
    temperatures and weights of the method; by the step, the same kind, and of what is evaluated
    the same architecture. The data are always the same.
    """
    towers = [_tower(described, part) for part in ("student", "teacher")]
    evaluated: list[str] = []
    if "retriever" in described:
        retriever = described["retriever"] or {}
        inner = retriever.get("distillation")
        towers = [_tower(inner, "teacher") if inner else _tower(retriever, "student")]
        evaluated = [tower["architecture"] for tower in towers if tower]
    schedule = described.get("schedule", {})
    fields = [described.get(name) for name in ("kind", "data", "rerank")]
    method = [_without_floats(described.get("method")), schedule.get("accumulate")]
    return [
        (fingerprint(_without(described, "seed")), 1),
        (fingerprint(fields + method + towers), schedule.get("steps", 1)),
        (fingerprint(fields + evaluated), schedule.get("steps", 1)),
    ]


def _elsewhere(described: dict) -> list[tuple[str, float]]:
    """The likenesses to stages of another machine: the towers are the same but for the precision.

    A training takes about as long on another collection, an evaluation does not. The work is in
    units of bfloat16.
    """
    factor = 1.0 if '"bf16": true' in json.dumps(described) else FLOAT32
    same = _without(described, "bf16")
    found = likenesses(same)[:2]
    if "schedule" in described:
        found += likenesses(_without(same, "collection"))[:2]
    return [(likeness, factor * work) for likeness, work in found]


def _without_floats(method: Any) -> Any:
    """The settings of a method that decide how much a step computes."""
    if not isinstance(method, dict):
        return method
    return {name: value for name, value in method.items() if not isinstance(value, float)}


def _without(value: Any, left_out: str) -> Any:
    """A description without one field, at every depth."""
    if not isinstance(value, dict):
        return value
    return {name: _without(each, left_out) for name, each in value.items() if name != left_out}


def _tower(described: dict | None, part: str) -> dict | None:
    """The tower of the model that a stage makes: its student's or its teacher's."""
    around = (part, "distillation", "retriever")  # of a changed retriever that of the original
    while described and "tower" not in described:
        described = next((described[name] for name in around if described.get(name)), None)
    return described and described["tower"]


def time_left(todo: list[Stage], seconds: dict[str, float | None], jobs: int) -> str:
    """In words: the known work shared by `jobs` processes, and what is unknown.

    Or the longest chain where that takes longer.
    """
    known = {stage.key: seconds[stage.key] or 0.0 for stage in todo}
    unknown = Counter(stage.kind for stage in todo if seconds[stage.key] is None)
    longest = max([sum(known.values()) / jobs, *chains(todo, known).values()])
    parts = []
    if unknown.total() < len(todo) or not todo:
        parts.append(f"about {timedelta(seconds=round(longest))}")
    if unknown:
        kinds = ", ".join(f"{count} {kind}" for kind, count in unknown.items())
        parts.append(f"an unknown time ({kinds})")
    return " and ".join(parts)
