"""Result records: a folder holds records.jsonl and per-query.npz.

A line of records.jsonl is one experiment with one seed: what was run, the mean of each measure,
cost, device, versions. per-query.npz holds the values of each query that claims need. A line names
its arrays by a digest of their values, so the two files cannot disagree unnoticed. Arrays are
written before the lines that name them, so a process killed in between leaves the old table whole.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from leadkit import paths
from leadkit.results.comparable import MEASURE, check, check_settings, per_query
from leadkit.results.predicates import measures_of

if TYPE_CHECKING:
    from leadkit.config import Scale

LINES = "records.jsonl"
ARRAYS = "per-query.npz"
NEEDED = ("experiment", "seed", "per_query")  # of every record

Records = dict[str, list[dict]]  # experiment -> its records in the order of their seeds


class Evaluation(Protocol):
    """What is read of an evaluation: what it runs, its result record, what its training took."""

    def describe(self) -> dict: ...

    def fingerprint(self) -> str: ...

    def record(self) -> dict: ...

    def cost(self) -> dict: ...


# --- reading


def lines(folder: Path) -> list[dict]:
    """The lines of a folder's table; their "per_query" holds the names of the arrays.

    FileNotFoundError where there is no table, ValueError where a line is no record.
    """
    table = folder / LINES
    if not table.exists():
        old = any(folder.glob("*.json"))
        remedy = f"; python -m leadkit convert {folder} makes it of the JSON files" if old else ""
        raise FileNotFoundError(f"folder {folder} holds no result records ({LINES}){remedy}")
    found = []
    for number, line in enumerate(table.read_text().splitlines(), start=1):
        try:
            row = checked(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{table}, line {number}, is no record: {error}") from None
        found.append(row)
    return found


def checked(row: Any) -> dict:
    """A record as it was read. ValueError where it lacks what every record has."""
    if not isinstance(row, dict) or any(name not in row for name in NEEDED):
        raise ValueError(f"it is no object with {', '.join(NEEDED)}")
    return row


def read(folder: Path) -> Records:
    """Experiment -> its records; their "per_query" holds the values (Q,) of each measure kept.

    FileNotFoundError where there is no table, ValueError where an array is not what a line names.
    """
    rows = sorted(lines(folder), key=_order)
    names = {name for row in rows for name in row["per_query"].values()}
    arrays = _arrays(folder / ARRAYS, names)
    records: Records = {}
    for row in rows:
        kept = {measure: arrays[name] for measure, name in row["per_query"].items()}
        records.setdefault(row["experiment"], []).append(row | {"per_query": kept})
    return records


def _arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in names}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} does not hold what {LINES} beside it names: {error}") from None
    for name, values in arrays.items():
        if _name(values) != name:
            raise ValueError(f"{path}: array {name} holds other values than {LINES} was written of")
    return arrays


def _order(row: dict) -> tuple[str, int]:
    return row["experiment"], row["seed"]


def _name(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()[:16]


# --- writing


def save(evaluations: Mapping[int, Mapping[str, Evaluation]], folder: Path) -> None:
    """Add the records of {seed: {experiment: evaluation}} to a folder's table, as `merge` does."""
    check_place(folder)
    records = []
    for seed, experiments in evaluations.items():
        for name, evaluation in experiments.items():
            head = {"experiment": name, "seed": seed, "cost": evaluation.cost()}
            records.append(head | evaluation.record())
    merge(records, folder)


