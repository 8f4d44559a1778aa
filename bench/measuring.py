"""How the benchmarks measure: seconds, peak memory, and a process of its own for each version."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], times: int = 1) -> list[float]:
    """The wall time of each of so many runs."""
    measured = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        measured.append(time.perf_counter() - started)
    return measured


def peak_mib() -> float:
    """The most memory that this process has held so far, in MiB."""
    from leadkit.hardware import peak_memory_mib  # and torch with it

    return peak_memory_mib()


def in_own_process(*arguments: str, **environment: str) -> dict:
    """Run this script again with arguments; return the JSON object on its last line.

    A process of its own makes peak memories comparable, and reads environment variables anew.
    """
    command = [sys.executable, sys.argv[0], *arguments]
    printed = subprocess.check_output(command, env=os.environ | environment, text=True)
    return json.loads(printed.splitlines()[-1])
