"""The command line: what it prints, and one sentence without a traceback where the input is bad."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from toys import isolate, scale, toy

from leadkit import config, paths
from leadkit.experiments import evaluation
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import ROWS
from leadkit.lessons import reproduce
from leadkit.results import records
from leadkit.training import pretraining

ROOT = Path(__file__).parent.parent


@pytest.fixture
def call(monkeypatch, capsys):
    """`python -m leadkit ...` in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["leadkit", *map(str, arguments)])
        capsys.readouterr()
        try:
            runpy.run_module("leadkit", run_name="__main__")
            code = 0
        except SystemExit as error:
            code = error.code
            if isinstance(code, str):  # the interpreter prints it and exits with 1
                print(code, file=sys.stderr)
                code = 1
        out, err = capsys.readouterr()
        return code or 0, out, err

    return run


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    monkeypatch.setitem(config.SCALES, "toy", scale(toy(tmp_path / "toy")))


def refused(answer, message):
    code, out, err = answer
    assert code == 1 and out == ""
    assert err.count("\n") == 1 and err.startswith("leadkit: ") and message in err
    assert "Traceback" not in err


def test_table_prints_its_rows_and_saves_its_records(call, tiny, tmp_path, monkeypatch):
    code, out, _ = call("table", "--scale", "toy", "--out", tmp_path / "records", "--split", "dev")
    assert code == 0
    for row in ROWS:
        assert f"\n{row} " in out
    kept = records.read(tmp_path / "records")
    assert len(kept) == len(ROWS) and all(len(rows) == 1 for rows in kept.values())
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    code, printed, _ = call("report", "--scale", "records")
    assert (
        code == 0
        and printed.startswith("|  | MRR@10 |")
        and (tmp_path / "records" / "main-table.png").stat().st_size > 1000
    )


def test_one_row_runs_what_it_needs_alone(call, tiny, tmp_path):
    code, out, _ = call(
        "table", "--scale", "toy", "--split", "dev", "--only", "student", "--at-once", "3"
    )
    assert code == 0 and "\nstudent " in out and "RD" not in out.split("\n", 1)[1]
    assert {path.name.partition("-")[0] for path in (tmp_path / "runs").glob("*/")} == {
        "warm",
        "mine",
        "evaluate",
    }


