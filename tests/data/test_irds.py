"""Collections of ir_datasets: from local files, with the judgements of TREC DL, on disk."""

import gzip
import hashlib
import re
import resource
import shutil
import tracemalloc
from math import log2
from pathlib import Path

import ir_datasets
import numpy as np
import pytest
import pytrec_eval
import requests
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import GenericDoc
from ir_datasets.util import Download, RequestsDownload
from ir_datasets.util.metadata import MetadataComponent
from toy_irds import PASSAGES, QRELS, QUERIES, SPLITS, lines, register, write_toy
from toys import data, write_beir

from leadkit import paths
from leadkit.data import catalogue, irds
from leadkit.data.catalogue import Source, known_source
from leadkit.data.collections import Collection, load
from leadkit.data.passages import Passages, _save, write_passages
from leadkit.data.sampling import groups
from leadkit.data.tokens import tokenise
from leadkit.experiments import texts as texts_of_stages
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower
from leadkit.retrieval.bm25 import bm25
from leadkit.retrieval.measures import per_query
from leadkit.retrieval.runs import Run


@pytest.fixture
def collection(home) -> Collection:
    return load("irds:toy-irds")


# --- what is read


def test_every_split_with_its_queries_judgements_and_passages(collection):
    texts = {pid: text.replace("\t", " ") for pid, text in PASSAGES.items()}
    assert dict(collection.passages) == texts and list(collection.passages) == list(PASSAGES)
    assert (
        list(collection.passages.values()) == list(texts.values()) and len(collection.passages) == 4
    )
    assert collection.split("train") == {
        "1": "what is first"
    }  # the query that is not judged is left out
    assert collection.split("dev") == {"dev-1": "another of this id"}
    assert collection.qrels == {
        "train": {"1": {"10": 1}},
        "dev": {"dev-1": {"80": 1}},
        "dl19": {"5": {"10": 1, "9": 2, "80": 3}},
    }
    assert collection.relevant == {"dl19": 2}
    with pytest.raises(
        ValueError, match=r"split 'test' is not in .*: choose one of \['dev', 'dl19', 'train'\]"
    ):
        collection.split("test")


def test_rows_and_ids_are_each_others_inverse(collection):
    for row, pid in enumerate(PASSAGES):
        assert collection.passage_row[pid] == row and collection.passage_ids[row] == pid
        assert (
            collection.passages[pid] == PASSAGES[pid].replace("\t", " ")
            and pid in collection.passages
        )
    for absent in ("", "1", "100", "8", "D", "zzz", "a much longer name than any"):
        assert absent not in collection.passages
        with pytest.raises(KeyError):
            collection.passage_row[absent]


def test_rows_of_many_ids(tmp_path):
    for seed in range(3):
        numbers = np.random.default_rng(seed).choice(10_000, 300, replace=False)
        write_passages(tmp_path, ((f"{n:x}", f"text {n}") for n in numbers), "many")
        made, texts = Passages(tmp_path, "0"), [f"text {n}" for n in numbers]
        assert [made.rows[f"{n:x}"] for n in numbers] == list(range(300))
        assert [made[f"{n:x}"] for n in numbers] == list(made.values()) == texts
        assert sum(f"{n:x}" in made for n in range(10_000)) == 300


def test_a_beir_folder_of_the_same_content_gives_the_same_tokens_groups_measures_and_bm25(
    home, tmp_path
):
    texts = {
        "a": "sort the list",
        "b": "the shape of an array",
        "c": "open a file",
        "d": "list of open files",
    }
    write_toy(home, texts)
    for split in QUERIES:
        (home / f"queries.{split}.tsv").write_text(lines([(split, "the list of files")]))
        (home / f"qrels.{split}").write_text(lines([(split, 0, "d", 1), (split, 0, "a", 2)]))
    streamed = load("irds:toy-irds")
    qrels = {split: {split: {"d": 1, "a": 2}} for split in QUERIES}
    held = load(
        write_beir(tmp_path / "beir", texts, dict.fromkeys(QUERIES, "the list of files"), qrels)
    )
    tokenizer = load_tokenizer("random:2x32")
    ours, theirs = (
        tokenise(c.passages, tokenizer, 16, tmp_path / c.name[:4]) for c in (streamed, held)
    )
    np.testing.assert_array_equal(ours.flat, theirs.flat)
    np.testing.assert_array_equal(ours.offsets, theirs.offsets)
    assert groups(streamed, "train") == groups(held, "train")
    runs = [bm25(c, "dev", 4) for c in (streamed, held)]
    np.testing.assert_array_equal(runs[0].rows, runs[1].rows)
    for name, values in per_query(runs[0], streamed, "dev").items():
        np.testing.assert_array_equal(values, per_query(runs[1], held, "dev")[name])


