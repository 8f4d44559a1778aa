"""The paper's numbers, and verdicts on records whose truth is known."""

import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from leadkit import paths
from leadkit.experiments import controls
from leadkit.experiments import tables as experiments
from leadkit.results import gates
from leadkit.results.claims import VERDICTS, ledger
from leadkit.results.contrasts import Claim, ClaimTest
from leadkit.results.evidence import Evidence
from leadkit.results.paper import TABLES, numbers
from leadkit.results.predicates import CLAIMS, claims_for, measures_of
from leadkit.results.records import merge, read
from leadkit.results.statistics import Estimate, crossed, holm

BY_ID = {claim.id: claim for claim in CLAIMS}
NAMES = sorted({name for claim in CLAIMS for name in claim.experiments})
A_OVER_B = Claim("a-b", 3, "A > B", ((("CB LEAD", "CB RD"),),))


def records(values):
    """{experiment: (S, Q) in points} -> records as `records.read` gives them."""
    what = {"collection": "toy", "fingerprint": "f", "split": "test"}
    return {
        name: [
            what | {"experiment": name, "seed": seed, "per_query": {"RR@10": (row / 100).tolist()}}
            for seed, row in enumerate(rows)
        ]
        for name, rows in values.items()
    }


def simulate(rng, means, S=5, Q=200, seed_sd=0.3, query_sd=10.0, noise=10.0):
    """Points (S, Q) of each experiment.

    Its mean, a difficulty that all share, and effects of seeds, of queries and of both.
    """
    shared = rng.normal(40, 20, Q)
    return {
        name: mean
        + shared
        + rng.normal(0, seed_sd, (S, 1))
        + rng.normal(0, query_sd, Q)
        + rng.normal(0, noise, (S, Q))
        for name, mean in means.items()
    }


# --- the paper


def test_numbers_of_the_paper():
    """Typed from the paper once more, at corners where a shifted row or column would show."""
    assert {number: table.shape for number, table in TABLES.items()} == {
        1: (20, 7),
        2: (9, 7),
        3: (13, 14),
        4: (7, 4),
        5: (4, 3),
        6: (4, 3),
        7: (6, 2),
        8: (4, 14),
        9: (10, 2),
        10: (6, 4),
        "PROD": (2, 8),
        "MTA4DPR": (2, 4),
    }
    for table, row, collection, measure, value in (
        (1, "BM25", "MS-Pas", "MRR@10", 18.7),
        (1, "CL-DRD", "TREC-Pas-19", "nDCG@10", 72.5),
        (1, "ERNIE-Search", "MS-Pas", "R@1k", 98.2),
        (1, "larger LEAD from MASTER", "TREC-Pas-20", "MAP@1k", 48.8),
        (2, "ADORE", "TREC-Doc-19", "R@100", 31.7),
        (2, "CB LEAD", "TREC-Doc-20", "nDCG@10", 60.1),
        (3, "student", "MS-Pas", "MRR@10", 32.62),
        (3, "CB LEAD", "MS-Pas", "MRR@10", 37.80),
        (3, "CE RD", "MS-Doc", "R@100", 81.29),
        (3, "CE LEAD", "TREC-Doc-20", "R@100", 39.93),
        (3, "DE FD", "TREC-Pas-20", "MAP@1k", 38.21),
        (4, "CB LEAD", "MS-Doc", "MRR@10", 40.00),
        (4, "K=6", "MS-Doc", "MAP@100", 40.93),
        (5, "Skip", "MS-Pas", "R@1k", 97.05),
        (6, "without re-weighting", "MS-Pas", "MRR@10", 36.46),
        (7, "linear FD", "MS-Pas", "MAP@1k", 33.84),
        (8, "bottlenecked start", "TREC-Pas-19", "nDCG@10", 72.54),
        (8, "masked LM start", "MS-Doc", "MRR@10", 40.75),
        (9, "PROD* + LEAD 12CE", "MS-Pas", "MRR@10", 37.82),
        (9, "PROD* 12DE", "MS-Pas", "MAP@1k", 36.00),
        (10, "CE teacher after LEAD", "MS-Doc", "MAP@100", 43.93),
        ("PROD", "PROD", "MS-Doc", "R@100", 93.3),
        ("PROD", "student", "NQ", "R@5", 67.8),
        ("MTA4DPR", "MTA4DPR iteration 3", "NQ", "R@20", 83.6),
    ):
        assert numbers(table, row)[collection, measure] == value, (table, row, collection, measure)
    assert numbers(3, "CB RD")["MS-Pas"].tolist() == [36.02, 36.62, 97.18]
    assert np.isnan(numbers(1, "ADORE")["MS-Pas", "R@1k"])
    for table, row, message in (
        (3, "LEAD", "Table 3 has no row 'LEAD': use one of student,"),
        (11, "LEAD", "tables are 1 to 10, 'PROD' and 'MTA4DPR'"),
    ):
        with pytest.raises(ValueError, match=message):
            numbers(table, row)


