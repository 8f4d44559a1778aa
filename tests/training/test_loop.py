"""The training loop: whatever interrupts it, the weights end up as if nothing had."""

import json
import os
import signal
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toys import exit_code

from leadkit.config import Schedule
from leadkit.models.retrievers import build
from leadkit.models.tower import Tower
from leadkit.training import checkpoints
from leadkit.training.loop import NotFinite, Operation, OutOfMemory, fit

STEPS = 12


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.2), nn.Tanh(), nn.Linear(16, 1))


def loss_of(net, stop=None, at=None):
    def loss_at(step):
        if step == at:
            stop()
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
        total = (net(x)[:, 0] - x.sum(1)).square().mean()
        return {"total": total, "half": total / 2}

    return loss_at


OFTEN = Operation(checkpoint_seconds=0.0)  # a checkpoint after each step


def run(folder, stop=None, at=None, steps=STEPS, operation=OFTEN, seed=3):
    """Train in `folder`, call `stop` at step `at`; return the weights and the log."""
    net = model()
    log = fit(
        net, loss_of(net, stop, at), Schedule(steps, 1e-2), seed, folder, "toy", operation=operation
    )
    return {name: p.detach().clone() for name, p in net.named_parameters()}, log


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Stopped(Exception):
    pass


def stop():
    raise Stopped


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed"))


# --- the schedule


def test_rates_by_hand():
    schedule = Schedule(10, 1.0, warmup=0.2)  # two steps up, eight down
    assert [schedule.rate(step) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 0.875, 0.75, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert [Schedule(4, 2.0, warmup=0.0).rate(step) for step in range(4)] == pytest.approx(
        [2, 2, 4 / 3, 2 / 3]
    )
    assert Schedule(1, 3.0).rate(0) == 3.0
    assert min(Schedule(100, 1e-4).rate(step) for step in range(100)) > 0


def test_step_uses_the_rate_of_the_schedule_and_clips(tmp_path):
    """AdamW's first step is rate * sign(gradient), whatever the gradient's size."""
    for steps in (1, 4):
        parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
        net = nn.ParameterList([parameter])
        schedule = Schedule(steps, 0.5, warmup=1.0, weight_decay=0.0)
        before = parameter.detach().clone()
        fit(
            net,
            lambda step, net=net: {"total": 1000 * net[0].sum() if step == 0 else 0 * net[0].sum()},
            schedule,
            0,
            tmp_path / str(steps),
            "toy",
        )
        if steps == 1:
            torch.testing.assert_close(parameter.detach(), before - 0.5)
    norms = []
    net = nn.ParameterList([nn.Parameter(torch.ones(4))])
    real = torch.nn.utils.clip_grad_norm_

    def watch(parameters, clip):
        norm = real(parameters := list(parameters), clip)
        norms.append(torch.cat([p.grad for p in parameters]).norm().item())
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", watch)
        fit(
            net,
            lambda step: {"total": 1000 * net[0].sum()},
            Schedule(2, 0.1, clip=2.0),
            0,
            tmp_path / "clip",
            "toy",
        )
        assert norms == pytest.approx([2.0, 2.0], rel=1e-4)
        norms.clear()
        both = nn.ModuleDict(
            {
                name: nn.ParameterList([nn.Parameter(torch.ones(4))])
                for name in ("student", "teacher")
            }
        )
        fit(
            both,
            lambda step: {
                "total": 0.1 * both["student"][0].sum() + 1000 * both["teacher"][0].sum()
            },
            Schedule(1, 0.1, clip=2.0),
            0,
            tmp_path / "both",
            "toy",
        )
    assert norms == pytest.approx([0.2, 2.0], rel=1e-4)  # each on its own


def test_dropout_is_seeded_by_seed_and_step(tmp_path, undisturbed):
    torch.manual_seed(99)
    torch.rand(7)
    assert same(run(tmp_path / "a")[0], undisturbed[0])
    assert not same(run(tmp_path / "b", seed=4)[0], undisturbed[0])


# --- accumulation


def test_a_step_of_several_batches_has_the_mean_of_their_gradients(tmp_path):
    """Three batches a step end as one loss that is their mean, and are logged as that mean."""
    ends = {}
    for accumulate in (1, 3):
        net = model().eval()
        net[1].p = 0.0  # both ways draw the same nothing
        batch = loss_of(net)

        def whole(step, batch=batch):
            parts = [batch(3 * step + i) for i in range(3)]
            return {name: sum(part[name] for part in parts) / 3 for name in parts[0]}

        loss_at = whole if accumulate == 1 else batch
        schedule = Schedule(4, 1e-2, accumulate=accumulate)
        log = fit(net, loss_at, schedule, 0, tmp_path / str(accumulate), "toy")
        ends[accumulate] = torch.cat([p.detach().flatten() for p in net.parameters()]), log
    torch.testing.assert_close(ends[1][0], ends[3][0])
    for one, other in zip(ends[1][1], ends[3][1], strict=True):
        assert one == pytest.approx(other)
    assert [row["step"] for row in ends[3][1]] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="accumulate is 0: a step takes at least one batch"):
        Schedule(1, accumulate=0)


