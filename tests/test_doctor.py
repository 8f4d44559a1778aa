"""The doctor: a healthy setup, and each thing that can be wrong with it, found by its own check with what to do about it."""

import json
import os
import re
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from test_collection import install

from leadkit import config, doctor, files
from leadkit.data import python_docs
from leadkit.data.collections import load
from leadkit.data.python_docs import Variant
from leadkit.files import digest, write_json

REPOSITORY = doctor.ROOT
SHIPPED = "bert-12x128, bert-6x128, bert-6x128-masked-lm, bert-6x128-bottlenecked: as shipped"
CHECKS = [
    "packages",
    "faiss",
    "device",
    "memory",
    "disk",
    "models",
    "collections",
    "stages",
    "scales",
]


def stage(name: str, content: bytes = b"{}") -> Path:
    """A finished stage: a record, 2 MiB of tensors, the seal."""
    folder = config.RUNS / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(content)
    save_file({"x": np.zeros(2**19, np.float32)}, folder / "run.safetensors")
    write_json(
        folder / "stage.json",
        {"files": {path.name: digest(path) for path in sorted(folder.iterdir())}},
    )
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout with everything in order: the shipped models, python-docs of a toy package, records of it, two stages."""
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(config, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(python_docs, "CACHE", tmp_path / "data" / "cache")
    shutil.copytree(REPOSITORY / "data" / "models", tmp_path / "data" / "models")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    pins = dict(
        re.findall(r"^(\S+)==(\S+)", (tmp_path / "constraints.txt").read_text(), re.MULTILINE)
    )
    machine(monkeypatch, packages={name: pin for name, pin in pins.items() if name != "faiss-gpu"})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setitem(
        python_docs.VARIANTS,
        "python-docs",
        Variant(("toypack",), standard_library=True, test=6, dev=5),
    )
    monkeypatch.setattr(python_docs, "_sources", small_sources(python_docs._sources))
    record(tmp_path, load("python-docs").fingerprint)
    stage("evaluate-0123456789ab"), stage("distil-ba9876543210")
    return tmp_path


def small_sources(real):
    """The standard library is left out: it takes long."""
    return lambda variant: real(
        Variant(variant.packages, standard_library=False, test=variant.test, dev=variant.dev)
    )


def record(root: Path, fingerprint: str) -> None:
    write_json(
        root / "data" / "results" / "classroom" / "0-bm25.json",
        {"collection": "python-docs", "fingerprint": fingerprint, "versions": {"python": "3.11.7"}},
    )
    write_json(
        root / "data" / "results" / "classroom-nq" / "0-bm25.json",
        {"collection": "beir:nq", "fingerprint": "f", "versions": {"python": "2"}},
    )


def machine(monkeypatch, packages=None, gpu=None, memory=(16.0, 8.0), disk=50.0) -> None:
    if packages is not None:
        monkeypatch.setattr(doctor, "_installed", packages.get)
    monkeypatch.setattr(doctor, "_gpu", lambda: bool(gpu))
    monkeypatch.setattr(doctor, "_memory", lambda: memory)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=disk * 1e9))


@pytest.fixture
def see(root, capsys):
    """Run the doctor: (exit code, check -> (state, what it said, remedy))."""

    def run() -> tuple[int, dict[str, tuple[str, str, str]]]:
        capsys.readouterr()
        code, found, name = doctor.doctor(), {}, ""
        *lines, blank, last = capsys.readouterr().out.splitlines()
        for line in lines:
            if line.startswith(" "):
                found[name] = (*found[name][:2], line.split("-> ", 1)[1])
            else:
                state, name, said = line.split(maxsplit=2)
                found[name] = (state, said, "")
        assert list(found) == CHECKS and blank == ""
        count = Counter(state for state, *_ in found.values())
        assert last == f"problems: {count['PROBLEM']}, warnings: {count['warning']}" and code == (
            count["PROBLEM"] > 0
        )
        assert all(
            (state == "ok") == (remedy == "") for state, _, remedy in found.values()
        )  # each comes with what to do
        return code, found

    return run


def only(see, check: str, state: str, said: str, remedy: str) -> None:
    """This check alone finds something, says it and what to do; the exit code is 1 for a problem and 0 for a warning."""
    code, found = see()
    assert (
        found[check][0] == state
        and re.search(said, found[check][1])
        and re.search(remedy, found[check][2])
    ), found[check]
    assert {name: row[0] for name, row in found.items() if row[0] != "ok" and name != check} == {}
    assert code == (state == "PROBLEM")


def test_a_healthy_setup(see, root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code, found = see()
    assert code == 0 and {state for state, *_ in found.values()} == {"ok"}
    assert {
        path: path.stat().st_mtime_ns for path in root.rglob("*")
    } == before  # nothing is changed, built or locked
    assert (
        "Python 3." in found["packages"][1]
        and f"torch {doctor._installed('torch')}" in found["packages"][1]
    )
    assert found["faiss"][1].startswith("faiss-cpu 1.")
    assert found["memory"][1].startswith(
        "16.0 GiB, 8.0 available; needed: smoke 4, classroom 6, classroom-short 6"
    )
    assert found["disk"][1].startswith("50.0 GB free; ") and found["models"][1] == SHIPPED
    assert re.search(
        r": 1 collections, .*; python-docs is [0-9a-f]{16}, as in the committed records$",
        found["collections"][1],
    )
    assert "4 MB; 2 stages finished, 0 not" in found["stages"][1]
    can = r"smoke and classroom and classroom-short can be run; (classroom takes longer in float32; )?gpu lacks a GPU; paper lacks "
    assert re.match(can, found["scales"][1])


# --- packages


@pytest.mark.parametrize(
    "package, version, state",
    [
        ("torch", None, "PROBLEM"),
        ("tyro", None, "PROBLEM"),
        ("torch", "2.13.1", "warning"),
        ("torch", "2.14.0", "warning"),
        ("torch", "2.12.9", "PROBLEM"),
        ("torch", "3.0.0", "PROBLEM"),
        ("torch", "1.13.0", "PROBLEM"),
        ("ruff", "9.9.9", "warning"),
        ("ruff", None, "ok"),
    ],
)
def test_a_package_that_is_missing_or_another(see, monkeypatch, package, version, state):
    real = doctor._installed
    monkeypatch.setattr(
        doctor, "_installed", lambda name: version if name == package else real(name)
    )
    said = (
        f"1 not as pinned: {package} {version} \\(pinned: "
        if version
        else f"missing: {package}"
        if state == "PROBLEM"
        else ""
    )
    only(
        see,
        "packages",
        state,
        said,
        r'-m pip install -e "\.\[cpu,dev\]" -c constraints.txt' if state != "ok" else "^$",
    )


def test_the_local_part_of_a_version_does_not_count(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert doctor._installed("torch") == "2.13.0"


def test_without_constraints_nothing_is_compared(see, root, monkeypatch):
    (root / "constraints.txt").unlink()
    assert "there is no constraints.txt to compare with" in see()[1]["packages"][1]


def test_series_are_those_that_pyproject_allows():
    from packaging.specifiers import SpecifierSet

    for pin, bounds in (("2.13.0", ">=2.13,<3"), ("0.9.1", ">=0.9,<1"), ("5.23.0", ">=5.23,<6")):
        for version in (
            "0.8",
            "0.9.0",
            "0.10",
            "1.0",
            "2.12.1",
            "2.13",
            "2.99",
            "3.0",
            "5.22",
            "5.23.1",
            "6.0.0",
        ):
            assert doctor._fits(version, pin) == (version in SpecifierSet(bounds)), (version, pin)


@pytest.mark.parametrize(
    "installed, gpu, state, said, remedy",
    [
        (
            {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"},
            False,
            "PROBLEM",
            "faiss-cpu 1.15.1 and faiss-gpu 1.15.1 in one environment",
            "pip uninstall -y faiss-cpu faiss-gpu",
        ),
        ({}, False, "PROBLEM", "neither faiss-cpu nor faiss-gpu is installed", r"\[cpu,dev\]"),
        (
            {"faiss-cpu": "1.15.1"},
            True,
            "warning",
            "faiss-cpu 1.15.1 beside a GPU",
            r"uninstall -y faiss-cpu; .*\[gpu,dev\]",
        ),
        ({"faiss-gpu": "1.15.1"}, False, "ok", "^faiss-gpu 1.15.1$", "^$"),
    ],
)
def test_faiss(see, monkeypatch, installed, gpu, state, said, remedy):
    pins, real = ("faiss-cpu", "faiss-gpu"), doctor._installed
    monkeypatch.setattr(
        doctor, "_installed", lambda name: installed.get(name) if name in pins else real(name)
    )
    monkeypatch.setattr(doctor, "_gpu", lambda: gpu)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(doctor.CHECKS, "device", lambda: doctor.Finding("the GPU is used"))
    only(see, "faiss", state, said, remedy)


# --- the machine


def test_a_gpu_that_torch_does_not_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_gpu", lambda: True)
    finding = doctor.device()
    assert (
        finding.state == "warning"
        and "does not use the GPU that is there" in finding.said
        and "CUDA build" in finding.remedy
    )


def test_one_thread_because_the_environment_says_so(see, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert see()[1]["device"][0] == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    only(
        see,
        "device",
        "warning",
        "1 threads on 8 cores; .*OMP_NUM_THREADS is 1",
        "unset OMP_NUM_THREADS",
    )


def test_memory_of_this_machine_is_plausible():
    total, free = doctor._memory()
    assert 0.1 < free <= total < 100_000


@pytest.mark.parametrize("free, state", [(3.9, "PROBLEM"), (4.0, "ok")])
def test_little_memory(see, monkeypatch, free, state):
    machine(monkeypatch, memory=(16.0, free))
    remedy = "end other programs: 4 GiB are needed" if state == "PROBLEM" else "^$"
    only(see, "memory", state, f"16.0 GiB, {free} available", remedy)


def test_a_full_disk(see, monkeypatch):
    machine(monkeypatch, disk=0.5)
    code, found = see()
    assert (
        code == 1 and found["disk"][0] == "PROBLEM" and found["disk"][1].startswith("0.5 GB free; ")
    )
    assert re.search(
        r"make room for 1 GB: what is in \S+cache and \S+runs is computed again", found["disk"][2]
    )
    assert found["scales"][0] == "PROBLEM"
    lacks = "; ".join(
        f"{name} lacks 1 GB of disk" for name in ("smoke", "classroom", "classroom-short")
    )
    assert found["scales"][1].startswith(f"none can be run; {lacks}; gpu lacks 2 GB")


def test_a_folder_that_cannot_be_written(see, root, monkeypatch):
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda place, mode: Path(place) != root / "runs" and real(place, mode)
    )
    only(see, "disk", "PROBLEM", "runs cannot be written", "chmod u.w .*runs")


def test_runs_that_are_not_there_yet(see, root):
    shutil.rmtree(root / "runs")
    code, found = see()
    assert (
        code == 0
        and "0 stages finished, 0 not" in found["stages"][1]
        and not (root / "runs").exists()
    )


@pytest.mark.parametrize(
    "memory, disk, said",
    [
        (
            (5.0, 5.0),
            50.0,
            "smoke can be run; classroom lacks 6 GiB of memory; "
            "classroom-short lacks 6 GiB of memory; gpu lacks 8 GiB of memory and a GPU",
        ),
        (
            (16.0, 8.0),
            1.5,
            "smoke and classroom and classroom-short can be run; .*gpu lacks 2 GB of disk and a GPU",
        ),
    ],
)
def test_scales_that_fit(see, monkeypatch, memory, disk, said):
    machine(monkeypatch, memory=memory, disk=disk)
    code, found = see()
    assert code == 0 and found["scales"][0] == "ok" and re.match(said, found["scales"][1])


@pytest.mark.parametrize("bf16, slow", [(True, ""), (False, "classroom takes longer in float32; ")])
def test_a_machine_with_a_gpu(monkeypatch, bf16, slow):
    machine(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(config, "BF16", bf16)
    assert (
        f"smoke and classroom and classroom-short and gpu can be run; {slow}paper lacks 40 GiB of memory"
        in doctor.scales().said
    )


def test_every_scale_has_its_needs():
    assert set(doctor.NEEDS) == set(config.SCALES)
    measured = json.loads((REPOSITORY / "data" / "results" / "reproduce.json").read_text())[
        "peak_memory_gib"
    ]
    assert measured < doctor.NEEDS["classroom"][0]


# --- models


@pytest.mark.parametrize("file", doctor.FILES)
def test_a_model_that_lacks_a_file(see, root, file):
    (root / "data" / "models" / "bert-6x128" / file).unlink()
    only(
        see,
        "models",
        "PROBLEM",
        f"^bert-6x128 lacks {file}$",
        f"git -C {re.escape(str(root))} restore data/models",
    )


@pytest.mark.parametrize("file", doctor.FILES)
def test_a_model_that_is_damaged(see, root, file):
    path = root / "data" / "models" / "bert-12x128" / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    only(
        see,
        "models",
        "PROBLEM",
        "encoder '.*bert-12x128': .*(damaged|cannot be read)",
        "restore data/models",
    )


def test_a_model_that_is_another(see, root):
    path = root / "data" / "models" / "bert-6x128" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_dropout_prob": 0.2}))
    only(
        see,
        "models",
        "warning",
        "^bert-6x128: not as shipped, results will differ",
        "restore data/models",
    )


# --- caches


def test_python_docs_of_an_unknown_fingerprint(see, root):
    ours = load("python-docs").fingerprint
    record(root, "0123456789abcdef")
    only(
        see,
        "collections",
        "warning",
        f"python-docs is {ours}, the committed records are of 0123456789abcdef: another text",
        "install what constraints.txt pins under Python 3.11.7",
    )


def test_python_docs_of_another_environment_is_not_taken_for_ours(see, root):
    install(root / "site", version="1.1")
    code, found = see()
    assert code == 0 and found["collections"][0] == "ok"
    assert re.search(
        "1 collections, .*; python-docs of this environment is not among them",
        found["collections"][1],
    )


def test_an_empty_cache(see, root):
    shutil.rmtree(root / "data" / "cache")
    code, found = see()
    assert (
        code == 0
        and "0 collections, 0 MB" in found["collections"][1]
        and not (root / "data" / "cache").exists()
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "corpus.jsonl").write_text("x"),
        lambda folder: (folder / "queries.jsonl").unlink(),
        lambda folder: (folder / "cache.json").write_text("{"),
        lambda folder: (folder / "cache.json").write_text("[]"),
        lambda folder: (folder / "cache.json").unlink(),
    ],
)
def test_a_damaged_collection(see, root, damage):
    [folder] = (root / "data" / "cache").glob("python-docs-*/")
    damage(folder)
    only(
        see,
        "collections",
        "warning",
        f"; {folder.name} damaged or unfinished",
        "nothing: it is built anew",
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "record.json").write_text("[]"),
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: os.truncate(folder / "run.safetensors", 2**20 + 5),
        lambda folder: (folder / "run.safetensors").write_bytes(b""),
        lambda folder: (folder / "stage.json").write_text("{"),
        lambda folder: (folder / "stage.json").write_text('{"files": 7}'),
    ],
)
def test_a_damaged_stage(see, root, damage):
    damage(root / "runs" / "distil-ba9876543210")
    only(
        see,
        "stages",
        "warning",
        "; 1 stages finished, 0 not.*; 1 damaged: distil-ba9876543210$",
        "runs it anew",
    )


def test_unfinished_stages_are_counted_and_other_folders_are_not(see, root):
    for name in ("warm-up-0000000000aa", "mine-0000000000bb", "sweep-logs", "notebooks-smoke"):
        (root / "runs" / name).mkdir()
    (root / "runs" / "warm-up-0000000000cc.lock").touch()
    code, found = see()
    assert (
        code == 0
        and "2 stages finished, 2 not: their command goes on with them" in found["stages"][1]
    )


def test_large_files_are_not_read_whole(see, monkeypatch):
    read, real = [], files.digest
    monkeypatch.setattr(files, "digest", lambda path: read.append(path) or real(path))
    assert see()[0] == 0
    assert "record.json" in {path.name for path in read} and "run.safetensors" not in {
        path.name for path in read
    }


# --- the command


def test_a_check_that_cannot_be_imported_is_a_problem(see, monkeypatch):
    def fails():
        raise ModuleNotFoundError("No module named 'torch'")

    monkeypatch.setitem(doctor.CHECKS, "device", fails)
    only(
        see, "device", "PROBLEM", r"cannot be looked at \(No module named 'torch'\)", "pip install"
    )


@pytest.mark.parametrize("code", [0, 1])
def test_the_command_exits_with_its_code(monkeypatch, code):
    monkeypatch.setattr(doctor, "doctor", lambda: code)
    monkeypatch.setattr(sys, "argv", ["leadkit", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("leadkit", run_name="__main__")
    assert stopped.value.code == code


def test_the_shipped_models_are_the_committed_ones():
    assert doctor.models() == doctor.Finding(SHIPPED)
