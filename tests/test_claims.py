"""The paper's numbers, and verdicts on records whose truth is known."""

import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from leadkit import paths
from leadkit.results.claims import CLAIMS, Claim, ledger
from leadkit.results.paper import TABLES, numbers
from leadkit.results.records import merge
from leadkit.results.statistics import crossed_t_test, holm

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


def test_every_claim_holds_on_the_papers_own_mrr():
    assert len(CLAIMS) == len(BY_ID) == 37
    assert [c.table for c in CLAIMS] == sorted((c.table for c in CLAIMS), key=list(TABLES).index)
    silent = {
        "prod-direct",
        "prod-data",
        "iterations",
        "assistants-lead",
    }  # no numbers of theirs in our notes
    assert {claim.id for claim in CLAIMS if np.isnan(claim.paper())} == silent
    for claim in CLAIMS:
        assert claim.id in silent or claim.paper() > 0, claim.id
        documents = claim.paper("MS-Doc")
        assert np.isnan(documents) or documents > 0, claim.id
    by_hand = {
        "larger-pair": 38.96 - 37.8,
        "cb-lead-rd": 37.80 - 36.02,
        "best-teacher": 37.80 - 36.73,
        "worst-k": 37.53 - 37.04,
        "best-k": 37.80 - 37.66,
        "second-drop": (37.80 - 36.46) - (37.80 - 37.24),
        "linear-best": 36.32 - 34.53,
        "best-start": 40.40 - 38.96,
        "prod-steps": 36.30 - 35.92,
        "prod-lead": 36.26 - 35.36,
        "ce-after": 41.35 - 40.54,
        "prod-student": 39.3 - 31.7,
        "assistants": 41.1 - 39.9,
        "strongest-teacher": min(40.54 - 39.46, 37.80 - 36.73),
    }
    assert {name: BY_ID[name].paper() for name in by_hand} == pytest.approx(by_hand)


def test_where_the_papers_other_numbers_contradict_its_sentences():
    """It says: RD beats FD "in all the comparisons"; PROD* + LEAD gains more in each step."""
    against = {
        (c.id, *column)
        for c in CLAIMS
        for column in TABLES[c.table].columns
        if c.paper(*column) < 0
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
        "larger-pair",
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
        ("worst-k", {"K=1": 1, "K=2": 4, "K=3": 5, "K=4": 6, "CB LEAD": 7, "K=6": 3}, 2),
        ("worst-k", {"K=1": 4, "K=2": 4, "K=3": 5, "K=4": 3.5, "CB LEAD": 7, "K=6": 3}, -1),
        ("best-k", {"K=1": 1, "K=2": 4, "K=3": 5, "K=4": 4, "CB LEAD": 3, "K=6": 7}, 2),
        ("best-k", {"K=1": 1, "K=2": 9, "K=3": 5, "K=4": 4, "CB LEAD": 8, "K=6": 7}, -1),
        ("second-drop", {"without joint training": 4, "without re-weighting": 1}, 3),
        ("prod-steps", {"student": 1, "PROD* 12DE": 4, "PROD* 12CB": 6, "PROD* 12CE": 7}, 1),
        ("prod-steps", {"student": 1, "PROD* 12DE": 4, "PROD* 12CB": 6, "PROD* 12CE": 5.5}, -0.5),
    ],
)
def test_statistic_by_hand(name, means, value):
    assert BY_ID[name].statistic(means) == value
    stacked = BY_ID[name].statistic(
        {experiment: np.array([mean, 2.0 * mean]) for experiment, mean in means.items()}
    )
    assert stacked.tolist() == [value, 2 * value]


def test_strongest_teacher_is_the_one_that_is_strongest_here():
    claim, rng = BY_ID["strongest-teacher"], np.random.default_rng(0)
    for _ in range(50):
        means = {name: rng.normal() for name in claim.experiments}
        strongest = max("DE CB CE".split(), key=lambda t: means[f"{t} teacher"])
        best = max("DE CB CE".split(), key=lambda t: means[f"{t} LEAD"])
        assert (claim.statistic(means) > 0) == (strongest != best)