def check_plan(evaluations: Mapping[int, Mapping[str, Evaluation]], folder: Path) -> None:
    """Before the work: ValueError where `save` would refuse these evaluations.

    That is where the settings differ, the collection, its text or the split.
    """
    check_place(folder)
    if not (folder / LINES).exists():
        return
    old = lines(folder)
    table = {_order(row): row for row in old}
    planned = {
        _source(each.describe()) for every in evaluations.values() for each in every.values()
    }
    # Another edition of a collection takes the old one's place; another collection does not.
    others = [row for row in old if _source(row.get("stage", {})) not in {"", *planned}]
    for seed, experiments in evaluations.items():
        for name, evaluation in experiments.items():
            stage = evaluation.describe()
            row = {"experiment": name, "seed": seed, "stage": stage}
            row |= {"fingerprint": evaluation.fingerprint(), "split": stage.get("split", "")}
            table[name, seed] = row
    together = [*others, *table.values()]
    for what, values in {
        "fingerprints": {row["fingerprint"] for row in together},
        "splits": {row.get("split", "") for row in together} - {""},
        "names": {_source(row.get("stage", {})) for row in together} - {""},
    }.items():
        if len(values) > 1:
            raise ValueError(
                f"folder {folder}: its records and the new ones would be of different collections "
                f"or splits, {what} {' and '.join(sorted(values))}: name another folder with --out"
            )
    check_settings(table.values())


def _source(stage: dict) -> str:
    """The name of a stage's collection, as it was asked for."""
    return stage.get("data", {}).get("collection", "")


def check_place(folder: Path) -> None:
    """FileNotFoundError where the folder still has one JSON file per record."""
    if any(folder.glob("*.json")):
        lines(folder)


def merge(new: Iterable[dict], folder: Path) -> None:
    """Add records to a folder's table; one of the same experiment and seed takes the other's place.

    ValueError, before anything is written, where they cannot be judged together (`check`).
    """
    from leadkit import files, processes  # which load torch; reading does without

    if not processes.main():
        return
    with files.alone(folder / ".lock", folder):
        old = _flat(read(folder)) if (folder / LINES).exists() else []
        table = {_order(row): row for row in [*old, *new]}
        rows = [table[key] for key in sorted(table)]
        check(rows)
        _write_arrays(folder, [*old, *rows])
        files.write(folder / LINES, lambda temporary: temporary.write_text(_text(rows)))
        _write_arrays(folder, rows)  # without those of records that were replaced


def _flat(records: Records) -> list[dict]:
    return [row for rows in records.values() for row in rows]


def _write_arrays(folder: Path, rows: Iterable[dict]) -> None:
    from leadkit import files

    kept = (values for row in rows for values in _kept(row).values())
    arrays: dict[str, Any] = {_name(values): values for values in kept}
    in_order = {name: arrays[name] for name in sorted(arrays)}

    def write(temporary: Path) -> None:
        with open(temporary, "wb") as file:  # given a name, numpy would add .npz to it
            np.savez_compressed(file, **in_order)

    files.write(folder / ARRAYS, write)


def _kept(row: dict) -> dict[str, np.ndarray]:
    """The values of each query that claims need, by measure."""
    needed = {MEASURE} | measures_of(row["experiment"])
    return {name: per_query(row, name) for name in sorted(needed & row["per_query"].keys())}


def _text(rows: Iterable[dict]) -> str:
    """One line of JSON per record, the long description of what was run last."""
    text = []
    for row in rows:
        stage = {"stage": row["stage"]} if "stage" in row else {}
        kept = {name: value for name, value in row.items() if name != "stage"}
        kept["per_query"] = {measure: _name(values) for measure, values in _kept(row).items()}
        text.append(json.dumps(kept | stage) + "\n")
    return "".join(text)


def folder_of(name: str) -> Path:
    """The folder of these records: of one's own runs where there are any, else the shipped one."""
    own = paths.HOME / "results" / name
    return own if (own / LINES).exists() else paths.RESULTS / name


def default_folder(scale: "Scale", split: str) -> Path:
    """Where the records of a scale stand.

    data/results/{scale}, outside of a checkout results/{scale} of `paths.HOME`, with the last part
    of a collection of beir: or irds: behind it, and with the split where it is not test.
    """
    source, _, name = scale.data.collection.partition(":")
    parts = [scale.name]
    if source in ("beir", "irds"):
        parts.append(Path(name).name)
    if split != "test":
        parts.append(split)
    is_shipped_place = paths.HOME == paths.ROOT
    folder = paths.RESULTS if is_shipped_place else paths.HOME / "results"
    return folder / "-".join(parts)
