"""The committed plan: test is looked at with its settings, on its collections, or elsewhere."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from leadkit import config, paths
from leadkit.results import plan

PLANNED = plan.planned()
assert "evening" in PLANNED


@pytest.mark.parametrize("name", PLANNED)
def test_the_scales_are_as_planned(name):
    """A changed scale needs a changed plan, and a plan changes before test is looked at only."""
    assert plan.chosen(config.scale(name)) == PLANNED[name]["settings"]


def test_the_page_names_the_collections():
    page = (paths.RESULTS / "PLAN.md").read_text()
    for name, planned in PLANNED.items():
        for collection in planned["collections"]:
            rows = [line for line in page.splitlines() if f"`{name}` | {collection} |" in line]
            assert rows, f"{name}, {collection}"


@pytest.mark.parametrize(
    ("changes", "message"),
    (
        (
            {"distil": config.Schedule(301, 1e-4)},
            r"scale evening: distil\.steps is 301, the plan \(data/results/plan\.json\) has 300",
        ),
        ({"lead": config.Lead(k=2, tau_l=3.0)}, r"lead\.tau_l is 3\.0, the plan .* has 1\.0"),
        ({"own": {}}, r"own\.teacher CE\.accumulate is None, the plan .* has 1;"),
        (
            {"data": replace(config.scale("evening").data, collection="beir:/somewhere/fiqa")},
            "collection is 'fiqa', the plan has python-docs, squad, medquad; give records of "
            "another run a folder of their own with --out",
        ),
    ),
)
def test_a_run_of_other_settings_is_told_before_it_starts(changes, message):
    with pytest.raises(ValueError, match=message):
        plan.check(replace(config.scale("evening"), **changes), "test")


def test_what_is_free():
    evening = config.scale("evening")
    squad = replace(evening.data, collection="beir:/anywhere/squad")
    plan.check(replace(evening, data=squad), "test")
    plan.check(replace(evening, bf16=not evening.bf16), "test")
    other = replace(evening, distil=config.Schedule(301, 1e-4))
    plan.check(other, "dev")
    plan.check(replace(other, name="smoke"), "test")


def test_the_sweep_asks_the_plan_unless_its_records_go_elsewhere(tmp_path):
    """The plan of a copy of the results is changed; the sweep stops before any work."""
    code = (
        "import sys; from pathlib import Path; from leadkit import paths\n"
        f"paths.RESULTS = Path({str(tmp_path)!r}); paths.RUNS = paths.RESULTS / 'runs'\n"
        "sys.argv = ['leadkit', 'sweep', '--table', 'main', '--scale', 'evening', *sys.argv[1:]]\n"
        "from leadkit.__main__ import main; main()"
    )
    changed = json.loads(json.dumps(PLANNED))
    changed["evening"]["settings"]["distil.steps"] = 299
    (tmp_path / "plan.json").write_text(json.dumps(changed))
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode != 0 and "distil.steps is 300, the plan" in told.stderr
    assert not (tmp_path / "runs").exists()
