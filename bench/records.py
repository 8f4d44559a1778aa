"""What a benchmark measured, with the machine it ran on: data/results/bench/{name}.json, an entry per kind of processor."""

import json
import sys
from datetime import date
from pathlib import Path

import torch

from leadkit.files import write_json
from leadkit.experiments.store import device_name, processor, versions

FOLDER = Path(__file__).parent.parent / "data" / "results" / "bench"


def path() -> Path:
    """Where the record of the benchmark that runs stands."""
    return FOLDER / f"{Path(sys.argv[0]).stem}.json"


def write(found: dict) -> None:
    """The record of the benchmark that runs, in the place of the one before on such a processor."""
    machine = {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "date": str(date.today()),
        "versions": versions(),
    }
    others = json.loads(path().read_text()) if path().exists() else {}
    write_json(path(), others | {processor(): found | machine})
    print(f"record: {path()}, {processor()}")