def test_p_of_several_pairs():
    """A way needs its weakest pair, one lost pair refutes it; pairs and ways are corrected for."""
    rng = np.random.default_rng(0)
    x = simulate(rng, dict.fromkeys(("A", "B", "C", "D"), 0.0) | {"A": 3.0, "D": 6.0}, Q=400)
    pair = {name: crossed_t_test(x["A"] - x[name]) for name in "BCD"}
    one = {name: Claim("", 3, "", ((("A", name),),)).p_value(x) for name in "BCD"}
    assert one == pytest.approx({name: 2 * min(p) for name, p in pair.items()})
    assert Claim("", 3, "", ((("A", "B"), ("A", "C")),)).p_value(x) == pytest.approx(
        max(one["B"], one["C"])
    )
    assert Claim("", 3, "", ((("A", "B"), ("A", "C"), ("A", "D")),)).p_value(x) == pytest.approx(
        3 * one["D"]
    )
    assert Claim("", 3, "", ((("A", "B"),), (("A", "D"),))).p_value(x) == pytest.approx(
        2 * one["B"]
    )


# --- the bootstrap


def test_interval_is_that_of_a_slow_loop():
    x = simulate(np.random.default_rng(0), {"CB LEAD": 2.0, "CB RD": 0.0}, Q=12, seed_sd=3.0)
    rng, slow = np.random.default_rng(1), []
    for _ in range(4000):
        seeds, queries = [rng.integers(5) for _ in range(5)], [rng.integers(12) for _ in range(12)]
        slow.append(sum(x["CB LEAD"][s, q] - x["CB RD"][s, q] for s in seeds for q in queries) / 60)
    got = ledger(records(x), claims=(A_OVER_B,)).loc["a-b"]
    assert got["difference"] == pytest.approx((x["CB LEAD"] - x["CB RD"]).mean())
    np.testing.assert_allclose(
        [got["low"], got["high"]],
        np.percentile(slow, (2.5, 97.5)),
        atol=0.04 * (got["high"] - got["low"]),
    )


@pytest.mark.parametrize("axis, count", [(0, 5), (1, 300)], ids=["seeds", "queries"])
def test_interval_where_only_one_thing_varies(axis, count):
    """Normal theory: mean -/+ 1.96 standard errors over the axis that varies."""
    effect = np.random.default_rng(2).normal(1, 2, 5 if axis == 0 else 300)
    difference = np.broadcast_to(effect[:, None] if axis == 0 else effect, (5, 300))
    got = ledger(
        records({"CB LEAD": difference, "CB RD": np.zeros((5, 300))}), claims=(A_OVER_B,)
    ).loc["a-b"]
    error = effect.std() / np.sqrt(count)
    expected = effect.mean() + 1.96 * error * np.array([-1, 1])
    np.testing.assert_allclose(
        [got["low"], got["high"]], expected, atol=0.15 * error
    )  # five seeds are not quite normal


# --- the ledger


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
        "student": 0.0,
        "PROD direct": 10.0,
        "PROD stage 3": 50.0,
        "PROD": 90.0,
        "MTA4DPR without assistants": 5.0,
        **{f"MTA4DPR iteration {i}": 20.0 * i for i in (1, 2, 3)},
        "MTA4DPR + LEAD": 90.0,
    }
    table = ledger(
        records(simulate(np.random.default_rng(0), truth, noise=2, query_sd=2)), draws=500
    )
    assert table.index.tolist() == [c.id for c in CLAIMS]
    assert table.columns.tolist() == [
        "table",
        "claim",
        "verdict",
        "difference",
        "low",
        "high",
        "p",
        "paper",
        "seeds",
    ]
    assert table["verdict"].eq("holds").all() and table["seeds"].eq(5).all()
    assert (table["low"] < table["difference"]).all() and (
        table["difference"] < table["high"]
    ).all()
    turned = ledger(
        records(
            simulate(
                np.random.default_rng(1), {name: -mean for name, mean in truth.items()}, noise=2
            )
        ),
        draws=500,
    )
    assert turned["verdict"].eq("contradicted").all() and (turned["difference"] < 0).all()
    same = ledger(records(simulate(np.random.default_rng(2), dict.fromkeys(NAMES, 0.0))), draws=500)
    assert same["verdict"].eq("undecided").all() and same["p"].between(0, 1).all()


