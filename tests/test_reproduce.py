"""`make reproduce`: the main table, then the lessons, each run once until its inputs change."""

import multiprocessing
import os
import socket
import time
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
from jupyter_client.connect import LocalPortCache
from toys import isolate, scale, toy

from leadkit import paths
from leadkit.experiments import sweep, workers
from leadkit.experiments.distillation import Distil
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.rows import ROWS
from leadkit.lessons import reproduce
from leadkit.training.loop import Operation


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A toy scale; runs go to the test's own folder; processes are forked, which is fast."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(workers, "PROCESSES", multiprocessing.get_context("fork"))
    monkeypatch.setattr(sweep, "jobs_by_default", lambda: 2)
    return scale(toy(tmp_path / "toy"))


@pytest.fixture
def notebooks(monkeypatch, tmp_path):
    """Two lessons: the first prints its parameters, the second fails where a file says so."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    monkeypatch.setattr(paths, "NOTEBOOKS", folder)
    for name, source in (
        ("01_says.ipynb", "print(SCALE, SEED)"),
        ("02_fails.ipynb", "from pathlib import Path\nassert not Path('fail').exists(), 'told to'"),
    ):
        cells = [
            nbformat.v4.new_markdown_cell("# A lesson"),
            nbformat.v4.new_code_cell("SCALE = ''\nSEED = 0"),
            nbformat.v4.new_code_cell(source),
        ]
        cells[1].metadata["tags"] = ["parameters"]
        kernel = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / name)
    return folder


def test_all_numbered_notebooks_in_order(small):
    assert [lesson.notebook[:2] for lesson in reproduce.lessons(small, 0)] == [
        f"0{i}" for i in range(1, 10)
    ]
    assert [lesson.notebook for lesson in reproduce.lessons(small, 0, "ablations")] == [
        "07_ablations.ipynb"
    ]
    with pytest.raises(ValueError, match="only 'nonsense'"):
        reproduce.lessons(small, 0, "nonsense")


def test_a_lesson_is_another_where_what_it_depends_on_changed(
    small, notebooks, monkeypatch, tmp_path
):
    (tmp_path / "leadkit").mkdir()
    (tmp_path / "leadkit" / "code.py").write_text("1")
    monkeypatch.setattr(paths, "ROOT", tmp_path)

    def keys(chosen=small, seed=0):
        return [lesson.key for lesson in reproduce.lessons(chosen, seed)]

    before = keys()
    assert keys() == before and len(set(before)) == 2
    assert not set(before) & {*keys(seed=1), *keys(replace(small, rerank=4))}
    (notebooks / "01_says.ipynb").write_text((notebooks / "01_says.ipynb").read_text() + "\n")
    assert [a == b for a, b in zip(keys(), before, strict=True)] == [False, True]
    (tmp_path / "leadkit" / "code.py").write_text("2")
    assert not set(before) & {*keys()}


def test_what_a_lesson_needs_is_made_once(small):
    lesson = reproduce.lessons(small, 0)[0]
    first, again = lesson.inputs(), lesson.inputs()
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert len(first) == len(ROWS)


@pytest.mark.slow
def test_the_main_table_the_lessons_and_their_pages(
    small, notebooks, monkeypatch, tmp_path, capsys
):
    def noisy(self, operation, run=Distil.run):
        print("in the log")
        run(self, operation)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(Distil, "run", noisy)
    reproduce.reproduce(small, seed=1)
    said = capsys.readouterr().out
    before, after = said.split("\nMain table", 1)
    table, taught = after.split("\nlessons, scale toy, seed 1: ")  # the table comes first
    assert "main table, scale toy, seed 1: 20 stages to run (" in before
    assert all(row in table for row in ROWS)
    assert taught.startswith("2 stages to run (2 lesson)")
    assert "(01_says.ipynb, seed 1)" in taught
    assert "in the log" not in said
    shown = tmp_path / "runs" / "notebooks-toy"
    executed = nbformat.read(shown / "01_says.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "toy 1\n"
    assert "toy 1" in (shown / "01_says.html").read_text()
    assert (shown / "index.html").exists()
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setattr(workers, "start", lambda *_: pytest.fail("a stage was run again"))
    reproduce.reproduce(small, seed=1)
    assert capsys.readouterr().out.count("everything is finished") == 2


@pytest.mark.slow
def test_a_lesson_that_fails_says_where_and_the_others_stand(small, notebooks, monkeypatch, capsys):
    (notebooks / "fail").touch()
    monkeypatch.setattr(Pipeline, "rows", lambda self: {"BM25": self.evaluate(None, "test")})
    monkeypatch.setattr(reproduce, "run_main_table", lambda pipelines: pd.DataFrame())
    with pytest.raises(SystemExit, match="1"):
        reproduce.reproduce(small)
    said = capsys.readouterr()
    assert "failed: RuntimeError: its cell 3 ends in AssertionError: told to; read " in said.err
    assert "Main table" in said.out
    unfinished = [lesson for lesson in reproduce.lessons(small, 0) if not lesson.finished()]
    assert [lesson.notebook for lesson in unfinished] == ["02_fails.ipynb"]


@pytest.mark.slow
def test_a_kernel_whose_port_another_process_took_is_started_anew(small, notebooks, monkeypatch):
    free = LocalPortCache.find_available_port
    lesson = reproduce.lessons(small, 0, "says")[0]
    lesson.folder.mkdir(parents=True)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken = [other.getsockname()[1]]
        monkeypatch.setattr(
            LocalPortCache, "find_available_port", lambda *at: taken.pop() if taken else free(*at)
        )
        lesson.run(Operation())
    assert not taken
    executed = nbformat.read(lesson.folder / lesson.notebook, as_version=4)
    assert executed.cells[-1].outputs[0].text == "toy 0\n"


def test_a_kernel_that_never_starts_is_an_error(small, notebooks, monkeypatch):
    tries = []

    def dies(*arguments, **settings):
        tries.append(arguments)
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(reproduce.papermill, "execute_notebook", dies)
    with pytest.raises(RuntimeError, match="^Kernel died"):
        reproduce.lessons(small, 0, "says")[0].run(Operation())
    assert len(tries) == reproduce.STARTS


@pytest.mark.slow
def test_no_lesson_where_the_main_table_fails(small, notebooks, monkeypatch, tmp_path, capsys):
    def fails(self, operation):
        raise ValueError("learning_rate is 7: too much")

    monkeypatch.setattr(Distil, "run", fails)
    with pytest.raises(SystemExit, match="1"):
        reproduce.reproduce(small)
    said = capsys.readouterr()
    assert "failed: ValueError: learning_rate is 7: too much" in said.err
    assert "Main table" not in said.out
    assert not list((tmp_path / "runs").glob("lesson-*"))


@pytest.mark.slow
def test_no_kernel_is_left_where_a_lesson_is_stopped(small, notebooks, monkeypatch):
    lesson = nbformat.read(notebooks / "01_says.ipynb", as_version=4)
    lesson.cells[-1].source = (
        "import os, pathlib, time\n"
        "pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    nbformat.write(lesson, notebooks / "01_says.ipynb")
    monkeypatch.setattr(reproduce.Lesson, "inputs", lambda self: [])
    process, pid = workers.start(reproduce.lessons(small, 0, "01")[0], 1), notebooks / "pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    os.kill(int(pid.read_text()), 0)  # it is there
    process.terminate()
    process.join(60)
    assert process.exitcode != 0
    wait_for(lambda: not os.path.exists(f"/proc/{pid.read_text()}"))


def wait_for(what):
    for _ in range(1200):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError("a minute was not enough")
