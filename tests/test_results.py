"""The committed results: every number that README and results quote comes from a committed record."""

import json
import re
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leadkit.experiments import pipeline
from leadkit.results import claims, paper

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "data" / "results"


def test_readme_table_is_that_of_the_records():
    table = pipeline.markdown(
        pipeline.summarise(pipeline.main_rows(claims.read_records(RESULTS / "classroom")))
    )
    assert table in (ROOT / "README.md").read_text()


LEDGERS = ("classroom", "classroom-nq-qed", "classroom-short", "classroom-short-float32")


@pytest.mark.parametrize("folder", LEDGERS)
def test_ledger_is_that_of_the_records(folder):
    ledger = claims.ledger(claims.read_records(RESULTS / folder)).astype({"table": str})
    committed = pd.read_csv(RESULTS / folder / "ledger.csv", index_col="id", dtype={"table": str})
    pd.testing.assert_frame_equal(committed, ledger, rtol=1e-3, check_names=False)


@pytest.mark.parametrize(
    "path",
    sorted(RESULTS.glob("classroom*/*.json")),
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_record_says_what_was_run_and_its_means_are_those_of_its_queries(path):
    record = json.loads(path.read_text())
    assert {
        "stage",
        "fingerprint",
        "split",
        "device",
        "versions",
        "seed",
        "seconds",
        "peak_memory_mib",
    } <= set(record)
    for name, mean in record["measures"].items():
        values = record["per_query"][name]
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_what_another_precision_changes_is_that_of_the_records():
    said = json.loads((RESULTS / "precision.json").read_text())
    found = {
        precision: {
            name: {record["seed"]: 100 * record["measures"]["RR@10"] for record in records}
            for name, records in claims.read_records(RESULTS / folder).items()
        }
        for precision, folder in (
            ("bfloat16", "classroom-short"),
            ("float32", "classroom-short-float32"),
        )
    }
    names = {"LEAD": "CB LEAD", "RD": "CB RD", "FD": "CB FD", "student": "student"}
    for precision, pairs in found.items():
        for pair, by_seed in said[precision].items():
            a, b = (pairs[names[name]] for name in pair.split(" - "))
            assert by_seed == {str(seed): pytest.approx(a[seed] - b[seed], abs=0.006) for seed in a}
    trained = [
        name
        for name in found["float32"]
        if "CE" not in name and name not in ("BM25", "12DE (mines)")
    ]
    apart = [
        abs(found["float32"][name][seed] - found["bfloat16"][name][seed])
        for name in trained
        for seed in (3, 4)
    ]
    assert said["experiments"] == len(trained)
    assert said["float32 - bfloat16, mean of the absolute differences"] == pytest.approx(
        np.mean(apart), abs=0.006
    )
    assert said["the largest"] == pytest.approx(max(apart), abs=0.006)


def leaves(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    elif isinstance(value, int | float):
        yield value


def measured() -> set[float]:
    """What may be quoted: main tables, ledgers, measures of the dev records, differences within each, single records."""
    dev = {
        name: [100 * m for m in found[0]["measures"].values()]
        for name, found in claims.read_records(RESULTS / "classroom-dev").items()
    }
    values, own = [*leaves(dev)], [[row[0] for row in dev.values()]]
    for folder in LEDGERS:
        records = claims.read_records(RESULTS / folder)
        table = pipeline.summarise(pipeline.main_rows(records))
        values += [
            *table.to_numpy().ravel(),
            *claims.ledger(records).select_dtypes("number").to_numpy().ravel(),
        ]
        values += [*pipeline.summarise(records)[["MRR@10", "sd"]].to_numpy().ravel()]
        own.append([*table["MRR@10"]])
    values += [abs(a - b) for found in own for a, b in permutations(found, 2)]
    values += [x for t in paper.TABLES.values() for x in t.to_numpy().ravel()]
    values += [
        x
        for path in [*RESULTS.glob("*.json"), *RESULTS.glob("bench/*.json")]
        for x in leaves(json.loads(path.read_text()))
    ]
    return {abs(float(x)) for x in values if np.isfinite(x)}


def quoted(text: str) -> list[str]:
    """Every decimal number but versions, addresses, code, formulas and the digits of a name."""
    text = re.sub(
        r"```.*?```|`[^`]*`|\$[^$]+\$|\(\S*?\)|https?://\S+|Python [\d.]+", " ", text, flags=re.S
    )
    return re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", text)


@pytest.mark.parametrize(
    "file, start, end",
    [
        ("README.md", "**What holds**", "## The lessons"),
        ("data/results/LOG.md", "## Second round", None),
        ("data/results/README.md", "# Results", None),
        ("data/models/README.md", "## What was tried", None),
        ("notebooks/07_ablations.ipynb", "# 07", None),
    ],
)
def test_every_number_that_is_quoted_was_measured(file, start, end):
    text = (ROOT / file).read_text()
    if file.endswith(".ipynb"):  # what its cells compute is no quotation
        text = "\n\n".join(
            "".join(cell["source"])
            for cell in json.loads(text)["cells"]
            if cell["cell_type"] == "markdown"
        )
    part = text[text.index(start) : text.index(end) if end else None]
    known, numbers = np.array(sorted(measured())), quoted(part)
    assert len(numbers) > 1
    unknown = [
        n
        for n in numbers
        if np.abs(known - float(n)).min() > 0.5001 * 10.0 ** -len(n.split(".")[1])
    ]
    assert not unknown, f"{file} quotes {', '.join(unknown)}: no record says so"


def test_a_made_up_number_is_found():
    assert quoted("It is 36.35 (Python 3.11, `0.1`, [x](a/1.5), v2.13.0) and +1.04, K2.5, 3.") == [
        "36.35",
        "1.04",
    ]
    assert np.abs(np.array(sorted(measured())) - 12.34).min() > 0.005


def test_records_of_different_collections_are_not_averaged():
    record = {
        "collection": "a",
        "fingerprint": "1",
        "split": "test",
        "measures": {"RR@10": 0.5},
        "per_query": {"RR@10": [0.5]},
    }
    with pytest.raises(ValueError, match="different collections"):
        pipeline.summarise({"RD": [record, record | {"fingerprint": "2"}]})
