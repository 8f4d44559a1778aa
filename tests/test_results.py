"""The committed results: every number of the README's table comes from a committed record."""

import json
from pathlib import Path

import pytest

from leadkit import recipes

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "data" / "results"


def test_readme_table_is_that_of_the_records():
    table = recipes.markdown(recipes.summarise(recipes.main_rows(recipes.read_records(RESULTS / "classroom"))))
    assert table in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_record_says_what_was_run_and_its_means_are_those_of_its_queries(path):
    record = json.loads(path.read_text())
    assert {"stage", "fingerprint", "split", "device", "versions", "seed", "seconds", "peak_memory_mib"} <= set(record)
    for name, mean in record["measures"].items():
        values = record["per_query"][name]
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-5)


def test_records_of_different_collections_are_not_averaged():
    record = {"collection": "a", "fingerprint": "1", "split": "test", "measures": {"RR@10": 0.5}, "per_query": {"RR@10": [0.5]}}
    with pytest.raises(ValueError, match="different collections"):
        recipes.summarise({"RD": [record, record | {"fingerprint": "2"}]})
