"""Stages.

Computed once, identified by everything that they depend on, whole or not there at all.
"""

import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Count, data, exit_code, isolate, save_each_step, scale, toy

from leadkit import hardware, paths
from leadkit.config import Lead, Schedule
from leadkit.experiments import distillation, methods, paper_methods, store, texts
from leadkit.experiments.distillation import Distil, Mine, WarmUp
from leadkit.experiments.evaluation import Evaluate
from leadkit.experiments.paper_methods import LEAD, RD, Alone
from leadkit.experiments.pipeline import Pipeline
from leadkit.files import digest, read_tensors, write, write_json, write_tensors
from leadkit.models import names, retrievers, tokenizers
from leadkit.models.tower import Tower
from leadkit.training import checkpoints, loop

ROOT = Path(__file__).parent.parent


def runs() -> list[str]:
    return (paths.RUNS / "runs.txt").read_text().split()


# --- identity

OTHER = {
    "DE": "CB",
    "CB": "DE",
    "random:2x32": "random:3x32",
    "random:3x32": "random:4x32",
    "random": "last",
    "paper": "released",
    "RD": "LEAD",
    "test": "dev",
    "cls": "mean",
    "": "normalize",
}


def variants(value, path="", met=None):
    """(path, value with one field changed) of a dataclass, and of the dataclasses in its fields.

    Of a dataclass at another place only one field is changed once more; None stays.
    """
    met = set() if met is None else met
    values = {f.name: getattr(value, f.name) for f in fields(value)}
    nested = {name: old for name, old in values.items() if is_dataclass(old)}
    plain = [name for name, old in values.items() if name not in nested and old is not None]
    for name in plain:
        if name == plain[0] or (type(value), name) not in met:
            met.add((type(value), name))
            old = values[name]
            if isinstance(old, str):
                other = OTHER[old]
            elif isinstance(old, float):
                other = old / 2 if old else 0.5  # still a share where it was one
            else:
                other = not old if isinstance(old, bool) else old + 1
            yield f"{path}.{name}", replace(value, **{name: other})
    for name, old in nested.items():
        for where, other in variants(old, f"{path}.{name}", met):
            yield where, replace(value, **{name: other})


@pytest.mark.slow
def test_same_config_same_key_and_every_changed_field_another(name, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "check", lambda encoder: None)
    monkeypatch.setattr(distillation, "check_lengths", lambda *_: None)
    monkeypatch.setattr(paper_methods, "check_variant", lambda *_: None)
    monkeypatch.setattr(Evaluate, "__post_init__", lambda self: None)
    made, steps = data(name), Schedule(3, 1e-3)
    small, large = (Tower("DE", f"random:{layers}x32") for layers in (2, 3))

    def build():
        miner = WarmUp(made, large, steps, Mine(made, WarmUp(made, small, steps)))
        mined = Mine(made, miner)
        student = WarmUp(made, small, steps, mined)
        teacher = WarmUp(made, replace(large, architecture="CB"), steps, mined)
        distilled = Distil(made, LEAD(k=1, joint=True), student, teacher, mined, steps)
        first = Evaluate(made, miner, "test", 10, Evaluate(made, miner, "test", 9))
        return Evaluate(made, distilled, "test", 10, first, 5)

    monkeypatch.setitem(OTHER, name, toy(tmp_path / "other", train=25))
    base = build()
    assert base.key == build().key and re.fullmatch(r"[0-9a-f]{12}", base.key)
    assert base.folder.name == f"evaluate-{base.key}"
    keys = {base.key: "nothing"}
    for path, changed in variants(base):
        assert changed.key not in keys, f"{path}: the key is that of {keys[changed.key]} changed"
        keys[changed.key] = path
    assert {
        ".split",
        ".depth",
        ".retriever.method.tau_l",
        ".retriever.method.joint",
        ".retriever.student.tower.architecture",
        ".retriever.student.seed",
        ".retriever.student.schedule.steps",
        ".retriever.teacher.tower.architecture",
        ".retriever.negatives.retriever.schedule.steps",
        ".rerank",
        ".first.split",
        ".first.first.split",
    } <= {*keys.values()}
    assert len(keys) > 60
    miner = base.first.retriever
    for changed in ({"first": None}, {"retriever": None}, {"retriever": miner}):
        assert replace(base, **changed).key not in keys, changed


