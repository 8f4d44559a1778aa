"""The records of the first edition, one JSON file each, as the table of `records`."""

import json
from pathlib import Path

from leadkit.results import records

# Which of LEAD's settings a method reads, and so which of them its description has.
READ = {
    "LEAD": ("k", "strategy", "tau_d", "tau_l", "joint", "reweight", "variant"),
    "FD": ("k",),
    "RD": ("tau_d",),
    "student": (),
}


def convert(folder: Path, remove: bool = False) -> int:
    """Write the table of a folder with one JSON file per record; returns the number of records.

    The old files stay unless `remove`. FileNotFoundError where there is none, ValueError where a
    file is no record of the first edition; then nothing is written.
    """
    old = sorted(folder.glob("*.json"))
    if not old:
        raise FileNotFoundError(f"folder {folder} holds no records of the first edition (*.json)")
    rows = []
    for path in old:
        try:
            row = records.checked(json.loads(path.read_text()))
            rows.append(row | {"stage": described(row["stage"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no record of the first edition: {error}") from None
    records.merge(rows, folder)
    if remove:
        for path in old:
            path.unlink()
    return len(rows)


def described(old: dict, data: dict | None = None) -> dict:
    """A stage as it is described today. data: of the stage around it, which is left out here."""
    stage = dict(old)
    own = stage.pop("data")
    if own != data:
        stage["data"] = own
    if "schedule" in stage:
        stage["schedule"] = dict(stage["schedule"])
        del stage["schedule"]["save_seconds"]  # no longer part of what is run
    convert_kind = KINDS.get(stage["kind"])
    if convert_kind:
        stage = convert_kind(stage)
    return {name: _inner(value, own) for name, value in stage.items()}


def _inner(value: object, data: dict) -> object:
    """A stage, or a method that holds one, within a stage of these data."""
    if not isinstance(value, dict):
        return value
    if "kind" in value and "data" in value:
        return described(value, data)
    return {name: _inner(inner, data) for name, inner in value.items()}


def _evaluate(stage: dict) -> dict:
    of_teacher = stage.pop("teacher")
    if of_teacher:
        stage["retriever"] = {"kind": "teacher after", "distillation": stage["retriever"]}
    return stage


def _distil(stage: dict) -> dict:
    return stage | {"method": _method(stage["method"], stage.pop("lead"))}


def _method(name: str, lead: dict) -> dict:
    """A method with those of LEAD's settings that it reads."""
    return {"name": name} | {field: lead[field] for field in READ[name]}


def _progress(stage: dict) -> dict:
    method = {"name": "PROD", **stage.pop("terms"), "epochs": stage.pop("epochs")}
    return stage | {"kind": "distil", "method": method}


def _assist(stage: dict) -> dict:
    taught = _method(stage["method"], stage.pop("lead"))
    method = {"name": "MTA4DPR", "taught": taught, **stage.pop("assistance")}
    return stage | {"kind": "distil", "method": method | {"pool": stage.pop("pool")}}


KINDS = {"evaluate": _evaluate, "distil": _distil, "progress": _progress, "assist": _assist}