def test_a_training_stopped_between_two_batches_of_a_step_ends_as_undisturbed(tmp_path):
    def train(folder, *stopping):
        net = model()
        schedule = Schedule(5, 1e-2, accumulate=3)
        fit(net, loss_of(net, *stopping), schedule, 3, folder, "toy", operation=OFTEN)
        return dict(net.named_parameters())

    with pytest.raises(Stopped):
        train(tmp_path / "stopped", stop, 7)  # the second batch of the third step
    assert same(train(tmp_path / "stopped"), train(tmp_path / "undisturbed"))


# --- interrupted and resumed


def test_resumed_run_is_bit_identical(tmp_path, undisturbed):
    for stops in ([1], [5], [STEPS - 1], [3, 9]):
        folder = tmp_path / str(stops)
        for at in stops:
            with pytest.raises(Stopped):
                run(folder, stop, at)
            assert json.loads((folder / "checkpoint.json").read_text())["step"] == at
        weights, log = run(folder)
        assert same(weights, undisturbed[0]), stops
        assert log == undisturbed[1] and [row["step"] for row in log] == list(range(STEPS))
        assert len(list(folder.glob("checkpoint-*"))) == 1


def test_without_a_checkpoint_it_starts_again(tmp_path, undisturbed):
    with pytest.raises(Stopped):
        run(tmp_path, stop, 5, operation=Operation(checkpoint_seconds=1e6))
    assert list(tmp_path.iterdir()) == []
    assert same(run(tmp_path)[0], undisturbed[0])


def train_until_killed(folder):
    torch.set_num_threads(1)
    run(folder, lambda: os.kill(os.getpid(), signal.SIGKILL), 7)


@pytest.mark.slow
def test_killed_process_is_continued_bit_identically(tmp_path, undisturbed):
    assert exit_code(train_until_killed, tmp_path) == -signal.SIGKILL
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 7
    weights, log = run(tmp_path)
    assert same(weights, undisturbed[0]) and log == undisturbed[1]


def test_killed_between_weights_and_their_record(tmp_path, undisturbed, monkeypatch):
    """The record still names the checkpoint before, which is still there."""
    real = checkpoints.write_json

    def fails_once_at_six(path, value):
        if value["step"] == 6:
            raise Stopped
        real(path, value)

    monkeypatch.setattr(checkpoints, "write_json", fails_once_at_six)
    with pytest.raises(Stopped):
        run(tmp_path)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    monkeypatch.undo()
    assert same(run(tmp_path)[0], undisturbed[0])
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


