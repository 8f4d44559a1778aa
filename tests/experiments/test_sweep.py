"""Sweeps.

What is missing, in what order, for how long; and stages in processes that fail, die or are
interrupted.
"""

import json
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toys import data, isolate, scale, toy

from leadkit import config, paths
from leadkit.config import Schedule
from leadkit.experiments import distillation, pipeline, prod, sweep, tables, workers
from leadkit.experiments.distillation import TeacherAfter
from leadkit.experiments.prod import PROD
from leadkit.experiments.rescaled import Rescaled
from leadkit.experiments.store import Stage
from leadkit.files import write_json
from leadkit.results.records import default_folder, read

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Step(Stage):
    """Notes its start and end in events.txt.

    Fails or dies where a file of that name and its number says so.
    until: the event that it waits for ("end 3"), a minute at most; then it fails.
    """

    kind = "step"
    number: int = 0
    until: str = ""
    first: Stage | None = None
    second: Stage | None = None
    seed: int = 0

    @property
    def count(self) -> int:
        """What it is called in events.txt."""
        return self.number + self.seed

    def run(self, operation) -> None:
        note(
            f"start {self.count} {time.monotonic()} {torch.get_num_threads()} "
            f"{os.environ.get('OMP_NUM_THREADS')} {ctrl_c()}"
        )
        if (paths.RUNS.parent / f"fail-{self.count}").exists():
            raise ValueError(f"number is {self.count}:\n it must be another")
        if (paths.RUNS.parent / f"die-{self.count}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / ".half").write_text("half")
        try:
            wait_for(self.until)
        finally:
            (self.folder / ".half").unlink()
        write_json(self.folder / "out.json", {"number": self.count})
        note(f"end {self.count} {time.monotonic()}")

    def fingerprint(self) -> str:
        return "0"

    def record(self) -> dict:
        number = json.loads((self.done() / "out.json").read_text())["number"]
        return {
            "stage": self.describe(),
            "collection": self.data.collection,
            "fingerprint": self.fingerprint(),
            "split": "test",
            "measures": {"RR@10": 0.5},
            "per_query": {"RR@10": [0.5, 0.5]},
            "number": number,
        }

    def cost(self) -> dict:
        return {"seconds": 0.0, "teacher_passes": 0}


@dataclass(frozen=True)
class Trainee(Stage):
    kind = "trainee"
    method: str
    schedule: Schedule
    seed: int = 0


def ctrl_c() -> str:
    """Whether SIGINT reaches this process."""
    return "blocked" if signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []) else "open"


def note(line: str) -> None:
    with open(paths.RUNS / "events.txt", "a") as out:
        out.write(line + "\n")


def wait_for(event: str) -> None:
    latest = time.monotonic() + 60
    while event and event.split() not in [line[:2] for line in events()]:
        if time.monotonic() > latest:
            raise TimeoutError(f"{event!r} did not come")
        time.sleep(0.02)


def events() -> list[list[str]]:
    return [line.split() for line in (paths.RUNS / "events.txt").read_text().splitlines()]


def started() -> list[int]:
    return [int(event[1]) for event in events() if event[0] == "start"]


@pytest.fixture
def name(monkeypatch, tmp_path):
    """A toy collection.

    Runs of the test go to its own folder; processes are forked, which is fast.
    """
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(workers, "PROCESSES", multiprocessing.get_context("fork"))
    return toy(tmp_path / "toy")


def go(todo, jobs=1):
    return sweep.Run(todo, jobs, sweep.Estimates(), sweep.titles(todo, {}))()


# --- what is missing


def test_missing_stages_come_once_and_after_their_inputs(name, monkeypatch):
    a = Step(data(name), 1)
    b, c = Step(data(name), 2, first=a), Step(data(name), 3, first=a)
    d = Step(data(name), 4, first=c, second=b)
    asked, finished = [], Stage.finished
    monkeypatch.setattr(Stage, "finished", lambda self: asked.append(self.number) or finished(self))
    assert sweep.missing([d, b, Step(data(name), 2, first=a)]) == [a, c, b, d]
    assert sorted(asked) == [1, 2, 3, 4]
    b.done()
    assert sweep.missing([d]) == [c, d]
    (a.folder / "out.json").unlink()
    assert sweep.missing([b]) == []  # b stands without it
    assert sweep.missing([d]) == [a, c, d]


