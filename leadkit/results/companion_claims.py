"""What PROD and MTA4DPR claim, as predicates."""

from leadkit.results.contrasts import beats, claim_of, rising

_ITERATIONS = tuple(f"MTA4DPR iteration {i}" for i in (1, 2, 3))
COMPANIONS = (
    claim_of("prod-student", "PROD", "PROD > student", beats("PROD", "student")),
    claim_of(
        "prod-direct",
        "PROD",
        "three teachers in turn > the strongest directly, as long",
        beats("PROD stage 3", "PROD direct"),
    ),
    claim_of("prod-data", "PROD", "the data stage adds", beats("PROD", "PROD stage 3")),
    claim_of(
        "assistants",
        "MTA4DPR",
        "with assistants > without",
        beats("MTA4DPR iteration 3", "MTA4DPR without assistants"),
    ),
    claim_of("iterations", "MTA4DPR", "a later iteration is better", rising(_ITERATIONS)),
    claim_of(
        "assistants-lead",
        "MTA4DPR",
        "layer features add (the authors' future work; ours)",
        beats("MTA4DPR + LEAD", "MTA4DPR iteration 3"),
    ),
)