def test_kinds_with_the_same_fields_have_different_keys(name):
    @dataclass(frozen=True)
    class Twin(Count):
        kind = "twin"

    assert Count(data(name)).key != Twin(data(name)).key


def test_key_follows_the_content_of_the_collection(name, tmp_path):
    before = Count(data(name)).key
    path = tmp_path / "toy" / "corpus.jsonl"
    path.write_text(path.read_text().replace('"text": "', '"text": "new ', 1))
    texts.collection.cache_clear()
    assert Count(data(name)).key != before


def test_key_follows_the_weights_of_the_encoder(name, tmp_path):
    folder = shutil.copytree(paths.MODELS / names.TOKENISER, tmp_path / "model")

    def key():
        return WarmUp(data(name), Tower("DE", str(folder)), Schedule(1)).key

    before = key()
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert key() != before


# --- once


def test_finished_stage_is_not_run_again(name):
    second = Count(data(name), 2, first=Count(data(name)))
    assert not second.finished()
    for _ in range(3):
        assert json.loads((second.done() / "out.json").read_text()) == {"number": 2}
    Count(data(name)).done()
    assert runs() == ["1", "2"]
    seal = json.loads((second.folder / "stage.json").read_text())
    assert seal["stage"] == second.describe() and seal["files"] == {
        "out.json": digest(second.folder / "out.json")
    }
    assert second.describe()["first"]["number"] == 1


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:5])


def empty(path):
    path.write_bytes(b"")


def another_digest(path):
    path.write_text(path.read_text().replace('out.json": "', 'out.json": "0'))


def test_damaged_stage_is_run_anew(name, capsys, subtests):
    stage = Count(data(name))
    content = (stage.done() / "out.json").read_bytes()
    damages = {
        "out.json": (flip, cut, empty, Path.unlink),
        "stage.json": (another_digest, cut, empty, Path.unlink),
    }
    for file, damage in ((file, damage) for file, each in damages.items() for damage in each):
        before = len(runs())
        damage(stage.folder / file)
        with subtests.test(file, damage=damage.__name__):
            assert not stage.finished()
            assert (stage.done() / "out.json").read_bytes() == content and stage.finished()
            assert len(runs()) == before + 1
            said = capsys.readouterr().out
            assert file == "stage.json" or "is run anew" in said


def test_a_stage_that_cannot_be_read_for_a_moment_is_kept(name, monkeypatch):
    stage = Count(data(name))
    stage.done()

    def unreadable(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(store, "digest", unreadable)
        with pytest.raises(OSError, match="Input/output error"):
            stage.done()
    assert stage.finished() and len(runs()) == 1


def test_two_processes_that_want_one_stage_compute_it_once(name):
    stage = Count(data(name), wait=0.5)
    both = [multiprocessing.get_context("fork").Process(target=stage.done) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0] and runs() == ["1"] and stage.finished()


def test_lock_of_a_killed_process_is_free(name):
    stage = Count(data(name), wait=60)
    process = multiprocessing.get_context("fork").Process(target=stage.done)
    process.start()
    while not (paths.RUNS / "runs.txt").exists():
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and not stage.finished()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: None)
        stage.done()
    assert stage.finished() and runs() == ["1", "1"]


def test_stage_that_fails_is_not_finished(name):
    @dataclass(frozen=True)
    class Fails(Count):
        def run(self, operation):
            super().run(operation)
            raise OSError("no")

    with pytest.raises(OSError, match="no"):
        Fails(data(name)).done()
    assert not Fails(data(name)).finished()


# --- a disk that fills up


