"""What LEAD's paper claims, as predicates, and all claims together.

The claims of a table of the paper are a family; those that hold "on all metrics" are judged by
MAP@1k and R@1k too, which is a family of its own.
"""

from leadkit.experiments.rows import STAR, STAR_LEAD, TEACHERS
from leadkit.results.companion_claims import COMPANIONS
from leadkit.results.contrasts import PAPER_NAMES, Claim, Pair, Way, beats, claim_of, rising
from leadkit.results.own_claims import CONTROLS, PRIMARY

# "Little improvement" is less than this, in points: about half of the smallest LEAD - RD that the
# paper calls an improvement, 0.90.
LITTLE = 0.5

_OTHER_MEASURES = ("AP@1000", "R@1000")


def _little(first: str, second: str) -> Way:
    difference: Pair = (first, second)
    return ((LITTLE, difference), (difference, -LITTLE))


def _all_measures(claim: Claim) -> tuple[Claim, ...]:
    """The claim by MAP@1k and R@1k."""
    return tuple(
        Claim(
            f"{claim.id}-{PAPER_NAMES[measure].lower().replace('@', '-')}",
            claim.table,
            f"{claim.sentence}, by {PAPER_NAMES[measure]}",
            claim.ways,
            f"{claim.family}, other measures",
            measure,
        )
        for measure in _OTHER_MEASURES
    )


def of_k(layers: int = 6) -> tuple[Claim, ...]:
    """The claims on K where the student has this many layers; the paper's has 6.

    The paper says that quality rises up to K = 5 on passages.
    """
    ks = [f"K={k}" for k in range(1, layers + 1)]
    chain = ks[:5]
    return (
        claim_of("worst-k", 4, "K = 1 is the worst", tuple((k, "K=1") for k in ks[1:])),
        claim_of("k-chain", 4, f"quality rises with K from 1 to {len(chain)}", rising(chain)),
    )


def claims_for(layers: int = 6) -> tuple[Claim, ...]:
    """All claims, by family; `CLAIMS` are those of a student with 6 layers."""
    every = (PRIMARY, LARGER, TABLE_3, of_k(layers), TABLES_4_TO_9, TABLE_10, COMPANIONS)
    return tuple(claim for family in (*every, CONTROLS) for claim in family)


def measures_of(experiment: str) -> set[str]:
    """The measures by which claims compare this experiment."""
    return {claim.measure for claim in CLAIMS if experiment in claim.experiments}


LARGER = (
    # The paper's value is that of the larger pair from coCondenser (Table 8), the usual start here.
    claim_of(
        "larger-pair",
        1,
        "the larger pair, 24CB -> 12DE, beats the smaller (Tables 1, 2)",
        beats("larger LEAD", "CB LEAD"),
    ),
)
_RD_FD = tuple(
    claim_of(f"{t}-rd-fd", 3, f"{t} teacher: RD > FD", beats(f"{t} RD", f"{t} FD"))
    for t in TEACHERS
)
TABLE_3 = (
    claim_of(
        "ce-cb-teacher",
        3,
        "the CE teacher outperforms the CB teacher",
        beats("CE teacher", "CB teacher"),
    ),
    *(
        claim_of(
            f"{t}-lead-student", 3, f"{t} teacher: LEAD > student", beats(f"{t} LEAD", "student")
        )
        for t in TEACHERS
    ),
    # with the CB teacher it is a primary claim
    *(
        claim_of(f"{t}-lead-rd", 3, f"{t} teacher: LEAD > RD", beats(f"{t} LEAD", f"{t} RD"))
        for t in ("DE", "CE")
    ),
    *(
        claim_of(f"{t}-lead-fd", 3, f"{t} teacher: LEAD > FD", beats(f"{t} LEAD", f"{t} FD"))
        for t in TEACHERS
    ),
    *_RD_FD,
    claim_of(
        "best-teacher",
        3,
        "CB is the best teacher for LEAD",
        beats("CB LEAD", "DE LEAD", "CE LEAD"),
    ),
    # a way for each teacher s that may be the strongest and each t whose student may be better
    claim_of(
        "strongest-teacher",
        3,
        "the strongest teacher does not give the best student",
        *(
            beats(f"{s} teacher", *(f"{o} teacher" for o in TEACHERS if o != s))
            + beats(f"{t} LEAD", f"{s} LEAD")
            for s in TEACHERS
            for t in TEACHERS
            if t != s
        ),
    ),
    # "RD is better than FD in all the comparisons"
    *(more for claim in _RD_FD for more in _all_measures(claim)),
)
_JOINT = claim_of(
    "joint", 6, "LEAD > LEAD without joint training", beats("CB LEAD", "without joint training")
)
TABLES_4_TO_9 = (
    claim_of(
        "best-k",
        4,
        "the best K is 5 or 6",
        *(beats(k, "K=1", "K=2", "K=3", "K=4") for k in ("K=5", "K=6")),
    ),
    *(
        claim_of(f"random-{name}", 5, f"Random > {name}", beats("CB LEAD", name))
        for name in ("Weighted", "Last", "Skip")
    ),
    _JOINT,
    claim_of(
        "re-weighting",
        6,
        "LEAD > LEAD without re-weighting",
        beats("CB LEAD", "without re-weighting"),
    ),
    # (LEAD - without re-weighting) - (LEAD - without joint training): LEAD cancels
    claim_of(
        "second-drop",
        6,
        "re-weighting counts for more than joint training",
        beats("without joint training", "without re-weighting"),
    ),
    claim_of(
        "re-weighting-rd",
        6,
        "LEAD without re-weighting > RD",
        beats("without re-weighting", "CB RD"),
    ),
    # "the student's performances on all the metrics decreased"
    *_all_measures(_JOINT),
    *(
        claim_of(f"linear-{m}", 7, f"a linear layer lowers {m}", beats(f"CB {m}", f"linear {m}"))
        for m in ("RD", "FD", "LEAD")
    ),
    claim_of(
        "linear-best",
        7,
        "LEAD + linear is the best of the three",
        beats("linear LEAD", "linear RD", "linear FD"),
    ),
    claim_of(
        "best-start",
        8,
        "bottlenecked pre-training is the best start",
        beats("bottlenecked start", "masked LM start", "CB LEAD"),
    ),
    claim_of("prod-steps", 9, "PROD* improves at each step", rising(("student", *STAR))),
    claim_of(
        "prod-lead-steps",
        9,
        "PROD* + LEAD improves at each step",
        rising(("student", *STAR_LEAD)),
    ),
    claim_of(
        "prod-lead",
        9,
        "PROD* + LEAD > PROD* at each step",
        tuple(zip(STAR_LEAD, STAR, strict=True)),
    ),
    claim_of(
        "prod-gains",
        9,
        "each step gains more with LEAD (false of the third step in the paper's own table)",
        tuple(zip(rising(("student", *STAR_LEAD)), rising(("student", *STAR)), strict=True)),
    ),
    Claim(
        "prod-lead-alone",
        9,
        f"PROD* + LEAD gets little improvement over LEAD: they are within {LITTLE} points",
        (_little("PROD* + LEAD 12CE", "CB LEAD"),),
        "Table 9",
        sized=False,
    ),
)
TABLE_10 = tuple(
    claim_of(
        f"{t}-after",
        10,
        f"the {t} teacher improves after LEAD",
        beats(f"{t} teacher after LEAD", f"{t} teacher"),
    )
    for t in TEACHERS
)
CLAIMS = claims_for()
