"""What is kept: models, collections, stages and results, and whether they are what was written.

The checks of `doctor` that read files. Of large files only size or header is read.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from leadkit import paths

MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json")
# Encoder of data/models -> fingerprint of the digests of its MODEL_FILES.
SHIPPED = {
    "bert-12x128": "102a4675a9ee",
    "bert-6x128": "6119068ad587",
}
LARGE = 2**20  # bytes; larger files of a stage are not read whole
LARGE_TEXT = 100 * LARGE  # bytes; larger files of a collection are not read whole
FIRST_NAMES = 3  # as many are named, of the others only the number


@dataclass(frozen=True)
class Finding:
    """One line about the machine.

    remedy: what to do; empty where all is well.
    problem: whether the work cannot go on; a remedy without a problem is a warning.
    """

    said: str
    remedy: str = ""
    problem: bool = False

    @property
    def state(self) -> str:
        if self.problem:
            return "PROBLEM"
        return "warning" if self.remedy else "ok"


def first(names: list[str]) -> str:
    """The first few names."""
    more = ", ..." if len(names) > FIRST_NAMES else ""
    return ", ".join(names[:FIRST_NAMES]) + more


def size(folder: Path) -> str:
    """What a folder takes on the disk."""
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e9:.1f} GB" if total >= 1e9 else f"{total / 1e6:.0f} MB"


def models() -> Finding:
    """The miniature BERTs of data/models: there, readable, and the shipped ones; MiniLM."""
    from leadkit import files
    from leadkit.config import MINILM
    from leadkit.models.encoders import check
    from leadkit.models.packaged import packaged_folder

    restore = paths.restore("models")
    others = []
    for name, shipped in SHIPPED.items():
        folder = paths.MODELS / name
        missing = [file for file in MODEL_FILES if not (folder / file).is_file()]
        if missing:
            return Finding(f"{name} lacks {', '.join(missing)}", restore, problem=True)
        if files.fingerprint([files.digest(folder / file) for file in MODEL_FILES]) != shipped:
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
    said = f"{', '.join(SHIPPED)}: as shipped"
    try:
        minilm = packaged_folder(MINILM)
    except ValueError as error:
        problem, _, remedy = str(error).rpartition(": ")
        return Finding(f"{said}; {problem}", remedy, problem=True)
    if minilm:
        return Finding(f"{said}; {MINILM} of its package, as expected")
    return Finding(f"{said}; {MINILM}, which the scale evening needs, comes with `make evening`")


def collections() -> Finding:
    """The text of python-docs, and the cache of the other collections."""
    from leadkit.data import python_docs

    try:
        edition = python_docs.header()["edition"]
    except (OSError, ValueError) as error:
        said, _, remedy = str(error).rpartition(": ")
        return Finding(said, remedy, problem=True)
    folders = sorted(paths.CACHE.glob("irds-*/"))
    damaged = [folder.name for folder in folders if not _is_intact(folder)]
    intact = len(folders) - len(damaged)
    said = (
        f"python-docs, edition {edition}, as shipped; "
        f"{paths.CACHE}: {intact} of ir_datasets, {size(paths.CACHE)} with token files"
    )
    if damaged:
        return Finding(
            f"{said}; {', '.join(damaged)} damaged or unfinished",
            "nothing: it is built anew when it is needed",
        )
    return Finding(said)


def _is_intact(folder: Path) -> bool:
    """Whether a collection of the cache is what was written, by digests of all but large files."""
    from leadkit import files

    try:
        seal = json.loads((folder / "cache.json").read_text())
        return all(
            (folder / name).stat().st_size >= LARGE_TEXT or files.digest(folder / name) == digest
            for name, digest in seal["digests"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def stages() -> Finding:
    """Stages of runs/: finished, unfinished, damaged, and those of the first edition."""
    names: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(paths.RUNS.glob("*/")):
        if re.fullmatch(r".+-[0-9a-f]{12}", folder.name):
            names[_state(folder)].append(folder.name)
    said = (
        f"{paths.RUNS}: {size(paths.RUNS)}; {len(names['finished'])} stages finished, "
        f"{len(names['unfinished'])} not: their command goes on with them"
    )
    remedies = []
    damaged, old = names["damaged"], names["first edition"]
    if damaged:
        said += f"; {len(damaged)} damaged: {first(damaged)}"
        remedies.append(
            "nothing: the command that needs one runs it anew; if it happens again, check the disk"
        )
    if old:
        said += f"; {len(old)} of the first edition, which are not used: {first(old)}"
        remedies.append(
            "keep the folders of the first edition, or remove them by hand: "
            f"grep -L '\"edition\"' {paths.RUNS}/*/stage.json names them"
        )
    return Finding(said, "; ".join(remedies))


def _state(folder: Path) -> str:
    from safetensors import SafetensorError, safe_open

    from leadkit import files

    if not (folder / "stage.json").is_file():
        return "unfinished"
    try:
        seal = json.loads((folder / "stage.json").read_text())
        if "stage" in seal and "edition" not in seal:
            return "first edition"
        for name, digest in seal["files"].items():
            file = folder / name
            if file.stat().st_size > LARGE and file.suffix == ".safetensors":
                safe_open(file, "np")  # fails where the file is not as long as its header says
            elif files.digest(file) != digest:
                return "damaged"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError):
        return "damaged"
    return "finished"


def results() -> Finding:
    """The tables of data/results, and folders of the first edition: one JSON file per record."""
    tables = [path.parent for path in sorted(paths.RESULTS.glob("*/records.jsonl"))]
    singles = {path.parent for path in paths.RESULTS.glob("*/[0-9]*-*.json")}
    old = sorted(singles.difference(tables))
    said = f"{paths.RESULTS}: {len(tables)} folders of records"
    if old:
        names = [folder.name for folder in old]
        commands = [f"python -m leadkit convert {folder}" for folder in old]
        return Finding(
            f"{said}; {first(names)} of the first edition, one file per record: not read",
            "; ".join(commands),
        )
    return Finding(said)
