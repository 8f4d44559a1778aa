"""The doctor: what stands in the way, in one screen. `python -m leadkit doctor`.

A problem stops the work or makes its results wrong: exit code 1. A warning makes the work slower,
or its numbers other than the committed ones. Both say what to do. Nothing is changed, built or
downloaded, and no large file is read whole.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from leadkit import inventory, paths
from leadkit.inventory import Finding

# Scale -> GiB of memory and GB of disk for a seed. Measured: two lessons at a time take 3.1 and 0.7
# at smoke, one alone 3.1 and 0.6 at classroom. The others are guesses: at paper the vectors of the
# passages take 27 GB, shared by the processes, and at paper-document those of the documents 10 GB.
NEEDS = {
    "smoke": (4, 1),
    "classroom": (6, 1),
    "evening": (6, 2),
    "gpu": (8, 2),
    "paper": (40, 30),
    "paper-document": (24, 40),
}
LEAST_MEMORY, LEAST_DISK = NEEDS["smoke"]
PIP = f"{sys.executable} -m pip"
MAIN = ("torch", "transformers", "numpy")  # the packages that are named in any case
NEEDS_GPU = ("gpu", "paper", "paper-document")


def _installed(package: str) -> str | None:
    """The version of a package without its local part: 2.13.0 for 2.13.0+cpu."""
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions(*packages: str) -> list[str]:
    """Name and version of each package that is installed."""
    versions = {package: _installed(package) for package in packages}
    return [f"{package} {version}" for package, version in versions.items() if version]


def _has_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def _reinstall() -> str:
    build = "gpu" if _has_gpu() else "cpu"
    if not paths.IS_CHECKOUT:
        return f'{PIP} install "leadkit[{build}]"'
    return f'in {paths.ROOT}: {PIP} install -e ".[{build},dev]" -c constraints.txt'


def packages() -> Finding:
    """Every package that pyproject.toml needs, as constraints.txt pins it.

    A version that pyproject.toml does not allow is a problem; another one than pinned, a warning.
    """
    from packaging.requirements import Requirement
    from packaging.version import Version

    said = ", ".join([f"Python {platform.python_version()}", *_versions(*MAIN)])
    constraints = paths.ROOT / "constraints.txt"
    if not constraints.is_file():
        return Finding(f"{said}; there is no constraints.txt to compare with")
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints.read_text(), re.MULTILINE))
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    needed = {each.name: each for each in map(Requirement, project["dependencies"])}
    versions = {name: _installed(name) for name in {*pins, *needed}}
    installed = {name: version for name, version in versions.items() if version}
    missing = [name for name in needed if name not in installed]
    if missing:
        return Finding(f"{said}; missing: {', '.join(missing)}", _reinstall(), problem=True)
    pinned = [name for name in installed if name in pins]
    others = [name for name in pinned if Version(installed[name]) != Version(pins[name])]
    if not others:
        pinning = f"{len(installed)} as constraints.txt pins them"
        return Finding(f"{said}; all {len(needed)} needed, {pinning}")
    others.sort(key=lambda name: (name not in needed, name))
    refused = [
        name
        for name, requirement in needed.items()
        if not requirement.specifier.contains(installed[name], prereleases=True)
    ]
    named = [f"{name} {installed[name]} (pinned: {pins[name]})" for name in others]
    said += f"; {len(others)} not as pinned: {inventory.first(named)}"
    return Finding(said, _reinstall(), problem=bool(refused))


def faiss() -> Finding:
    """One of faiss-cpu and faiss-gpu: the one of this machine."""
    builds = _versions("faiss-cpu", "faiss-gpu")
    uninstall = f"{PIP} uninstall -y faiss-cpu"
    if len(builds) == 2:
        said = f"{' and '.join(builds)} in one environment: both are imported as faiss"
        return Finding(said, f"{uninstall} faiss-gpu; then {_reinstall()}", problem=True)
    if not builds:
        if importlib.util.find_spec("faiss"):
            return Finding("faiss, not of pip")
        if sys.platform == "darwin":
            return Finding("none: it would bring a second OpenMP to macOS, so torch searches")
        return Finding("neither faiss-cpu nor faiss-gpu is installed: torch searches", _reinstall())
    if _has_gpu() and builds[0].startswith("faiss-cpu"):
        said = f"{builds[0]} beside a GPU: it is searched with torch"
        return Finding(said, f"{uninstall}; then {_reinstall()}")
    return Finding(builds[0])


def device() -> Finding:
    """What computes, and whether it multiplies bfloat16."""
    import torch

    from leadkit import hardware

    threads = torch.get_num_threads()
    cores = os.cpu_count() or 1
    uses_gpu = torch.cuda.is_available()
    if uses_gpu:
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        said = f"{torch.cuda.get_device_name()}, {memory:.0f} GiB"
    else:
        said = f"CPU, {threads} threads on {cores} cores"
    said += "; bfloat16" if hardware.BF16 else "; float32: it does not multiply bfloat16 itself"
    if _has_gpu() and not uses_gpu:
        said += f"; torch {torch.__version__} does not use the GPU that is there"
        return Finding(said, "install torch's CUDA build; see nvidia-smi and CUDA_VISIBLE_DEVICES")
    if not uses_gpu and threads == 1 < cores and "OMP_NUM_THREADS" in os.environ:
        said += f"; OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}"
        return Finding(said, "unset OMP_NUM_THREADS to use all cores")
    return Finding(said)


def _memory() -> tuple[float, float]:
    """GiB of memory: all, and available."""
    import psutil

    machine = psutil.virtual_memory()
    total = machine.total
    limit = Path("/sys/fs/cgroup/memory.max")  # a container's, which psutil does not know
    text = limit.read_text().strip() if limit.is_file() else ""
    if text.isdecimal():
        total = min(total, int(text))
    return total / 2**30, min(machine.available, total) / 2**30


def _needs(column: int) -> str:
    return ", ".join(f"{scale} {need[column]}" for scale, need in NEEDS.items())


def memory() -> Finding:
    """Memory against what each scale needs."""
    total, available = _memory()
    said = f"{total:.1f} GiB, {available:.1f} available; needed: {_needs(0)}"
    remedy = f"end other programs: {LEAST_MEMORY} GiB are needed" * (available < LEAST_MEMORY)
    return Finding(said, remedy, problem=bool(remedy))


def _free_disk() -> float:
    """GB that are free where runs and caches are written; the lesser of the two."""
    folders = [_existing(folder) for folder in (paths.RUNS, paths.CACHE)]
    return min(shutil.disk_usage(folder).free for folder in folders) / 1e9


def _existing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.resolve().parents) if each.is_dir())


def disk() -> Finding:
    """Room where runs and caches are written, and the right to write there."""
    for folder in (paths.RUNS, paths.CACHE):
        above = _existing(folder)
        if not os.access(above, os.W_OK):
            remedy = f"chmod u+w {above}, or LEADKIT_CACHE for another cache"
            return Finding(f"{folder} cannot be written", remedy, problem=True)
    free = _free_disk()
    said = f"{free:.1f} GB free; a seed of the main table needs: {_needs(1)}"
    again = f"what is in {paths.CACHE} and {paths.RUNS} is computed again when it is needed"
    remedy = f"make room for {LEAST_DISK} GB: {again}" if free < LEAST_DISK else ""
    return Finding(said, remedy, problem=bool(remedy))


def scales() -> Finding:
    """Which scales fit this machine."""
    import torch

    from leadkit import hardware

    total, _ = _memory()
    free = _free_disk()
    fits: list[str] = []
    lacking: list[str] = []
    for scale, (gib, gb) in NEEDS.items():
        missing = {
            f"{gib} GiB of memory": total < gib,
            f"{gb} GB of disk": free < gb,
            "a GPU": scale in NEEDS_GPU and not torch.cuda.is_available(),
        }
        lacks = " and ".join(need for need, is_missing in missing.items() if is_missing)
        if lacks:
            lacking.append(f"{scale} lacks {lacks}")
        else:
            fits.append(scale)
    if "classroom" in fits and not hardware.BF16:
        lacking.insert(0, "classroom takes longer in float32")
    said = "; ".join([f"{' and '.join(fits) or 'none'} can be run", *lacking])
    return Finding(said, "" if fits else "use more memory or disk", problem=not fits)


KEPT = (inventory.models, inventory.collections, inventory.stages, inventory.results)
CHECKS: dict[str, Callable[[], Finding]] = {
    check.__name__: check for check in (packages, faiss, device, memory, disk, *KEPT, scales)
}


def _look(check: Callable[[], Finding]) -> Finding:
    """What a check finds. An error that it does not expect is a finding too: the others go on."""
    try:
        return check()
    except ImportError as error:  # the check of the packages says which
        return Finding(f"cannot be looked at ({error})", _reinstall(), problem=True)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        remedy = "see to what the error names; the other checks do not depend on this one"
        return Finding(f"cannot be looked at ({reason})", remedy, problem=True)


def doctor() -> int:
    """Print a line for each check, under it what to do. Return the exit code: 1 for a problem."""
    states: Counter[str] = Counter()
    for name, check in CHECKS.items():
        finding = _look(check)
        states[finding.state] += 1
        print(f"{finding.state:8} {name:12} {finding.said}", flush=True)
        if finding.remedy:
            print(f"{'':21} -> {finding.remedy}", flush=True)
    print(f"\nproblems: {states['PROBLEM']}, warnings: {states['warning']}")
    return int(states["PROBLEM"] > 0)
