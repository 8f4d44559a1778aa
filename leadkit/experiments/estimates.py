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
            _learn(self.seen, seal["stage"], seal["seconds"])

    def __call__(self, stage: Stage) -> float | None:
        """None: nothing like it was ever finished."""
        if stage.key not in self.likenesses:
            self.likenesses[stage.key] = likenesses(stage.describe())
        for seconds in (self.seen, self.committed):
            for likeness, work in self.likenesses[stage.key]:
                if likeness in seconds:
                    self.borrowed |= seconds is self.committed
                    return median(seconds[likeness]) * work
        return None

    @cached_property
    def committed(self) -> dict[str, list[float]]:
        """Likeness -> seconds of the evaluations and trainings of the committed records."""
        seconds: dict[str, list[float]] = defaultdict(list)
        for table in sorted(paths.RESULTS.glob("*/records.jsonl")):
            for line in table.read_text().splitlines():
                record = json.loads(line)
                stage = record["stage"]
                _learn(seconds, stage, record["seconds"])
                trained = stage.get("retriever")
                if trained:
                    trained = trained.get("distillation", trained)  # of a teacher after LEAD
                    trained = {"data": stage["data"]} | trained
                    _learn(seconds, trained, record["training_seconds"])
        return seconds


def _learn(known: dict[str, list[float]], described: dict, seconds: float) -> None:
    for likeness, work in likenesses(described):
        known[likeness].append(seconds / work)


def likenesses(described: dict) -> list[tuple[str, int]]:
    """What the stage shares with those that take as long, and its units of work; closest first.

    The same but for the seeds; the same kind, method, schedule and towers; the same kind, by the
    step. The data are always the same.
    """
    towers = [_tower(described, part) for part in ("student", "teacher")]
    if "retriever" in described:
        retriever = described["retriever"] or {}
        inner = retriever.get("distillation")
        towers = [_tower(inner, "teacher") if inner else _tower(retriever, "student")]
    fields = [described.get(name) for name in ("kind", "data", "method", "schedule", "rerank")]
    steps = described.get("schedule", {}).get("steps", 1)
    return [
        (fingerprint(_unseeded(described)), 1),
        (fingerprint(fields + towers), 1),
        (fingerprint(fields[:2]), steps),
    ]


def _unseeded(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return {name: _unseeded(each) for name, each in value.items() if name != "seed"}


def _tower(described: dict | None, part: str) -> dict | None:
    """The tower of the model that a stage makes: its student's or its teacher's."""
    while described and "tower" not in described:
        described = described.get(part) or described.get("distillation")
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
