"""One process per stage: started, watched and stopped by a sweep."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from leadkit import paths
from leadkit.experiments.store import Stage
from leadkit.hardware import DEVICE

# On a CPU a server loads the libraries once and forks a process per stage; what was forked cannot
# use a GPU.
PROCESSES: Any = multiprocessing.get_context("forkserver" if DEVICE.type == "cpu" else "spawn")
PROCESSES.set_forkserver_preload(["leadkit.experiments.tables"])
# Memory that glibc (2.35 or newer) asks for in pages of 2 MiB and keeps for the next tensor:
# bench/lead_step.py.
MEMORY = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        "glibc.malloc.mmap_threshold=4294967296",
        "glibc.malloc.trim_threshold=4294967296",
    )
)


def log_of(stage: Stage) -> Path:
    """The file that receives everything the stage prints."""
    return paths.RUNS / "sweep-logs" / f"{stage.folder.name}.log"


def start(stage: Stage, threads: int) -> BaseProcess:
    """Start the stage's process. threads: 0 for as many as there are."""
    log_of(stage).parent.mkdir(parents=True, exist_ok=True)
    log_of(stage).write_text("")
    process = PROCESSES.Process(target=_work, args=(stage, paths.RUNS, threads))
    resource_tracker.ensure_running()  # which would unblock the signal
    # Inherited: ctrl-C in the terminal is for the sweep alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    process.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return process


def _work(stage: Stage, runs: Path, threads: int) -> None:
    """What the process does. On failure the log's last line says why and the exit code is 1."""
    # Unwinds, so that temporary files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    paths.RUNS = runs
    if threads:
        torch.set_num_threads(threads)
    sys.stdout = sys.stderr = log_of(stage).open("w", buffering=1)  # until the process ends
    os.dup2(sys.stdout.fileno(), 1)  # what libraries print
    os.dup2(sys.stdout.fileno(), 2)
    try:
        stage.done()
    except Exception as error:
        traceback.print_exc()
        sys.exit(" ".join(f"{type(error).__name__}: {error}".split()))


def stop(processes: list[BaseProcess]) -> None:
    """End the processes; what a stage writes is never half-written."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(10)
        process.kill()
        process.join()


def why(stage: Stage, code: int) -> str:
    """Why the process of the stage ended with this exit code."""
    lines = log_of(stage).read_text().splitlines()
    if code == 1 and lines:
        return lines[-1]
    cause = signal.strsignal(-code) if code < 0 else f"exit code {code}"
    return f"its process died ({cause}); the same command goes on with it"


@contextmanager
def signals() -> Iterator[list[int]]:
    """A list that receives SIGINT and SIGTERM, which interrupt nothing meanwhile."""
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        received.append(number)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def environment(threads: int) -> Iterator[None]:
    """What the processes of stages inherit: libraries read it once, when they are loaded."""
    before = dict(os.environ)
    os.environ.setdefault("GLIBC_TUNABLES", MEMORY)
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
