"""Nothing is lost: whatever is killed, stopped, full or done twice, the same files come of it.

Work is done in processes of its own, in a folder of its own. Moments are drawn from the time that
the work takes undisturbed. LEADKIT_KILLS=20 python -m pytest -q -rP tests/test_faults.py tries 20
moments of each kind instead of one, and prints how many hit.
"""

import copy
import ctypes
import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tqdm.std
from toys import PROCESSES, Count, data, encoder, isolate, save_each_step, scale, toy

from leadkit import config, paths
from leadkit.config import Schedule
from leadkit.data import tokens
from leadkit.experiments import sweep, workers
from leadkit.experiments.pipeline import Pipeline
from leadkit.files import digest, write_json
from leadkit.models.tokenizers import load_tokenizer
from leadkit.results import records
from leadkit.training import loop, pretraining
from leadkit.training.loop import Operation

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("LEADKIT_KILLS", 1))


# --- the work


def toy_scale(name):
    often = Schedule(12, 1e-3)
    return scale(name, warm_up=often, teacher=often, student=often, distil=often, dropout=0.1)


def chain(name):
    return Pipeline(toy_scale(name))


def growing(name, folder):
    small = pretraining.Pretraining(
        "distilled",
        name,
        teacher=f"{name.removeprefix('beir:')}-teacher",
        vocabulary=300,
        hidden=64,
        layers=(3, 6),
        steps=(8, 6),
        batch=4,
        paired=2,
        others=1,
        long=24,
        learning_rate=(1e-3, 1e-3),
    )
    pretraining.pretrain(small, folder / "models", Operation(checkpoint_seconds=0.0))


def sweeping(name, folder):
    def experiments(scale, seed, split):
        made = Pipeline(scale, seed)
        return {
            "teacher": made.evaluate(made.teacher, split),
            "student": made.evaluate(made.student, split),
        }

    workers.PROCESSES = multiprocessing.get_context("fork")
    sweep.SOURCES = (
        SimpleNamespace(TABLES={"1": ("teacher", "student")}, experiments=experiments),
    )
    finished, whole = sweep.sweep("table 1", sweep.plan(("1",), toy_scale(name), 1), 2)
    records.save(finished, folder / "results")
    sys.exit(not whole)


CELL = """import time
for _ in range(10):
    time.sleep(0.1)
SCALE, SEED"""


def executing(name, folder):
    import nbformat  # takes a second: not in every process

    from leadkit.lessons import reproduce

    kernel, cell = (
        {"name": "python3", "display_name": "Python 3", "language": "python"},
        nbformat.v4.new_code_cell,
    )
    made = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    made.cells = [
        cell("SCALE = ''\nSEED = 0", metadata={"tags": ["parameters"]}, id="a"),
        cell(CELL, id="b"),
    ]
    nbformat.write(made, folder / "01_toy.ipynb")
    paths.NOTEBOOKS, reproduce.Lesson.inputs = folder, lambda self: []
    reproduce.lessons(toy_scale(name), 0)[0].done()


def commanding(name, folder):
    config.SCALES["toy"] = replace(toy_scale(name), distil=Schedule(3, 1e-3))
    sys.argv = ["leadkit", "table", "--scale", "toy", "--out", str(folder / "results")]
    runpy.run_module("leadkit", run_name="__main__")


def stages(name):
    """The stages of the chain by their names."""
    made = chain(name)
    evaluation = made.evaluate(made.teacher, "test")
    return vars(made) | {"LEAD": made.distil("LEAD"), "evaluation": evaluation}


def _finish(wanted, name, folder):
    stages(name)[wanted].done()


# kind -> the stages that must be there before, what is done
WORK = {
    "pre-training": ((), growing),
    "mining": (("miner",), partial(_finish, "negatives")),
    "distillation": (("teacher", "student"), partial(_finish, "LEAD")),
    "evaluation": (("teacher", "student"), partial(_finish, "evaluation")),
    "sweep": ((), sweeping),
    "papermill": ((), executing),
    "command": (("teacher", "student"), commanding),
}


# --- processes


