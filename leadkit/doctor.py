"""What stands in the way: the environment, the machine and what is kept, in one screen. `python -m leadkit doctor`.

A problem stops the work or makes its results wrong: exit code 1. A warning does not: it makes the work slower, or its numbers
others than the committed ones. Both come with what to do. Nothing is changed, built or downloaded, and no large file is read whole.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Scale -> GiB of memory and GB of disk for a seed. Measured: two lessons at a time take 3.1 and 0.7 at smoke, one alone 3.1 and 0.6
# at classroom; the others are guesses: at paper the passages' vectors take 27 GB, shared by the processes.
NEEDS = {
    "smoke": (4, 1),
    "classroom": (6, 1),
    "classroom-short": (6, 1),
    "gpu": (8, 2),
    "paper": (40, 30),
}
FILES = ("config.json", "model.safetensors", "tokenizer.json")
# Encoder of data/models -> fingerprint of the digests of its FILES.
SHIPPED = {
    "bert-12x128": "b57f2171e5ce",
    "bert-6x128": "9e07463f9dd3",
    "bert-6x128-masked-lm": "5940b449094a",
    "bert-6x128-bottlenecked": "a0358e05981c",
}
SMALL = 2**20  # bytes; larger files are not read whole


@dataclass(frozen=True)
class Finding:
    """One line about the machine; remedy: what to do, of a problem or else a warning."""

    said: str
    remedy: str = ""
    problem: bool = False

    @property
    def state(self) -> str:
        return "PROBLEM" if self.problem else "warning" if self.remedy else "ok"


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> bool:
    return shutil.which("nvidia-smi") is not None


def _reinstall() -> str:
    return f'in {ROOT}: {sys.executable} -m pip install -e ".[{"gpu" if _gpu() else "cpu"},dev]" -c constraints.txt'


def _size(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def packages() -> Finding:
    """Every package that is needed, as constraints.txt pins it. A version below the pin's or of another series is a problem."""
    main = [
        f"{name} {version}"
        for name in ("torch", "transformers", "numpy")
        if (version := _installed(name))
    ]
    shown = ", ".join([f"Python {platform.python_version()}", *main])
    if not (ROOT / "constraints.txt").is_file():
        return Finding(f"{shown}; there is no constraints.txt to compare with")
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    lines = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = [re.match(r"[\w.-]+", line)[0] for line in lines]
    found = {name: version for name in {*pins, *needed} if (version := _installed(name))}
    if missing := [name for name in needed if name not in found]:
        return Finding(f"{shown}; missing: {', '.join(missing)}", _reinstall(), problem=True)
    other = [name for name in found if name in pins and found[name] != pins[name]]
    if not other:
        return Finding(
            f"{shown}; all {len(needed)} needed, {len(found)} as constraints.txt pins them"
        )
    other.sort(key=lambda name: (name not in needed, name))
    named = ", ".join(f"{name} {found[name]} (pinned: {pins[name]})" for name in other[:3]) + (
        ", ..." if other[3:] else ""
    )
    return Finding(
        f"{shown}; {len(other)} not as pinned: {named}",
        _reinstall(),
        problem=any(not _fits(found[name], pins[name]) for name in other if name in needed),
    )


def _fits(version: str, pin: str) -> bool:
    """Whether a version is of the pin's series and not older: what pyproject.toml allows."""
    have, want = (
        [int(number) for number in re.findall(r"\d+", text)[:2]] for text in (version, pin)
    )
    return have[0] == want[0] and have >= want


def faiss() -> Finding:
    """One of faiss-cpu and faiss-gpu, the one of this machine."""
    found = [
        f"{name} {version}" for name in ("faiss-cpu", "faiss-gpu") if (version := _installed(name))
    ]
    if len(found) == 2:
        return Finding(
            f"{' and '.join(found)} in one environment: both are imported as faiss",
            f"{sys.executable} -m pip uninstall -y faiss-cpu faiss-gpu; then {_reinstall()}",
            problem=True,
        )
    if not found and importlib.util.find_spec("faiss") is None:
        return Finding("neither faiss-cpu nor faiss-gpu is installed", _reinstall(), problem=True)
    if _gpu() and found and found[0].startswith("faiss-cpu"):
        return Finding(
            f"{found[0]} beside a GPU: it is searched with torch",
            f"{sys.executable} -m pip uninstall -y faiss-cpu; then {_reinstall()}",
        )
    return Finding(found[0] if found else "faiss, not of pip")


