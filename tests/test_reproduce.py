"""The notebooks are executed in order, once, and again only when something they depend on changed."""

import shutil
import threading
import time

import nbformat
import papermill
import pytest

from leadkit import reproduce


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