def test_rows_that_two_tables_report_agree():
    """Tables 4 to 10 repeat rows of Table 3.

    PROD*'s first step is RD with the DE teacher, its MAP .01 off in the paper.
    """
    for number in (4, 5, 6, 7, 9, 10):
        for row in TABLES[number].index.intersection(TABLES[3].index):
            assert (
                numbers(number, row)["MS-Pas", "MRR@10"] == numbers(3, row)["MS-Pas", "MRR@10"]
            ), (number, row)
    assert numbers(9, "PROD* 12DE").tolist() == [35.36, 36.00] and numbers(3, "DE RD")[
        "MS-Pas"
    ].tolist()[:2] == [35.36, 35.99]


def test_the_primary_table_runs_what_the_primary_claims_and_their_gates_need():
    primary = [claim for claim in CLAIMS if claim.family == "primary"]
    judged = primary + [gate.claim for gate in gates.GATES if gate.teacher in ("", "DE", "CB")]
    needed = {name for claim in judged for name in claim.experiments}
    assert needed | set(experiments.TABLES["main"]) == set(controls.TABLES["primary"])


def test_every_sentence_of_the_paper_holds_on_its_own_numbers():
    """But for the one that its own Table 9 refutes; what is ours says so, or has no numbers."""
    assert len(BY_ID) == len(CLAIMS)
    ours = [claim for claim in CLAIMS if "(ours)" in claim.sentence]
    assert {claim.family for claim in ours} == {"primary", "controls"}
    assert [claim.id for claim in CLAIMS if claim.paper() <= 0] == ["prod-gains"]
    silent = {claim.id for claim in CLAIMS if np.isnan(claim.paper()) and claim not in ours}
    # no numbers of theirs in our notes
    assert silent == {"prod-direct", "prod-data", "iterations", "assistants-lead"}
    for claim in CLAIMS:
        documents = claim.paper("MS-Doc", "MRR@10")
        # on documents quality falls from K = 2 to K = 3
        assert np.isnan(documents) or documents > 0 or claim.id == "k-chain", claim.id
    by_hand = {
        "larger-pair": 38.96 - 37.80,  # Table 8's coCondenser, not MASTER
        "cb-lead-rd": 37.80 - 36.02,
        "cb-frozen-rd": 37.24 - 36.02,
        "cb-lead-fd": 37.80 - 33.92,
        "ce-cb-teacher": 40.54 - 39.46,
        "best-teacher": 37.80 - 36.73,
        "worst-k": 37.53 - 37.04,
        "k-chain": 37.59 - 37.53,
        "best-k": 37.80 - 37.66,
        "joint-map-1k": 38.32 - 37.79,
        "joint-r-1k": 97.42 - 97.12,
        "second-drop": (37.80 - 36.46) - (37.80 - 37.24),
        "linear-best": 36.32 - 34.53,
        "best-start": 40.40 - 38.96,
        "prod-steps": 36.30 - 35.92,
        "prod-lead": 36.26 - 35.36,
        "prod-lead-steps": 37.82 - 37.64,
        "prod-gains": (37.82 - 37.64) - (36.30 - 35.92),
        "prod-lead-alone": 0.5 - (37.82 - 37.80),
        "ce-after": 41.35 - 40.54,
        "prod-student": 39.3 - 31.7,
        "assistants": 41.1 - 39.9,
        "strongest-teacher": min(40.54 - 39.46, 37.80 - 36.73),
    }
    assert {name: BY_ID[name].paper() for name in by_hand} == pytest.approx(by_hand)
    assert np.isnan(BY_ID["prod-lead-alone"].effect()) and np.isnan(BY_ID["prod-gains"].effect())


