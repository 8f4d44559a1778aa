"""Two and four processes (gloo) are one process with the whole batch.

Losses, gradients, negatives and rankings.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import toy

from leadkit import paths, processes

HERE = Path(__file__)
ARCHITECTURES = ("DE", "CB", "CE")


def ordered(run) -> list[list[int]]:
    """The rows of a run, equals by their number: nothing says in which order faiss has them."""
    return np.take_along_axis(run.rows, np.lexsort((run.rows, -run.scores)), 1).tolist()


def work(folder: Path) -> None:
    """What each process does: every stage of the pipeline, for every teacher.

    Written down: what came out of each.
    """
    from toys import scale

    from leadkit.config import Lead, Schedule
    from leadkit.experiments import pipeline
    from leadkit.experiments.distillation import Mine
    from leadkit.experiments.methods import METHODS
    from leadkit.experiments.pipeline import Pipeline
    from leadkit.files import write_json, write_tensors
    from leadkit.retrieval import dense

    pipeline.DROPOUT = 0.0  # each process drops others
    # All in float64: what float32 rounds off differs from processor to processor.
    place = torch.nn.Module.to
    torch.nn.Module.to = lambda model, *where, **how: place(model, *where, **how).double()
    torch.Tensor.float = torch.Tensor.double
    paths.RUNS, dense.TOKENS_PER_BATCH = (
        folder / "runs",
        64,
    )  # several batches of passages, so that each process has some
    found, gradients, clip = (
        {"given": [], "logs": {}, "runs": {}},
        {},
        torch.nn.utils.clip_grad_norm_,
    )

    def watched(parameters, largest: float) -> torch.Tensor:
        parameters = list(parameters)
        for parameter in parameters:
            if parameter.grad is not None:
                gradients[f"{label} {len(gradients)}"] = parameter.grad.clone()
        return clip(parameters, largest)

    # One step, since AdamW turns a last digit of a small gradient into a step of full length; all
    # passages: no cut among equals.
    tiny = scale(
        f"beir:{folder.parent / 'toy'}",
        depth=48,
        rerank=48,
        teacher=Schedule(1, 1e-3),
        distil=Schedule(1, 1e-3),
    )
    for teacher in ARCHITECTURES:
        chain, other = (Pipeline(tiny, seed, teacher) for seed in (0, 1))
        found["given"] += [
            stage.done().name
            for stage in (chain.miner, chain.negatives, chain.teacher, chain.student)
        ]
        methods = [name for name in METHODS if (name, teacher) != ("RD + states", "CE")]
        trained = {f"{teacher} {method}": chain.distil(method) for method in methods}
        trained[f"{teacher} warm-up"] = other.teacher
        released = Pipeline(replace(tiny, lead=Lead(k=2, variant="released")), 0, teacher)
        found["given"] += [
            stage.done().name
            for stage in (released.miner, released.negatives, released.teacher, released.student)
        ]
        trained |= {f"{teacher} {m}, released": released.distil(m) for m in ("FD", "LEAD")}
        torch.nn.utils.clip_grad_norm_ = watched
        for label, stage in trained.items():
            found["logs"][label] = stage.log()
        torch.nn.utils.clip_grad_norm_ = clip
        found["runs"][teacher] = ordered(chain.rows("test")["teacher"].ranking())
    mined = Mine(
        replace(tiny.data, negatives=48), chain.miner
    )  # not given: mined by these processes
    found["negatives"] = [sorted(group.negatives) for group in mined.groups()]
    found["runs"]["12DE"] = ordered(chain.evaluate(chain.miner, "test").ranking())
    write_json(folder / "found.json", found)
    write_tensors(folder / "gradients.safetensors", gradients)
    processes.wait()


def run(folder: Path, count: int) -> dict:
    """The findings of `count` processes."""
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={count}",
        str(HERE),
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent.parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def stage_of(gradient: str) -> str:
    """The label of "DE FD 76"."""
    return gradient.rpartition(" ")[0]


def near(label: str) -> float:
    """How far a stage's numbers may be apart. A released CE weighs layers in each process alone."""
    return 1e-5 if label == "CE LEAD, released" else 1e-9


@pytest.mark.slow
def test_processes_together_do_what_one_does(tmp_path):
    toy(tmp_path / "toy")
    alone = run(tmp_path / "1", 1)
    expected = load_file(tmp_path / "1" / "gradients.safetensors")
    assert len(expected) > 100
    largest = {stage_of(name): 0.0 for name in expected}
    for name, gradient in expected.items():
        largest[stage_of(name)] = max(largest[stage_of(name)], gradient.abs().max().item())
    assert min(largest.values()) > 0
    for count in (2, 4):
        for name in set(alone["given"]):  # so that each stage starts from the same
            shutil.copytree(tmp_path / "1" / "runs" / name, tmp_path / f"{count}" / "runs" / name)
        together = run(tmp_path / f"{count}", count)
        assert together["negatives"] == alone["negatives"] and together["runs"] == alone["runs"]
        gradients = load_file(tmp_path / f"{count}" / "gradients.safetensors")
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            difference = (gradient - expected[name]).abs().max()
            assert difference <= near(stage_of(name)) * largest[stage_of(name)], (count, name)
        for label, log in alone["logs"].items():
            for step, own in zip(log, together["logs"][label], strict=True):
                assert own == pytest.approx(step, rel=near(label), abs=near(label)), label


def test_processes_must_be_asked_for_the_same(monkeypatch):
    for name, answer in {"count": 2, "number": 1, "broadcast_object_list": ["another"]}.items():
        monkeypatch.setattr(processes, name, lambda *_, answer=answer: answer)
    with pytest.raises(
        ValueError,
        match="^process 1 has stage distil 'this', the main process 'another': start all",
    ):
        processes.agree("this", "stage distil")
    assert processes.share(6, "batch") == slice(3, 6)
    with pytest.raises(
        ValueError, match="^batch 5 cannot be shared by 2 processes: use a multiple of 2"
    ):
        processes.share(5, "batch")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