def test_fewer_seeds_are_undecided_and_missing_experiments_not_run():
    x = simulate(
        np.random.default_rng(0),
        {"CB LEAD": 30.0, "CB RD": 15.0, "CB FD": 0.0, "student": 0.0, "Last": 0.0},
    )
    x["Last"] = x["Last"][:2]
    x["CB FD"] = x["CB FD"][:4]  # four seeds
    x["student"] = x["student"][:1]
    table = ledger(records(x), draws=500)
    assert table.loc["cb-lead-rd", ["verdict", "seeds"]].tolist() == ["holds", 5]
    four = table.loc["cb-rd-fd"]
    assert (
        (four["verdict"], four["seeds"]) == ("undecided", 4)
        and four["p"] < 1e-3
        and four["low"] > 10
    )
    assert four["difference"] == pytest.approx(
        (x["CB RD"][:4] - x["CB FD"]).mean()
    )  # of the shared seeds
    one = table.loc["cb-lead-student"]
    assert (
        (one["verdict"], one["seeds"]) == ("undecided", 1)
        and one["difference"] > 20
        and one[["low", "high", "p"]].isna().all()
    )
    two = table.loc["random-last"]
    assert (two["verdict"], two["seeds"]) == ("undecided", 2) and two["low"] > 20 and two["p"] < 1
    others = table.drop(["cb-lead-rd", "cb-rd-fd", "cb-lead-student", "random-last"])
    assert others["verdict"].eq("not run").all() and others[
        ["difference", "low", "high", "p"]
    ].isna().all(None)
    assert table["paper"].notna().sum() == 33


def test_p_is_corrected_over_the_claims_that_were_run():
    x = simulate(
        np.random.default_rng(0), {"CB LEAD": 4.0, "CB RD": 1.0, "CB FD": 0.0, "student": 2.0}
    )
    run = ["cb-lead-student", "cb-lead-rd", "cb-rd-fd"]
    table = ledger(records(x), draws=500)
    raw = np.array([BY_ID[name].p_value(x) for name in run])
    np.testing.assert_allclose(table.loc[run, "p"].astype(float), holm(raw))
    assert (holm(raw) > raw).any()
    alone = ledger(records(x), draws=500, claims=(BY_ID["cb-lead-rd"],)).loc["cb-lead-rd"]
    assert alone["p"] == pytest.approx(raw[1])
    assert (
        alone[["difference", "low", "high"]].tolist()
        == table.loc["cb-lead-rd", ["difference", "low", "high"]].tolist()
    )


def test_nothing_is_decided_while_zero_is_in_the_interval(monkeypatch):
    monkeypatch.setattr(Claim, "p_value", lambda self, values: 0.0)
    x = simulate(np.random.default_rng(0), {"CB LEAD": 0.0, "CB RD": 0.0})
    assert ledger(records(x), draws=500).loc["cb-lead-rd", "verdict"] == "undecided"


def test_true_nulls_are_seldom_decided():
    """All experiments alike: any verdict is an error; Holm allows it in one ledger of twenty."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(40):
        table = ledger(
            records(simulate(rng, dict.fromkeys(NAMES, 0.0), Q=40, seed_sd=2.0)), draws=100
        )
        wrong += not table["verdict"].eq("undecided").all()
    assert wrong <= 5


def test_same_seed_same_ledger():
    x = records(simulate(np.random.default_rng(0), {"CB LEAD": 1.0, "CB RD": 0.0}))
    assert ledger(x, draws=300).equals(ledger(x, draws=300))
    assert not ledger(x, draws=300).equals(ledger(x, draws=300, seed=1))
    shuffled = {name: found[::-1] for name, found in reversed(x.items())}
    np.testing.assert_allclose(
        ledger(shuffled, draws=300).loc["cb-lead-rd", "low"],
        ledger(x, draws=300).loc["cb-lead-rd", "low"],
    )


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
    "the records are of 1 seed(s): a ledger needs at least two": lambda r: [
        rows.pop() for rows in r.values()
    ],
    "the records are of 0 seed(s)": lambda r: r.clear(),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_records_that_cannot_be_judged(message):
    broken = records({name: np.zeros((2, 9)) for name in ("CB LEAD", "CB RD")})
    DAMAGES[message](broken)
    with pytest.raises(ValueError, match=re.escape(message)):
        ledger(broken, draws=10)


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
    assert len(lines) == 1 + len(CLAIMS) + 2
    assert lines[-1] == "not run: 36, holds: 1"
    row = next(line for line in lines if line.startswith("cb-lead-rd"))
    assert "CB teacher: LEAD > RD" in row and "<0.0001" in row
    assert row.split()[-2:] == ["1.78", "5"]
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
