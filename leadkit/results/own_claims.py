"""Claims that are ours, against controls that the papers lack, and the primary family.

A sentence that is not of the paper ends with "(ours)".
"""

from leadkit.experiments.rows import RAW, RELEASED, WIDE
from leadkit.results.contrasts import Claim

CONTROL = "student, as long"
# Experiments by teacher and method.
TRAINED = {
    teacher: {"RD": f"{teacher} RD", "frozen LEAD": frozen, "LEAD": f"{teacher} LEAD"}
    for teacher, frozen in (
        ("DE", "DE frozen LEAD"),
        ("CB", "without joint training"),
        ("CE", "CE frozen LEAD"),
    )
}


def _ours(id: str, sentence: str, first: str, second: str, family: str = "controls") -> Claim:
    """One experiment beats another; Table 6 has the paper's numbers where it has both."""
    return Claim(id.lower(), 6, f"{sentence} (ours)", (((first, second),),), family)


def _over_control(teacher: str, method: str, family: str = "controls") -> Claim:
    id = f"{teacher}-{method.split()[0]}-control"
    sentence = f"{teacher} teacher: {method} > student, as long"
    return _ours(id, sentence, TRAINED[teacher][method], CONTROL, family)


def _frozen_over_rd(teacher: str, family: str = "controls") -> Claim:
    sentence = f"{teacher} teacher: frozen LEAD > RD"
    first, second = TRAINED[teacher]["frozen LEAD"], TRAINED[teacher]["RD"]
    return _ours(f"{teacher}-frozen-rd", sentence, first, second, family)


def _after_over_alone(teacher: str, family: str = "controls") -> Claim:
    sentence = f"the {teacher} teacher after LEAD > trained alone, as long"
    name = f"{teacher} teacher"
    return _ours(
        f"{teacher}-after-long", sentence, f"{name} after LEAD", f"{name}, as long", family
    )


def _other_setting(id: str, suffix: str) -> tuple[Claim, ...]:
    """The primary comparisons of students, with other settings."""
    rd, lead, frozen = (f"CB {method}{suffix}" for method in ("RD", "LEAD", "frozen LEAD"))
    control = CONTROL + suffix
    setting = suffix.removeprefix(", ")
    return (
        _ours(f"rd-control-{id}", f"{setting}: RD > student, as long", rd, control),
        _ours(f"frozen-rd-{id}", f"{setting}: frozen LEAD > RD", frozen, rd),
        _ours(f"lead-rd-{id}", f"{setting}: LEAD > RD", lead, rd),
        _ours(f"lead-control-{id}", f"{setting}: LEAD > student, as long", lead, control),
    )


PRIMARY = (
    _over_control("CB", "RD", "primary"),
    _frozen_over_rd("CB", "primary"),
    Claim("cb-lead-rd", 3, "CB teacher: LEAD > RD", ((("CB LEAD", "CB RD"),),), "primary"),
    _over_control("CB", "LEAD", "primary"),
    _after_over_alone("CB", "primary"),
)
CONTROLS = (
    _over_control("CB", "frozen LEAD"),
    *(_over_control(teacher, method) for teacher in ("DE", "CE") for method in TRAINED[teacher]),
    *(_frozen_over_rd(teacher) for teacher in ("DE", "CE")),
    *(_after_over_alone(teacher) for teacher in ("DE", "CE")),
    *_other_setting("16x8", WIDE),
    *_other_setting("raw", RAW),
    *_other_setting("released", RELEASED),
    _ours("lead-margin-mse", "LEAD > margin-MSE", "CB LEAD", "CB margin-MSE"),
    _ours("lead-states", "LEAD > RD with matching of the last states", "CB LEAD", "CB RD + states"),
    *(
        _ours(
            f"frozen-deep-{target}".replace(" ", "-"),
            f"frozen LEAD > RD with the {target} in as many layers",
            TRAINED["CB"]["frozen LEAD"],
            f"CB RD + deep {target}",
        )
        for target in ("label", "response", "soft response")
    ),
    _ours(
        "frozen-soft-response",
        "frozen LEAD > RD with the soft response in its last layer",
        TRAINED["CB"]["frozen LEAD"],
        "CB RD + soft response",
    ),
    _ours(
        "soft-sharp",
        "RD with the soft response once more > RD with the response once more",
        "CB RD + soft response",
        "CB RD + response",
    ),
)