def test_a_stage_reads_tokens_of_passages_on_disk(collection):
    texts_of_stages.collection.cache_clear()
    tower, settings = Tower("DE", "random:1x32"), data("irds:toy-irds")
    made = texts_of_stages.passages_of(tower, settings)
    want = load_tokenizer("random:1x32")(
        list(collection.passages.values()), truncation=True, max_length=16
    )["input_ids"]
    assert [made.row(i).tolist() for i in range(len(made))] == want
    assert len(texts_of_stages.queries_of(tower, settings, "dl19")) == 1
    texts_of_stages.collection.cache_clear()


# --- the cache


def test_prepared_once_and_without_the_downloads_afterwards(collection, home, monkeypatch):
    shutil.rmtree(home)
    monkeypatch.setattr(irds, "write_collection", lambda *a: pytest.fail("prepared a second time"))
    assert load("irds:toy-irds") == collection


FILES = (
    "corpus.jsonl",
    "queries.jsonl",
    "qrels/dev.tsv",
    "ids.npy",
    "order.npy",
    "starts.npy",
    "cache.json",
)


def test_a_damaged_file_is_prepared_anew(collection, tmp_path, subtests):
    for file in FILES:
        path = tmp_path / "cache" / "irds-toy-irds" / file
        content = path.read_bytes()
        for damaged in (content[:-9], content[:-1] + bytes([content[-1] ^ 1]), b""):
            path.unlink()  # `collection` still maps it
            path.write_bytes(damaged)
            with subtests.test(file, bytes=len(damaged)):
                assert load("irds:toy-irds") == collection
                assert file == "cache.json" or path.read_bytes() == content
    for seal in ("[]", "{}", "null", '{"digests": {}}'):
        (tmp_path / "cache" / "irds-toy-irds" / "cache.json").write_text(seal)
        with subtests.test(seal):
            assert load("irds:toy-irds") == collection


def test_fingerprint_is_that_of_the_content(home, collection, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "elsewhere")
    assert load("irds:toy-irds").fingerprint == collection.fingerprint
    for i, (file, old, new) in enumerate(
        [
            ("collection.tsv", "first", "fir5t"),
            ("queries.dl19.tsv", "graded", "Graded"),
            ("qrels.dl19", "80\t3", "80\t2"),
        ]
    ):
        monkeypatch.setattr(paths, "CACHE", tmp_path / str(i))
        content = (home / file).read_text()
        assert old in content
        (home / file).write_text(content.replace(old, new))
        assert load("irds:toy-irds").fingerprint != collection.fingerprint
        (home / file).write_text(content)


def test_nothing_is_left_of_a_preparation_that_failed(home, monkeypatch, tmp_path):
    def full(folder, passages, name):
        (folder / "corpus.jsonl").write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(irds, "write_passages", full)
    with pytest.raises(
        OSError, match=r"irds-toy-irds could not be written \(No space left on device\)"
    ):
        load("irds:toy-irds")
    assert [path.name for path in (tmp_path / "cache").iterdir()] in ([], ["irds-toy-irds.lock"])


def test_full_disk_is_noticed_to_the_last_byte(tmp_path):
    """4,128 bytes, where a file may grow to 4,096 or to so many."""
    path, values = tmp_path / "starts.npy", np.arange(500.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(OSError, match="too large"):
            _save(path, values)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4128, before[1]))
        _save(path, values)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert np.load(path, mmap_mode="r").tolist() == values.tolist()