def test_the_chain_of_k_is_as_long_as_the_student_has_layers():
    small = {claim.id: claim for claim in claims_for(3)}
    assert small["k-chain"].sentence == "quality rises with K from 1 to 3"
    assert small["k-chain"].paper() == pytest.approx(37.59 - 37.53)
    assert small["worst-k"].experiments == ["K=2", "K=1", "K=3"]
    rows = records({"CB LEAD": np.ones((2, 9)), "K=4": np.zeros((2, 9)), "K=3": np.zeros((2, 9))})
    for row in rows["CB LEAD"]:
        row["stage"] = {"retriever": {"method": {"k": 5}}}
    evidence = Evidence(rows)
    assert evidence.layers == 5
    assert Evidence({"CB LEAD": rows["CB LEAD"]}).layers == 6  # its own K is no table
    chosen = Claim("", 4, "", ((("K=5", "K=4"), ("K=4", "K=3")),))
    assert evidence.test(chosen).seeds == 2


def test_measures_beside_mrr_are_kept_where_a_claim_needs_them(tmp_path):
    assert measures_of("CB RD") == {"RR@10", "AP@1000", "R@1000"} and measures_of("K=1") == {
        "RR@10"
    }
    rows = records({"CB RD": np.ones((2, 9)), "CB FD": np.zeros((2, 9)), "K=1": np.zeros((2, 9))})
    for row in (row for experiment in rows.values() for row in experiment):
        row["per_query"]["R@1000"] = row["per_query"]["RR@10"]
    merge([row for experiment in rows.values() for row in experiment], tmp_path)
    kept = read(tmp_path)
    assert kept["CB RD"][0]["per_query"].keys() == {"RR@10", "R@1000"}
    assert kept["K=1"][0]["per_query"].keys() == {"RR@10"}
    table = ledger(kept)
    assert table.loc["cb-rd-fd-r-1k", "seeds"] == 2 and table.loc["cb-rd-fd-map-1k", "seeds"] == 0
    assert table.loc["cb-rd-fd-r-1k", "difference"] == pytest.approx(1)


def test_where_the_papers_other_numbers_contradict_its_sentences():
    """It says: RD beats FD "in all the comparisons"; PROD* + LEAD gains more in each step."""
    against = {
        (c.id, *column)
        for c in CLAIMS
        for column in TABLES[c.table].columns
        if c.measure == "RR@10" and c.paper(*column) < 0
    }
    assert ("ce-rd-fd", "MS-Doc", "R@100") in against and BY_ID["ce-rd-fd"].paper(
        "MS-Doc", "R@100"
    ) == pytest.approx(81.29 - 84.25)
    assert ("de-lead-rd", "TREC-Pas-19", "nDCG@10") in against and (
        "best-start",
        "TREC-Pas-19",
        "nDCG@10",
    ) in against
    assert {name for name, *_ in against} == {
        "cb-frozen-rd",
        "larger-pair",
        "ce-cb-teacher",
        "k-chain",
        "prod-gains",
        "de-lead-student",
        "cb-lead-student",
        "ce-lead-student",
        "de-lead-rd",
        "ce-lead-rd",
        "de-rd-fd",
        "ce-rd-fd",
        "strongest-teacher",
        "re-weighting-rd",
        "best-start",
    }
    mrr = TABLES[9]["MS-Pas", "MRR@10"]
    assert (
        mrr["PROD* + LEAD 12CE"] - mrr["PROD* + LEAD 12CB"] < mrr["PROD* 12CE"] - mrr["PROD* 12CB"]
    )  # .18 < .38


# --- statistics


