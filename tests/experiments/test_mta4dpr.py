"""MTA4DPR: the pool, the harder data, the chain of iterations, with untrained encoders."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from toys import data, scale

from leadkit import losses, paths
from leadkit.config import Schedule
from leadkit.data.sampling import groups
from leadkit.experiments import assisted, store
from leadkit.experiments.assisted import Assisted, distances, fusions, iteration
from leadkit.experiments.distillation import Distil, Mine, WarmUp
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.mta4dpr import MTA4DPR
from leadkit.experiments.paper_methods import FD, LEAD, RD
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.pool import Harder, Pool
from leadkit.experiments.store import Stage
from leadkit.experiments.texts import collection
from leadkit.files import write_json
from leadkit.models.tower import Tower

# --- which assistant is nearest


def test_fused_assistants_are_every_subset_of_two_or_more():
    assert fusions(3) == [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert len(fusions(4)) == 2**4 - 1 and fusions(0) == []


def test_distances_are_means_over_the_batch_and_each_finds_its_own_nearest():
    teacher = torch.tensor([[3.0, 2, 1, 0], [0.0, 1, 2, 3]])  # (B, C)
    assistants = torch.stack(
        [teacher * 3, teacher + torch.tensor([[0, 1.5, 0, 0]] * 2), -teacher, teacher]
    )  # (F, B, C)
    far = {
        d: distances(teacher, assistants, Assisted(distance=d, rbo_p=0.5))
        for d in assisted.DISTANCES
    }
    for values in far.values():
        assert (
            values.shape == (4,)
            and values[3].item() == pytest.approx(0, abs=1e-6)
            and values.argmax() == 2
        )
    # The first has the teacher's ranking, not its distribution; of the second it is the other way
    # round.
    assert far["kl"][1] < far["kl"][0] and far["footrule"][0] == 0 == far["rbo"][0]
    torch.testing.assert_close(
        far["kl"], torch.stack([losses.kl(teacher, a).mean() for a in assistants])
    )
    # Query 0 swaps its first two, query 1 its second and third: 2 of 8 places; agreement 0, 1, 1, 1
    # and 1, 1/2, 1, 1.
    assert far["footrule"][1].item() == pytest.approx((2 / 8 + 2 / 8) / 2)
    by_hand = [
        0.5 * sum(0.5 ** (d - 1) * a for d, a in enumerate(agreement, start=1)) + 0.5**4
        for agreement in ((0, 1, 1, 1), (1, 0.5, 1, 1))
    ]
    assert far["rbo"][1].item() == pytest.approx(1 - np.mean(by_hand))
    warm = distances(teacher, assistants, Assisted(), tau_d=2.0)
    torch.testing.assert_close(warm, losses.kl(teacher / 2, assistants / 2).mean(-1))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"distance": "KL"}, "distance 'KL' is unknown: use one of kl, footrule, rbo"),
        ({"rbo_p": 1.0}, "rbo_p is 1.0: it must be between 0 and 1"),
        ({"assist": -1.0}, "assist is -1.0: a weight must not be negative"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Assisted(**settings)


# --- the pool


def pool_of(name, monkeypatch, values):
    """Pools of 3 that these retrievers enter one after another, with these MRR@10 on dev.

    And the retrievers' evaluations.
    """
    entrants = [
        Evaluate(
            data(name), WarmUp(data(name), Tower("DE", f"random:{i}x8"), Schedule(1)), "dev", 5
        )
        for i in range(1, len(values) + 1)
    ]
    of = dict(zip(entrants, values, strict=True))
    monkeypatch.setattr(Evaluate, "done", lambda self, *how: self.folder)
    monkeypatch.setattr(Evaluate, "values", lambda self: np.array([of[self]]))
    pool, pools = None, []
    for entrant in entrants:
        pool = Pool(data(name), entrant, 3, pool)
        pools.append(pool)
    return entrants, pools


def test_the_entrant_takes_the_place_of_the_worst(name, monkeypatch):
    (a, b, c, d, e, f), pools = pool_of(name, monkeypatch, [0.5, 0.2, 0.4, 0.3, 0.1, 0.6])
    assert [pool.members() for pool in pools] == [
        [a],
        [a, b],
        [a, b, c],
        [a, d, c],
        [a, d, c],
        [a, f, c],
    ]
    assert pools[-1].towers() == [each.retriever.tower for each in (a, b, c, d, e, f)]
    assert json.loads((pools[3].folder / "pool.json").read_text())["RR@10"] == [0.5, 0.2, 0.4, 0.3]


def test_replacement_never_drops_the_best_assistant(name, monkeypatch):
    draws = np.random.default_rng(0).integers(0, 4, (5, 7)) / 4  # many ties
    for n, values in enumerate([*draws, np.full(5, 0.5), np.arange(5), -np.arange(5)]):
        monkeypatch.setattr(paths, "RUNS", paths.RUNS.parent / f"runs-{n}")
        entrants, pools = pool_of(name, monkeypatch, values.tolist())
        of = dict(zip(entrants, values, strict=True))
        for i, pool in enumerate(pools, start=1):
            kept, best = [of[each] for each in pool.members()], sorted(values[:i])[::-1]
            assert sorted(kept)[::-1] == best[:3]  # the best three so far, so also the best
            if i > 3 and values[i - 1] <= min(kept):  # of equals the entrant leaves
                assert (
                    entrants[i - 1] not in pool.members()
                    or values[i - 1] > sorted(values[: i - 1])[-3]
                )


# --- harder data


def harder(name, **changes):
    chain = Pipeline(scale(name))
    runs = (
        Evaluate(data(name), retriever, "train", 48)
        for retriever in (chain.student, chain.miner, None)
    )
    return Harder(data(name), *runs, **changes)


def test_missed_queries_come_once_more_with_negatives_of_three_retrievers(common):
    stage, found = harder(common, missed=5), groups(collection(common), "train")
    got, student = stage.groups(), stage.student.ranking().rows
    missed = [g for g in found if not set(student[g.query, :5]) & set(g.relevant)]
    assert 0 < len(missed) < len(found)
    assert [(g.query, g.relevant) for g in got] == [(g.query, g.relevant) for g in found + missed]
    runs = [run.ranking().rows.tolist() for run in (stage.student, stage.dense, stage.words)]
    for group in got:
        gain = {
            p: sum(1 / (61 + run[group.query].index(p)) for run in runs)
            for p in range(48)
            if p not in group.relevant
        }
        assert len(group.negatives) == 6
        assert (
            sorted((gain[p] for p in group.negatives), reverse=True)
            == sorted(gain.values(), reverse=True)[:6]
        )


def test_an_iteration_without_a_harder_query_stops(common):
    with pytest.raises(
        ValueError,
        match="the student has a relevant passage among its first 48 for each of the 24 training "
        "queries, so "
        "there is no harder data: stop here, or lower `missed`",
    ):
        harder(common, missed=48).done()
    with pytest.raises(
        ValueError, match="missed is 49: it must be a rank of the student's run, from 1 to 48"
    ):
        harder(common, missed=49)


# --- the chain


TOWERS = tuple(
    Tower(a, encoder, s, dropout=0.0)
    for a, encoder, s in (
        ("DE", "random:3x32", 0.1),
        ("CB", "random:2x32", 0.01),
        ("CE", "random:4x32", 1.0),
    )
)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("layers", [False, True])
@pytest.mark.parametrize("teacher, towers", [("CB", None), ("CE", TOWERS)])
def test_only_the_student_learns_and_the_log_says_from_whom(
    layers, teacher, towers, common, monkeypatch
):
    first = MTA4DPR(
        scale(common, distil=Schedule(4, 1e-3)), teacher=teacher, assistants=towers
    ).chain(layers)[0]
    want = [
        state(stage.model())
        for stage in (first.teacher, *(each.retriever for each in first.method.pool.members()))
    ]
    first.student.done()
    start, loaded, load = state(first.student.model()), [], store.load
    monkeypatch.setattr(store, "load", lambda folder: loaded.append(load(folder)) or loaded[-1])
    graphs, real = [], assisted.distances
    monkeypatch.setattr(
        assisted,
        "distances",
        lambda teacher, assistants, *rest: (
            graphs.append(teacher.requires_grad or assistants.requires_grad)
            or real(teacher, assistants, *rest)
        ),
    )
    first.done()
    student, *frozen = loaded
    assert graphs == [False] * 4  # not even a graph is built through them
    assert (
        len(frozen) == 4
        and not same(state(student), start)
        and same(state(first.model()), state(student))
    )
    for model, before in zip(frozen, want, strict=True):
        assert (
            same(state(model), before)
            and not model.training
            and all(p.grad is None for p in model.parameters())
        )
    names = first.method.assistants()
    members = ["3DE", "2CB", "4CE"] if towers else ["3DE", "2CB", "2DE"]
    assert names[:3] == members and names[3:] == [
        f"{a} + {b}" for a, b in ((members[0], members[1]), (members[0], members[2]), members[1:])
    ] + [" + ".join(members)]
    for row in first.log():
        far = [row[f"d{i}"] for i in range(7)]
        assert far[int(row["chosen"])] == min(far) > 0
        assert (
            row["response"] > 0 < row["assistant"]
            and row["student"] > 0
            and (row["layer"] > 0) == layers
        )
        assert row["total"] == pytest.approx(
            sum(row[part] for part in ("layer", "response", "assistant", "student")), rel=1e-5
        )


def test_without_assistants_it_is_response_based_distillation(common):
    """And with an assistant's weight of 0 it is the same again."""
    made = scale(common)
    alone = MTA4DPR(made).chain(assisted=False)[0]
    weightless = MTA4DPR(made, method=Assisted(assist=0.0)).chain()[0]
    rd = Pipeline(made).distil("RD")
    assert same(state(alone.model()), state(rd.model())) and same(
        state(weightless.model()), state(rd.model())
    )
    assert not same(state(MTA4DPR(made).chain()[0].model()), state(rd.model()))
    assert alone.method.assistants() == [] and "chosen" not in alone.log()[0]