def test_what_a_killed_process_left_is_removed(home, tmp_path):
    left = tmp_path / "cache" / ".irds-toy-irds.abc"
    left.mkdir(parents=True)
    load("irds:toy-irds")
    assert not left.exists()


# --- disk


def test_disk_need_is_said_before_the_start(home, monkeypatch, capsys):
    monkeypatch.setitem(catalogue.SOURCES, "toy-irds", Source(SPLITS, download=1.25, text=0.5))
    monkeypatch.setattr(irds, "write_collection", lambda *a: pytest.fail("started"))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, int(1.2e9))
    )
    with pytest.raises(
        OSError,
        match=r"^collection 'irds:toy-irds' needs 1\.\d GB at \S+, where 1\.2 GB are free: make",
    ):
        load("irds:toy-irds")
    said = capsys.readouterr().out
    assert (
        said.startswith("irds:toy-irds takes 1.8 GB of disk: 1.2 GB of downloads in ")
        and said.count("\n") == 1
    )


def test_what_is_downloaded_already_is_not_needed_again(home, monkeypatch, tmp_path):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, int(0.7e9))
    )
    (tmp_path / "cache").mkdir()
    needed = Source(SPLITS, download=1.0, text=0.5)
    with pytest.raises(OSError, match="1.5 GB"):
        irds.check_disk("toy-irds", needed)
    with open(home / "archive.tar.gz", "wb") as sparse:
        sparse.truncate(900_000_000)
    irds.check_disk("toy-irds", needed)


# --- downloads that are not whole


def counts(**known: int) -> dict[str, dict[str, int]]:
    """Metadata of one data set, as ir_datasets has it."""
    return {kind: {"count": count} for kind, count in ({"docs": 4} | known).items()}


def test_a_file_that_ends_early_is_noticed_by_its_count(home, monkeypatch, subtests):
    known = {}
    for split, name in SPLITS.items():
        known[name] = counts(queries=len(QUERIES[split]), qrels=len(*QRELS[split].values()))
    register(monkeypatch, home, known)
    load("irds:toy-irds")
    files = {"collection.tsv": "docs", "qrels.dl19": "qrels", "queries.train.tsv": "queries"}
    for file, kind in files.items():
        shutil.rmtree(paths.CACHE)
        content = (home / file).read_bytes()
        (home / file).write_bytes(content[: content[:-1].rfind(b"\n") + 1])
        there = content.count(b"\n")
        message = (
            rf"^collection 'irds:toy-irds': toy-irds/\w+ has {there - 1} {kind} where {there} "
            rf"should be, so a file in {re.escape(str(home))} is not whole: delete it and load the "
        )
        with subtests.test(file), pytest.raises(ValueError, match=message):
            load("irds:toy-irds")
        assert not list(paths.CACHE.glob("*/*"))
        (home / file).write_bytes(content)


