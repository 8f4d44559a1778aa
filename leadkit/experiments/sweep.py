"""Sweep: run what is missing of the paper's tables, several stages at a time."""

import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from leadkit.experiments import mta4dpr, pipeline, prod, store
from leadkit.results.claims import RESULTS
from leadkit.config import Scale
from leadkit.models.encoders import MODELS
from leadkit.files import fingerprint
from leadkit.experiments.store import DEVICE, Stage

# On a CPU a server loads the libraries once and forks a process per stage; what was forked cannot use a GPU.
PROCESSES = multiprocessing.get_context("forkserver" if DEVICE.type == "cpu" else "spawn")
PROCESSES.set_forkserver_preload(["leadkit.experiments.pipeline"])
# Memory that glibc (2.35 or newer) asks for in pages of 2 MiB and keeps for the next tensor: bench/lead_step.py.
MEMORY = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296"
METHODS = (recipes, prod, mta4dpr)  # each with TABLES, names of experiments, and with experiments()


def missing(wanted: list[Stage]) -> list[Stage]:
    """The unfinished stages among these and all that they need: each once, inputs first. A finished stage needs nothing."""
    seen, order = set(), []

    def visit(stage: Stage) -> None:
        if stage.key not in seen:
            seen.add(stage.key)
            if not stage.finished():
                for needed in stage.inputs():
                    visit(needed)
                order.append(stage)

    for stage in wanted:
        visit(stage)
    return order


def chains(todo: list[Stage], seconds: dict[str, float]) -> dict[str, float]:
    """Key -> seconds of the longest chain of stages that starts with this one. todo: inputs first."""
    total, after = {}, defaultdict(float)
    for stage in reversed(todo):
        total[stage.key] = seconds[stage.key] + after[stage.key]
        for needed in stage.inputs():
            after[needed.key] = max(after[needed.key], total[stage.key])
    return total


def _tower(described: dict | None, part: str) -> dict | None:
    """The tower of the model that a stage makes, of a distillation its student's or its teacher's; None: BM25."""
    while described and "tower" not in described:
        described = described.get(part)
    return described and described["tower"]


def likenesses(described: dict) -> list[tuple[str, int]]:
    """(what the stage has in common with those that take as long, its units of work), the closest first: the same but for the
    seeds; the same kind, method, schedule and towers; the same kind, by the step. The data are always the same."""

    def unseeded(value: object) -> object:
        return (
            {k: unseeded(v) for k, v in value.items() if k != "seed"}
            if isinstance(value, dict)
            else value
        )

    if "retriever" in described:
        models = [
            _tower(described["retriever"], "teacher" if described.get("teacher") else "student")
        ]
    else:
        models = [_tower(described, part) for part in ("student", "teacher")]
    own = [
        described.get(name) for name in ("kind", "data", "method", "schedule", "rerank")
    ] + models
    return [
        (fingerprint(unseeded(described)), 1),
        (fingerprint(own), 1),
        (fingerprint(own[:2]), described.get("schedule", {}).get("steps", 1)),
    ]


class Estimates:
    """Seconds that a stage takes: the median of those most like it, from the seals of finished stages."""

    def __init__(self):
        self.seen, self.likenesses = defaultdict(list), {}
        for folder in store.RUNS.glob("*/"):
            self.learn(folder)

    def learn(self, folder: Path) -> None:
        with suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError
        ):  # not a finished stage
            seal = json.loads((folder / "stage.json").read_text())
            for likeness, work in likenesses(seal["stage"]):
                self.seen[likeness].append(seal["seconds"] / work)

    def __call__(self, stage: Stage) -> float | None:
        """None: nothing like it was ever finished."""
        if stage.key not in self.likenesses:
            self.likenesses[stage.key] = likenesses(stage.describe())
        return next(
            (
                median(self.seen[like]) * work
                for like, work in self.likenesses[stage.key]
                if like in self.seen
            ),
            None,
        )


def time_left(todo: list[Stage], seconds: dict[str, float | None], jobs: int) -> str:
    """In words: the known work shared by `jobs` processes, or the longest chain where that takes longer; and what is unknown."""
    known = {stage.key: seconds[stage.key] or 0.0 for stage in todo}
    unknown = Counter(stage.kind for stage in todo if seconds[stage.key] is None)
    longest = max([sum(known.values()) / jobs, *chains(todo, known).values()])
    parts = (
        [f"about {timedelta(seconds=round(longest))}"]
        if unknown.total() < len(todo) or not todo
        else []
    )
    return " and ".join(
        parts
        + (
            [f"an unknown time ({', '.join(f'{n} {k}' for k, n in unknown.items())})"]
            if unknown
            else []
        )
    )