def test_a_row_of_another_table_is_an_experiment_of_a_sweep(call, tiny, tmp_path):
    row = "CB teacher, as long"
    out = "--out", tmp_path / "records"
    chosen = "--scale", "toy", "--split", "dev", "--table", "controls", "--only", row
    code, printed, _ = call("table", *chosen, *out)
    assert code == 0 and f"\n{row} " in printed and "p vs RD" not in printed
    (found,) = records.read(tmp_path / "records").values()
    assert found[0]["experiment"] == row
    assert found[0]["stage"]["retriever"]["student"]["tower"]["architecture"] == "CB"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("table", "--scale", "tiny"),
            "scale 'tiny' is unknown: use one of smoke, classroom, evening, gpu, paper",
        ),
        (("reproduce", "--scale", "tiny"), "scale 'tiny' is unknown"),
        (
            ("table", "--scale", "toy", "--teacher", "XE"),
            "teacher 'XE' is unknown: use one of DE, CB, CE",
        ),
        (
            ("table", "--scale", "toy", "--split", "validation"),
            "split 'validation' is not in collection",
        ),
        (("table", "--scale", "toy", "--seeds", "0"), "seeds is 0: at least one is needed"),
        (("table", "--scale", "toy", "--at-once", "0"), "at_once is 0: at least one is needed"),
        (
            ("table", "--scale", "toy", "--only", "12CB"),
            "row '12CB' is unknown: use one of BM25, 12DE (mines), teacher",
        ),
        (
            ("table", "--scale", "toy", "--table", "11"),
            "table '11' is unknown: use one or more of main, 1, 2, 3, 4,",
        ),
        (("reproduce", "--scale", "toy", "--seed", "-1"), "seed is -1: it must not be negative"),
        (("claims", "--scale", "nowhere"), "nowhere holds no result records (records.jsonl)"),
    ],
)
def test_bad_arguments(call, tiny, arguments, message, tmp_path):
    refused(call(*arguments), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [("tables",), ("table", "--seeds", "two"), ("table", "--scal", "toy"), ("results",)],
)
def test_unknown_arguments(call, arguments):
    code, _, err = call(*arguments)
    assert code == 2 and "Traceback" not in err


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "corpus.jsonl").unlink(), "has no corpus.jsonl or corpus.jsonl.gz"),
        (
            lambda f: (f / "corpus.jsonl").open("a").write("{half\n"),
            "corpus.jsonl, line 49: not a JSON object",
        ),
        (
            lambda f: (f / "qrels" / "test.tsv").open("a").write("q1\tp1\t0.5\n"),
            "line 8: score '0.5' is not a whole number",
        ),
    ],
    ids=["missing", "malformed", "half a grade"],
)
def test_bad_collection(call, tiny, damage, message, tmp_path):
    damage(tmp_path / "toy")
    refused(call("table", "--scale", "toy"), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"lead": config.Lead(k=3)},
            "k is 3: it must be from 1 to the student's number of layers, 2",
        ),
        (
            {"lead": config.Lead(k=1, strategy="best")},
            "strategy 'best' is unknown: use one of random, weighted, last, skip",
        ),
        (
            {"teacher_encoder": "random:1x32"},
            "teacher_layers is 1: it must be at least student_layers, 2",
        ),
        (
            {"student_encoder": "no/such/folder"},
            "encoder 'no/such/folder' is neither a folder, nor one of",
        ),
        ({"data": config.Data("msmarco")}, "collection 'msmarco' is unknown"),
    ],
    ids=["k", "strategy", "layers", "encoder", "collection"],
)
def test_scale_that_cannot_be(call, tiny, monkeypatch, changes, message, tmp_path):
    monkeypatch.setitem(config.SCALES, "toy", config.scale("toy", **changes))
    refused(call("table", "--scale", "toy"), message)
    assert not (tmp_path / "runs").exists()


def test_errors_of_several_lines_become_one(call, tiny, monkeypatch):
    def fails(*a, **k):
        raise OSError("first line\n  second line")

    monkeypatch.setattr(Pipeline, "rows", fails)
    refused(call("table", "--scale", "toy"), "first line second line")


def test_full_disk_is_one_sentence(call, tiny, monkeypatch):
    def full(*a, **k):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluation, "bm25", full)
    refused(call("table", "--scale", "toy"), "No space left on device")


def test_a_fault_in_the_program_keeps_its_traceback(call, tiny, monkeypatch):
    def fails(*a, **k):
        raise KeyError("a bug")

    monkeypatch.setattr(Pipeline, "rows", fails)
    with pytest.raises(KeyError):
        call("table", "--scale", "toy")