def device() -> Finding:
    """What computes, and whether it multiplies bfloat16."""
    import torch

    from leadkit.config import BF16

    if torch.cuda.is_available():
        said = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
    else:
        said = f"CPU, {torch.get_num_threads()} threads on {os.cpu_count()} cores"
    said += f"; {'bfloat16' if BF16 else 'float32: it does not multiply bfloat16 itself'}"
    if _gpu() and not torch.cuda.is_available():
        return Finding(
            f"{said}; torch {torch.__version__} does not use the GPU that is there",
            "install torch's CUDA build (pytorch.org), and look at nvidia-smi and CUDA_VISIBLE_DEVICES",
        )
    if (
        not torch.cuda.is_available()
        and torch.get_num_threads() == 1 < os.cpu_count()
        and "OMP_NUM_THREADS" in os.environ
    ):
        return Finding(
            f"{said}; OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}",
            "unset OMP_NUM_THREADS to use all cores",
        )
    return Finding(said)


def _memory() -> tuple[float, float]:
    """GiB of memory: all, and available."""
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES")
    if (kernel := Path("/proc/meminfo")).is_file():  # which counts what a cache would give back
        free = 1024 * int(re.search(r"MemAvailable:\s+(\d+)", kernel.read_text())[1])
    if (limit := Path("/sys/fs/cgroup/memory.max")).is_file() and (
        most := limit.read_text().strip()
    ).isdecimal():  # a container's
        total = min(total, int(most))
    return total / 2**30, min(free, total) / 2**30


def memory() -> Finding:
    total, free = _memory()
    least = min(gib for gib, _ in NEEDS.values())
    said = f"{total:.1f} GiB, {free:.1f} available; needed: " + ", ".join(
        f"{name} {gib}" for name, (gib, _) in NEEDS.items()
    )
    return (
        Finding(said, f"end other programs: {least} GiB are needed", problem=True)
        if free < least
        else Finding(said)
    )


def _free() -> float:
    """GB of disk that are free where runs and caches are written; the lesser of the two."""
    from leadkit.config import RUNS
    from leadkit.data.python_docs import CACHE

    return min(shutil.disk_usage(_parent(place)).free for place in (RUNS, CACHE)) / 1e9


def _parent(place: Path) -> Path:
    """The place itself, or the nearest folder above it that exists."""
    return next(folder for folder in (place, *place.resolve().parents) if folder.is_dir())


def disk() -> Finding:
    """Room where runs and caches are written, and the right to write there."""
    from leadkit.config import RUNS
    from leadkit.data.python_docs import CACHE

    if closed := [place for place in (RUNS, CACHE) if not os.access(_parent(place), os.W_OK)]:
        return Finding(
            f"{closed[0]} cannot be written",
            f"chmod u+w {_parent(closed[0])}, or LEADKIT_CACHE for another cache",
            problem=True,
        )
    free, least = _free(), min(gb for _, gb in NEEDS.values())
    said = f"{free:.1f} GB free; a seed of the main table needs: " + ", ".join(
        f"{name} {gb}" for name, (_, gb) in NEEDS.items()
    )
    if free < least:
        return Finding(
            said,
            f"make room for {least} GB: what is in {CACHE} and {RUNS} is computed again when it is needed",
            problem=True,
        )
    return Finding(said)


def models() -> Finding:
    """The miniature BERTs of data/models: there, readable, and the shipped ones."""
    from leadkit.files import digest, fingerprint

    restore, others = f"git -C {ROOT} restore data/models", []
    for name, shipped in SHIPPED.items():
        folder = ROOT / "data" / "models" / name
        if lacks := [file for file in FILES if not (folder / file).is_file()]:
            return Finding(f"{name} lacks {', '.join(lacks)}", restore, problem=True)
        if fingerprint([digest(folder / file) for file in FILES]) != shipped:
            from leadkit.models.encoders import check

            try:
                check(str(folder))
            except (OSError, ValueError) as error:
                return Finding(" ".join(str(error).split()), restore, problem=True)
            others.append(name)
    if others:
        return Finding(
            f"{', '.join(others)}: not as shipped, results will differ from the committed ones",
            restore,
        )
    return Finding(f"{', '.join(SHIPPED)}: as shipped")