@pytest.mark.parametrize(
    "name, means, value",
    [
        ("cb-lead-rd", {"CB LEAD": 3, "CB RD": 5}, -2),
        ("best-teacher", {"CB LEAD": 5, "DE LEAD": 1, "CE LEAD": 4}, 1),
        ("best-teacher", {"CB LEAD": 5, "DE LEAD": 1, "CE LEAD": 8}, -3),
        ("worst-k", {"K=1": 1, "K=2": 4, "K=3": 5, "K=4": 6, "K=5": 7, "K=6": 3}, 2),
        ("worst-k", {"K=1": 4, "K=2": 4, "K=3": 5, "K=4": 3.5, "K=5": 7, "K=6": 3}, -1),
        ("k-chain", {"K=1": 1, "K=2": 4, "K=3": 5, "K=4": 7, "K=5": 9}, 1),
        ("k-chain", {"K=1": 1, "K=2": 4, "K=3": 2, "K=4": 7, "K=5": 9}, -2),
        ("best-k", {"K=1": 1, "K=2": 4, "K=3": 5, "K=4": 4, "K=5": 3, "K=6": 7}, 2),
        ("best-k", {"K=1": 1, "K=2": 9, "K=3": 5, "K=4": 4, "K=5": 8, "K=6": 7}, -1),
        ("prod-lead-alone", {"PROD* + LEAD 12CE": 7.25, "CB LEAD": 7}, 0.25),
        ("prod-lead-alone", {"PROD* + LEAD 12CE": 6, "CB LEAD": 7}, -0.5),
        ("second-drop", {"without joint training": 4, "without re-weighting": 1}, 3),
        ("prod-steps", {"student": 1, "PROD* 12DE": 4, "PROD* 12CB": 6, "PROD* 12CE": 7}, 1),
        ("prod-steps", {"student": 1, "PROD* 12DE": 4, "PROD* 12CB": 6, "PROD* 12CE": 5.5}, -0.5),
    ],
)
def test_statistic_by_hand(name, means, value):
    assert BY_ID[name].statistic(means) == value
    stacked = BY_ID[name].statistic(
        {experiment: np.array([mean, mean + 1.0]) for experiment, mean in means.items()}
    )
    assert stacked.tolist() == [value, value]


def test_strongest_teacher_is_the_one_that_is_strongest_here():
    claim, rng = BY_ID["strongest-teacher"], np.random.default_rng(0)
    for _ in range(50):
        means = {name: rng.normal() for name in claim.experiments}
        strongest = max("DE CB CE".split(), key=lambda t: means[f"{t} teacher"])
        best = max("DE CB CE".split(), key=lambda t: means[f"{t} LEAD"])
        assert (claim.statistic(means) > 0) == (strongest != best)


def p_of(ways, values):
    return Claim("", 3, "", ways).test(values).p()


def test_p_of_several_pairs():
    """A way needs its weakest pair, one lost pair refutes it; pairs and ways are corrected for."""
    rng = np.random.default_rng(0)
    x = simulate(rng, dict.fromkeys(("A", "B", "C", "D"), 0.0) | {"A": 3.0, "D": 6.0}, Q=400)
    pair = {name: crossed(x["A"] - x[name]) for name in "BCD"}
    one = {name: p_of(((("A", name),),), x) for name in "BCD"}
    by_hand = {name: 2 * min(each.p_above(), each.p_below()) for name, each in pair.items()}
    assert one == pytest.approx(by_hand)
    assert p_of(((("A", "B"), ("A", "C")),), x) == pytest.approx(max(one["B"], one["C"]))
    assert p_of(((("A", "B"), ("A", "C"), ("A", "D")),), x) == pytest.approx(3 * one["D"])
    assert p_of(((("A", "B"),), (("A", "D"),)), x) == pytest.approx(2 * one["B"])


def test_interval_and_p_are_one_test():
    """p is below a level exactly where that level's interval leaves the value out."""
    rng = np.random.default_rng(0)
    shapes = ((1,), (3,), (1, 1), (2, 4), (3, 3, 3))
    outside = 0
    for _ in range(400):
        ways = tuple(
            tuple(
                Estimate(rng.normal(1.5), rng.uniform(0.3, 1), rng.uniform(1, 40)) for _ in range(n)
            )
            for n in shapes[rng.integers(len(shapes))]
        )
        test = ClaimTest(0.0, 5, ways)
        value, alpha = rng.normal(), rng.uniform(0.01, 0.2)
        low, high = test.interval(alpha)
        assert (test.p(value) < alpha) == (not low <= value <= high)
        outside += not low <= value <= high
        for bound in (low, high):
            assert test.p(bound) == pytest.approx(alpha)
    assert 50 < outside < 350


# --- the ledger


def test_one_difference_by_scipy_free_hand():
    """Difference, interval and p of two experiments are those of the crossed test."""
    x = simulate(np.random.default_rng(0), {"CB LEAD": 2.0, "CB RD": 0.0}, seed_sd=3.0)
    got = ledger(records(x), claims=(A_OVER_B,)).loc["a-b"]
    test = crossed(x["CB LEAD"] - x["CB RD"])
    assert got["difference"] == pytest.approx(test.mean)
    assert (got["low"], got["high"]) == pytest.approx((test.low(0.025), test.high(0.025)))
    assert got["p"] == pytest.approx(2 * min(test.p_above(), test.p_below()))
    assert got["visible"] == pytest.approx(test.visible(0.025))
    assert got["paper"] == pytest.approx(1.78)
    assert got["ratio"] == pytest.approx(got["visible"] / 1.78)