def begin(folder):
    """What a process does first: its files go to `folder`."""
    torch.set_num_threads(1)
    isolate(pytest.MonkeyPatch(), Path(folder))
    save_each_step(pytest.MonkeyPatch())


def _process(ready, work, name, folder, said):
    os.setsid()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job, and all that it starts, ignores it
    sys.stdout = sys.stderr = Path(said).open("a", buffering=1)  # noqa: SIM115
    begin(folder)
    ready.set()
    work(name, folder)


def start(work: Callable, name: str, folder: Path):
    """Start work(name, folder) in a process that writes what it says to `folder`.txt.

    Return it when it has loaded everything.
    """
    ready = PROCESSES.Event()
    process = PROCESSES.Process(target=_process, args=(ready, work, name, folder, f"{folder}.txt"))
    process.start()
    assert ready.wait(120)
    return process


def run(work: Callable, name: str, folder: Path) -> int:
    """Do the work to its end; return the exit code."""
    process = start(work, name, folder)
    process.join()
    return process.exitcode


def said(folder: Path) -> list[str]:
    """The lines that the last process said but for progress bars, which are forgotten then."""
    path = Path(f"{folder}.txt")
    lines = [
        line
        for line in path.read_text().replace("\r", "\n").splitlines()
        if line.strip("\x1b[A ") and "%|" not in line
    ]
    path.write_text("")
    return lines


MACHINE = {
    "seconds",
    "training_seconds",
    "peak_memory_mib",
    "papermill",
    "execution",
    "widgets",
    "id",
}  # differs from run to run


def plain(value):
    """A JSON value without progress bars and what only the machine decides.

    Of a stage's files the names, not the digests.
    """
    if isinstance(value, dict):
        names = {k: sorted(v) for k, v in value.items() if k == "files" and isinstance(v, dict)}
        return {k: plain(v) for k, v in value.items() if k not in MACHINE} | names
    if isinstance(value, list):
        return [
            plain(v)
            for v in value
            if not (isinstance(v, dict) and v.get("output_type") in ("stream", "display_data"))
        ]
    return value


def results(folder: Path) -> dict[str, object]:
    """Path -> content of whatever file or folder there is, but for locks and logs."""

    def content(path):
        if path.is_dir():
            return "folder"
        if path.suffix in (".json", ".ipynb"):
            return plain(json.loads(path.read_text()))
        if path.suffix == ".jsonl" and path.parent.name == "results":
            return [plain(json.loads(line)) for line in path.read_text().splitlines()]
        if path.suffix == ".npz":  # a zip file has the time of its writing
            with np.load(path) as arrays:
                return {key: values.tolist() for key, values in arrays.items()}
        return path.read_bytes()

    return {
        str(path.relative_to(folder)): content(path)
        for path in folder.rglob("*")
        if path.suffix != ".lock" and "sweep-logs" not in path.parts
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """kind -> (collection, folder before the work, seconds of the work, results)."""
    base, known = tmp_path_factory.mktemp("faults"), {}
    name = toy(base / "toy")
    encoder(base / "toy-teacher", "bert", layers=1, hidden=64, positions=256)

    def prepared(wanted):
        folder = base / "-".join(["before", *wanted])
        if not folder.exists():
            folder.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                isolate(patch, folder)
                save_each_step(patch)
                for stage in wanted:
                    stages(name)[stage].done()
        return folder

    def of(kind):
        if kind not in known:
            before, work = prepared(WORK[kind][0]), WORK[kind][1]
            folder = shutil.copytree(before, base / f"{kind}-done")
            process, began = start(work, name, folder), time.monotonic()
            process.join()
            assert process.exitcode == 0, said(folder)
            known[kind] = name, before, time.monotonic() - began, results(folder)
            shutil.rmtree(folder)
        return known[kind]

    return of


# --- killed


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in WORK if kind not in ("command", "evaluation")])
def test_killed_at_any_moment_the_work_ends_with_the_same_files(kind, undisturbed, tmp_path):
    name, before, seconds, want = undisturbed(kind)
    work, draw, hits = WORK[kind][1], random.Random(kind), []
    for number in range(KILLS):
        folder = shutil.copytree(before, tmp_path / str(number))
        for _ in range(1 + number % 2):  # every second time also while it goes on
            process = start(work, name, folder)
            process.join(draw.uniform(0, 0.95 * seconds))
            kill = draw.choice((os.kill, os.killpg))  # alone, or with the processes that it started
            with suppress(ProcessLookupError):  # it has ended
                kill(process.pid, signal.SIGKILL)
            process.join()
            hits.append(process.exitcode == -signal.SIGKILL)
        assert run(work, name, folder) == 0, said(folder)
        assert results(folder) == want
        shutil.rmtree(folder)
    print(f"{kind}: {seconds:.1f} s undisturbed; {sum(hits)} of {len(hits)} kills in time")


