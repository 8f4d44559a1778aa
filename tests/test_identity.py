"""Identity is not operation: what decides a result names it; how it is run does not."""

from dataclasses import dataclass, replace

import pytest
from toys import data, save_each_step, scale

from leadkit import paths
from leadkit.experiments import identity
from leadkit.experiments.pipeline import Pipeline
from leadkit.experiments.store import Stage, first_edition, tell_first_edition
from leadkit.files import write_json
from leadkit.training.loop import Operation


@dataclass(frozen=True)
class Settings:
    steps: int = 3


@dataclass(frozen=True)
class LaterSettings:
    steps: int = 3
    momentum: float = identity.added(0.9)


@dataclass(frozen=True)
class Train(Stage):
    kind = "train"
    settings: Settings | LaterSettings = Settings()


@dataclass(frozen=True)
class LaterTrain(Stage):
    kind = "train"
    settings: Settings | LaterSettings = Settings()
    seed: int = identity.added(0)


def test_a_setting_that_is_added_later_leaves_old_keys_and_descriptions(name):
    before = Train(data(name))
    after = LaterTrain(data(name), LaterSettings())
    assert (after.key, after.describe()) == (before.key, before.describe())
    for changed in (replace(after, seed=1), replace(after, settings=LaterSettings(momentum=0.5))):
        assert changed.key != before.key and changed.describe() != before.describe()
    assert replace(after, seed=1).describe()["seed"] == 1


def test_a_setting_without_a_declared_default_is_always_told(name):
    """A default that changes must not give an old key another meaning."""
    assert Train(data(name)).describe()["settings"] == {"steps": 3}
    assert Train(data(name)).key != Train(data(name), Settings(4)).key


def test_equal_data_are_described_once(name):
    inner = Pipeline(scale(name)).distil("LEAD").describe()
    assert inner["data"]["collection"] == name
    assert "data" not in inner["student"] and "data" not in inner["student"]["negatives"]
    other = replace(Pipeline(scale(name)).negatives, data=data(name, batch=8))
    assert other.describe()["retriever"]["data"]["batch"] == 4


def test_how_a_stage_is_run_changes_neither_key_nor_record_nor_weights(name, monkeypatch):
    def weights(stage):
        return (stage.folder / "retriever" / "model.safetensors").read_bytes()

    stage = Pipeline(scale(name)).student
    stage.done()
    key, described, plain = stage.key, stage.describe(), weights(stage)
    monkeypatch.setattr(paths, "RUNS", paths.RUNS.parent / "again")
    again = Pipeline(scale(name)).student
    again.done(Operation(checkpoint_seconds=0.0))
    assert (again.key, again.describe(), weights(again)) == (key, described, plain)
    assert "checkpoint" not in str(described) and "at_once" not in str(described)


def test_texts_at_once_reach_the_model(name, monkeypatch):
    seen = []
    stage = Pipeline(scale(name)).miner
    monkeypatch.setattr(
        "leadkit.experiments.distillation.fit",
        lambda *given: seen.append(given[-1]) or pytest.fail("stop"),
    )
    with pytest.raises(pytest.fail.Exception):
        stage.done(Operation(at_once=2))
    assert seen == [Operation(at_once=2)]


def test_an_interrupted_training_of_another_interval_goes_on(name, monkeypatch):
    save_each_step(monkeypatch)
    calls = []
    stage = Pipeline(scale(name)).miner
    loss = "leadkit.experiments.distillation.losses.student_loss"
    from leadkit.losses import student_loss

    def stops(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return student_loss(*given)

    monkeypatch.setattr(loss, stops)
    with pytest.raises(KeyboardInterrupt):
        stage.done()
    stage.done(Operation(checkpoint_seconds=1e9))
    assert len(calls) == 3 + 1  # the third step again, and no other


def test_stages_of_the_first_edition_are_recognised_and_kept(name, capsys):
    stage = Pipeline(scale(name)).miner
    stage.done()
    old = paths.RUNS / "warm-up-0123456789ab"
    write_json(old / "stage.json", {"stage": {"kind": "warm-up"}, "seconds": 1, "files": {}})
    (paths.RUNS / "warm-up-damaged").mkdir()
    (paths.RUNS / "warm-up-damaged" / "stage.json").write_text("{")
    assert first_edition() == [old]
    tell_first_edition()
    assert "1 stages of the first edition, warm-up-0123456789ab" in capsys.readouterr().err
    assert (old / "stage.json").exists()