TEACHERS = {"DE teacher": 20.0, "CB teacher": 40.0, "CE teacher": 60.0}


def test_verdicts_on_known_effects():
    """The paper's effects ten times over hold, turned round they are contradicted, ties open."""
    truth = {
        name: 10 * (TABLES[c.table]["MS-Pas", "MRR@10"][name] - 30)
        for c in reversed(CLAIMS)
        for name in c.experiments
        if name in TABLES[c.table].index
    }
    truth |= {
        "masked LM start": 50.0,
        "bottlenecked start": 99.0,
        "larger LEAD": 99.0,
        **{f"K={k}": truth["CB LEAD"] - 30 + 6 * k for k in (1, 2, 3, 4, 5)},
        "K=6": truth["CB LEAD"],
        "student": 0.0,
        "PROD direct": 10.0,
        "PROD stage 3": 50.0,
        "PROD": 90.0,
        "MTA4DPR without assistants": 5.0,
        **{f"MTA4DPR iteration {i}": 20.0 * i for i in (1, 2, 3)},
        "MTA4DPR + LEAD": 90.0,
    }
    simulated = simulate(np.random.default_rng(0), truth, noise=2, query_sd=2)
    table = ledger(records(simulated))
    assert table.index.tolist() == [c.id for c in CLAIMS]
    run = table[table["seeds"] == 5]
    assert len(run) == len(CLAIMS) - 8 - len([c for c in CLAIMS if "(ours)" in c.sentence]) + 1
    # what the paper's numbers refute, ten times over
    assert run.index[run["verdict"] == "contradicted"].tolist() == ["prod-gains"]
    assert run["verdict"].drop(["prod-gains", "prod-lead-alone"]).eq("holds").all()
    assert (run["low"] < run["difference"]).all() and (run["difference"] < run["high"]).all()
    turned = {name: -mean for name, mean in truth.items()} | TEACHERS | {"student": 0.0}
    table = ledger(records(simulate(np.random.default_rng(1), turned, noise=2)))
    undone = ["ce-cb-teacher", "strongest-teacher", "prod-gains", "prod-lead-alone"]
    run = table[table["seeds"] == 5].drop(undone)
    assert run["verdict"].eq("contradicted").all() and (run["difference"] < 0).all()
    same = dict.fromkeys(NAMES, 30.0) | TEACHERS | {"CE teacher": 40.0, "student": 0.0}
    tied = simulate(np.random.default_rng(2), same, noise=3, query_sd=3, Q=100)
    verdicts = ledger(records(tied)).loc[["cb-lead-rd", "joint", "random-last", "lead-rd-raw"]]
    assert verdicts["verdict"].isin(["undecided", "ruled out"]).all()


def judged(difference, noise, names=("CB LEAD", "CB RD"), Q=400):
    """The line of LEAD > RD where the true difference is this one; the teacher teaches."""
    means = TEACHERS | {"student": 0.0, names[0]: difference, names[1]: 0.0}
    x = simulate(np.random.default_rng(0), means, 5, Q, 0.02, noise, noise)
    return ledger(records(x), claims=(BY_ID["cb-lead-rd"],)).loc["cb-lead-rd"]


@pytest.mark.parametrize(
    "difference, noise, verdict",
    [
        (1.78, 2.0, "holds"),
        (5.0, 2.0, "holds"),
        (0.7, 2.0, "smaller than the paper's"),
        (0.0, 2.0, "ruled out"),
        (0.9, 20.0, "undecided"),
        (-0.7, 2.0, "contradicted"),
    ],
)
def test_verdicts_by_size(difference, noise, verdict):
    """The paper's difference is 1.78 points."""
    line = judged(difference, noise)
    assert line["verdict"] == verdict
    excluded = {"smaller than the paper's", "ruled out", "contradicted"}
    assert (line["high"] < line["paper"]) == (verdict in excluded)
    assert (line["ratio"] < 1) == (noise == 2.0)