def test_the_nearest_assistant_by_hand(common):
    """Step 0, before anything was learned.

    Recompute from the models what was chosen and what it asked of the student.
    """
    first = MTA4DPR(scale(common)).chain()[0]
    members = [each.retriever for each in first.method.pool.members()]
    batch = {
        stage: first.batches(stage.tower)(0) for stage in (first.student, first.teacher, *members)
    }
    models = {stage: stage.model() for stage in batch}
    with torch.no_grad():
        final = {stage: models[stage](b)[1] for stage, b in batch.items()}
    mixed = [
        torch.stack([final[members[i]].softmax(-1) for i in subset]).mean(0).log()
        for subset in fusions(3)
    ]
    far = [losses.kl(final[first.teacher], each).mean().item() for each in mixed]
    row = first.log()[0]
    assert [row[f"d{i}"] for i in range(7)] == pytest.approx(far, rel=1e-3)
    assert row["assistant"] == pytest.approx(
        losses.kl(mixed[int(np.argmin(far))], final[first.student]).mean().item(), rel=1e-3
    )
    assert row["response"] == pytest.approx(
        losses.kl(final[first.teacher], final[first.student]).mean().item(), rel=1e-3
    )


def test_layer_features_of_the_selected_assistant(common):
    """One layer of one.

    Every model shows its last layer, so the layer terms are the response terms once more.
    """
    made = scale(common)
    stage = MTA4DPR(made).chain(layers=True)[0]
    stage = replace(
        stage, method=replace(stage.method, taught=LEAD(k=1, strategy="last", joint=False))
    )
    for row in stage.log():
        assert row["layer"] == pytest.approx(row["response"] + row["assistant"], rel=1e-5)
    assert stage.log()[0]["response"] == pytest.approx(
        MTA4DPR(made).chain()[0].log()[0]["response"]
    )


