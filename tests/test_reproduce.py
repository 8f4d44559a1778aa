"""The notebooks are executed in order, once, and again only when something they depend on changed."""

import nbformat
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
    assert not list(out.parent.glob("*.partial.ipynb"))