def test_a_swapped_sign_is_contradicted():
    assert judged(2.0, 2.0)["verdict"] == "holds"
    assert judged(2.0, 2.0, ("CB RD", "CB LEAD"))["verdict"] == "contradicted"


def test_fewer_seeds_are_undecided_and_missing_experiments_not_run():
    means = {"CB LEAD": 30.0, "CB RD": 15.0, "CB FD": 0.0, "student": 0.0, "Last": 0.0}
    x = simulate(np.random.default_rng(0), means)
    x["Last"] = x["Last"][:2]
    x["CB FD"] = x["CB FD"][:4]  # four seeds
    x["student"] = x["student"][:1]
    table = ledger(records(x))
    assert table.loc["cb-lead-rd", ["verdict", "seeds"]].tolist() == ["holds", 5]
    four = table.loc["cb-rd-fd"]
    assert (four["verdict"], four["seeds"]) == ("undecided", 4)
    assert four["p"] < 1e-3 and four["low"] > 10
    # of the shared seeds
    assert four["difference"] == pytest.approx((x["CB RD"][:4] - x["CB FD"]).mean())
    one = table.loc["cb-lead-student"]
    assert (one["verdict"], one["seeds"]) == ("undecided", 1)
    over_queries = ttest_1samp(x["CB LEAD"][0] - x["student"][0], 0).confidence_interval()
    assert (one["low"], one["high"]) == pytest.approx((over_queries.low, over_queries.high))
    two = table.loc["random-last"]
    assert (two["verdict"], two["seeds"]) == ("undecided", 2) and two["low"] > 20 and two["p"] < 1
    run = ["cb-lead-rd", "cb-rd-fd", "cb-lead-student", "cb-lead-fd", "random-last"]
    others = table.drop(run)
    assert others["verdict"].eq("not run").all()
    assert others[["difference", "low", "high", "p"]].isna().all(None)


def test_p_is_corrected_within_a_family():
    """Not over claims of other families, nor over those that are not testable."""
    means = {"CB LEAD": 3.0, "CB RD": 1.0, "CB FD": 0.0, "student": 2.0, "Last": 2.5, "Skip": 2.0}
    x = simulate(np.random.default_rng(0), means | {"DE teacher": 5.0, "CB teacher": 9.0})
    x |= simulate(np.random.default_rng(1), {"CE teacher": 0.0, "CE RD": 5.0, "CE FD": 1.0})
    table = ledger(records(x))
    families = {
        "primary": ["cb-lead-rd"],
        "Table 3": ["cb-lead-student", "cb-lead-fd", "cb-rd-fd"],
        "Table 5": ["random-last", "random-skip"],
    }
    for family, run in families.items():
        assert table.loc[run, "family"].eq(family).all()
        tests = [BY_ID[name].test(x) for name in run]
        raw = np.array([test.p() for test in tests])
        np.testing.assert_allclose(table.loc[run, "p"].astype(float), holm(raw))
        sizes = [test.p(BY_ID[name].paper()) for name, test in zip(run, tests, strict=True)]
        np.testing.assert_allclose(table.loc[run, "p of size"], holm(np.array(sizes)))
        visible = [test.visible(0.05 / len(run)) for test in tests]
        np.testing.assert_allclose(table.loc[run, "visible"], visible)
    assert (
        table.loc["ce-rd-fd", "verdict"] == "not testable" and table.loc["ce-rd-fd", "seeds"] == 5
    )
    tested = table["p"].notna()
    assert tested.sum() == 6 and table.loc[tested, "verdict"].isin(VERDICTS[:5]).all()


def test_true_nulls_are_seldom_decided():
    """All students alike: a decided sign is an error; Holm allows it in one family of twenty."""
    rng, wrong, families = np.random.default_rng(0), 0, 0
    for _ in range(12):
        alike = simulate(rng, dict.fromkeys(NAMES, 0.0), Q=40, seed_sd=2.0)
        gone = {name for name in alike if "teacher" in name and "after" not in name}
        table = ledger(records({name: x for name, x in alike.items() if name not in gone}))
        signs = table[table["verdict"].isin(["holds", "smaller than the paper's", "contradicted"])]
        wrong += signs["family"].nunique()
        families += table.loc[table["seeds"] > 0, "family"].nunique()
    assert families > 120 and wrong <= 0.1 * families