@pytest.fixture
def small_files():
    """No file may grow beyond 4 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_leaves_the_file_as_it_was(tmp_path, small_files, subtests):
    writers = {
        "json": lambda path: write_json(path, list(range(9000))),
        "tensors": lambda path: write_tensors(path, {"x": torch.zeros(9000)}),
        "bytes": lambda path: write(path, lambda temporary: temporary.write_bytes(bytes(9000))),
    }
    for kind, before in product(writers, (None, b"as it was")):
        path = tmp_path / kind
        if before:
            path.write_bytes(before)
        message = (
            rf"^{re.escape(str(path))} could not be written \(File too large\) and is left as it "
            "was: see to that, then ask for the same again$"
        )
        with subtests.test(kind, before=before):
            with pytest.raises(OSError, match=message):
                writers[kind](path)
            assert [p.name for p in tmp_path.iterdir() if p == path] == [kind] * bool(before)
            assert not list(tmp_path.glob(".*"))
            assert not before or path.read_bytes() == before
        path.unlink(missing_ok=True)


def test_full_disk_leaves_no_half_retriever(tmp_path, small_files):
    model = retrievers.build(Tower("CE", "random:1x32"))
    with pytest.raises(
        OSError, match=r"retriever could not be written \(File too large\) and is left as it was"
    ):
        model.save(tmp_path / "retriever", tokenizers.load_tokenizer("random:1x32"))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_half_token_file(name, tmp_path, small_files):
    from leadkit.data.tokens import tokenise

    texts = {str(i): "a list of words " * 20 for i in range(40)}
    with pytest.raises(OSError, match="could not be written"):
        tokenise(texts, tokenizers.load_tokenizer("random:1x32"), 64, tmp_path / "cache")
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []


def test_failing_rename_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", 1)

    def fails(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(OSError, match="No space left on device"):
        write_json(tmp_path / "a.json", 2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and json.loads(
        (tmp_path / "a.json").read_text()
    ) == 1


# --- training stages


def weights(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))
    }


def pipeline(name, **changes):
    return Pipeline(scale(name, distil=Schedule(8, 1e-3), dropout=0.1, **changes))


def distil_until_killed(folder, name):
    torch.set_num_threads(1)
    isolate(pytest.MonkeyPatch(), folder)
    save_each_step(pytest.MonkeyPatch())
    real = checkpoints.save

    def save(folder, model, optimizer, step, log):
        real(folder, model, optimizer, step, log)
        if step == 5:
            (folder / ".checkpoint-6.safetensors.half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.save = save
    pipeline(name).distil("LEAD").done()


@pytest.mark.slow
def test_killed_distillation_ends_bit_identical(name, tmp_path, monkeypatch):
    whole = pipeline(name).distil("LEAD")
    for stage in (whole.student, whole.teacher):
        stage.done()
    shutil.copytree(tmp_path / "runs", tmp_path / "again" / "runs")
    want = weights(whole.done())
    assert exit_code(distil_until_killed, tmp_path / "again", name) == -signal.SIGKILL
    isolate(monkeypatch, tmp_path / "again")
    killed, steps = pipeline(name).distil("LEAD"), []
    assert killed.key == whole.key and not killed.finished()
    assert json.loads((killed.folder / "checkpoint.json").read_text())["step"] == 5
    seed_step = loop.seed_step
    monkeypatch.setattr(
        loop, "seed_step", lambda seed, step: steps.append(step) or seed_step(seed, step)
    )
    assert weights(killed.done()) == want and set(want) == {
        "retriever/model.safetensors",
        "teacher/model.safetensors",
    }
    assert steps == [5, 6, 7]  # it went on, the finished warm-ups were not run again
    assert killed.log() == whole.log() and [row["step"] for row in killed.log()] == list(range(8))
    assert not list(killed.folder.glob("checkpoint*")) and not list(killed.folder.glob(".*"))


def test_damaged_retriever_is_trained_anew_to_the_same_weights(name):
    stage = pipeline(name).miner
    want = weights(stage.done())
    flip(stage.folder / "retriever" / "model.safetensors")
    assert weights(stage.done()) == want


@pytest.fixture
def models(monkeypatch):
    """Every model that a stage was loaded from, in order."""
    loaded, load = [], retrievers.load

    def watch(folder):
        loaded.append(load(folder))
        return loaded[-1]

    monkeypatch.setattr(store, "load", watch)
    return loaded


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


METHODS = [
    ("student", {}, False),
    ("RD", {}, False),
    ("FD", {}, False),
    ("LEAD", {"joint": False}, False),
    ("LEAD", {"joint": True}, True),
    ("LEAD", {"strategy": "weighted"}, True),
]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["CB", "CE"])
def test_only_a_joint_teacher_moves(architecture, common, models, subtests):
    chain = Pipeline(scale(common), teacher=architecture)
    chain.student.done(), chain.teacher.done()
    start = state(chain.student.model()), state(chain.teacher.model())
    for method, lead, moves in METHODS:
        with subtests.test(method, **lead):
            models.clear()
            stage = replace(chain.distil(method, **lead), seed=ord(architecture[1]))  # new
            stage.done()
            student, teacher = models if method != "student" else (*models, None)
            assert not same(state(student), start[0])
            assert teacher is None or same(state(teacher), start[1]) != moves
            assert (stage.folder / "teacher").exists() == moves
            if teacher and not moves:
                assert all(p.grad is None for p in teacher.parameters()) and not teacher.training
            assert same(state(stage.model()), state(student))
            if moves:
                assert same(state(retrievers.load(stage.folder / "teacher")), state(teacher))
            for row in stage.log():
                parts = [row[part] for part in ("layer", "response", "teacher", "student")]
                assert row["total"] == pytest.approx(sum(parts), rel=1e-5)
                assert (row["teacher"] > 0) == moves and row["student"] > 0
                assert (row["layer"] != 0) == (method in ("FD", "LEAD"))
                assert (row["response"] != 0) == (method in ("RD", "LEAD"))
                assert ("w1" in row) == ("layers_heard" in row) == (method == "LEAD")


def test_distillation_without_a_rate_changes_nothing(common):
    """LEAD, RD, FD and the student alone start from the same checkpoint.

    At rate 0 they all end there.
    """
    chain = Pipeline(scale(common, distil=Schedule(2, 0.0, weight_decay=0.0)))
    want = state(chain.student.model())
    for method in ("student", "RD", "FD", "LEAD"):
        assert same(state(chain.distil(method).model()), want)
    after = state(retrievers.load(chain.distil("LEAD").done() / "teacher"))
    assert same(after, state(chain.teacher.model()))


def test_mined_negatives_are_the_best_passages_that_are_not_relevant(common):
    chain = Pipeline(scale(common))
    collection, model = texts.collection(common), chain.miner.model()
    q, p = (
        t.rows(np.arange(len(t)))
        for t in (
            texts.queries_of(model.tower, data(common), "train"),
            texts.passages_of(model.tower, data(common)),
        )
    )
    with torch.no_grad():
        scores = (model.encode(q) @ model.encode(p).T).numpy()
    mined = chain.negatives.groups()
    assert len(mined) == len(collection.qrels["train"]) and all(
        len(g.negatives) == 6 for g in mined
    )
    for group in mined:
        assert not set(group.relevant) & set(group.negatives)
        others = [row for row in range(len(collection.passages)) if row not in group.relevant]
        best = sorted(scores[group.query][others])[-6:]
        np.testing.assert_allclose(
            sorted(scores[group.query][list(group.negatives)]), best, atol=1e-4
        )


def test_nan_stops_the_stage_with_its_batch_and_the_next_start_goes_on(name, monkeypatch):
    save_each_step(monkeypatch)
    stage = replace(pipeline(name).miner, schedule=Schedule(6, 1e-3))
    real, calls = distillation.losses.student_loss, []

    def breaks(final, positive):
        calls.append(len(calls))
        return real(final * float("nan") if len(calls) == 4 else final, positive)

    monkeypatch.setattr(distillation.losses, "student_loss", breaks)
    batch = stage.batches().sampler(3)[0].tolist()
    with pytest.raises(
        ArithmeticError,
        match=rf"3DE: .* step 3 .*batch {re.escape(str(batch))}; the last checkpoint in",
    ):
        stage.done()
    assert (
        not stage.finished()
        and json.loads((stage.folder / "checkpoint.json").read_text())["step"] == 3
    )
    assert [row["step"] for row in stage.log()] == list(range(6))


# --- evaluation


CAPABILITIES = """
import os, torch
torch.backends.cpu.get_cpu_capability = lambda: "AVX2"
torch.cuda.is_available = lambda: False
for capability in ("avx2", "avx512_bf16", "amx_bf16"):
    if os.fork() == 0:
        torch.cpu.get_capabilities = lambda: {capability: True}
        from leadkit import config, hardware
        scales = [config.scale(name).bf16 for name in ("smoke", "classroom")]
        print(*scales, hardware.device_name(), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.slow
def test_bfloat16_where_the_processor_multiplies_it_and_records_name_the_processor():
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CAPABILITIES]
    said = subprocess.check_output(command, text=True, env=environment)
    assert said.splitlines() == [
        "False False CPU, AVX2, 1 threads",
        "False True CPU, AVX2 with BF16, 1 threads",
        "False True CPU, AVX2 with AMX, 1 threads",
    ]


