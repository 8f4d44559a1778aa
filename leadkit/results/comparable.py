"""Which result records may be judged together."""

from collections.abc import Iterable

import numpy as np

MEASURE = "RR@10"  # the paper's MRR@10, kept for each query of every record
NEEDED = ("experiment", "seed", "collection", "fingerprint", "split", "per_query")


def per_query(row: dict, measure: str = MEASURE) -> np.ndarray:
    """(Q,): a measure of each query."""
    return np.asarray(row["per_query"][measure], float)


def settings(described: object, path: str = "") -> dict[str, object]:
    """Every field of a stage's description but the seeds, by its path: "retriever.tower.bf16"."""
    if not isinstance(described, dict):
        return {path: described}
    found: dict[str, object] = {}
    for name, value in described.items():
        if name != "seed":
            found |= settings(value, f"{path}.{name}".strip("."))
    return found


def check(rows: Iterable[dict]) -> None:
    """ValueError, naming the field and both values, where records cannot be judged together.

    They must be of one collection, fingerprint, split, number of queries and precision, and those
    of one experiment must differ in nothing but their seeds.
    """
    rows = list(rows)
    kinds: dict[str, str] = {}
    seen: set[tuple[str, int]] = set()
    for row in rows:
        _check_whole(row)
        if (row["experiment"], row["seed"]) in seen:
            raise ValueError(f"the record of {_who(row)}, is there twice: one is wanted")
        seen.add((row["experiment"], row["seed"]))
        kind = (
            f"{row['collection']}, fingerprint {row['fingerprint']}, split {row['split']}, "
            f"{len(per_query(row))} queries"
        )
        kinds.setdefault(kind, _who(row))
    _check_one("collections or splits", kinds)
    check_settings(rows)


def check_settings(rows: Iterable[dict]) -> None:
    """The part of `check` that reads what was run alone, so it can be asked before the work."""
    precisions: dict[str, str] = {}
    first: dict[str, tuple[dict, dict]] = {}
    for row in rows:
        described = settings(row.get("stage"))
        for field, value in described.items():
            if field.endswith(".bf16"):  # a scale computes in bfloat16 where the processor can
                precisions.setdefault("bfloat16" if value else "float32", _who(row))
        other, theirs = first.setdefault(row["experiment"], (row, described))
        for field in sorted(described.keys() | theirs.keys()):
            if described.get(field) != theirs.get(field):
                raise ValueError(
                    f"the records of {row['experiment']!r} differ in more than their seeds: "
                    f"{field} is {theirs.get(field)!r} with seed {other['seed']}, "
                    f"{described.get(field)!r} with seed {row['seed']}"
                )
    _check_one("precision", precisions)


def _who(row: dict) -> str:
    return f"{row.get('experiment', 'unknown')!r}, seed {row.get('seed', 'unknown')}"


def _check_whole(row: dict) -> None:
    missing = [field for field in NEEDED if field not in row]
    if not missing and MEASURE not in row["per_query"]:
        missing = [MEASURE]
    if missing:
        raise ValueError(f"the record of {_who(row)}, lacks {missing[0]}")
    if not np.isfinite(per_query(row)).all():
        raise ValueError(f"the record of {_who(row)}, has a {MEASURE} that is no number")


def _check_one(what: str, found: dict[str, str]) -> None:
    """found: value -> the first record that has it."""
    if len(found) > 1:
        said = "; ".join(f"{value} ({who})" for value, who in found.items())
        raise ValueError(f"records of different {what} cannot be judged together: {said}")