def test_the_order_of_records_changes_nothing():
    x = records(simulate(np.random.default_rng(0), {"CB LEAD": 1.0, "CB RD": 0.0}))
    shuffled = {name: found[::-1] for name, found in reversed(x.items())}
    columns = ["difference", "low", "high", "p"]
    np.testing.assert_allclose(
        ledger(shuffled).loc["cb-lead-rd", columns].astype(float),
        ledger(x).loc["cb-lead-rd", columns].astype(float),
    )


# --- gates


def gate_states(means, **options):
    x = simulate(np.random.default_rng(0), means, noise=3, query_sd=3, **options)
    return gates.measure(Evidence(records(x)))["state"].to_dict()


def test_gates_pass_where_teachers_teach():
    means = TEACHERS | {"student": 0.0, "student, as long": 5.0, "CB RD": 9.0}
    passed = gate_states(means)
    for own in ("raw scores", "released"):
        assert passed.pop(f"CB teacher, {own} - DE teacher") == "not measured"
    assert list(passed) == [
        "DE teacher - student",
        "CB teacher - DE teacher",
        "CE teacher - DE teacher",
        "CB RD - student, as long",
    ]
    assert set(passed.values()) == {"passed"}
    # above its first stage, but by less than two points
    assert gate_states(means | {"CE teacher": 21.5})["CE teacher - DE teacher"] == "failed"
    # above, but zero is in the interval
    noisy = gate_states(means | {"CB teacher": 21.0}, seed_sd=3.0)
    assert noisy["CB teacher - DE teacher"] == "failed"
    del means["DE teacher"]
    assert gate_states(means)["CB teacher - DE teacher"] == "not measured"


def test_a_teacher_that_guesses_gives_no_verdict():
    """However large the differences of its students are; the others are judged."""
    means = dict.fromkeys(NAMES, 0.0) | TEACHERS
    means |= {"CE LEAD": 9.0, "CB LEAD": 9.0, "DE LEAD": 4.0, "student": -5.0}
    means["student, as long"] = 1.0
    x = simulate(np.random.default_rng(0), means, noise=3, query_sd=3, Q=1000)
    good = ledger(records(x))
    assert good.loc[["ce-lead-rd", "cb-lead-rd", "best-teacher"], "verdict"].tolist() == [
        "holds",
        "holds",
        "ruled out",
    ]
    x["CE teacher"] = x["CE teacher"] - 60
    table = ledger(records(x))
    void = table[table["verdict"] == "not testable"]
    by_mrr = [claim for claim in CLAIMS if claim.measure == "RR@10"]
    resting = {c.id for c in by_mrr if any("CE" in name for name in c.experiments)}
    companions = {"prod-student", "prod-direct", "prod-data"}  # PROD has CE teachers
    assert set(void.index) == resting | companions
    assert void["p"].isna().all() and void["difference"].notna().all()
    gate = void.loc["ce-lead-rd", "gate"]
    assert re.fullmatch(r"CE teacher - DE teacher: -\d+\.\d\d .*, at least 2 wanted", gate)
    assert table.loc["cb-lead-rd", "verdict"] == "holds" and table.loc["cb-lead-rd", "gate"] == ""
    # The gate of visible distillation is shown and decides on no claim.
    shown = gates.measure(Evidence(records(x))).loc["CB RD - student, as long"]
    assert (shown["state"], shown["teacher"]) == ("failed", "")


def test_a_gate_that_was_not_measured_is_told():
    x = simulate(np.random.default_rng(0), {"CB LEAD": 30.0, "CB RD": 15.0})
    line = ledger(records(x)).loc["cb-lead-rd"]
    assert line["verdict"] == "holds"
    assert line["gate"] == "CB teacher - DE teacher: not measured"


def test_every_experiment_rests_on_its_teachers():
    by_hand = {
        "BM25": (),
        "student, as long, raw scores": (),
        "CE frozen LEAD": ("CE",),
        "K=3": ("CB",),
        "larger LEAD": ("CB",),
        "MTA4DPR + LEAD": ("CB",),
        "CB LEAD, 16 x 8": ("CB",),
        "CB LEAD, raw scores": ("CB, raw scores",),
        "CB frozen LEAD, released": ("CB, released",),
        "encoder as it came": (),
        "PROD* + LEAD 12CB": ("DE", "CB"),
        "PROD direct": ("CE",),
    }
    assert {name: gates.teachers(name) for name in by_hand} == by_hand


# --- bad input