def test_record_says_what_was_run_and_gives_every_query(common):
    chain = Pipeline(scale(common))
    stage = chain.evaluate(chain.student, "test")
    record, collection = stage.record(), texts.collection(common)
    assert (
        record["stage"] == json.loads(json.dumps(stage.describe())) and record["key"] == stage.key
    )
    assert (record["fingerprint"], record["split"]) == (collection.fingerprint, "test")
    assert hardware.processor() in record["device"]
    assert {"device", "versions", "seconds", "training_seconds", "peak_memory_mib"} <= set(record)
    run = stage.ranking()
    assert run.rows.shape == (6, 20)
    ids = list(collection.passages)
    for i, (qid, row) in enumerate(collection.qrels["test"].items()):
        ranks = [rank for rank, p in enumerate(run.rows[i][:10], start=1) if ids[p] in row]
        assert record["per_query"]["RR@10"][i] == pytest.approx(
            1 / ranks[0] if ranks else 0, abs=1e-6
        ), qid
    for measure, values in record["per_query"].items():
        assert record["measures"][measure] == pytest.approx(np.mean(values), abs=1e-5)
    assert stage.values().tolist() == record["per_query"]["RR@10"]
    assert read_tensors(stage.folder / "run.safetensors")["rows"].shape == (6, 20)


