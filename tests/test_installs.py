"""What `make` installs: on Linux without a GPU CPU wheels of torch, and nothing of NVIDIA."""

import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALL = '-e ".[cpu,dev]" -c constraints.txt'


def make(*arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "TORCH_INDEX")}
    return subprocess.run(
        ["make", "-s", "-C", str(ROOT), "--no-print-directory", *arguments],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def resolved(tmp_path: Path, *variables: str, **environment: str) -> dict[str, str]:
    """Package -> version that the Makefile's own pip command would install for torch alone.

    CalledProcessError where pip finds no torch.
    """
    recipe = make("-n", "-B", ".venv/.ready-cpu", "EXTRA=cpu", *variables)
    [_, command] = recipe.split("-m venv --clear .venv\n")
    command = command.partition(INSTALL)[0].replace(".venv/bin/python", shlex.quote(sys.executable))
    report = tmp_path / "report.json"
    options = f"--dry-run --ignore-installed --report {shlex.quote(str(report))}"
    subprocess.run(
        ["sh", "-c", f"{command} {options} torch==2.13.0"],
        env=os.environ | environment,
        check=True,
    )
    packages = [each["metadata"] for each in json.loads(report.read_text())["install"]]
    return {package["name"]: package["version"] for package in packages}


def wheel(index: Path, name: str, version: str, *needs: str) -> None:
    """A wheel without a module, in an index of files."""
    folder = index / name.replace("_", "-")
    folder.mkdir(parents=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{path.name}">{path.name}</a>')


@pytest.mark.parametrize("with_index, version", [(True, "2.13.0+cpu"), (False, "2.13.0")])
def test_the_index_of_cpu_wheels_keeps_cuda_out(with_index, version, tmp_path):
    """Two indexes of files stand for PyPI and PyTorch's; the names and versions are theirs."""
    pypi, cpu = tmp_path / "pypi", tmp_path / "cpu"
    wheel(pypi, "torch", "2.13.0", "nvidia-cublas")
    wheel(pypi, "nvidia_cublas", "13.1.1.3")
    wheel(cpu, "torch", "2.13.0+cpu")
    found = resolved(
        tmp_path,
        f"TORCH_INDEX={cpu.as_uri() if with_index else ''}",
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL=pypi.as_uri(),
        PIP_FIND_LINKS="",
    )
    assert found["torch"] == version
    assert any("nvidia" in name for name in found) is not with_index


@pytest.mark.parametrize(
    "answer, variables, index",
    [
        ("echo https://wheels", (), "https://wheels"),
        ("echo https://wheels", ("EXTRA=gpu",), ""),
        ("exit 1", (), ""),  # offline, or behind a mirror
        ("echo https://wheels", ("TORCH_INDEX=https://mirror",), "https://mirror"),
    ],
)
def test_the_index_is_asked_for_and_a_variable_overrides(answer, variables, index, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    chosen = ("EXTRA=cpu", f"PYTHON={python}", *variables)
    assert make("--eval=ask: ; @echo $(TORCH_INDEX)", "ask", *chosen).strip() == index


@pytest.mark.slow
def test_this_machine_would_install_nothing_of_nvidia(tmp_path):
    try:
        found = resolved(tmp_path)
    except subprocess.CalledProcessError:
        pytest.skip("no index has torch, or none can be reached")
    nvidia = [name for name in found if name.startswith(("nvidia", "cuda", "triton"))]
    if nvidia and not make("--eval=ask: ; @echo $(TORCH_INDEX)", "ask", "EXTRA=cpu").strip():
        pytest.skip("PyTorch's index of CPU wheels does not answer")
    assert nvidia == []