def corrupt(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def another_digest(path: Path) -> None:
    path.write_text(path.read_text().replace('"sha256": "', '"sha256": "0'))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def test_damaged_checkpoint_is_never_used(tmp_path, undisturbed, capsys, subtests):
    damages = {
        "checkpoint-*": (corrupt, truncate, empty, Path.unlink),
        "checkpoint.json": (another_digest, truncate, empty, Path.unlink),
    }
    for pattern, damage in ((p, damage) for p, several in damages.items() for damage in several):
        folder = tmp_path / pattern[:11] / damage.__name__
        with subtests.test(pattern, damage=damage.__name__):
            with pytest.raises(Stopped):
                run(folder, stop, 6)
            [path] = folder.glob(pattern)
            damage(path)
            steps, net = [], model()
            loss_at = loss_of(net)

            def watched(step, loss_at=loss_at, steps=steps):
                steps.append(step)
                return loss_at(step)

            fit(net, watched, Schedule(STEPS, 1e-2), 3, folder, "toy")
            assert steps == list(range(STEPS))  # from the start
            assert same(dict(net.named_parameters()), undisturbed[0])
            said = capsys.readouterr().out
            if damage in (corrupt, another_digest):
                assert "is not what was written there" in said


def test_checkpoint_holds_weights_moments_and_nothing_else(tmp_path):
    with pytest.raises(Stopped):
        run(tmp_path, stop, 4)
    [path] = tmp_path.glob("checkpoint-*.safetensors")
    names = [name for name, _ in model().named_parameters()]
    assert set(load_file(path)) == {
        f"{kind}.{name}" for kind in ("model", "exp_avg", "exp_avg_sq", "step") for name in names
    }


def test_moments_are_restored_beside_their_parameter():
    """A fused AdamW on a GPU reads its step there."""
    parameter = torch.nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.AdamW([parameter])
    saved = {f"{moment}.w": torch.ones(2) for moment in checkpoints.MOMENTS}
    checkpoints._restore(optimizer, "w", parameter, saved)
    state = optimizer.state[parameter]
    assert {moment: tensor.device.type for moment, tensor in state.items()} == dict.fromkeys(
        checkpoints.MOMENTS, "meta"
    )


def test_frozen_parameters_stay(tmp_path):
    net = model()
    net[0].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    fit(net, loss_of(net), Schedule(3, 1e-2), 0, tmp_path, "toy")
    moved = {name for name, p in net.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"3.weight", "3.bias"}


# --- what is not finite


def test_loss_that_is_not_finite_stops_with_step_and_batch(tmp_path, subtests):
    for part, value in product(("total", "other"), (float("nan"), float("inf"))):
        net, folder = model(), tmp_path / f"{part}-{value}"
        loss_at = loss_of(net)

        def breaks(step, loss_at=loss_at, part=part, value=value):
            parts = loss_at(step) | {"other": torch.tensor(1.0)}
            return parts | {part: parts[part] * (value if step == 5 else 1)}

        says = (
            rf"toy: .* not finite at step 5 .*{part}.*batch q5, q6; the last checkpoint in .* is "
            "kept"
        )
        with subtests.test(part, value=value):
            arguments = (
                Schedule(STEPS, 1e-2),
                3,
                folder,
                "toy",
                lambda step: f"q{step}, q{step + 1}",
            )
            with pytest.raises(NotFinite, match=says):
                fit(net, breaks, *arguments, OFTEN)
            assert json.loads((folder / "checkpoint.json").read_text())["step"] == 5
            [kept] = folder.glob("checkpoint-*.safetensors")
            assert all(tensor.isfinite().all() for tensor in load_file(kept).values())


def test_gradient_that_is_not_finite_never_reaches_a_checkpoint(tmp_path, undisturbed):
    """A finite loss with a NaN gradient: d sqrt(x^2) / dx at 0."""
    net = model()
    loss_at = loss_of(net)

    def breaks(step):
        parts = loss_at(step)
        if step == 5:
            parts["total"] = parts["total"] + (0 * net[0].weight).square().sum().sqrt()
        return parts

    with pytest.raises(NotFinite, match="gradient is not finite at step 5"):
        fit(net, breaks, Schedule(STEPS, 1e-2), 3, tmp_path, "toy", operation=OFTEN)
    assert same(run(tmp_path)[0], undisturbed[0])  # mended, it goes on from step 5


def test_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch, undisturbed):
    real = checkpoints.write_tensors

    def full_at_six(path, tensors):
        if "-6." in path.name:
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoints, "write_tensors", full_at_six)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "checkpoint-5.safetensors",
        "checkpoint.json",
    ]
    monkeypatch.undo()
    assert same(run(tmp_path)[0], undisturbed[0])


def test_a_step_that_does_not_fit_says_what_would(tmp_path, subtests):
    for asked, room, says in [
        (None, 40, "with --at-once 32 it does"),
        (16, 8, "with --at-once 8 it does"),
        (4, 0, "nor does one text at a time"),
    ]:
        with subtests.test(says):
            net, tried = build(Tower("DE", "random:1x8")), []

            def loss_at(step, net=net, tried=tried, room=room):
                tried.append(net.at_once)
                if net.at_once is None or net.at_once > room:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                return {"total": sum(parameter.sum() for parameter in net.parameters())}

            before = [parameter.clone() for parameter in net.parameters()]
            with pytest.raises(
                OutOfMemory, match=f"^toy: step 0 does not fit into the memory of cpu; {says}"
            ):
                fit(net, loss_at, Schedule(STEPS), 0, tmp_path, "toy", operation=Operation(asked))
            assert net.at_once == asked == tried[0] and tried[1:] == sorted(tried[1:], reverse=True)
            assert all(map(torch.equal, before, net.parameters())), "nothing was trained"
