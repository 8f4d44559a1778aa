"""Stages: what is computed once and kept. A stage is a frozen dataclass; its inputs are others.

The folder of a stage is named by its kind and the hash of its identity: its settings, its
collection and its inputs. A finished stage is never run again; an interrupted one resumes; one
whose files are not what was written is run anew.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from leadkit import paths, processes
from leadkit.config import Data
from leadkit.data.sampling import Group
from leadkit.experiments.identity import plain, settings
from leadkit.experiments.texts import collection
from leadkit.files import alone, digest, fingerprint, write_json
from leadkit.hardware import DEVICE
from leadkit.models.names import encoder_digest
from leadkit.models.retriever import Retriever
from leadkit.models.retrievers import load
from leadkit.models.tower import Tower
from leadkit.training.loop import Operation

EDITION = 2  # of the stages' layout; runs/ may still hold stages of the first
DAMAGED = (ValueError, KeyError, TypeError, AttributeError)  # what reading a damaged seal raises


@dataclass(frozen=True)
class Stage:
    """Base: identity, folder, and `done()`, which runs whatever is missing."""

    kind: ClassVar[str]
    data: Data

    def describe(self, around: Data | None = None) -> dict:
        """What is run, inputs included: every setting that decides the result.

        around: the data of the stage around this one; equal data are left out.
        """
        described: dict[str, Any] = {"kind": self.kind}
        for name, value in settings(self).items():
            if name != "data" or value != around:
                described[name] = _described(value, self.data)
        return described

    @cached_property
    def key(self) -> str:
        identity = {name: _keyed(value) for name, value in settings(self).items()}
        tower = getattr(self, "tower", None)
        if isinstance(tower, Tower):
            identity["encoder"] = encoder_digest(tower.encoder)
        return fingerprint([self.kind, identity, collection(self.data.collection).fingerprint])

    def inputs(self) -> list["Stage"]:
        """The stages that this one needs."""
        return list(_stages_in(self))

    @property
    def folder(self) -> Path:
        return paths.RUNS / f"{self.kind.replace(' ', '-')}-{self.key}"

    def finished(self) -> bool:
        """Whether the stage stands whole: every file is what was written.

        OSError where a file is there and cannot be read: nothing may be run anew for that.
        """
        try:
            seal = json.loads((self.folder / "stage.json").read_text())
            digests = {name: digest(self.folder / name) for name in seal["files"]}
            return digests == seal["files"] and {"stage", "seconds"} <= seal.keys()
        except (FileNotFoundError, NotADirectoryError, *DAMAGED):
            return False

    def done(self, operation: Operation = Operation()) -> Path:
        """Run the stage unless it is finished; return its folder.

        A second program that asks for it waits for the first.
        """
        processes.agree(self.key, f"stage {self.kind}")
        if self._finished_for_all():
            return self.folder
        lock = self.folder.with_suffix(".lock")
        with alone(lock, self.folder) if processes.main() else nullcontext():
            if not self._finished_for_all():  # the first program may just have finished it
                self._run(operation)
                processes.wait()  # until the main process has written
        return self.folder

    def _finished_for_all(self) -> bool:
        return bool(processes.from_main(processes.main() and self.finished()))

    def _run(self, operation: Operation) -> None:
        if processes.main() and (self.folder / "stage.json").exists():
            print(f"{self.folder} is not what was written there: this stage is run anew")
            shutil.rmtree(self.folder)
        for needed in self.inputs():
            needed.done(operation)
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        try:
            self.run(operation)
        except KeyboardInterrupt as stop:
            stop.args = (
                f"{self.folder} is not finished: ask for it again and it goes on, a training from "
                "its last checkpoint",
            )
            raise
        if processes.main():
            self._seal(time.monotonic() - started)

    def _seal(self, seconds: float) -> None:
        """Remove what was temporary, and write `stage.json`: the stage is finished."""
        for temporary in self.folder.glob("checkpoint*"):
            temporary.unlink()
        for unfinished in self.folder.glob(".*"):  # what a killed process was writing
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        seal = {
            "edition": EDITION,
            "stage": self.describe(),
            "seconds": round(seconds, 1),
            "files": {str(path.relative_to(self.folder)): digest(path) for path in files},
        }
        write_json(self.folder / "stage.json", seal)

    def seconds(self) -> float:
        """Wall time of this stage's last run."""
        return json.loads((self.done() / "stage.json").read_text())["seconds"]

    def run(self, operation: Operation) -> None:
        """Compute, into `folder`."""
        raise NotImplementedError


def _described(value: Any, around: Data) -> Any:
    if isinstance(value, Stage):
        return value.describe(around)
    return plain(value, lambda each: _described(each, around))


def _keyed(value: Any) -> Any:
    if isinstance(value, Stage):
        return value.key
    return plain(value, _keyed)


def _stages_in(value: Any) -> Iterator[Stage]:
    """The stages among the settings of a dataclass, those of its dataclasses included."""
    for each in settings(value).values():
        if isinstance(each, Stage):
            yield each
        elif is_dataclass(each):
            yield from _stages_in(each)


class Negatives(Stage):
    """A stage that says which queries are trained on, and from which negatives."""

    def groups(self) -> list[Group]:
        raise NotImplementedError


class Trained(Stage):
    """A stage that ends in a retriever."""

    tower: Tower

    def teacher_passes(self) -> int:
        """How many batches teachers, assistants and frozen copies answered in its training."""
        return 0

    def training_seconds(self) -> float:
        """Wall time of the training itself, without that of its inputs."""
        return self.seconds()

    def model(self) -> Retriever:
        return load(self.done() / "retriever").to(DEVICE)

    def log(self) -> list[dict]:
        """One row of loss parts per step."""
        return json.loads((self.done() / "log.json").read_text())


def first_edition() -> list[Path]:
    """Folders of runs/ with stages of the first edition, which this one does not use."""
    old = []
    for seal in sorted(paths.RUNS.glob("*/stage.json")):
        try:
            edition = json.loads(seal.read_text()).get("edition")
        except (OSError, ValueError, AttributeError):  # damaged: not for us to say
            continue
        if edition is None:
            old.append(seal.parent)
    return old


def tell_first_edition() -> None:
    """Say once what runs/ still holds of the first edition. Nothing of it is deleted."""
    old = first_edition()
    if old:
        print(
            f"{paths.RUNS} holds {len(old)} stages of the first edition, {old[0].name} for one: "
            "they are not used; keep them, or remove these folders by hand",
            file=sys.stderr,
        )
