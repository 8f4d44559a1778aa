"""Gates: what must be seen in the records before a claim about a teacher means anything.

A teacher that does not pass its gate teaches nothing: claims that rest on it are "not testable".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from leadkit.experiments.rows import RAW, RELEASED, TEACHERS, WITHOUT_TEACHER
from leadkit.results.contrasts import Claim, pair
from leadkit.results.evidence import Evidence
from leadkit.results.tables import difference_text


@dataclass(frozen=True)
class Gate:
    """One experiment must be above another, the 95% interval of the difference above zero.

    claim: its id is the gate's name.
    teacher: whose claims the gate decides on; "" for a figure that is only shown.
    least: what the difference must be, in points.
    """

    claim: Claim
    teacher: str = ""
    least: float = 0.0


REGIMES = (RAW, RELEASED)  # each has a teacher of its own
GATES = (
    Gate(pair("DE teacher", "student"), "DE"),
    Gate(pair("CB teacher", "DE teacher"), "CB"),
    Gate(pair("CE teacher", "DE teacher"), "CE", least=2.0),
    *(Gate(pair(f"CB teacher{own}", "DE teacher"), f"CB{own}") for own in REGIMES),
    Gate(pair("CB RD", "student, as long")),  # distillation is visible
)

# Experiments that are not named after their teachers; a CE stands for PROD's 24CE too.
_CHAINS: Mapping[str, tuple[str, ...]] = {
    "PROD* 12DE": ("DE",),
    "PROD* 12CB": ("DE", "CB"),
    "PROD* 12CE": TEACHERS,
    "PROD* + LEAD 12DE": ("DE",),
    "PROD* + LEAD 12CB": ("DE", "CB"),
    "PROD* + LEAD 12CE": TEACHERS,
    "PROD stage 1": ("DE",),
    "PROD stage 2": ("DE", "CE"),
    "PROD stage 3": ("DE", "CE"),
    "PROD": ("DE", "CE"),
    "PROD direct": ("CE",),
}


def teachers(experiment: str) -> tuple[str, ...]:
    """The teachers that an experiment rests on, as gates name them.

    The ablations and MTA4DPR have a CB teacher, as has everything that no rule names.
    """
    if experiment in _CHAINS:
        return _CHAINS[experiment]
    name = experiment.split(",")[0]
    if name in WITHOUT_TEACHER:
        return ()
    teacher = name[:2] if name[:2] in TEACHERS else "CB"
    return (teacher + next((own for own in REGIMES if experiment.endswith(own)), ""),)


def measure(evidence: Evidence, gates: Iterable[Gate] = GATES) -> pd.DataFrame:
    """A line per gate: the teacher it decides on, its state, its difference with interval and p.

    state: passed, failed or not measured.
    """
    lines = {}
    for gate in gates:
        test = evidence.test(gate.claim)
        low, high = test.interval()
        state = "passed" if low > 0 and test.difference >= gate.least else "failed"
        lines[gate.claim.id] = {
            "teacher": gate.teacher,
            "state": state if test else "not measured",
            "difference": test.difference,
            "low": low,
            "high": high,
            "p": test.p(),
            "least": gate.least,
            "seeds": test.seeds,
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def told(measured: pd.DataFrame, experiments: Iterable[str]) -> tuple[bool, str]:
    """Whether a teacher of these experiments fails its gate, and the figures of such gates.

    Where none fails, the text names the gates that were not measured.
    """
    needed = {teacher for name in experiments for teacher in teachers(name)}
    lines = measured[measured["teacher"].isin(needed)]
    failed = lines[lines["state"] == "failed"]
    if len(failed):
        return True, "; ".join(f"{name}: {figures(line)}" for name, line in failed.iterrows())
    missing = lines.index[lines["state"] == "not measured"]
    return False, "; ".join(f"{name}: not measured" for name in missing)


def figures(line: pd.Series) -> str:
    """A line of `measure` as "0.95 (0.52 to 1.38), at least 2 wanted"."""
    text = difference_text(*line[["difference", "low", "high", "seeds"]])
    return text + (f", at least {line['least']:g} wanted" if line["least"] else "")
