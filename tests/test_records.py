"""The table of records: nothing is lost, nothing disagrees unnoticed, new seeds join old ones."""

import json
import multiprocessing
import os
from collections import ChainMap
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from leadkit import config, files, paths
from leadkit.experiments import conditions, controls, mta4dpr, prod, tables
from leadkit.models.packaged import packaged_folder
from leadkit.results import claims, conversion, records
from leadkit.results.comparable import per_query

COMMITTED = sorted(path.parent for path in paths.RESULTS.glob("*/records.jsonl"))
RETRIEVER = {"kind": "warm-up", "tower": {"bf16": True, "scale": 1.0}, "seed": 0}


class Evaluation:
    """What `records.save` reads of a finished one."""

    def __init__(self, seed=0, values=(1.0, 0.5, 0.0), scale=1.0, **changes):
        retriever = RETRIEVER | {"tower": {"bf16": True, "scale": scale}, "seed": seed}
        stage = {"kind": "evaluate", "retriever": retriever, "split": "test"}
        self.written = {
            "stage": stage,
            "key": "0123456789ab",
            "collection": "toy",
            "fingerprint": "f",
            "split": "test",
            "measures": {"RR@10": float(np.mean(values)), "AP@1000": 0.25},
            "per_query": {"RR@10": list(values), "AP@1000": [0.25] * len(values)},
            **changes,
        }

    def describe(self):
        return self.written["stage"]

    def fingerprint(self):
        return self.written["fingerprint"]

    def record(self):
        return self.written

    def cost(self):
        return {"seconds": 1.5, "teacher_passes": 0}


def test_what_is_saved_is_read(tmp_path):
    first, second = Evaluation(0), Evaluation(1, (0.333333, 0.25, 0.1))
    records.save({1: {"RD": second}, 0: {"RD": first, "BM25": first}}, tmp_path)
    kept = records.read(tmp_path)
    assert {name: [row["seed"] for row in rows] for name, rows in kept.items()} == {
        "BM25": [0],
        "RD": [0, 1],
    }
    assert per_query(kept["RD"][1]).tolist() == [0.333333, 0.25, 0.1]
    whole = first.record() | {"experiment": "RD", "seed": 0, "cost": first.cost()}
    del whole["per_query"]
    row = kept["RD"][0]
    del row["per_query"]
    assert row == whole


def test_records_are_merged(tmp_path):
    """In any order: the same files. A record takes the place of that of its experiment and seed."""
    both = {0: {"RD": Evaluation(0)}, 1: {"RD": Evaluation(1), "LEAD": Evaluation(1)}}
    records.save(both, tmp_path / "at once")
    for seed in (1, 0):
        records.save({seed: both[seed]}, tmp_path / "one by one")
    for name in (records.LINES, records.ARRAYS):
        at_once, one_by_one = (tmp_path / way / name for way in ("at once", "one by one"))
        assert at_once.read_bytes() == one_by_one.read_bytes()
    records.save({1: {"RD": Evaluation(1, (0.0, 0.0, 0.2))}}, tmp_path / "at once")
    kept = records.read(tmp_path / "at once")
    assert per_query(kept["RD"][1]).tolist() == [0.0, 0.0, 0.2]
    assert [len(rows) for rows in kept.values()] == [1, 2]
    with np.load(tmp_path / "at once" / records.ARRAYS) as arrays:
        assert len(arrays) == 2  # equal values are stored once, replaced ones not at all


REFUSED = {
    "fingerprint f": {"fingerprint": "g"},
    "split test": {"split": "dev"},
    "3 queries": {"values": (1.0, 0.0)},
    "retriever.tower.scale is 1.0 with seed 0, 2.0 with seed 1": {"scale": 2.0},
    "different precision": {"stage": {"retriever": {"tower": {"bf16": False}}}},
    "lacks RR@10": {"per_query": {"AP@1000": [1.0]}},
}