def titles(todo: list[Stage], every: dict[int, dict[str, Stage]]) -> dict[str, str]:
    """Key -> folder and, for an evaluation and what it evaluates, the experiment. every: seed -> its experiments."""
    found = {stage.key: stage.folder.name for stage in todo}
    for seed, experiments in reversed(every.items()):  # of several the first has the last word
        for name, evaluation in reversed(experiments.items()):
            for stage in (evaluation, *evaluation.inputs()):
                found[stage.key] = f"{stage.folder.name} ({name}, seed {seed})"
    return found


def log_of(stage: Stage) -> Path:
    """Where everything goes that the stage prints."""
    return store.RUNS / "sweep-logs" / f"{stage.folder.name}.log"


def _run(stage: Stage, runs: Path, threads: int) -> None:
    """What the stage's process does. If the stage fails, the last line of its log says why and the exit code is 1."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # unwinds, so that temporary files are removed
    store.RUNS = runs
    if threads:
        torch.set_num_threads(threads)
    sys.stdout = sys.stderr = open(log_of(stage), "w", buffering=1)
    os.dup2(sys.stdout.fileno(), 1), os.dup2(sys.stdout.fileno(), 2)  # what libraries print
    try:
        stage.done()
    except Exception as error:
        traceback.print_exc()
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))


def _start(stage: Stage, threads: int) -> BaseProcess:
    log_of(stage).parent.mkdir(parents=True, exist_ok=True)
    log_of(stage).write_text("")
    process = PROCESSES.Process(target=_run, args=(stage, store.RUNS, threads))
    resource_tracker.ensure_running()  # which would unblock the signal
    signal.pthread_sigmask(
        signal.SIG_BLOCK, [signal.SIGINT]
    )  # inherited: ctrl-C in the terminal is for the sweep alone
    process.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return process


def _why(stage: Stage, code: int) -> str:
    """Why the process of the stage ended with this exit code."""
    if code == 1 and (lines := log_of(stage).read_text().splitlines()):
        return lines[-1]
    return f"its process died ({signal.strsignal(-code) if code < 0 else f'exit code {code}'}); the same command goes on with it"


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that receives SIGINT and SIGTERM, which interrupt nothing meanwhile."""
    received = []
    before = {
        n: signal.signal(n, lambda number, _: received.append(number))
        for n in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What the processes of stages inherit: libraries read it once, when they are loaded."""
    before = dict(os.environ)
    os.environ |= (
        {"GLIBC_TUNABLES": MEMORY} | before | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def run(
    todo: list[Stage], jobs: int, estimates: Estimates, named: dict[str, str]
) -> dict[str, str]:
    """Run the stages (inputs first), `jobs` at a time, the longest remaining chain first. SIGINT, SIGTERM: SystemExit 130, 143.

    Returns key -> why the stage failed; "" for a stage that did not run because it needs one that failed.
    """
    threads = int(DEVICE.type == "cpu" and jobs > 1)  # 0: as many as there are
    waiting, running, failed = {stage.key: stage for stage in todo}, {}, {}
    unfinished = set(waiting)

    def left() -> str:
        spent = {stage.key: time.monotonic() - started for _, stage, started in running.values()}
        going = [stage for stage in todo if stage.key in waiting or stage.key in spent]
        whole = {stage.key: estimates(stage) for stage in going}
        return (
            time_left(
                going, {k: s and max(0.0, s - spent.get(k, 0.0)) for k, s in whole.items()}, jobs
            )
            + " left"
        )

    bar = tqdm(
        total=len(todo),
        disable=None,
        bar_format="{n_fmt}/{total_fmt} stages |{bar}| {elapsed}, {desc}",
    )
    with bar, _environment(threads), _signals() as stopped:
        try:
            while not stopped:
                ahead = chains(todo, {stage.key: estimates(stage) or 1.0 for stage in todo})
                ready = [
                    stage
                    for stage in waiting.values()
                    if unfinished.isdisjoint(needed.key for needed in stage.inputs())
                ]
                for stage in sorted(ready, key=lambda stage: -ahead[stage.key])[
                    : jobs - len(running)
                ]:
                    process = _start(waiting.pop(stage.key), threads)
                    running[process.sentinel] = process, stage, time.monotonic()
                if not running:
                    break
                while not (ended := wait(running, timeout=1)) and not stopped:
                    bar.set_description_str(left())
                if stopped:
                    break
                for process, stage, started in [running.pop(sentinel) for sentinel in ended]:
                    process.join()
                    if process.exitcode == 0:
                        unfinished.remove(stage.key)
                        estimates.learn(stage.folder)
                        bar.update()
                    else:
                        failed[stage.key] = _why(stage, process.exitcode)
                        for other in todo:
                            if other.key in waiting and any(
                                needed.key in failed for needed in other.inputs()
                            ):
                                del waiting[other.key]
                                failed[other.key] = ""
                    how = "failed" if stage.key in failed else f"{time.monotonic() - started:.0f} s"
                    bar.write(
                        f"[{len(todo) - len(unfinished)}/{len(todo)}] {named[stage.key]}: {how}; {left()}"
                    )
        finally:
            for process, *_ in running.values():
                process.terminate()
            for process, *_ in running.values():
                process.join(10)
                process.kill()  # what a stage writes is never half-written
                process.join()
    if stopped:
        print(
            f"stopped with {len(todo) - len(unfinished)} of {len(todo)} stages finished: the same command goes on from there, "
            "and in a training from its last checkpoint",
            file=sys.stderr,
        )
        raise SystemExit(128 + stopped[0])
    return failed


def jobs_by_default() -> int:
    """Processes at a time: one per core, or four on a GPU."""
    return os.cpu_count() or 1 if DEVICE.type == "cpu" else 4


def finish(label: str, every: dict[int, dict[str, Stage]], jobs: int) -> set[str]:
    """Run what is missing of each seed's experiments, `jobs` stages at a time, after saying what and how long; say what failed.
    Returns the keys of the stages that failed or need one that did."""
    todo, estimates = (
        missing([stage for experiments in every.values() for stage in experiments.values()]),
        Estimates(),
    )
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(stage.kind for stage in todo).items())
    print(
        f"{label}: "
        + (
            f"{len(todo)} stages to run ({kinds}), {time_left(todo, {stage.key: estimates(stage) for stage in todo}, jobs)} with "
            f"jobs = {jobs}"
            if todo
            else "everything is finished"
        ),
        flush=True,
    )
    named = titles(todo, every)
    failed = run(todo, jobs, estimates, named) if todo else {}
    for stage in todo:
        if failed.get(stage.key):
            print(
                f"{named[stage.key]} failed: {failed[stage.key]}; see {log_of(stage)}",
                file=sys.stderr,
            )
    return set(failed)


def sweep(
    tables: tuple[str, ...],
    scale: Scale,
    seeds: int,
    jobs: int | None = None,
    split: str = "test",
    out: Path | None = None,
    first: int = 0,
) -> int:
    """Run what is missing of some of the METHODS' tables, or of "all", for so many seeds, and write their records.

    first: the first seed: several machines can share a table by its seeds. jobs: processes; by default one per core, or 4 on a GPU.
    out: by default data/results/{scale}, for a collection of beir: or irds: {scale}-{its last part}, off the test split with the
    split behind it. Returns the exit code: 1 where a stage failed, after saying why; the records of the others are written.
    """
    rows = {table: names for method in METHODS for table, names in method.TABLES.items()}
    if unknown := [table for table in tables or ("",) if table not in (*rows, "all")]:
        raise ValueError(
            f"table {unknown[0]!r} is unknown: use one or more of {', '.join(rows)} or all"
        )
    jobs = jobs_by_default() if jobs is None else jobs
    for name, value in {"seeds": seeds, "jobs": jobs}.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: at least one is needed")
    if first < 0:
        raise ValueError(f"first is {first}: a seed must not be negative")
    store.collection(scale.data.collection).split(split)  # says whether it exists
    every = {
        seed: {
            name: stage
            for method in METHODS
            for name, stage in method.experiments(scale, seed, split).items()
        }
        for seed in range(first, first + seeds)
    }
    names = dict.fromkeys(
        name for table, row in rows.items() if {table, "all"} & set(tables) for name in row
    )
    if absent := [name for name in names if name not in every[first]]:
        print(
            f"left out, as {MODELS} lacks their encoders: {', '.join(absent)}; python -m leadkit pretrain --objective makes them"
        )
        names = {name: None for name in names if name in every[first]}
    wanted = {
        seed: {name: experiments[name] for name in names} for seed, experiments in every.items()
    }
    label = f"{'tables' if len(tables) > 1 else 'table'} {', '.join(tables)}"
    failed = finish(
        f"{label}, scale {scale.name}, seeds {first} to {first + seeds - 1}, split {split}",
        wanted,
        jobs,
    )
    source, _, name = scale.data.collection.partition(":")
    another, off = (
        [Path(name).name] if source in ("beir", "irds") else [],
        [split] if split != "test" else [],
    )
    out = out or RESULTS / "-".join([scale.name, *another, *off])
    for seed, evaluations in wanted.items():
        pipeline.save_records(
            {name: stage for name, stage in evaluations.items() if stage.key not in failed},
            seed,
            out,
        )
    print(f"result records: {out}")
    return int(bool(failed))
