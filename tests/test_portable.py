"""Other systems, and installations without a checkout: what is missing there stops nothing."""

import builtins
import importlib
import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import numpy as np
import pytest

from leadkit import doctor, hardware, paths
from leadkit.results import records
from leadkit.retrieval.dense import search

ROOT = Path(__file__).parent.parent


@pytest.fixture
def missing(monkeypatch):
    """Modules that cannot be imported in this test."""
    imported, names = builtins.__import__, set()

    def fails(name, *given):
        if name in names:
            raise ImportError(f"No module named {name!r}")
        return imported(name, *given)

    monkeypatch.setattr(builtins, "__import__", fails)
    return names


def test_without_faiss_torch_searches_the_same(missing):
    draw = np.random.default_rng(0)
    queries, passages = (draw.normal(size=(n, 8)).astype(np.float32) for n in (5, 40))
    with_faiss = search(queries, passages, 7)
    missing.add("faiss")
    without_faiss = search(queries, passages, 7)
    np.testing.assert_array_equal(without_faiss.rows, with_faiss.rows)
    np.testing.assert_allclose(without_faiss.scores, with_faiss.scores, rtol=1e-5)


@pytest.mark.parametrize("platform, unit", [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_in_mib_on_each_system(platform, unit, monkeypatch):
    import resource

    held = 300 * 2**20 // unit
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: type("R", (), {"ru_maxrss": held}))
    assert hardware.peak_memory_mib() == 300


def test_peak_memory_without_the_resource_module(missing):
    missing.add("resource")
    assert hardware.peak_memory_mib() > 10


def test_one_module_alone_asks_for_what_one_system_has():
    def has(path, *words):
        return any(word in path.read_text() for word in words)

    asking = [
        p.name for p in (ROOT / "leadkit").rglob("*.py") if has(p, "import resource", "/proc")
    ]
    assert sorted(asking) == ["hardware.py", "workers.py"]


def test_doctor_on_a_mac_without_faiss_and_sysconf(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sysconf")
    monkeypatch.setattr(doctor, "_versions", lambda *names: [])
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert doctor.faiss().state == "ok" and "second OpenMP" in doctor.faiss().said
    assert doctor._look(doctor.memory).state == "ok"


@pytest.fixture
def reloaded(monkeypatch):
    """Read leadkit.paths anew; afterwards it is as it was."""
    before = dict(vars(paths))
    yield lambda: importlib.reload(paths)
    vars(paths).update(before)


def test_a_checkout_that_is_read_only_is_no_home(reloaded, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEADKIT_CACHE", raising=False)
    monkeypatch.delenv("LEADKIT_HOME", raising=False)
    reloaded()
    assert (paths.RUNS, paths.MODELS) == (ROOT / "runs", ROOT / "data" / "models")
    monkeypatch.setattr(os, "access", lambda *given: False)
    reloaded()
    assert (tmp_path / "runs", tmp_path / "data" / "cache") == (paths.RUNS, paths.CACHE)
    assert paths.MODELS == ROOT / "data" / "models"
    monkeypatch.setenv("LEADKIT_HOME", "~/lead")
    monkeypatch.setenv("HOME", str(tmp_path))
    reloaded()
    assert (
        tmp_path / "lead" / "runs",
        tmp_path / "lead" / "data" / "cache",
    ) == (paths.RUNS, paths.CACHE)


def test_records_of_an_installation_are_written_at_home(monkeypatch, tmp_path):
    from leadkit import config

    monkeypatch.setattr(paths, "HOME", tmp_path)
    assert records.default_folder(config.scale("smoke"), "test") == tmp_path / "results" / "smoke"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(folder), str(ROOT)], check=True)
    [path] = folder.glob("leadkit-*.whl")
    return path


@pytest.fixture
def away(tmp_path, wheel):
    """Run a module of Python in an environment and a folder of its own.

    The environment sees this one's packages, but not its leadkit.
    """
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    [packages] = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    (tmp_path / "work").mkdir()
    left_out = ("LEADKIT", "PYTHONPATH", "JUPYTER")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    environment |= {"IPYTHONDIR": str(tmp_path / "ipython"), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        ran = subprocess.run(
            [str(python), "-m", *arguments],
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        return ran.stdout

    return run


@pytest.mark.slow
def test_a_wheel_runs_from_another_folder(wheel, away, tmp_path):
    """It holds miniatures, collection and records; what it computes goes to the working folder."""
    assert wheel.stat().st_size < 30e6
    away("pip", "install", "-q", "--no-deps", "--force-reinstall", str(wheel))
    said = away("leadkit", "table", "--scale", "smoke", "--only", "12DE (mines)")
    assert "12DE (mines)" in said
    assert list((tmp_path / "work" / "runs").glob("evaluate-*"))
    said = away("leadkit", "doctor")
    [line] = [line for line in said.splitlines() if " results " in line]
    assert str(Path("leadkit", "shipped", "results")) in line and line.startswith("ok")


@pytest.mark.slow
def test_a_lesson_runs_where_the_wheel_is_installed(wheel, away, tmp_path):
    """With the cell of a hosted notebook in front (docs/running.md)."""
    page = (ROOT / "docs" / "running.md").read_text()
    [cell] = re.findall(r"```python\n(%pip .*?)\n```", page, re.DOTALL)
    address = r'"leadkit\[cpu,lessons\] @ git\+https://github.com/OWNER/NAME"'
    cell, replaced = re.subn(address, f"--no-deps --force-reinstall {wheel}", cell)
    assert replaced == 1 and len(cell.splitlines()) == 3
    notebook = nbformat.read(ROOT / "notebooks" / "03_random_selection.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(cell))
    nbformat.write(notebook, tmp_path / "work" / "lesson.ipynb")
    away("papermill", "--no-progress-bar", "-k", "python3", "lesson.ipynb", "ran.ipynb")
    ran = nbformat.read(tmp_path / "work" / "ran.ipynb", as_version=4)
    assert all(cell.execution_count for cell in ran.cells if cell.cell_type == "code")
    runs = tmp_path / "work" / "leadkit" / "runs"
    assert runs.is_dir() or not (tmp_path / "work" / "runs").exists()
