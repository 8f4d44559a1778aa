"""What every test gets: one thread, fixed seeds, and the test collections where they are."""

import os
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from toys import isolate, toy

from leadkit import paths

torch.set_num_threads(1)
hypothesis.settings.register_profile("leadkit", deadline=None, derandomize=True)
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=2000
)  # tests/test_hostile.py
hypothesis.settings.load_profile("leadkit")


@pytest.fixture(autouse=True)
def seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def collections_dir() -> Path:
    """The folder of the test collections."""
    folder = os.environ.get("LEADKIT_COLLECTIONS")
    if not folder:
        pytest.skip("LEADKIT_COLLECTIONS is not set: it names the folder of the test collections")
    if not Path(folder).is_dir():
        pytest.fail(f"LEADKIT_COLLECTIONS is {folder!r}: no such folder")
    return Path(folder)


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A toy collection; runs and token files of the test go to its own folder."""
    isolate(monkeypatch, tmp_path)
    return toy(tmp_path / "toy")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Another one whose finished stages all tests share that ask for `common`."""
    folder = tmp_path_factory.mktemp("shared")
    return folder, toy(folder / "toy")


@pytest.fixture
def common(shared: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The shared collection, with the shared runs."""
    isolate(monkeypatch, shared[0])
    return shared[1]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The files of a toy data set of ir_datasets, which `load("irds:toy-irds")` reads.

    It is prepared in a cache of its own.
    """
    import toy_irds  # importing ir_datasets takes a second

    from leadkit.data import catalogue

    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    source = catalogue.Source(toy_irds.SPLITS, {"dl19": 2}, download=1e-6, text=1e-6)
    monkeypatch.setitem(catalogue.SOURCES, "toy-irds", source)
    folder = tmp_path / "home" / "toy-irds"
    toy_irds.write_toy(folder, toy_irds.PASSAGES)
    toy_irds.register(monkeypatch, folder)
    return folder