def collections() -> Finding:
    """What is in the cache, and whether python-docs is here the text that the committed records were made with."""
    from leadkit.data import python_docs
    from leadkit.data.collections import read_python_docs
    from leadkit.files import digest

    sealed, damaged = {}, []
    for folder in sorted(python_docs.CACHE.glob("*/")):
        if not folder.name.startswith(("python-docs-", "irds-")):
            continue
        try:
            seal = json.loads((folder / "cache.json").read_text())
            whole = all(
                digest(folder / name) == value
                if (folder / name).stat().st_size < 100 * SMALL
                else True
                for name, value in seal["digests"].items()
            )
            if not whole:
                raise ValueError("a file is not what was written")
            sealed[folder] = seal.get("versions")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            damaged.append(folder.name)
    said = f"{python_docs.CACHE}: {len(sealed)} collections, {_size(python_docs.CACHE)} with token files"
    if damaged:
        return Finding(
            f"{said}; {', '.join(damaged)} damaged or unfinished",
            "nothing: it is built anew when it is needed",
        )
    variant = python_docs.VARIANTS["python-docs"]
    versions = {package: importlib.metadata.version(package) for package in variant.packages}
    versions["python"] = platform.python_version()
    ours = next((folder for folder, of in sealed.items() if of == versions), None)
    if ours is None:
        return Finding(
            f"{said}; python-docs of this environment is not among them: it is built on first use, in about 30 s"
        )
    fingerprint, known = read_python_docs(ours, "python-docs").fingerprint, _committed()
    said += f"; python-docs is {fingerprint}"
    if known and fingerprint not in known:
        return Finding(
            f"{said}, the committed records are of {' and '.join(known)}: another text, never averaged with theirs",
            f"for their text install what constraints.txt pins under Python {' or '.join(set(known.values()))}",
        )
    return Finding(said + (", as in the committed records" if known else ""))


def _committed() -> dict[str, str]:
    """Fingerprint of python-docs -> version of Python, by the first record of each folder of data/results."""
    first = [
        next(iter(sorted(folder.glob("*.json"))), None)
        for folder in (ROOT / "data" / "results").glob("*/")
    ]
    records = [json.loads(path.read_text()) for path in first if path]
    return {
        record["fingerprint"]: record["versions"]["python"]
        for record in records
        if record["collection"] == "python-docs"
    }


def stages() -> Finding:
    """Finished, unfinished and damaged stages of runs/. Of large files only the header is read."""
    from leadkit.config import RUNS

    folders = [
        folder
        for folder in sorted(RUNS.glob("*/"))
        if re.fullmatch(r".+-[0-9a-f]{12}", folder.name)
    ]
    states = {folder.name: _stage(folder) for folder in folders}
    count = Counter(states.values())
    said = f"{RUNS}: {_size(RUNS)}; {count['finished']} stages finished, {count['unfinished']} not: their command goes on with them"
    if broken := [name for name, state in states.items() if state == "damaged"]:
        return Finding(
            f"{said}; {len(broken)} damaged: {', '.join(broken[:3])}{', ...' if broken[3:] else ''}",
            "nothing: the command that needs one runs it anew; if it happens again, check the disk",
        )
    return Finding(said)


def _stage(folder: Path) -> str:
    from safetensors import SafetensorError, safe_open

    from leadkit.files import digest

    if not (folder / "stage.json").is_file():
        return "unfinished"
    try:
        for name, value in json.loads((folder / "stage.json").read_text())["files"].items():
            if (folder / name).stat().st_size > SMALL and name.endswith(".safetensors"):
                safe_open(folder / name, "np")  # says whether it is as long as its header tells
            elif digest(folder / name) != value:
                return "damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return "damaged"
    return "finished"


def scales() -> Finding:
    """Which scales fit this machine."""
    import torch

    from leadkit.config import BF16

    total, free, fits, lacks = _memory()[0], _free(), [], []
    for name, (gib, gb) in NEEDS.items():
        why = [f"{gib} GiB of memory"] * (total < gib) + [f"{gb} GB of disk"] * (free < gb)
        why += ["a GPU"] * (name in ("gpu", "paper") and not torch.cuda.is_available())
        lacks.append(f"{name} lacks {' and '.join(why)}") if why else fits.append(name)
    slow = ["classroom takes longer in float32"] * ("classroom" in fits and not BF16)
    said = "; ".join([f"{' and '.join(fits) or 'none'} can be run", *slow, *lacks])
    return (
        Finding(said)
        if fits
        else Finding(said, "use a machine with more memory or disk", problem=True)
    )


CHECKS: dict[str, Callable[[], Finding]] = {
    check.__name__: check
    for check in (packages, faiss, device, memory, disk, models, collections, stages, scales)
}


def doctor() -> int:
    """Print a line for each check, under it what to do; return the exit code, 1 where there is a problem."""
    count: Counter[str] = Counter()
    for name, check in CHECKS.items():
        try:
            finding = check()
        except ImportError as error:  # packages says which
            finding = Finding(f"cannot be looked at ({error})", _reinstall(), problem=True)
        count[finding.state] += 1
        print(f"{finding.state:8} {name:12} {finding.said}", flush=True)
        if finding.remedy:
            print(f"{'':21} -> {finding.remedy}", flush=True)
    print(f"\nproblems: {count['PROBLEM']}, warnings: {count['warning']}")
    return int(count["PROBLEM"] > 0)