@pytest.mark.parametrize("message", REFUSED)
def test_records_that_do_not_join_are_refused(tmp_path, message):
    records.save({0: {"RD": Evaluation(0)}}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    name = "LEAD" if "precision" in message else "RD"
    with pytest.raises(ValueError, match=message):
        records.save({1: {name: Evaluation(1, **REFUSED[message])}}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_plan_is_refused_before_the_work(tmp_path):
    records.check_plan({0: {"RD": Evaluation(0)}}, tmp_path)  # nothing is there yet
    records.save({0: {"RD": Evaluation(0)}}, tmp_path)
    records.check_plan({0: {"RD": Evaluation(0, scale=2.0)}}, tmp_path)  # takes its place
    with pytest.raises(ValueError, match="tower.scale is 1.0 with seed 0, 2.0 with seed 1"):
        records.check_plan({1: {"RD": Evaluation(1, scale=2.0)}}, tmp_path)
    other = Evaluation(1, fingerprint="g")  # of another edition of the collection
    with pytest.raises(ValueError, match="fingerprints f and g: name another folder with --out"):
        records.check_plan({1: {"RD": other}}, tmp_path)
    records.check_plan({0: {"RD": other}}, tmp_path)  # none of the old ones stays
    asked = {"stage": {"split": "dev"}}
    with pytest.raises(ValueError, match="splits dev and test: name another folder with --out"):
        records.check_plan({0: {"LEAD": Evaluation(0, **asked)}}, tmp_path)


def killed_save(folder, writes):
    """Save, and be killed before the write of this number, without any clean-up."""
    write, left = files.write, [writes]

    def write_or_die(path, writer):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        write(path, writer)

    files.write = write_or_die
    replaced, added = Evaluation(0, (0.2, 0.2, 0.2)), Evaluation(1)
    records.save({0: {"RD": replaced}, 1: {"RD": added}}, folder)


@pytest.mark.parametrize("writes", range(4))
def test_a_killed_save_loses_nothing(tmp_path, writes):
    """Whichever file it was about to write: the table is the old one or the new one."""
    records.save({0: {"RD": Evaluation(0)}, 2: {"RD": Evaluation(2)}}, tmp_path)
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=killed_save, args=(tmp_path, writes))
    process.start()
    process.join()
    assert process.exitcode == (9 if writes < 3 else 0)
    kept = {row["seed"]: per_query(row).tolist() for row in records.read(tmp_path)["RD"]}
    old = {0: [1.0, 0.5, 0.0], 2: [1.0, 0.5, 0.0]}
    new = {0: [0.2, 0.2, 0.2], 1: [1.0, 0.5, 0.0], 2: [1.0, 0.5, 0.0]}
    assert kept == (old if writes < 2 else new)
    records.save({3: {"RD": Evaluation(3)}}, tmp_path)  # the next one tidies up
    with np.load(tmp_path / records.ARRAYS) as arrays:
        assert len(arrays) == (1 if writes < 2 else 2)


def test_files_that_disagree_are_told(tmp_path):
    records.save({0: {"RD": Evaluation(0)}}, tmp_path / "one")
    records.save({0: {"RD": Evaluation(0, (0.1, 0.2, 0.3))}}, tmp_path / "other")
    os.replace(tmp_path / "other" / records.ARRAYS, tmp_path / "one" / records.ARRAYS)
    with pytest.raises(ValueError, match="does not hold what records.jsonl beside it names"):
        records.read(tmp_path / "one")
    line = json.loads((tmp_path / "one" / records.LINES).read_text())
    name = line["per_query"]["RR@10"]
    np.savez_compressed(tmp_path / "one" / records.ARRAYS, **{name: np.zeros(3)})
    with pytest.raises(ValueError, match=f"array {name} holds other values"):
        records.read(tmp_path / "one")
    (tmp_path / "one" / records.ARRAYS).write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="does not hold"):
        records.read(tmp_path / "one")
    for line in ('{"experiment"', "{}", "3", '{"experiment": "RD", "seed": 0}'):
        (tmp_path / "one" / records.LINES).write_text(line + "\n")
        with pytest.raises(ValueError, match="line 1, is no record"):
            records.read(tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="holds no result records"):
        records.read(tmp_path / "none")


def test_ones_own_records_come_before_the_shipped_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert records.folder_of("classroom") == paths.RESULTS / "classroom"
    records.save({0: {"RD": Evaluation(0)}}, tmp_path / "results" / "classroom")
    assert records.folder_of("classroom") == tmp_path / "results" / "classroom"


def test_default_folder():
    scale = config.scale("classroom")
    assert records.default_folder(scale, "test") == paths.RESULTS / "classroom"
    assert records.default_folder(scale, "dev") == paths.RESULTS / "classroom-dev"
    for collection, name in {
        "beir:some/path/squad": "classroom-squad-dev",
        "irds:beir/nq": "classroom-nq-dev",
        "python-docs:smoke": "classroom-dev",
    }.items():
        other = replace(scale, data=replace(scale.data, collection=collection))
        assert records.default_folder(other, "dev").name == name


# --- the committed records


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_committed_means_are_those_of_the_queries(folder):
    for rows in records.read(folder).values():
        for row in rows:
            assert row["measures"]["RR@10"] == pytest.approx(per_query(row).mean(), abs=1e-6)
            known = {"stage", "key", "device", "versions", "seconds", "peak_memory_mib"}
            assert known <= row.keys()