def test_an_archive_that_is_not_whole(home, monkeypatch, subtests):
    archive = home / "collection.tsv.gz"
    whole = gzip.compress((home / "collection.tsv").read_bytes() * 500)
    extracted = ir_datasets.util.GzipExtract(Download([], cache_path=str(archive)))
    register(monkeypatch, home, docs=extracted)
    for content in (whole[: len(whole) // 2], b"no archive"):
        archive.write_bytes(content)
        message = r"^collection 'irds:toy-irds': "
        with subtests.test(len(content)), pytest.raises(ValueError, match=message):
            load("irds:toy-irds")
        assert not list(paths.CACHE.glob("*/*"))


def failing(error: Exception):
    def get(**arguments):
        raise error

    return get


class Response:
    """What a server sends: so many bytes, then the connection breaks; then the rest on demand."""

    status_code, headers = 200, {"accept-ranges": "bytes"}

    def __init__(self, content: bytes, breaks: list[int], asked: list[dict]):
        self.content, self.breaks, self.asked = content, breaks, asked

    def __call__(self, headers, **arguments):
        self.asked.append(dict(headers))
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def iter_content(self, chunk_size):
        first = int(self.asked[-1].get("Range", "bytes=0-")[6:-1])
        end = self.breaks.pop(0) if self.breaks else len(self.content)
        yield self.content[first:end]
        if end < len(self.content):
            raise requests.exceptions.ConnectionError("connection broken")


def download(home: Path, md5: str) -> Download:
    server = RequestsDownload("http://example.org/collection.tsv", tries=2)
    return Download([server], cache_path=str(home / "fetched.tsv"), expected_md5=md5)


def test_no_network_is_one_sentence(home, monkeypatch):
    monkeypatch.setattr(
        requests, "get", failing(requests.exceptions.ConnectionError("no route to host"))
    )
    register(monkeypatch, home, docs=download(home, "0"))
    with pytest.raises(
        ValueError,
        match=r"^collection 'irds:toy-irds': the docs of toy-irds/train could not be downloaded or "
        r"read \(ConnectionError: no route to host\); load it again, whole files stay; if that "
        rf"fails too, delete what is damaged in {re.escape(str(home))}$",
    ):
        load("irds:toy-irds")


def test_a_download_goes_on_where_it_broke_and_its_checksum_holds(home, monkeypatch):
    content, asked = (home / "collection.tsv").read_bytes(), []
    monkeypatch.setattr(requests, "get", Response(content, [20, 45], asked))
    register(monkeypatch, home, docs=download(home, hashlib.md5(content).hexdigest()))
    assert len(load("irds:toy-irds").passages) == 4
    assert [headers.get("Range") for headers in asked] == [None, "bytes=20-", "bytes=45-"]


def test_another_checksum_is_refused_and_not_kept(home, monkeypatch):
    monkeypatch.setattr(requests, "get", Response((home / "collection.tsv").read_bytes(), [], []))
    register(monkeypatch, home, docs=download(home, "0" * 32))
    with pytest.raises(ValueError, match="HashVerificationError: Expected md5 hash to be 0000"):
        load("irds:toy-irds")
    assert not (home / "fetched.tsv").exists()


def test_a_passage_id_that_comes_twice(home):
    with open(home / "collection.tsv", "a") as out:
        out.write("9\tonce more\n")
    with pytest.raises(
        ValueError,
        match="^collection 'irds:toy-irds': passage id '9' stands there a second time; ids must",
    ):
        load("irds:toy-irds")


def test_no_judged_query_has_a_text(home):
    (home / "queries.dl19.tsv").write_text("6\tanother\n")
    with pytest.raises(
        ValueError,
        match="^collection 'irds:toy-irds': no query of toy-irds/dl19 has a text and a relevant",
    ):
        load("irds:toy-irds")


def test_no_passage(home):
    (home / "collection.tsv").write_text("")
    with pytest.raises(
        ValueError, match="^collection 'irds:toy-irds' holds no passage; at least one is needed"
    ):
        load("irds:toy-irds")


# --- what ir_datasets has


def test_sources_are_data_sets_of_ir_datasets_and_share_their_passages():
    for name, known in catalogue.SOURCES.items():
        sets = [ir_datasets.load(dataset) for dataset in known.splits.values()]
        assert all(each.has(kind) for each in sets for kind in ("docs", "queries", "qrels")), name
        assert len({each.metadata()["docs"]["count"] for each in sets}) == 1 and set(
            known.relevant
        ) <= set(known.splits)


def test_sources_have_the_queries_of_the_papers():
    sizes = {
        name: {
            split: ir_datasets.load(dataset).metadata()["queries"]["count"]
            for split, dataset in known.splits.items()
        }
        for name, known in catalogue.SOURCES.items()
    }
    assert sizes["msmarco-passage"] == {"train": 808_731, "dev": 6_980, "dl19": 43, "dl20": 54}
    assert sizes["msmarco-document"] == {"train": 367_013, "dev": 5_193, "dl19": 43, "dl20": 45}
    assert sizes["dpr-w100/natural-questions"] == {"train": 58_880, "dev": 6_515} and sizes[
        "beir/nq"
    ] == {"test": 3_452}


def test_grades_that_count_are_those_that_answer():
    """Grade 1 of a TREC DL passage does not answer the query, that of a document does."""
    for name, answers in (("msmarco-passage", 2), ("msmarco-document", 1)):
        for split in ("dl19", "dl20"):
            grades = ir_datasets.load(known_source(name).splits[split]).qrels_defs()
            assert known_source(name).relevant.get(split, 1) == answers
            assert ("does not answer" in grades[1]) == (answers == 2)


def test_other_names_are_what_ir_datasets_registers():
    assert known_source("beir/scifact").splits == {
        "train": "beir/scifact/train",
        "test": "beir/scifact/test",
    }
    assert known_source("vaswani").splits == {"test": "vaswani"}
    assert known_source("dpr-w100/trivia-qa").splits == {
        split: f"dpr-w100/trivia-qa/{split}" for split in ("train", "dev")
    }


def test_unknown_names(subtests):
    for name in ("", "msmarco", "dpr-w100", "beir", "msmarco-passage/eval"):
        message = (
            rf"^collection 'irds:{name}' is unknown: ir_datasets has no judged queries of that "
            "name; use irds:msmarco-passage, irds:msmarco-document, .*, irds:beir/nq or another "
        )
        with subtests.test(name), pytest.raises(ValueError, match=message):
            load(f"irds:{name}")


# --- measures


def test_binary_measures_count_from_the_splits_grade_and_ndcg_counts_grades(collection):
    rows = Run(np.array([[0, 1, 2, 3]]), np.zeros((1, 4)))  # grades 1, 2, 0, 3
    got = per_query(rows, collection, "dl19", ("RR@10", "AP@1000", "R@100", "nDCG@10"))
    assert got["RR@10"] == [1 / 2] and got["R@100"] == [1]
    np.testing.assert_allclose(got["AP@1000"], [(1 / 2 + 2 / 4) / 2])
    np.testing.assert_allclose(
        got["nDCG@10"],
        [(1 + 2 / log2(3) + 3 / log2(5)) / (3 + 2 / log2(3) + 1 / log2(4))],
        atol=1e-6,
    )
    assert per_query(Run(np.array([[0]]), np.zeros((1, 1))), collection, "train")["RR@10"] == [
        1
    ]  # grade 1 counts there


def test_measures_of_the_papers(collection):
    run = Run(np.array([[0]]), np.zeros((1, 1)))
    assert "AP@100" not in per_query(run, collection, "train")
    documents = Collection(
        "irds:msmarco-document", "0", collection.passages, collection.queries, collection.qrels
    )
    assert list(per_query(run, documents, "train")) == [
        "RR@10",
        "AP@1000",
        "nDCG@10",
        "R@100",
        "R@1000",
        "AP@100",
    ]


def read(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt") as rows:
        return [row.split() for row in rows]


@pytest.mark.parametrize(
    "split, file, topics, relevant, queries",
    [
        ("dl19", "dl19-passage", "dl19-passage", 2, 43),
        ("dl20", "dl20-passage", "dl20", 2, 54),
        ("dl19", "dl19-doc", "dl19-doc", 1, 43),
        ("dl20", "dl20-doc", "dl20", 1, 45),
        ("dev", "msmarco-passage.dev-subset", "msmarco-passage.dev-subset", 1, 6980),
        ("dev", "msmarco-doc.dev", "msmarco-doc.dev", 1, 5193),
    ],
)
def test_real_topics_and_judgements(
    collections_dir, home, monkeypatch, split, file, topics, relevant, queries
):
    """trec_eval gives the same values. Grade 0 and topics without judgements are dropped here."""
    folder = collections_dir / "msmarco-qrels"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    rows, judged = read(folder / f"qrels.{file}.txt.gz"), {}
    for qid, _, pid, grade in rows:
        judged.setdefault(qid, {})[pid] = int(grade)
    passages = {pid: "text" for row in judged.values() for pid in row}
    write_toy(home, passages)
    asked = gzip.decompress((folder / f"topics.{topics}.txt.gz").read_bytes())
    (home / f"queries.{split}.tsv").write_bytes(asked)
    (home / f"qrels.{split}").write_text(lines(rows))
    only = Source(
        {split: f"toy-irds/{split}"},
        known_source("msmarco-document" if "doc" in file else "msmarco-passage").relevant,
        0,
        0,
    )
    monkeypatch.setitem(catalogue.SOURCES, "toy-irds", only)
    monkeypatch.setitem(SPLITS, split, f"toy-irds/{split}")
    register(monkeypatch, home)
    collection = load("irds:toy-irds")
    assert len(collection.split(split)) == queries and collection.relevant.get(split, 1) == relevant
    draw, ids = np.random.default_rng(0), np.array(list(passages))
    run = {}
    for qid, row in judged.items():  # judged passages in random order among others
        found = dict.fromkeys([*row, *draw.choice(ids, 20).tolist()])
        run[qid] = draw.permutation(list(found)).tolist()
    width = max(map(len, run.values()))
    ranking = [[collection.passage_row[pid] for pid in run[qid]] for qid in collection.split(split)]
    got = per_query(
        Run(np.array([r + [-1] * (width - len(r)) for r in ranking]), np.zeros((queries, width))),
        collection,
        split,
    )
    scores = {
        qid: {pid: float(-rank) for rank, pid in enumerate(order)} for qid, order in run.items()
    }
    names = {"recip_rank", "map_cut_1000", "recall_100"}
    want = pytrec_eval.RelevanceEvaluator(judged, names, relevance_level=relevant).evaluate(
        {qid: dict(list(row.items())[:1000]) for qid, row in scores.items()}
    )
    graded = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut_10"}).evaluate(scores)
    for i, qid in enumerate(collection.split(split)):
        first = want[qid]["recip_rank"]
        assert got["RR@10"][i] == pytest.approx(first if first >= 0.1 else 0), qid
        assert got["AP@1000"][i] == pytest.approx(want[qid]["map_cut_1000"])
        assert got["R@100"][i] == pytest.approx(want[qid]["recall_100"])
        assert got["nDCG@10"][i] == pytest.approx(graded[qid]["ndcg_cut_10"])


# --- memory


class Made:
    """The docs of ir_datasets, made up as they are read."""

    def __init__(self, count: int):
        self.count = count

    def docs_iter(self):
        return (GenericDoc(str(i), f"passage {i} " + "x" * 500) for i in range(self.count))

    def docs_handler(self):
        return self


def test_memory_does_not_grow_by_the_texts(home, monkeypatch, tmp_path):
    """Prepare, tokenise and map: 200 bytes of memory for a passage of 500 are too many."""
    tokenizer = load_tokenizer("random:1x32")
    monkeypatch.setattr("leadkit.data.passages.CHUNK", 1000)
    monkeypatch.setattr("leadkit.data.tokens.PORTION", 500)
    monkeypatch.setitem(
        catalogue.SOURCES, "toy-irds", Source({"train": SPLITS["train"]}, download=0, text=0)
    )
    (home / "qrels.train").write_text("1 0 7 1\n")
    files, peaks = ir_datasets.load(SPLITS["train"]), []
    for count in (100, 2_000, 6_000):  # the first for what is allocated once
        made = Dataset(Made(count), files.queries_handler(), files.qrels_handler())
        monkeypatch.setitem(
            ir_datasets.registry._registered,
            SPLITS["train"],
            Dataset(MetadataComponent("toy", made), made),
        )
        monkeypatch.setattr(paths, "CACHE", tmp_path / str(count))
        tracemalloc.start()
        collection = load("irds:toy-irds")
        tokens = tokenise(collection.passages, tokenizer, 8, tmp_path / str(count))
        assert len(tokens) == len(collection.passages) == count and groups(collection, "train")[
            0
        ].relevant == (7,)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[2] - peaks[1]) / 4_000 < 200