def test_pretrain_and_reproduce_pass_their_arguments_on(call, tiny, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(pretraining, "pretrain", lambda config, out: seen.append((config, out)))
    monkeypatch.setattr(
        reproduce, "reproduce", lambda scale, seed, only: seen.append((scale.name, seed, only))
    )
    assert (
        call("pretrain", "--objective", "masked LM", "--seed", "3", "--bf16", "--out", tmp_path)[0]
        == 0
    )
    assert call("pretrain")[0] == 0
    assert call("reproduce", "--scale", "toy", "--seed", "2", "--only", "06")[0] == 0
    trained = pretraining.Pretraining("masked LM", seed=3, bf16=True), pretraining.Pretraining()
    assert seen == [(trained[0], tmp_path), (trained[1], paths.MODELS), ("toy", 2, "06")]


def test_distil_exports_a_student(call, tiny, tmp_path):
    encoders = {
        "--teacher": "random:4x16",
        "--student": "random:2x32",
        "--collection": f"beir:{tmp_path / 'toy'}",
    }
    own = [part for pair in encoders.items() for part in pair]
    code, out, _ = call(
        "distil",
        *own,
        "--out",
        tmp_path / "mine",
        "--scale",
        "toy",
        "--architecture",
        "DE",
        "--split",
        "dev",
        "--seed",
        "2",
        "--k",
        "1",
        "--times",
        "2",
    )
    assert (
        code == 0
        and out.splitlines()[-1]
        == f"{tmp_path / 'mine'}: SentenceTransformer('{tmp_path / 'mine'}')"
    )
    assert [line.split("  ")[0].strip() for line in out.splitlines()[:3]] == [
        "BM25",
        "warmed up",
        "distilled",
    ]
    card = (tmp_path / "mine" / "README.md").read_text()
    for said in (
        "4DE of random:4x16 -> 2DE of random:2x32",
        "warm-up: student",
        "distillation: LEAD, the student's scores x 2",
        "LEAD: `LEAD(k=1, ",
        "seed 2",
        "6 queries of split dev",
    ):
        assert said in card
    refused(
        call("distil", *own, "--out", tmp_path / "mine", "--scale", "toy"),
        "mine' exists and is not empty: name a new folder",
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        (("--seed", "-1"), "seed is -1: it must not be negative"),
        (("--method", "KD"), "method 'KD' is unknown: use one of student, RD, FD, LEAD"),
        (("--architecture", "XE"), "teacher 'XE' is unknown: use one of DE, CB, CE"),
        (("--split", "validation"), "split 'validation' is not in collection"),
        (("--times", "0"), "times is 0.0: it must be positive and finite"),
        (("--k", "3"), "k is 3: it must be from 1 to the student's number of layers, 2"),
        (("--teacher", "no/such/folder"), "encoder 'no/such/folder' is neither a folder"),
        (("--collection", "beir:nowhere"), "nowhere is not a folder"),
        (("--rise", "5"), "warmup is 5.0: it is a share of the steps, from 0 to 1"),
        (("--teacher-out", "mine/teacher"), "overlap: name two folders"),
    ],
)
def test_distil_with_bad_arguments(call, tiny, changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = {
        "--teacher": "random:3x32",
        "--student": "random:2x32",
        "--collection": f"beir:{tmp_path / 'toy'}",
        "--out": tmp_path / "mine",
        "--scale": "toy",
    } | dict([changes])
    refused(call("distil", *(part for pair in good.items() for part in pair)), message)
    assert not (tmp_path / "runs").exists() and not (tmp_path / "mine").exists()


@pytest.mark.slow
def test_process_exits_with_one_line_and_not_zero():
    done = subprocess.run(
        [sys.executable, "-m", "leadkit", "table", "--scale", "tiny"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "leadkit: scale 'tiny' is unknown: use one of smoke, classroom, evening, gpu, paper, "
        "paper-document\n"
    )


def test_records_of_two_machines_make_the_table_of_one(call, tmp_path):
    whole = paths.RESULTS / "classroom"
    rows = [row for found in records.read(whole).values() for row in found]
    records.merge([row for row in rows if row["seed"] < 3], tmp_path / "one")
    records.merge([row for row in rows if row["seed"] >= 2], tmp_path / "two")
    code, out, _ = call("merge", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "both")
    read = len(rows) + sum(row["seed"] == 2 for row in rows)
    said = f"{read} records read, {len(rows)} in {tmp_path / 'both' / records.LINES}\n"
    assert (code, out) == (0, said)
    assert (tmp_path / "both" / records.LINES).read_text() == (whole / records.LINES).read_text()
    assert records.read(tmp_path / "both").keys() == records.read(whole).keys()
    float32 = paths.RESULTS / "first-classroom-short-float32"
    before = (tmp_path / "two" / records.LINES).read_text()
    code, out, err = call("merge", tmp_path / "one", float32, "--out", tmp_path / "two")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert (tmp_path / "two" / records.LINES).read_text() == before
    refused(call("merge", tmp_path / "none", "--out", tmp_path / "new"), "holds no result records")
    refused(call("merge", "--out", tmp_path / "new"), "no folder is named")
    assert not (tmp_path / "new").exists()