# --- stopped


STOPPED = (
    "leadkit: stopped: run the same command again; trainings and sweeps go on from their last "
    "checkpoint"
)


@pytest.mark.slow
def test_command_that_is_stopped_says_so_and_goes_on(undisturbed, tmp_path):
    """By SIGTERM, then by ctrl-C, then not at all."""
    (name, before, seconds, want), draw, hits = undisturbed("command"), random.Random(0), 0
    for trial in range(KILLS):
        folder = shutil.copytree(before, tmp_path / str(trial))
        for number in (signal.SIGTERM, signal.SIGINT):
            process, began = start(commanding, name, folder), time.monotonic()
            while process.exitcode is None and not any((folder / "runs").glob("evaluate-*.lock")):
                time.sleep(0.02)  # until the first stage
            process.join(max(0.0, began + draw.uniform(0, 0.8 * seconds) - time.monotonic()))
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
            process.join()
            if process.exitcode:
                assert (process.exitcode, said(folder)) == (128 + number, [STOPPED])
                assert [path for path in folder.rglob(".*") if path.suffix != ".lock"] == []
                hits += 1
        assert run(commanding, name, folder) == 0, said(folder)
        assert results(folder) == want
        shutil.rmtree(folder)
    print(f"command: {hits} of {2 * KILLS} times stopped before the end")


def interrupting(kind, delay, name, folder):
    """In a kernel: a cell that ctrl-C stops after so many seconds, then the same cell again."""
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        WORK[kind][1](name, folder)
        timer.cancel()
        timer.join()
        return
    except KeyboardInterrupt as stop:
        print("interrupted:", *stop.args)
    WORK[kind][1](name, folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pre-training", "distillation"])
def test_cell_that_ctrl_c_stops_goes_on_in_the_same_kernel(kind, undisturbed, tmp_path):
    (name, before, seconds, want), draw, hits = undisturbed(kind), random.Random(kind), 0
    for trial in range(KILLS):
        folder = shutil.copytree(before, tmp_path / str(trial))
        assert (
            run(partial(interrupting, kind, draw.uniform(0, 0.95 * seconds)), name, folder) == 0
        ), said(folder)
        assert results(folder) == want
        hits += any(line.startswith("interrupted:") for line in said(folder))
        shutil.rmtree(folder)
    print(f"{kind}: {hits} of {KILLS} times interrupted before the end")


def test_interrupted_stage_says_how_it_goes_on(name, monkeypatch, request):
    save_each_step(monkeypatch)
    stage, seed_step = chain(name).miner, loop.seed_step

    def ctrl_c_at_five(seed, step):
        seed_step(seed, step)
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "seed_step", ctrl_c_at_five)
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(
        KeyboardInterrupt,
        match="warm-up-.* is not finished: ask for it again and it goes on, a training",
    ):
        stage.done()
    assert sorted(path.name for path in stage.folder.iterdir()) == [
        "checkpoint-5.safetensors",
        "checkpoint.json",
    ]
    steps = []
    monkeypatch.setattr(
        loop, "seed_step", lambda seed, step: steps.append(step) or seed_step(seed, step)
    )
    assert stage.done().is_dir() and stage.finished() and steps == list(range(5, 12))


# --- twice at once


