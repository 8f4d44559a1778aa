"""Where generated numbers come from: the records of a scale, asked by the names in markers."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from leadkit import files, paths
from leadkit.results import claims, gates, records
from leadkit.results.comparable import MEASURE
from leadkit.results.contrasts import Claim, ClaimTest, pair
from leadkit.results.evidence import Evidence, Points, points
from leadkit.results.predicates import CLAIMS, claims_for
from leadkit.results.records import Records

Drawing = Callable[[Records], Any]  # draws the records of a folder, returns matplotlib Axes


class Folder:
    """The records of a scale, and what follows from them, computed when first asked for."""

    def __init__(self, scale: str):
        known = sorted(path.parent.name for path in paths.RESULTS.glob(f"*/{records.LINES}"))
        if scale not in known:
            raise ValueError(f"scale {scale!r} has no records: there are {', '.join(known)}")
        self.path = paths.RESULTS / scale

    @cached_property
    def records(self) -> Records:
        return records.read(self.path)

    @cached_property
    def digest(self) -> str:
        """Of the records, which name their arrays by digests."""
        return hashlib.sha256((self.path / records.LINES).read_bytes()).hexdigest()

    @cached_property
    def points(self) -> Points:
        return points(self.records)

    @cached_property
    def evidence(self) -> Evidence:
        return Evidence(self.records)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        return claims.ledger(self.records)

    @cached_property
    def gates(self) -> pd.DataFrame:
        return gates.measure(self.evidence)

    def percent(self, what: str) -> np.ndarray:
        """(S,): a measure of each seed in percent; what: "CB LEAD", "CB LEAD, R@100, seed 3"."""
        name, measure, seed = options(what)
        self._check(name)
        rows = [row for row in self.records[name] if seed in (None, row["seed"])]
        if not rows:
            seeds = ", ".join(str(row["seed"]) for row in self.records[name])
            raise ValueError(f"{name!r} has no record with seed {seed}: there are {seeds}")
        known = rows[0]["measures"]
        if measure not in known:
            raise ValueError(f"{name!r} has no measure {measure!r}: use one of {', '.join(known)}")
        return 100 * np.array([row["measures"][measure] for row in rows])

    def claim(self, what: str) -> Claim:
        """The claim of this id, or that of experiments "A - B" or "(A - B) - (C - D)"."""
        if twice := re.fullmatch(r"\((.+ - .+)\) - \((.+ - .+)\)", what):
            before, after = (self.claim(side).ways[0][0] for side in twice.groups())
            return Claim(what, 3, what, (((before, after),),))
        first, minus, second = what.partition(" - ")
        if minus:
            self._check(first)
            self._check(second)
            return pair(first, second)
        return claim(what, claims_for(self.evidence.layers))

    def line(self, what: str) -> pd.Series:
        """The ledger's line of a claim that was run."""
        line = self.ledger.loc[claim(what).id]
        if not line["seeds"]:
            raise ValueError(f"claim {what!r} was not run at {self.path.name}")
        return line

    def difference(self, what: str) -> float:
        """Of `claim`, in points, of the seeds that its experiments share or of one."""
        name, _, seed = options(what)
        if seed is None:
            return self.test(name).difference
        chosen = self.claim(name)
        try:
            means = {name: self.points[name, seed].mean() for name in chosen.experiments}
        except KeyError as error:
            raise ValueError(f"{self.path.name} has no record of {error}") from None
        return float(chosen.statistic(means))

    def test(self, what: str) -> ClaimTest:
        """Of `claim`; ValueError where its experiments share no seed."""
        test = self.evidence.test(self.claim(what))
        if not test:
            raise ValueError(f"the experiments of {what!r} share no seed at {self.path.name}")
        return test

    def _check(self, name: str) -> None:
        if name not in self.records:
            known = "; ".join(sorted(self.records))
            raise ValueError(
                f"experiment {name!r} has no records at {self.path.name}: there are {known}"
            )


class Source:
    """The folders that were asked for, each read once, and the drawings of figures by name."""

    def __init__(self, drawings: Mapping[str, Drawing] | None = None):
        self.drawings = drawings or {}
        self._folders: dict[str, Folder] = {}

    def folder(self, scale: str) -> Folder:
        if scale not in self._folders:
            self._folders[scale] = Folder(scale)
        return self._folders[scale]

    def parse(self, text: str) -> tuple[Folder, str]:
        """The folder and WHAT of "SCALE: WHAT"; "SCALE" alone has an empty WHAT."""
        scale, _, what = text.partition(": ")
        return self.folder(scale), what

    def draw(self, scale: str, name: str) -> Path:
        """The file SCALE/NAME.png, drawn anew unless it shows these records.

        The digest of the records stands in the file, so that another version of matplotlib leaves
        it as it is. After a change of the drawing, delete the file.
        """
        if name not in self.drawings:
            raise ValueError(f"figure {name!r} is unknown: use one of {', '.join(self.drawings)}")
        folder = self.folder(scale)
        path = folder.path / f"{name}.png"
        if not path.exists() or Image.open(path).info.get("Description") != folder.digest:
            figure = self.drawings[name](folder.records).figure
            metadata = {"Description": folder.digest}
            save = partial(figure.savefig, format="png", dpi=110, metadata=metadata)
            files.write(path, save)
        return path


def claim(name: str, among: Iterable[Claim] = CLAIMS) -> Claim:
    """A claim by its id. ValueError for an unknown one."""
    by_id = {each.id: each for each in among}
    if name in by_id:
        return by_id[name]
    known = ", ".join(by_id)
    raise ValueError(f"claim {name!r} is unknown: use A - B of two experiments, or one of {known}")


def options(what: str) -> tuple[str, str, int | None]:
    """Name, measure and seed of "NAME, MEASURE, seed N"; both options may be left out."""
    measure, seed = MEASURE, None
    while True:
        name, _, option = what.rpartition(", ")
        if re.fullmatch(r"seed \d+", option):
            seed = int(option.removeprefix("seed "))
        elif re.fullmatch(r"\w+@\d+", option) and name:
            measure = option
        else:
            return what, measure, seed
        what = name
