"""Sweep: run what is missing of the paper's tables, several stages at a time."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import NamedTuple

from tqdm import tqdm

from leadkit import paths
from leadkit.config import Scale
from leadkit.experiments import conditions, controls, mta4dpr, prod, tables, workers
from leadkit.experiments.estimates import Estimates, chains, missing, time_left
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.store import Stage, tell_first_edition
from leadkit.experiments.texts import collection
from leadkit.hardware import DEVICE

# Each with TABLES, names of experiments, and experiments().
SOURCES = (tables, controls, prod, mta4dpr)
ON_DEV = (conditions,)  # measured on dev, and no part of "all"

Experiments = Mapping[int, Mapping[str, Stage]]  # seed -> name -> stage


class Running(NamedTuple):
    process: BaseProcess
    stage: Stage
    started: float


class Run:
    """Run stages, `jobs` at a time, the longest remaining chain first.

    todo: inputs before what needs them. failed: key -> why the stage failed, "" for a stage that
    did not run because it needs one that failed.
    """

    def __init__(self, todo: list[Stage], jobs: int, estimates: Estimates, named: dict[str, str]):
        self.todo = todo
        self.jobs = jobs
        self.estimates = estimates
        self.named = named
        self.threads = int(DEVICE.type == "cpu" and jobs > 1)  # 0: as many as there are
        self.stages = {stage.key: stage for stage in todo}
        self.waiting = dict(self.stages)
        self.ready: list[Stage] = []
        self.running: dict[int, Running] = {}
        self.failed: dict[str, str] = {}
        self.finished = 0
        self.order: TopologicalSorter[str] = TopologicalSorter(
            {stage.key: self._unfinished_inputs(stage) for stage in todo}
        )
        self.order.prepare()
        self.bar = tqdm(
            total=len(todo),
            disable=None,
            bar_format="{n_fmt}/{total_fmt} stages |{bar}| {elapsed}, {desc}",
        )

    def _unfinished_inputs(self, stage: Stage) -> list[str]:
        return [needed.key for needed in stage.inputs() if needed.key in self.stages]

    def __call__(self) -> dict[str, str]:
        """Run; return `failed`. SIGINT and SIGTERM end in SystemExit 130 and 143."""
        with self.bar, workers.environment(self.threads), workers.signals() as stopped:
            try:
                while not stopped and self._start():
                    ended = self._wait(stopped)
                    for sentinel in ended:
                        self._end(self.running.pop(sentinel))
            finally:
                workers.stop([each.process for each in self.running.values()])
        if stopped:
            print(
                f"stopped with {self.finished} of {len(self.todo)} stages finished: the same "
                "command goes on from there, and in a training from its last checkpoint",
                file=sys.stderr,
            )
            raise SystemExit(128 + stopped[0])
        return self.failed | dict.fromkeys(self.waiting, "")

    def _start(self) -> bool:
        """Start what is ready as far as there is room; return whether anything runs."""
        self.ready += [self.stages[key] for key in self.order.get_ready()]
        seconds = {stage.key: self.estimates(stage) or 1.0 for stage in self.todo}
        ahead = chains(self.todo, seconds)
        self.ready.sort(key=lambda stage: -ahead[stage.key])
        while self.ready and len(self.running) < self.jobs:
            stage = self.waiting.pop(self.ready.pop(0).key)
            process = workers.start(stage, self.threads)
            self.running[process.sentinel] = Running(process, stage, time.monotonic())
        return bool(self.running)

    def _wait(self, stopped: list[int]) -> list[int]:
        """The sentinels of the processes that ended; none where a signal came first."""
        while not stopped:
            ended = wait(self.running, timeout=1)
            if ended and not stopped:
                return [sentinel for sentinel in ended if isinstance(sentinel, int)]
            self.bar.set_description_str(self._left())
        return []

    def _end(self, ended: Running) -> None:
        process, stage, started = ended
        process.join()
        if process.exitcode == 0:
            self.order.done(stage.key)
            self.estimates.learn(stage.folder)
            self.finished += 1
            self.bar.update()
            how = f"{time.monotonic() - started:.0f} s"
        else:
            self.failed[stage.key] = workers.why(stage, process.exitcode or 0)
            how = "failed"
        done = f"[{self.finished}/{len(self.todo)}]"
        self.bar.write(f"{done} {self.named[stage.key]}: {how}; {self._left()}")

    def _left(self) -> str:
        """How long the rest takes, in words."""
        spent = {each.stage.key: time.monotonic() - each.started for each in self.running.values()}
        going = [stage for stage in self.todo if stage.key in self.waiting or stage.key in spent]
        seconds: dict[str, float | None] = {}
        for stage in going:
            estimate = self.estimates(stage)
            seconds[stage.key] = estimate and max(0.0, estimate - spent.get(stage.key, 0.0))
        return time_left(going, seconds, self.jobs) + " left"


def titles(todo: list[Stage], every: Experiments) -> dict[str, str]:
    """Key -> folder, and the experiment of an evaluation and of what it evaluates."""
    names = {stage.key: stage.folder.name for stage in todo}
    # Of several experiments the first has the last word.
    for seed, experiments in reversed(list(every.items())):
        for name, evaluation in reversed(list(experiments.items())):
            for stage in (evaluation, *evaluation.inputs()):
                names[stage.key] = f"{stage.folder.name} ({name}, seed {seed})"
    return names


def jobs_by_default() -> int:
    """Processes at a time: one per core, or four on a GPU."""
    return os.cpu_count() or 1 if DEVICE.type == "cpu" else 4


def finish(label: str, every: Experiments, jobs: int) -> set[str]:
    """Run what is missing of each seed's experiments, after saying what and how long.

    Returns the keys of the stages that failed or need one that did, after saying why.
    """
    todo = missing([stage for experiments in every.values() for stage in experiments.values()])
    if not todo:
        print(f"{label}: everything is finished", flush=True)
        return set()
    tell_first_edition()
    estimates = Estimates()
    kinds = Counter(stage.kind for stage in todo)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    left = time_left(todo, {stage.key: estimates(stage) for stage in todo}, jobs)
    if estimates.borrowed:
        left += " on the machines of the committed records"
    print(f"{label}: {len(todo)} stages to run ({counted}), {left} with jobs = {jobs}", flush=True)
    named = titles(todo, every)
    failed = Run(todo, jobs, estimates, named)()
    for stage in todo:
        if why := failed.get(stage.key):
            said = f"{named[stage.key]} failed: {why}; see {workers.log_of(stage)}"
            print(said, file=sys.stderr)
    return set(failed)


def tables_at(scale: Scale) -> dict[str, tuple[str, ...]]:
    """The tables of the SOURCES at a scale: table -> names of its rows."""
    own = tables.rows_at(scale)
    every = {table: names for source in SOURCES for table, names in source.TABLES.items()}
    return {table: own.get(table, names) for table, names in every.items()}


def plan(
    wanted: Sequence[str], scale: Scale, seeds: int, split: str = "test", first: int = 0
) -> dict[int, dict[str, Evaluate]]:
    """The evaluations of some tables, or of "all": seed -> experiment -> evaluation.

    wanted: tables of the SOURCES, or of ON_DEV.
    first: the first of so many seeds: several machines can share a table by its seeds.
    """
    maps = {table: names for source in ON_DEV for table, names in source.TABLES.items()}
    usual = tables_at(scale)
    rows = usual | maps
    unknown = [table for table in wanted or ("",) if table not in (*rows, "all")]
    if unknown:
        raise ValueError(
            f"table {unknown[0]!r} is unknown: use one or more of {', '.join(rows)} or all"
        )
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}: at least one is needed")
    if first < 0:
        raise ValueError(f"first is {first}: a seed must not be negative")
    collection(scale.data.collection).split(split)  # says whether it exists
    chosen = [table for table in rows if table in wanted or ("all" in wanted and table in usual)]
    mapped = [table for table in chosen if table in maps]
    if mapped and split != "dev":
        raise ValueError(f"split is {split!r}: table {mapped[0]!r} is measured on dev")
    sources = (*(SOURCES if len(chosen) > len(mapped) else ()), *(ON_DEV if mapped else ()))
    names = list(dict.fromkeys(name for table in chosen for name in rows[table]))
    every = {
        seed: _experiments(scale, seed, split, sources) for seed in range(first, first + seeds)
    }
    absent = [name for name in names if name not in every[first]]
    if absent:
        print(
            f"left out, as {paths.MODELS} lacks their encoders or the student has fewer layers: "
            f"{', '.join(absent)}; python -m leadkit pretrain --objective makes the encoders"
        )
    return {
        seed: {name: experiments[name] for name in names if name in experiments}
        for seed, experiments in every.items()
    }


def sweep(
    label: str, planned: dict[int, dict[str, Evaluate]], jobs: int | None = None
) -> tuple[dict[int, dict[str, Evaluate]], bool]:
    """Run what is missing of a plan; return its finished part, and whether that is all.

    jobs: processes; by default one per core, or 4 on a GPU.
    """
    failed = finish(label, planned, jobs or jobs_by_default())
    finished = {
        seed: {name: each for name, each in experiments.items() if each.key not in failed}
        for seed, experiments in planned.items()
    }
    return finished, not failed


def _experiments(
    scale: Scale, seed: int, split: str, sources: Iterable[ModuleType]
) -> dict[str, Evaluate]:
    """Every experiment of the sources by name."""
    every: dict[str, Evaluate] = {}
    for source in sources:
        every |= source.experiments(scale, seed, split)
    return every