def test_teacher_reranks_the_top_of_the_de_teachers_search(common):
    chain = Pipeline(scale(common))
    searched = chain.evaluate(Pipeline(scale(common), teacher="DE").teacher, "test")
    again = chain.evaluate(chain.teacher, "test")
    a, b = searched.ranking().rows, again.ranking().rows
    assert not np.array_equal(a, chain.evaluate(chain.miner, "test").ranking().rows)
    np.testing.assert_array_equal(np.sort(a[:, :5]), np.sort(b[:, :5]))
    np.testing.assert_array_equal(a[:, 5:], b[:, 5:])
    recall = [each.record()["measures"]["R@1000"] for each in (searched, again)]
    assert recall[0] == recall[1] > 0


def test_who_searches_must_not_re_rank_and_who_cannot_search_must(name):
    chain = Pipeline(scale(name))
    searched = chain.evaluate(chain.student, "test")
    message = "a CB cannot search a collection: give `first`, the run whose top it re-ranks"
    with pytest.raises(ValueError, match=message):
        replace(searched, retriever=chain.teacher)
    for retriever, who in ((chain.student, "DE"), (None, "BM25")):
        message = f"a {who} searches the collection, so it must not re-rank: leave `first` out"
        with pytest.raises(ValueError, match=message):
            replace(searched, retriever=retriever, first=searched, rerank=5)


# --- bad input, before any work


IMPOSSIBLE = [
    ({"k": 3}, "k is 3: it must be from 1 to the student's number of layers, 2"),
    ({"k": 0}, "k is 0"),
    ({"strategy": "best"}, "strategy 'best' is unknown: use one of random, weighted, last, skip"),
    ({"variant": "Paper"}, "variant 'Paper' is unknown: use one of paper, released"),
    ({"tau_d": 0.0}, "tau_d is 0.0: a temperature must be positive"),
    ({"tau_l": -1.0}, "tau_l is -1.0: a temperature must be positive"),
    ({"layer_weight": -0.1}, "layer_weight is -0.1: it must not be negative"),
]