@pytest.mark.slow
def test_the_chain_runs_end_to_end_and_shares_its_stages(name, monkeypatch):
    made = scale(name)
    main = Pipeline(made)
    for stage in (main.student, main.teacher, Pipeline(made, teacher="DE").teacher):
        stage.done()
    monkeypatch.setattr(
        WarmUp,
        "run",
        lambda self, *how, run=WarmUp.run: (
            run(self, *how)
            if self.tower.encoder == "random:2x32" and self.tower.architecture == "CB"
            else pytest.fail(f"{self.tower} was warmed up again")
        ),
    )
    monkeypatch.setattr(Mine, "run", lambda self, *how: pytest.fail("negatives were mined again"))
    experiments = MTA4DPR(made).experiments()
    assert list(experiments) == [
        "MTA4DPR without assistants",
        "MTA4DPR iteration 1",
        "MTA4DPR iteration 2",
        "MTA4DPR iteration 3",
        "MTA4DPR + LEAD",
    ]
    records = {title: stage.record() for title, stage in experiments.items()}
    assert all(
        record["split"] == "test" and len(record["per_query"]["RR@10"]) == 6
        for record in records.values()
    )
    assert (
        len(
            {
                (stage.retriever.folder / "retriever" / "model.safetensors").read_bytes()
                for stage in experiments.values()
            }
        )
        == 5
    )
    # 3 iterations with assistants, 3 without, 3 with LEAD; each but the last brings data, and with
    # assistants a pool
    made_kinds = [path.name.rsplit("-", 1)[0] for path in paths.RUNS.iterdir() if path.is_dir()]
    assert {kind: made_kinds.count(kind) for kind in set(made_kinds) - {"evaluate"}} == {
        "warm-up": 5,
        "mine": 1,
        "distil": 9,
        "harder": 6,
        "pool": 3 + 2 + 2,
    }
    last = experiments["MTA4DPR iteration 3"].retriever
    assert [iteration(stage.retriever) for stage in experiments.values()] == [3, 1, 2, 3, 3]
    assert [
        isinstance(last, Distil),
        len(last.method.pool.members()),
        len(last.method.assistants()),
    ] == [
        True,
        3,
        7,
    ]
    # a teacher and, with assistants, three more answer each step of three iterations
    passes = {
        title: stage.cost()["teacher_passes"] / made.distil.steps
        for title, stage in experiments.items()
    }
    assert list(passes.values()) == [3, 4, 8, 12, 12]
    monkeypatch.setattr(Stage, "_run", lambda self, *how: pytest.fail(f"{self.kind} was run again"))
    again = MTA4DPR(scale(name)).experiments()
    assert {title: stage.record() for title, stage in again.items()} == records


