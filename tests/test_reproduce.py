"""The notebooks are executed in order, once, and again only when something they depend on changed."""

import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from toys import isolate, scale, toy

from leadkit import reproduce, sweep
from leadkit.distil import Distil
from leadkit.recipes import ROWS, Pipeline


def test_all_numbered_notebooks_in_order():
    assert [path.name[:2] for path in reproduce.notebooks()] == ["01", "02", "03", "04", "05", "06", "07", "08", "09"]
    assert [path.name for path in reproduce.notebooks("ablations")] == ["07_ablations.ipynb"]
    with pytest.raises(ValueError, match="only 'nonsense'"):
        reproduce.notebooks("nonsense")


def test_executed_once_for_the_same_parameters(tmp_path):
    cells = [nbformat.v4.new_code_cell("SEED = 0", metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell("print(SEED + 1)")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "a.ipynb")
    out = tmp_path / "runs" / "a.ipynb"
    assert reproduce.execute(tmp_path / "a.ipynb", out, {"SEED": 41})
    assert not reproduce.execute(tmp_path / "a.ipynb", out, {"SEED": 41})
    assert nbformat.read(out, as_version=4).cells[-1].outputs[0].text == "42\n"
    assert reproduce.execute(tmp_path / "a.ipynb", out, {"SEED": 1})
    assert not list(out.parent.glob("unfinished-*"))


@pytest.fixture
def copied(monkeypatch, tmp_path):
    """(notebook, where it goes, one entry for each execution, which only copies it)."""
    ran = []

    def execute(source, out, *_, **__):
        ran.append(source)
        time.sleep(0.2)
        shutil.copy(source, out)

    monkeypatch.setattr(papermill, "execute_notebook", execute)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "a.ipynb")
    return tmp_path / "a.ipynb", tmp_path / "runs" / "a.ipynb", ran


@pytest.mark.parametrize("older", ["", "[]", '{"metadata": {}}', '{"cells": [], "metadata": {"leadkit": "'])
def test_executed_anew_where_it_is_not_what_was_written(older, copied):
    notebook, out, ran = copied
    assert reproduce.execute(notebook, out, {}) and not reproduce.execute(notebook, out, {})
    out.write_text(older)
    assert reproduce.execute(notebook, out, {}) and len(ran) == 2 and nbformat.read(out, as_version=4).metadata.leadkit


def test_executed_once_where_two_want_it(copied):
    notebook, out, ran = copied
    both = [threading.Thread(target=reproduce.execute, args=(notebook, out, {})) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(ran) == 1 and nbformat.read(out, as_version=4).metadata.leadkit


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A toy scale and one lesson; processes are forked, which is fast."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setattr(sweep, "PROCESSES", multiprocessing.get_context("fork"))
    monkeypatch.setattr(reproduce, "RUNS", tmp_path)
    monkeypatch.setattr(reproduce, "notebooks", lambda only: [Path("01_lesson.ipynb")])
    (tmp_path / "notebooks-toy").mkdir()
    return scale(toy(tmp_path / "toy"))


def test_main_table_is_run_in_processes_before_the_lessons(small, monkeypatch, capsys):
    def execute(notebook, out, parameters):
        assert sweep.missing([*Pipeline(small, 1).rows().values()]) == [] and parameters == {"SCALE": "toy", "SEED": 1}
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A lesson")]), out)
        return True

    monkeypatch.setattr(reproduce, "execute", execute)
    monkeypatch.setattr(Distil, "run", lambda self, run=Distil.run: print("in the log") or run(self))
    reproduce.reproduce(small, seed=1)
    out = capsys.readouterr().out
    assert "main table, scale toy, seed 1: 17 stages to run (" in out and "01_lesson.ipynb: executed" in out
    assert "in the log" not in out and all(row in out.rsplit("Main table", 1)[1] for row in ROWS)


def test_no_lesson_where_the_main_table_fails(small, monkeypatch, capsys):
    def fails(self):
        raise ValueError("learning_rate is 7: too much")

    monkeypatch.setattr(Distil, "run", fails)
    monkeypatch.setattr(reproduce, "execute", lambda *_: pytest.fail("a lesson was executed"))
    with pytest.raises(SystemExit, match="1"):
        reproduce.reproduce(small)
    assert "failed: ValueError: learning_rate is 7: too much" in capsys.readouterr().err