def test_distillation_that_cannot_be(name, subtests):
    chain = Pipeline(scale(name))
    for lead, message in IMPOSSIBLE:
        with subtests.test(lead), pytest.raises(ValueError, match=message):
            chain.distil("LEAD", **lead)
    with pytest.raises(ValueError, match="is no part of the released code: use variant 'paper'"):
        chain.distil("LEAD + smooth label", variant="released")
    released = Pipeline(scale(name, lead=Lead(k=1, variant="released")))
    for change in ({"layer_weight": 0.3}, {"even_spread": True}):
        with pytest.raises(ValueError, match="'released' has neither, so they must be 1 and False"):
            released.distil("LEAD", **change)
    one = scale(name, data=data(name, passages=1))
    for method in ("margin-MSE", "student, own passages"):
        with pytest.raises(ValueError, match=f"passages is 1: method '{method}' needs at least 2"):
            Pipeline(one).distil(method)
    assert not paths.RUNS.exists()


def test_without_joint_training_there_is_no_teacher_after(name):
    rows = Pipeline(scale(name, lead=Lead(k=1, joint=False))).rows()
    assert list(rows) == list(Pipeline(scale(name)).rows())[:-1]


def test_settings_that_cannot_be(name):
    settings = scale(name)
    with pytest.raises(ValueError, match="pooling is 'men': use 'cls' or 'mean'"):
        replace(settings, pooling="men")
    for field in ("batch", "passages"):
        with pytest.raises(ValueError, match=f"data.{field} is 0: at least 1 is needed"):
            replace(settings.data, **{field: 0})
    short = replace(settings, data=replace(settings.data, passage_tokens=2))
    with pytest.raises(ValueError, match="data.passage_tokens is 2: use at least 3"):
        Pipeline(short)
    with pytest.raises(ValueError, match="seed is -1: it must not be negative"):
        Pipeline(settings, seed=-1)
    assert not paths.RUNS.exists()


def test_the_released_code_has_four_methods(name):
    chain = Pipeline(scale(name, lead=Lead(k=2, variant="released")))
    released = []
    for method in methods.METHODS:
        try:
            chain.distil(method)
            released.append(method)
        except ValueError as error:
            assert f"method {method!r} is no part of the released code" in str(error)
    assert released == ["student", "RD", "FD", "LEAD"] and not paths.RUNS.exists()


def test_teacher_with_fewer_layers_unknown_method_and_architecture(name):
    for method in ("FD", "LEAD"):
        with pytest.raises(
            ValueError, match="teacher_layers is 2: it must be at least student_layers, 3"
        ):
            Pipeline(
                scale(name, teacher_encoder="random:2x32", student_encoder="random:3x32")
            ).distil(method)
    with pytest.raises(
        ValueError, match="method 'KD' is unknown: use one of student, RD, FD, LEAD, margin-MSE, "
    ):
        Pipeline(scale(name)).distil("KD")
    for method, teacher in ((Alone(), Pipeline(scale(name)).teacher), (RD(), None)):
        with pytest.raises(ValueError, match=f"teacher is .*: method '{method.name}' needs"):
            replace(Pipeline(scale(name)).distil("LEAD"), method=method, teacher=teacher)
    with pytest.raises(ValueError, match="architecture 'XE' is unknown: use one of DE, CB, CE"):
        WarmUp(data(name), Tower("XE", "random:2x32"), Schedule(1))
    assert not paths.RUNS.exists()


def test_encoder_without_weights_is_told_before_any_work(name, tmp_path):
    folder = shutil.copytree(paths.MODELS / names.TOKENISER, tmp_path / "model")
    weights = folder / "model.safetensors"
    for encoder in ("teacher_encoder", "student_encoder"):
        half = scale(name, **{encoder: str(folder)})
        weights.write_bytes(b"half")
        with pytest.raises(ValueError, match=r"encoder .* damaged"):
            Pipeline(half)
        weights.unlink()
        with pytest.raises(FileNotFoundError, match=r"encoder .* holds no weights"):
            Pipeline(half)
    assert not paths.RUNS.exists()


def test_unknown_collection_is_told_before_any_work(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)
    with pytest.raises(ValueError, match="collection 'msmarco' is unknown"):
        Pipeline(scale("msmarco")).miner.done()
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "runs"])