class Slow(Count):
    """Goes on when another process has said that it waits, or a minute after."""

    def run(self, operation) -> None:
        until = time.monotonic() + 60
        while (
            "waiting" not in Path(f"{paths.RUNS.parent}.txt").read_text()
            and time.monotonic() < until
        ):
            time.sleep(0.1)
        super().run(operation)


def slow(name, folder):
    Slow(data(name)).done()


@pytest.mark.slow
def test_second_process_says_what_it_waits_for(name, tmp_path):
    both = [start(slow, name, tmp_path / "two") for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    isolate(pytest.MonkeyPatch(), tmp_path / "two")
    stage = Slow(data(name))
    assert said(tmp_path / "two") == [
        f"{stage.folder} is being made by another process or notebook: waiting for it"
    ]
    assert stage.finished() and (paths.RUNS / "runs.txt").read_text() == "1\n"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pre-training", "distillation"])
def test_two_processes_end_with_the_files_of_one(kind, undisturbed, tmp_path):
    name, before, _, want = undisturbed(kind)
    folder = shutil.copytree(before, tmp_path / "both")
    both = [start(WORK[kind][1], name, folder) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0], said(folder)
    assert results(folder) == want


# --- a disk that is full or read-only

REMOUNT, READ_ONLY = 32, 1


def mount(folder: Path, flags: int, options: str) -> None:
    """Mount a disk in memory, which this process alone sees, or change it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(folder), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_disk(before: Path, disk: Path) -> None:
    """In a new name space: a disk with what stood before.

    Exit code 77 where this machine lets nobody do so.
    """
    try:
        uid, gid = os.getuid(), os.getgid()
        if ctypes.CDLL(None).unshare(0x10020000):  # CLONE_NEWUSER, CLONE_NEWNS
            raise OSError("no name space of its own")
        for file, line in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {uid} 1"),
            ("gid_map", f"0 {gid} 1"),
        ):
            Path("/proc/self", file).write_text(line)
        disk.mkdir(parents=True)
        mount(disk, 0, "size=200m")
    except OSError as error:
        print(error)
        sys.exit(77)
    begin(disk)
    shutil.copytree(before, disk, dirs_exist_ok=True)


def failing(kind, before, room, name, folder):
    """Work on a disk with so many bytes of room, or on a read-only one (None).

    Then on one that is neither.
    """
    disk = folder / "disk"
    own_disk(before, disk)
    if room is None:
        mount(disk, REMOUNT | READ_ONLY, "")
    else:
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_frsize - room))
    try:
        WORK[kind][1](name, disk)
    except OSError as error:
        print(error)
        assert [
            path for path in disk.rglob(".*") if path.suffix != ".lock" and not path.is_dir()
        ] == []
    if room is None and kind == "evaluation":  # what is finished can be read
        assert chain(name).teacher.model().layers == 3
    if room is None:
        mount(disk, REMOUNT, "")
    else:
        (disk / "filler").unlink()
    WORK[kind][1](name, disk)
    shutil.copytree(disk, folder / "after")


def fails(kind, undisturbed, folder, room):
    """Run `failing`; return what was said where the disk failed."""
    name, before, _, want = undisturbed(kind)
    code = run(partial(failing, kind, before, room), name, folder)
    lines = said(folder)
    if code == 77:
        pytest.skip(f"this machine lets nobody mount a disk: {lines[-1]}")
    assert code == 0, lines
    assert results(folder / "after") == want
    shutil.rmtree(folder)
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pre-training", "distillation"])
def test_full_disk_is_told_in_a_sentence_and_the_work_goes_on(kind, undisturbed, tmp_path):
    _, before, _, want = undisturbed(kind)
    needed, draw, hits = (
        sum(len(str(want[path])) for path in want.keys() - results(before).keys()),
        random.Random(kind),
        0,
    )
    for trial in range(KILLS):
        lines = fails(kind, undisturbed, tmp_path / str(trial), int(draw.uniform(0, needed)))
        for line in lines:
            assert re.fullmatch(
                r"/\S+/disk/\S+ could not be written \(No space left on device\) and is left as "
                r"it was: "
                "free some space there, then ask for the same again",
                line,
            ), lines
        hits += bool(lines)
    assert hits
    print(f"{kind}: {hits} of {KILLS} times too little room")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pre-training", "evaluation"])
def test_read_only_folder_is_told_in_a_sentence(kind, undisturbed, tmp_path):
    (line,) = fails(kind, undisturbed, tmp_path / "here", None)
    assert re.fullmatch(
        r"/\S+/disk/\S+ could not be written \(Read-only file system\) and is left as it was: "
        "make its folder writable, then ask for the same again",
        line,
    )


def test_folder_that_is_a_file(name, tmp_path):
    paths.RUNS.write_text("")
    with pytest.raises(OSError, match=r"/runs/count-\w+.lock could not be written \(File exists\)"):
        Count(data(name)).done()
    paths.RUNS.unlink()
    Count(data(name)).done()


# --- a clock that goes back


@pytest.mark.slow
def test_clock_that_goes_back(undisturbed, tmp_path, monkeypatch):
    name, before, _, want = undisturbed("distillation")
    isolate(monkeypatch, shutil.copytree(before, tmp_path / "here"))
    minutes = count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 60 * next(minutes))
    monkeypatch.setattr(tqdm.std, "time", time.time)
    stage = stages(name)["LEAD"]
    assert 0 <= stage.seconds() < 600 and next(minutes) > 10
    assert results(tmp_path / "here") == want


# --- what an older version left


def test_seal_without_a_field_is_of_a_stage_that_is_run_anew(name, capsys, subtests):
    for field in ["stage", "seconds", "files"]:
        with subtests.test(field):
            stage = Count(data(name))
            path = stage.done() / "stage.json"
            seal = json.loads(path.read_text())
            write_json(path, {key: value for key, value in seal.items() if key != field})
            assert not stage.finished() and stage.seconds() >= 0
            assert (
                json.loads(path.read_text()).keys() == seal.keys()
                and "is run anew" in capsys.readouterr().out
            )


def test_checkpoint_of_another_model_is_not_used(tmp_path, capsys):
    steps = []

    def train(net, folder):
        def loss(step):
            steps.append(step)
            return {"total": net(torch.ones(1, next(net.parameters()).shape[1])).square().sum()}

        often = Operation(checkpoint_seconds=0.0)
        loop.fit(net, loss, Schedule(3, 0.1), 0, folder, "toy", operation=often)

    new = torch.nn.Linear(2, 2)
    shape, names = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(2, 2))
    want = copy.deepcopy(new)
    train(want, tmp_path / "want")
    for older, folder in ((shape, tmp_path / "shape"), (names, tmp_path / "names")):
        train(older, folder)
        steps.clear()
        net = copy.deepcopy(new)
        train(net, folder)
        assert steps == [0, 1, 2] and torch.equal(net.weight, want.weight), folder.name
        assert "is not what was written there" in capsys.readouterr().out, folder.name


def test_token_file_of_another_layout_is_not_read(tmp_path, monkeypatch):
    texts, tokenizer = {"a": "one list", "b": "two sorted lists"}, load_tokenizer("random:1x32")
    monkeypatch.setattr(tokens, "LAYOUT", tokens.LAYOUT - 1)
    tokens.tokenise(texts, tokenizer, 16, tmp_path)
    (path,) = (tmp_path / "tokens").glob("*.tokens")
    path.write_bytes(np.arange(40, dtype=np.int32).tobytes())
    path.with_suffix(".sha256").write_text(digest(path))
    monkeypatch.undo()
    assert (
        tokens.tokenise(texts, tokenizer, 16, tmp_path).row(1).tolist()
        == tokenizer("two sorted lists")["input_ids"]
    )
    path.with_suffix(".sha256").write_bytes(b"\xff")  # nor where its digest is damaged
    monkeypatch.setattr(tokens, "LAYOUT", tokens.LAYOUT - 1)
    assert (
        tokens.tokenise(texts, tokenizer, 16, tmp_path).row(1).tolist()
        == tokenizer("two sorted lists")["input_ids"]
    )