@pytest.mark.parametrize("folder", ["classroom", "evening", "evening-dev"])
def test_todays_code_would_run_what_the_records_say(folder):
    name, _, split = folder.partition("-")
    if name == "evening" and not packaged_folder(config.MINILM):
        pytest.skip("the package of the encoder is not installed")

    @cache
    def every(seed):
        scale = config.scale(name, bf16=True)
        sources = (tables, controls, conditions)
        return dict(ChainMap(*(each.experiments(scale, seed, split or "test") for each in sources)))

    for experiment, rows in records.read(paths.RESULTS / folder).items():
        described = every(rows[-1]["seed"])[experiment].describe()
        assert json.loads(json.dumps(described)) == rows[-1]["stage"], experiment


def test_the_first_edition_differs_in_its_first_stage_alone():
    """What today's code would run is described as it stands in the records.

    Only what was re-ranked differs: by the list, and a DE teacher is no longer re-ranked.
    """
    seed = 4
    kept = records.read(paths.RESULTS / "first-classroom")
    every = {}
    for method in (tables, prod, mta4dpr):
        every |= method.experiments(config.scale("classroom", bf16=True), seed)
    both = every.keys() & kept.keys()
    assert len(both) == 49
    re_ranked = {f"{t} teacher{after}" for t in "DE CB CE".split() for after in ("", " after LEAD")}
    for experiment in both:
        if experiment.startswith("MTA4DPR"):  # its pools hold assistants that were re-ranked
            continue
        stage = next(row["stage"] for row in kept[experiment] if row["seed"] == seed)
        described = json.loads(json.dumps(every[experiment].describe()))
        assert (described != stage) == (experiment in re_ranked), experiment
        for field in ("first", "rerank"):
            described.pop(field), stage.pop(field)
        assert described == stage, experiment


# --- records of the first edition


def first_edition(folder, seed):
    """One JSON file per record, as the first edition wrote it: LEAD's teacher afterwards."""
    data = {"collection": "toy", "batch": 32}
    wide = data | {"batch": 64}
    schedule = {"steps": 5, "learning_rate": 0.1, "save_seconds": 60.0}
    lead = {"k": 5, "strategy": "random", "tau_d": 1.0, "tau_l": 10.0}
    lead |= {"joint": True, "reweight": True, "variant": "paper"}
    teacher = {"kind": "warm-up", "data": wide, "schedule": schedule, "seed": seed}
    student = teacher | {"data": data}
    retriever = {"kind": "distil", "data": data, "method": "LEAD", "lead": lead, "seed": seed}
    retriever |= {"student": student, "teacher": teacher, "schedule": schedule}
    stage = {"kind": "evaluate", "data": data, "retriever": retriever, "teacher": True}
    row = Evaluation(seed).record() | {"stage": stage, "experiment": "CB LEAD", "seed": seed}
    folder.mkdir(exist_ok=True)
    (folder / f"{seed}-cb-lead.json").write_text(json.dumps(row))


def test_old_records_are_recognised_and_converted(tmp_path):
    folder = tmp_path / "old"
    for seed in (0, 1):
        first_edition(folder, seed)
    remedy = f"python -m leadkit convert {folder}"
    for use in (records.read, lambda folder: records.save({0: {"RD": Evaluation()}}, folder)):
        with pytest.raises(FileNotFoundError, match=remedy):
            use(folder)
    assert conversion.convert(folder) == 2
    assert len(list(folder.glob("*.json"))) == 2
    rows = records.read(folder)["CB LEAD"]
    described = rows[1]["stage"]
    data = {"collection": "toy", "batch": 32}
    assert described["data"] == data and "teacher" not in described
    assert described["retriever"]["kind"] == "teacher after"
    distillation = described["retriever"]["distillation"]
    assert distillation["method"]["name"] == "LEAD" and distillation["method"]["k"] == 5
    assert "data" not in distillation and "data" not in distillation["student"]
    assert distillation["teacher"]["data"] == data | {"batch": 64}
    assert distillation["schedule"] == {"steps": 5, "learning_rate": 0.1}
    assert claims.ledger({"CB LEAD": rows})["verdict"].eq("not run").all()
    conversion.convert(folder, remove=True)
    assert not list(folder.glob("*.json"))
    assert len(records.read(folder)["CB LEAD"]) == 2


def test_what_is_no_old_record_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no records of the first edition"):
        conversion.convert(tmp_path)
    first_edition(tmp_path, 0)
    for text in ('{"what": "no record"}', '{"stage": {}}', "no JSON", "3"):
        (tmp_path / "notes.json").write_text(text)
        with pytest.raises(ValueError, match="notes.json is no record of the first edition"):
            conversion.convert(tmp_path, remove=True)
    assert not (tmp_path / records.LINES).exists()
    assert (tmp_path / "0-cb-lead.json").exists()