def test_longest_chain_by_hand(name):
    """a (1 s) is needed by b (5 s) and c (2 s), these by d (4 s): 1 + 5 + 4."""
    a = Step(data(name), 1)
    b, c = Step(data(name), 2, first=a), Step(data(name), 3, first=a)
    d = Step(data(name), 4, first=b, second=c)
    seconds = {a.key: 1.0, b.key: 5.0, c.key: 2.0, d.key: 4.0}
    assert sweep.chains([a, b, c, d], seconds) == {a.key: 10.0, b.key: 9.0, c.key: 6.0, d.key: 4.0}


# --- what the processes inherit


def test_what_the_processes_inherit_is_not_the_callers(name, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = dict(os.environ)
    go([Step(data(name), 1)], jobs=2)
    assert events()[0][3:5] == ["1", "1"] and dict(os.environ) == before


# --- how long it takes


def seal(stage, seconds):
    write_json(
        paths.RUNS / f"{stage.kind}-{seconds}" / "stage.json",
        {"stage": stage.describe(), "seconds": seconds, "files": {}},
    )


def test_estimates_by_hand(name, tmp_path):
    stage = Trainee(data(name), "LEAD", Schedule(100), seed=9)
    assert sweep.Estimates()(stage) is None
    seal(
        Trainee(data(toy(tmp_path / "other", train=25)), "LEAD", Schedule(100)), 1000.0
    )  # other data say nothing
    seal(Step(data(name)), 2000.0)  # nor does another kind
    (paths.RUNS / "trainee-damaged").mkdir()
    (paths.RUNS / "trainee-damaged" / "stage.json").write_text('{"stage": {"kind": "trainee"')
    assert sweep.Estimates()(stage) is None
    seal(Trainee(data(name), "RD", Schedule(50)), 30.0)
    assert sweep.Estimates()(stage) == pytest.approx(60.0)  # 100 steps of 0.6 s
    seal(Trainee(data(name), "FD", Schedule(200)), 200.0)
    assert sweep.Estimates()(stage) == pytest.approx(80.0)  # 0.6 s and 1 s: 0.8 s in the middle
    for seed, seconds in enumerate((7.0, 9.0, 20.0)):
        seal(Trainee(data(name), "LEAD", Schedule(100), seed), seconds)
    estimates = sweep.Estimates()
    assert estimates(stage) == 9.0
    longer = replace(stage, schedule=Schedule(300))
    assert estimates(longer) == pytest.approx(300 * 0.09)  # of .07, .09 and .2
    seal(replace(stage, seed=5), 21.0)
    estimates.learn(paths.RUNS / "trainee-21.0")
    assert estimates(stage) == 14.5  # of 7, 9, 20, 21


def test_estimate_prefers_the_same_inputs_to_the_same_settings(name):
    quick, slow = Step(data(name), 1), Step(data(name), 2)
    seal(Step(data(name), 5, first=quick), 3.0)
    seal(Step(data(name), 5, first=slow), 30.0)
    assert sweep.Estimates()(Step(data(name), 5, first=replace(slow, seed=1), seed=1)) == 30.0


def test_estimate_knows_which_model_is_evaluated(name):
    """Re-ranking takes as long as its model needs.

    With another teacher another time, before and after LEAD the same.
    """
    cb, ce = pipeline.Pipeline(scale(name), 0, "CB"), pipeline.Pipeline(scale(name), 0, "CE")
    seal(cb.evaluate(cb.teacher, "test"), 50.0)
    seal(ce.evaluate(ce.student, "test"), 20.0)
    assert sweep.Estimates()(ce.evaluate(ce.teacher, "test")) is None  # not those of a CB or DE
    seal(ce.evaluate(ce.teacher, "test"), 800.0)
    estimates = sweep.Estimates()
    assert estimates(cb.evaluate(TeacherAfter(data(name), cb.distil("LEAD")), "test")) == 50.0
    assert estimates(ce.evaluate(TeacherAfter(data(name), ce.distil("LEAD")), "test")) == 800.0
    assert estimates(ce.evaluate(ce.distil("LEAD"), "test")) == 20.0


def test_estimates_of_a_new_machine_are_those_of_the_committed_records(name, tmp_path, monkeypatch):
    chain, other = (pipeline.Pipeline(scale(name), seed) for seed in (0, 7))
    rows = chain.rows("test")
    monkeypatch.setattr(paths, "RESULTS", paths.RUNS.parent / "results")
    table = paths.RESULTS / "toy" / "records.jsonl"
    table.parent.mkdir(parents=True)
    with open(table, "w") as out:
        for i, row in enumerate(rows.values(), start=1):
            record = {"stage": row.describe(), "seconds": i, "training_seconds": 100 * i}
            out.write(json.dumps(record) + "\n")
    place = list(rows).index
    estimates = sweep.Estimates()
    assert not estimates.borrowed
    assert estimates(other.student) == 100 * (1 + place("student"))
    assert estimates(other.distil("RD")) == 100 * (1 + place("RD"))
    assert estimates(other.rows("test")["teacher"]) == 1 + place("teacher")
    assert estimates.borrowed and estimates(chain.negatives) is None  # mining has no record
    quick = pipeline.Pipeline(scale(name, bf16=True))
    assert estimates(quick.student) == pytest.approx(100 * (1 + place("student")) / 3.9)
    larger = pipeline.Pipeline(scale(name, student_encoder="random:5x32"))
    assert estimates(larger.student) is None  # records of other encoders say nothing
    longer = replace(other.distil("RD", tau_d=2.0), schedule=Schedule(9))
    step = 100 * (1 + place("RD")) / other.distil("RD").schedule.steps
    assert estimates(longer) == pytest.approx(9 * step)  # whatever the temperature
    rescaled = replace(other.distil("RD"), student=Rescaled(data(name), other.student, 2.0))
    assert estimates(rescaled) == 100 * (1 + place("RD"))
    elsewhere = pipeline.Pipeline(scale(toy(tmp_path / "other", train=25)))
    assert estimates(elsewhere.student) == 100 * (1 + place("student"))  # a training, but
    assert estimates(elsewhere.rows("test")["teacher"]) is None  # not an evaluation
    seal(chain.student, 5.0)  # what ran here comes first
    assert sweep.Estimates()(other.student) == 5.0


def test_time_left_by_hand(name):
    a, b, c = (Step(data(name), n) for n in (1, 2, 3))
    d = Step(data(name), 4, first=a)
    seconds = {a.key: 3000.0, b.key: 2000.0, c.key: 1000.0, d.key: 2000.0}
    assert sweep.time_left([a, b, c, d], seconds, 1) == "about 2:13:20"  # 8000 s
    assert (
        sweep.time_left([a, b, c, d], seconds, 2) == "about 1:23:20"
    )  # a and d, 5000 s, are longer than 8000 / 2
    assert (
        sweep.time_left([a, b, c], seconds, 2) == "about 0:50:00"
    )  # a, 3000 s, is as long as 6000 / 2
    assert sweep.time_left([b, c], seconds, 2) == "about 0:33:20"
    unknown = Trainee(data(name), "RD", Schedule(1))
    seconds |= {unknown.key: None}
    assert (
        sweep.time_left([b, unknown], seconds, 1) == "about 0:33:20 and an unknown time (1 trainee)"
    )
    assert sweep.time_left([unknown], seconds, 1) == "an unknown time (1 trainee)"


# --- running


def test_stages_run_once_after_their_inputs_and_two_at_a_time(name):
    a = Step(data(name), 1)
    b, c = Step(data(name), 2, "start 3", first=a), Step(data(name), 3, "start 2", first=a)
    d = Step(data(name), 4, first=b, second=c)
    assert go(sweep.missing([d]), jobs=2) == {} and d.finished()
    at = {(what, int(number)): float(when) for what, number, when, *_ in events()}
    assert sorted(started()) == [1, 2, 3, 4]
    starts, ends = ([at[what, number] for number in (2, 3)] for what in ("start", "end"))
    assert {event[5] for event in events() if event[0] == "start"} == {
        "blocked"
    } and ctrl_c() == "open"
    assert at["end", 1] < min(starts) and max(starts) < min(ends) and max(ends) < at["start", 4]


def test_no_process_waits_for_an_input(name):
    a, alone = Step(data(name), 1, "end 3"), Step(data(name), 3)
    assert go([a, Step(data(name), 2, first=a), alone], jobs=2) == {}
    others = [event[:2] for event in events() if event[:2] != ["start", "1"]]
    assert others[:4] == [["start", "3"], ["end", "3"], ["end", "1"], ["start", "2"]]


def test_one_job_runs_one_at_a_time_the_longest_chain_first(name):
    alone, a = Step(data(name), 1), Step(data(name), 2)
    b = Step(data(name), 3, first=a)
    c = Step(data(name), 4, first=b)
    go([alone, a, b, c])
    assert started() == [2, 3, 1, 4]  # c is as short as the one that came first
    assert [what for what, *_ in events()] == ["start", "end"] * 4


def test_estimates_decide_which_chain_is_longest(name):
    chained, alone = Step(data(name), 2, first=Step(data(name), 1)), Step(data(name), 7)
    for stage, seconds in ((chained.first, 1.0), (chained, 2.0), (alone, 100.0)):
        seal(replace(stage, seed=1), seconds)
    go([chained.first, chained, alone])
    assert started() == [7, 1, 2]


# --- the command


@pytest.fixture
def command(name, monkeypatch, tmp_path, capsys):
    """`python -m leadkit sweep` on toy experiments.

    Returns (exit code, standard output, standard error).
    """
    monkeypatch.setitem(config.SCALES, "toy", scale(name))
    tables = {"1": ("one", "two"), "2": ("two", "three"), "8": ("one", "a start")}
    sources = (SimpleNamespace(TABLES=tables, experiments=experiments),)
    monkeypatch.setattr(sweep, "SOURCES", sources)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")

    def call(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["leadkit", "sweep", "--scale", "toy", *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as raised:
            runpy.run_module("leadkit", run_name="__main__")
        out, err = capsys.readouterr()
        return raised.value.code, out, err

    return call


def experiments(scale, seed, split):
    """Two of three need what the seeds share."""
    shared = Step(scale.data, 100)
    return {
        "one": Step(scale.data, 10, first=shared, seed=seed),
        "two": Step(scale.data, 20, seed=seed),
        "three": Step(scale.data, 30, first=shared, seed=seed),
    }


def records(folder):
    """(seed, experiment) -> its number, of a folder's table."""
    kept = {
        (row["seed"], name): row["number"] for name, rows in read(folder).items() for row in rows
    }
    return dict(sorted(kept.items()))


def test_command_runs_what_is_missing_and_writes_the_records(command, tmp_path):
    code, out, _ = command("--table", 1, "--seeds", 2, "--jobs", 2)
    assert code == 0 and sorted(started()) == [10, 11, 20, 21, 100]
    first, *lines = out.splitlines()
    assert first == (
        "table 1, scale toy, seeds 0 to 1, split test: 5 stages to run (5 step), an unknown "
        "time (5 step) with jobs = 2"
    )
    assert [line.split("]")[0] for line in lines[:5]] == [f"[{n}/5" for n in range(1, 6)]
    assert any(re.search(r"\(two, seed 1\): \d+ s; about 0:00:\d\d left", line) for line in lines)
    assert records(tmp_path / "results" / "toy-toy") == {
        (seed, name): number + seed
        for seed in (0, 1)
        for name, number in (("one", 10), ("two", 20))
    }
    code, out, _ = command("--table", "all", "--seeds", 1, "--jobs", 2, "--split", "dev")
    assert (
        code == 0
        and sorted(started()) == [10, 11, 20, 21, 30, 100]
        and "1 stages to run (1 step), about 0:00:0" in out
    )
    assert list(records(tmp_path / "results" / "toy-toy-dev")) == [
        (0, "one"),
        (0, "three"),
        (0, "two"),
    ]
    code, out, _ = command("--table", 2, "--seeds", 1, "--out", tmp_path / "out")
    assert code == 0 and "everything is finished" in out and len(started()) == 6
    assert list(records(tmp_path / "out")) == [(0, "three"), (0, "two")]
    code, out, _ = command(
        "--table", 2, "--seeds", 1, "--jobs", 1, "--collection", toy(tmp_path / "other")
    )
    assert code == 0 and "3 stages to run" in out  # nothing is shared with the other collection
    assert list(records(tmp_path / "results" / "toy-other")) == [(0, "three"), (0, "two")]


def test_several_tables_at_once(command, tmp_path):
    assert command("--table", 1, 2, "--seeds", 1)[1].startswith(
        "tables 1, 2, scale toy, seeds 0 to 0, split test: 4 stages to run"
    )
    assert list(records(tmp_path / "results" / "toy-toy")) == [(0, "one"), (0, "three"), (0, "two")]


def test_two_sweeps_share_a_table_by_its_seeds(command, tmp_path):
    assert "seeds 1 to 2, " in command("--table", 2, "--seeds", 2, "--first", 1)[1]
    assert sorted(started()) == [21, 22, 31, 32, 100]
    assert command("--table", 2, "--seeds", 1)[0] == 0 and sorted(started()) == [
        20,
        21,
        22,
        30,
        31,
        32,
        100,
    ]
    written = [(seed, name) for seed in range(3) for name in ("three", "two")]
    assert list(records(tmp_path / "results" / "toy-toy")) == written


def test_only_some_rows_of_a_table_run(command, tmp_path):
    message, out, _ = command("--table", 1, 2, "--only", "one", "four")
    assert message == "leadkit: row 'four' is unknown: use one of one, two, three"
    assert out == "" and not (tmp_path / "runs" / "events.txt").exists()
    for row, number in (("three", 30), ("two", 20)):  # the second run adds its row to the table
        code, *_ = command("--table", 1, 2, "--only", row, "--seeds", 1)
        assert code == 0 and number in started() and 10 not in started()
    assert list(records(tmp_path / "results" / "toy-toy")) == [(0, "three"), (0, "two")]


def test_records_of_another_collection_have_a_folder_of_their_own(name):
    for collection, split, folder in (
        ("irds:msmarco-passage", "dl19", "toy-msmarco-passage-dl19"),
        ("irds:beir/nq", "test", "toy-nq"),
        ("python-docs", "test", "toy"),
    ):
        other = scale(name, data=data(collection))
        assert default_folder(other, split) == paths.RESULTS / folder


# as deep as the paper's, so that every row of its tables can be
SIZES = {
    "student_encoder": "random:6x16",
    "teacher_encoder": "random:12x16",
    "larger_encoder": "random:24x16",
}


@pytest.fixture
def unchecked(monkeypatch):
    """Hundreds of stages in a moment: no encoder is looked at."""
    monkeypatch.setattr(distillation, "check", lambda encoder: None)
    monkeypatch.setattr(distillation, "check_lengths", lambda *_: None)


def test_prod_and_table_9_are_swept_with_the_student_they_start_from(name, unchecked):
    shapes = scale(name, **SIZES)
    student = {"student": tables.experiments(shapes, 1, "dev")["student"]}
    for table, wanted in (
        ("9", prod.table_9(shapes, 1, "dev")),
        ("prod", PROD(shapes, None, 1).experiments("dev")),
    ):
        assert sweep.plan((table,), shapes, 1, "dev", first=1) == {1: student | wanted}


def test_methods_share_no_name_of_a_table_or_an_experiment(name, unchecked):
    every = [source.experiments(scale(name, **SIZES)) for source in sweep.SOURCES]
    rows = [source.TABLES for source in sweep.SOURCES]
    for names in (every, rows):
        assert sum(map(len, names)) == len(set().union(*names))
    known = set().union(*every, tables.STARTS)
    for names in rows:
        assert all({*row} <= known for row in names.values())


def test_what_has_no_encoder_is_left_out_and_named(command, tmp_path):
    code, out, _ = command("--table", 8, "--seeds", 1)
    assert (
        code == 0
        and out.splitlines()[0].startswith("left out")
        and ": a start; python -m leadkit pretrain --objective" in out
    )
    assert list(records(tmp_path / "results" / "toy-toy")) == [(0, "one")]


def test_failure_stops_only_what_needs_it(command, tmp_path):
    (tmp_path / "fail-100").touch()
    code, out, err = command("--table", "all", "--seeds", 1, "--jobs", 1)
    assert code == 1 and sorted(started()) == [20, 100]
    assert list(records(tmp_path / "results" / "toy-toy")) == [(0, "two")]
    (line,) = [line for line in err.splitlines() if "failed" in line]
    found = line.split("; see ")
    assert found[0].endswith("(one, seed 0) failed: ValueError: number is 100: it must be another")
    assert "Traceback" in Path(found[1]).read_text() and "Traceback" not in err
    (tmp_path / "fail-100").unlink()
    assert command("--table", "all", "--seeds", 1)[0] == 0
    assert (
        sorted(started()) == [10, 20, 30, 100, 100]
        and len(records(tmp_path / "results" / "toy-toy")) == 3
    )


def test_process_that_is_killed_is_told_and_its_stage_resumed(command, tmp_path):
    (tmp_path / "die-20").touch()
    code, _, err = command("--table", "1", "--seeds", 1, "--jobs", 2)
    assert (
        code == 1
        and (
            "(two, seed 0) failed: its process died (Killed); the same command goes on with it; "
            "see "
        )
        in err
    )
    assert list(records(tmp_path / "results" / "toy-toy")) == [(0, "one")]
    (tmp_path / "die-20").unlink()
    assert command("--table", "1", "--seeds", 1, "--jobs", 2)[0] == 0
    assert (
        sorted(started()) == [10, 20, 20, 100]
        and len(records(tmp_path / "results" / "toy-toy")) == 2
    )


def test_sigterm_stops_the_processes_and_keeps_what_is_finished(name, capsys):
    quick, slow = Step(data(name), 1), Step(data(name), 2, "never", first=Step(data(name), 1))

    def terminate():
        while len(started()) < 2 or not list(slow.folder.glob(".half")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    handler, begun = signal.getsignal(signal.SIGTERM), time.monotonic()
    paths.RUNS.mkdir()
    (paths.RUNS / "events.txt").touch()
    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(SystemExit) as raised:
        go([quick, slow])
    assert (
        raised.value.code == 143
        and time.monotonic() - begun < 30
        and signal.getsignal(signal.SIGTERM) is handler
    )
    assert (
        "stopped with 1 of 2 stages finished: the same command goes on from there"
        in capsys.readouterr().err
    )
    assert quick.finished() and not slow.finished() and list(slow.folder.iterdir()) == []
    assert multiprocessing.active_children() == [] and sweep.missing([slow]) == [slow]


SCRIPT = """
import sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, {tests!r})
import pytest, test_sweep, toys
from leadkit.experiments import sweep
patch = pytest.MonkeyPatch()
toys.isolate(patch, Path({folder!r}))
def experiments(scale, seed, split):
    first = test_sweep.Step(scale.data, 1)
    steps = [test_sweep.Step(scale.data, n, "never", first=first) for n in (2, 3)]
    return dict(zip(("one", "two"), steps))
source = SimpleNamespace(TABLES={{"1": ("one", "two")}}, experiments=experiments)
patch.setattr(sweep, "SOURCES", (source,))
sweep.sweep("table 1", sweep.plan(("1",), toys.scale({name!r}), 1), 2)
"""


@pytest.mark.slow
def test_ctrl_c_in_the_terminal_loses_nothing(name, tmp_path):
    """With processes as the command has them, of one thread each.

    Ctrl-C reaches every process of the terminal.
    """
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path), name=name)
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while process.poll() is None and not (
        (paths.RUNS / "events.txt").exists() and len(started()) == 3
    ):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert (
        err.count("\n") == 1
        and err.startswith("stopped with 1 of 3 stages finished")
        and "[1/3] " in out
    )
    assert not (tmp_path / "out").exists() and [what for what, *_ in events()] == [
        "start",
        "end",
        "start",
        "start",
    ]
    assert {tuple(event[3:]) for event in events() if event[0] == "start"} == {
        ("1", "1", "blocked")
    }  # threads: torch's, OMP's
    slow = Step(data(name), 2, "never", first=Step(data(name), 1))
    assert sweep.missing([slow]) == [slow] and list(slow.folder.iterdir()) == []


# --- bad input, before any work


KNOWN = "use one or more of 1, 2, 8, map 150, map 600, map 2400, conditions or all"


def test_bad_arguments(command, tmp_path, subtests):
    for arguments, message in [
        (("--table", "9"), f"table '9' is unknown: {KNOWN}"),
        (("--table", "1", "9"), f"table '9' is unknown: {KNOWN}"),
        (("--table",), f"table '' is unknown: {KNOWN}"),
        (("--table", "1", "--seeds", 0), "seeds is 0: at least one is needed"),
        (("--table", "1", "--first", -1), "first is -1: a seed must not be negative"),
        (("--table", "1", "--jobs", 0), "jobs is 0: at least one is needed"),
        (("--table", "1", "--jobs", -2), "jobs is -2: at least one is needed"),
        (("--table", "1", "--split", "validation"), "split 'validation' is not in collection"),
    ]:
        with subtests.test(message):
            code, out, err = command(*arguments)
            assert code.startswith(f"leadkit: {message}") and (out, err) == ("", "")
            assert not (tmp_path / "runs").exists() and not (tmp_path / "results").exists()