def change(rows, **changes):
    rows[1] = {key: value for key, value in (rows[1] | changes).items() if value is not None}


def tower(**fields):
    return {"student": {"tower": fields, "seed": 0}}


def two_precisions(found):
    for name, rows in found.items():
        for row in rows:
            row["stage"] = tower(bf16=name == "CB RD")


def other_settings(found):
    for row in found["CB RD"]:
        row["stage"] = tower(scale=row["seed"])


DAMAGES = {
    "together: toy, fingerprint f, split test, 9 queries ('CB LEAD', seed 0); toy, fingerprint g, "
    "split test, 9 queries ('CB RD', seed 1)": lambda r: change(r["CB RD"], fingerprint="g"),
    "cannot be judged together: toy, fingerprint f, split test": lambda r: change(
        r["CB RD"], split="dev"
    ),
    "squad, fingerprint f": lambda r: change(r["CB RD"], collection="squad"),
    "1 queries ('CB RD', seed 1)": lambda r: change(r["CB RD"], per_query={"RR@10": [0.5]}),
    "the record of 'CB RD', seed 1, lacks RR@10": lambda r: change(
        r["CB RD"], per_query={"AP@1000": [0.5]}
    ),
    "the record of 'CB RD', seed 1, lacks fingerprint": lambda r: change(
        r["CB RD"], fingerprint=None
    ),
    "the record of 'CB RD', seed unknown, lacks seed": lambda r: change(r["CB RD"], seed=None),
    "the record of 'CB RD', seed 0, is there twice": lambda r: change(r["CB RD"], seed=0),
    "seed 1, has a RR@10 that is no number": lambda r: change(
        r["CB RD"], per_query={"RR@10": [float("nan")] * 9}
    ),
    "records of different precision cannot be judged together: float32 ('CB LEAD', seed 0); "
    "bfloat16 ('CB RD', seed 0)": two_precisions,
    "records of 'CB RD' differ in more than their seeds: student.tower.scale is 0 with seed 0, "
    "1 with seed 1": other_settings,
    "'CB RD' differ in more than their seeds: kind is None with seed 0, 'evaluate' with": (
        lambda r: change(r["CB RD"], stage={"kind": "evaluate"})
    ),
    "there are no records: a ledger needs those of one seed at least": lambda r: r.clear(),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_records_that_cannot_be_judged(message):
    broken = records({name: np.zeros((2, 9)) for name in ("CB LEAD", "CB RD")})
    DAMAGES[message](broken)
    with pytest.raises(ValueError, match=re.escape(message)):
        ledger(broken)


# --- the command


def call(monkeypatch, capsys, scale):
    monkeypatch.setattr(sys, "argv", ["leadkit", "claims", "--scale", scale])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("leadkit", run_name="__main__")
        raise SystemExit(0)
    return caught.value.code, capsys.readouterr().out


def test_command(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    found = records(simulate(np.random.default_rng(0), {"CB LEAD": 30.0, "CB RD": 15.0}))
    merge([row for rows in found.values() for row in rows], tmp_path / "toy")
    code, out = call(monkeypatch, capsys, "toy")
    lines = out.splitlines()
    assert code in (None, 0)
    assert lines[:3] == [f"records: {tmp_path / 'toy'}", "", "gates"]
    assert lines[4].split()[-2:] == ["measured", "0.00"]
    families = dict.fromkeys(claim.family for claim in CLAIMS)
    assert [line.split(": ")[0] for line in lines if line.endswith("claims were run")] == list(
        families
    )
    assert "primary: 1 of 5 claims were run" in lines
    assert lines[-1] == f"not run: {len(CLAIMS) - 1}, holds: 1"
    row = next(line for line in lines if line.startswith("cb-lead-rd"))
    assert "CB teacher: LEAD > RD" in row and "<0.0001" in row
    assert "holds: CB teacher - DE teacher: not measured" in row and " 1.78 " in row
    nothing = f"leadkit: folder {tmp_path / 'none'} holds no result records (records.jsonl)"
    assert call(monkeypatch, capsys, "none") == (nothing, "")


def test_the_command_does_not_load_torch():
    """Which takes longer than all else that it does."""
    code = """
import runpy, sys
sys.argv = ["leadkit", "claims"]
runpy.run_module("leadkit", run_name="__main__")
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "cb-lead-rd " in done.stdout, done.stderr