def test_the_student_of_an_iteration_is_an_assistant_of_the_next(common, monkeypatch):
    first, second, third = MTA4DPR(scale(common)).chain()
    monkeypatch.setattr(
        Pool,
        "run",
        lambda self, *how: write_json(
            self.folder / "pool.json",
            {
                "members": list(range(len(self.candidates())))
                if self.size >= len(self.candidates())
                else [3, 1, 2]
            },
        ),
    )
    assert (
        second.method.assistants()[:3] == ["student 1", "2CB", "2DE"]
        and third.method.assistants()[6] == "student 2 + 2CB + 2DE"
    )
    assert (
        second.method.pool.members()[0].retriever == first
        and third.negatives.student.retriever == second
    )


def test_every_setting_changes_the_key(name):
    stage = MTA4DPR(scale(name)).chain()[1]
    changed = {
        "taught": LEAD(k=1, joint=False),
        "distance": "rbo",
        "rbo_p": 0.5,
        "hard": 0.5,
        "soft": 0.5,
        "assist": 0.5,
        "pool": None,
    }
    assert list(changed) == [f.name for f in fields(Assisted)]
    methods = [replace(stage.method, **{name: new}) for name, new in changed.items()]
    methods.append(replace(stage.method, pool=stage.method.pool.before))
    methods.append(replace(stage.method, taught=RD(tau_d=2.0)))
    others = [replace(stage, method=method) for method in methods]
    others += [
        replace(stage, **change)
        for change in (
            {"seed": 1},
            {"negatives": replace(stage.negatives, k=1.0)},
            {"negatives": replace(stage.negatives, missed=2)},
        )
    ]
    assert len({stage.key, *(other.key for other in others)}) == 1 + len(others)
    assert stage.key == MTA4DPR(scale(name)).chain()[1].key


# --- bad input, before any work


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"iterations": 0}, "iterations is 0: at least one is needed"),
        (
            {"assistants": TOWERS[:2]},
            "assistants are DE random:3x32, CB random:2x32: at least three are needed, all of "
            "different",
        ),
        (
            {"assistants": (*TOWERS[:2], TOWERS[0])},
            "at least three are needed, all of different architecture or encoder",
        ),
        ({"assistants": ()}, "assistants are none"),
        (
            {"assistants": (*TOWERS[:2], Tower("CB", "random:3x32", 3.84 / 32, dropout=0.0))},
            "the pool has the teacher itself, CB random:3x",
        ),
        (
            {"assistants": TOWERS},
            "the pool has a CE, which scores a query's own passages only: the teacher must be a "
            "CE too, not a CB",
        ),
    ],
)
def test_recipe_that_cannot_be(name, settings, message):
    with pytest.raises(ValueError, match=message):
        MTA4DPR(scale(name), **settings).chain()
    assert not paths.RUNS.exists()


@pytest.mark.parametrize(
    "taught, message",
    [
        (FD(), "method 'FD' has no assistants: use RD, or LEAD"),
        (LEAD(joint=True), "joint is True: with assistants it must be False"),
        *(
            (taught, "variant is 'released': with assistants it must be 'paper'")
            for taught in (RD(variant="released"), LEAD(joint=False, variant="released"))
        ),
        (
            LEAD(joint=False, strategy="weighted"),
            "strategy is 'weighted', which follows one teacher",
        ),
        (
            LEAD(joint=False, layer_weight=0.3),
            "layer_weight is 0.3: with assistants it must be 1",
        ),
        (
            LEAD(joint=False, even_spread=True),
            "even_spread is True: with assistants it must be False",
        ),
    ],
)
def test_method_that_cannot_be(taught, message):
    with pytest.raises(ValueError, match=message):
        Assisted(taught=taught)


def test_layer_features_need_assistants_as_deep_as_the_student(name):
    shallow = (*TOWERS[:2], Tower("DE", "random:1x32"))
    MTA4DPR(scale(name), assistants=shallow).chain()
    with pytest.raises(
        ValueError, match="teacher_layers is 1: it must be at least student_layers, 2"
    ):
        MTA4DPR(scale(name), assistants=shallow).chain(layers=True)
