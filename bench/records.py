"""The record of a benchmark: data/results/bench/NAME.json, one entry per kind of processor."""

import json
import sys
from datetime import date
from pathlib import Path

import torch

from leadkit import paths
from leadkit.files import write_json
from leadkit.hardware import device_name, processor, versions


def path() -> Path:
    """The record of the benchmark that runs."""
    return paths.RESULTS / "bench" / f"{Path(sys.argv[0]).stem}.json"


def write(measured: dict) -> None:
    """Write what was measured and on which machine. It replaces the entry of such a processor."""
    machine = {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "date": str(date.today()),
        "versions": versions(),
    }
    others = json.loads(path().read_text()) if path().exists() else {}
    write_json(path(), others | {processor(): measured | machine})
    print(f"record: {path()}, {processor()}")
