"""What a benchmark measured, with the machine it ran on: data/results/bench/{name}.json, an entry per kind of processor."""

import json
import sys
from datetime import date
from pathlib import Path

import torch

from leadkit.config import BF16
from leadkit.files import write_json
from leadkit.stages import device_name, versions

FOLDER = Path(__file__).parent.parent / "data" / "results" / "bench"


def path() -> Path:
    """Where the record of the benchmark that runs stands."""
    return FOLDER / f"{Path(sys.argv[0]).stem}.json"


def processor() -> str:
    """The GPU, or what the CPU computes with: "AVX2", "AVX512 with bfloat16" or "AVX512 with AMX", for example."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    amx = torch.cpu.get_capabilities().get("amx_bf16")
    return torch.backends.cpu.get_cpu_capability() + (" with AMX" if amx else " with bfloat16" * BF16)


def write(found: dict) -> None:
    """The record of the benchmark that runs, in the place of the one before on such a processor."""
    machine = {"device": device_name(), "threads": torch.get_num_threads(), "date": str(date.today()), "versions": versions()}
    others = json.loads(path().read_text()) if path().exists() else {}
    write_json(path(), others | {processor(): found | machine})
    print(f"record: {path()}, {processor()}")
