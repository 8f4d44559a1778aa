"""Collections as users have them: each is read right, or what is wrong is said in one line."""

import json
import shutil

import numpy as np
import pytest
from toys import data, isolate, scale, write_beir

from leadkit.data.collections import load
from leadkit.data.sampling import groups
from leadkit.experiments.pipeline import Pipeline
from leadkit.retrieval.bm25 import BM25, bm25
from leadkit.retrieval.measures import per_query
from leadkit.retrieval.runs import Run, without

PASSAGES = {"p1": "one", "p2": "two", "p3": "three"}
QUERIES = {"q1": "which is one", "q2": "which is two"}
QRELS = {
    "train": {"q1": {"p1": 1}},
    "dev": {"q2": {"p2": 1, "p1": 0}},
    "test": {"q2": {"p2": 2}},
}
HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.fixture
def folder(tmp_path):
    write_beir(tmp_path / "beir", PASSAGES, QUERIES, QRELS)
    return tmp_path / "beir"


def content(folder, strict=True):
    collection = load(f"beir:{folder}", strict)
    return dict(collection.passages), collection.queries, collection.qrels


def add(path, *rows):
    with open(path, "a") as out:
        out.writelines(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


ROWS = {  # what is added to the sound folder, and what is said of it
    "an empty passage": (
        "corpus.jsonl",
        {"_id": "e", "title": "", "text": ""},
        "1 passages without text (kept)",
    ),
    "a missing passage": (
        "qrels/test.tsv",
        "q2\tgone\t1\n",
        "1 judged passages that are missing (kept: nothing can find them)",
    ),
    "a missing query": (
        "qrels/test.tsv",
        "gone\tp1\t1\n",
        "1 judgements of missing queries (left out)",
    ),
    "an empty query": ("queries.jsonl", {"_id": "e", "text": " "}, "1 queries without text (left"),
    "a passage twice": (
        "corpus.jsonl",
        {"_id": "p1", "text": "one"},
        "1 lines that stand there twice, word for word (read once)",
    ),
    "a judgement twice": ("qrels/test.tsv", "q2\tp2\t2\n", "1 lines that stand there twice"),
    "nothing but grade 0": (
        "qrels/test.tsv",
        "q1\tp1\t0\n",
        "1 queries without a relevant passage (left out)",
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_one_row_that_cannot_be_used_is_said_and_strict_reading_refuses_it(folder, case, capsys):
    file, row, said = ROWS[case]
    sound = content(folder)
    add(folder / file, row)
    passages, queries, qrels = content(folder, strict=False)
    assert said in capsys.readouterr().err
    content(folder, strict=False)
    assert capsys.readouterr().err == ""  # once
    assert (passages | {"e": ""}, queries) == (sound[0] | {"e": ""}, sound[1])
    assert ("e" in passages) == (case == "an empty passage")
    gone = {"gone": 1} if case == "a missing passage" else {}
    assert qrels == sound[2] | {"test": {"q2": {"p2": 2} | gone}}
    with pytest.raises(ValueError, match="strict reading refuses it"):
        content(folder)


def test_a_judged_passage_that_is_missing_counts_as_not_found_and_is_not_trained_on(folder):
    add(folder / "qrels" / "test.tsv", "q2\tgone\t1\n")
    add(folder / "qrels" / "train.tsv", "q1\tgone\t1\n", "q2\tgone\t1\n")
    collection = load(f"beir:{folder}")
    best = Run(np.array([[1, 0, 2]]), np.array([[3.0, 2.0, 1.0]]))
    values = per_query(best, collection, "test", ("R@100", "RR@10"))
    assert (values["R@100"].item(), values["RR@10"].item()) == (0.5, 1)
    assert [group.relevant for group in groups(collection, "train")] == [(0,)]


def as_integers(folder):
    for stem in ("corpus", "queries"):
        path = folder / f"{stem}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [json.dumps(row | {"_id": int(row["_id"][1:])}) for row in rows]
        path.write_text("\n".join(lines))
    for path in (folder / "qrels").iterdir():
        rows = path.read_text().removeprefix(HEADER)
        path.write_text(HEADER + rows.replace("\tp", "\t").replace("q", ""))


def as_floats(folder):
    for path in (folder / "qrels").iterdir():
        path.write_text(path.read_text().replace("1\n", "1.0\n").replace("2\n", "2.\n"))


def as_trec(blank):
    def change(folder):
        for path in (folder / "qrels").iterdir():
            rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
            lines = [blank.join([qid, "0", pid, grade]) for qid, pid, grade in rows]
            path.write_text("\n".join(lines))

    return change


def as_json(folder):
    for path in (folder / "qrels").iterdir():
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        lines = [json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:]]
        path.with_suffix(".jsonl").write_text("\n".join(lines))
        path.unlink()


def in_the_root(folder):
    for path in (folder / "qrels").iterdir():
        shutil.move(path, folder)
    (folder / "qrels").rmdir()


def of_another_system(folder):
    for name in ("qrels/._train.tsv", "qrels/.hidden.jsonl", "._corpus.jsonl", ".DS_Store"):
        (folder / name).write_bytes(bytes.fromhex("00051607000200004d6163204f532058b0b0"))


SHAPES = {
    "ids that are numbers": as_integers,
    "grades as pandas writes them": as_floats,
    "TREC's columns": as_trec(" "),
    "MS MARCO's columns": as_trec("\t"),
    "qrels in JSON lines": as_json,
    "qrels beside the corpus": in_the_root,
    "files of another system": of_another_system,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_another_shape_of_the_same_collection_is_read_the_same(folder, shape):
    sound = content(folder)
    SHAPES[shape](folder)
    passages, queries, qrels = content(folder)
    if shape == "ids that are numbers":
        assert (list(passages), list(queries)) == (["1", "2", "3"], ["1", "2"])
        assert qrels["dev"] == {"2": {"2": 1, "1": 0}}
    else:
        assert (passages, queries, qrels) == sound


def test_two_files_of_one_split_are_refused(folder):
    (folder / "qrels" / "test.jsonl").write_text('{"query-id": "q", "corpus-id": "p", "score": 1}')
    with pytest.raises(ValueError, match="are both of split 'test': remove one"):
        content(folder)


def test_ids_with_blanks_are_read_and_a_run_file_keeps_its_columns(tmp_path):
    passages = {"Topic guide/page 1": "one", "b": "two"}
    name = write_beir(tmp_path / "c", passages, {"q 1": "x"}, {"test": {"q 1": {"b": 1}}})
    collection = load(name, strict=True)
    assert collection.passages == passages
    run = Run(np.array([[0, 1]]), np.array([[2.0, 1.0]]))
    run.write_trec(tmp_path / "run", list(collection.queries), collection.passage_ids, "tag")
    [first, _] = (tmp_path / "run").read_text().splitlines()
    assert first.split() == ["q%201", "Q0", "Topic%20guide/page%201", "1", "2.000000", "tag"]


def arguana(folder):
    """Every query is a passage too, with a title; two ids coincide that mean something else."""
    passages = PASSAGES | {"q1": "Title which  is one", "q2": "which is two", "q3": "another text"}
    queries = QUERIES | {"q3": "which is three", "p3": "three"}
    qrels = {
        "train": {"q1": {"p1": 1}, "q3": {"p3": 1}, "p3": {"p3": 1}},
        "test": {"q2": {"p2": 2}, "q3": {"p3": 1}},
    }
    return write_beir(folder, passages, queries, qrels)


def test_a_query_that_is_a_passage_is_found_by_id_and_text_unless_it_is_relevant(tmp_path, capsys):
    collection = load(arguana(tmp_path / "c"))
    assert collection.own_rows("train").tolist() == [3, -1, -1]
    assert collection.own_rows("test").tolist() == [4, -1]
    assert "split 'train': 1 of 3 queries are passages themselves" in capsys.readouterr().err
    mined = groups(collection, "train", {"q1": ["q1", "p1", "p2"], "q3": ["q3"]})
    assert [(group.negatives, group.own) for group in mined] == [((1,), 3), ((5,), -1), ((), -1)]


def test_a_query_that_is_a_passage_is_in_no_run_and_no_negative(tmp_path, monkeypatch):
    isolate(monkeypatch, tmp_path)
    name = arguana(tmp_path / "c")
    pipeline = Pipeline(scale(name, data=data(name, batch=2, negatives=3), depth=4, rerank=3))
    for stage in (pipeline.evaluate(None, "test"), pipeline.evaluate(pipeline.miner, "test")):
        run = stage.ranking()
        assert run.rows.shape == (2, 4) and 4 not in run.rows[0] and (run.rows >= 0).all()
    assert 4 in pipeline.evaluate(pipeline.miner, "test").ranking().rows[1]
    [first, *_] = pipeline.negatives.groups()
    assert first.own == 3 and 3 not in first.negatives and len(first.negatives) == 3


def test_without_drops_the_own_passage_or_else_the_last():
    run = Run(np.array([[4, 1, 0], [4, 1, 0]]), np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]))
    less = without(run, np.array([4, -1]))
    assert (less.rows.tolist(), less.scores.tolist()) == ([[1, 0], [4, 1]], [[2, 1], [3, 2]])


def test_bm25_reads_a_language_without_blanks(capsys):
    words = BM25(["东京是日本的首都", "巴黎是法国的首都", "柏林在德国，用Python写"])
    assert words.search(["法国首都", "德国", "python"], 3).rows[:, 0].tolist() == [1, 2, 2]
    assert "pairs of characters are its words" in capsys.readouterr().err
    assert not BM25(["東京 is the capital of Japan", "Paris of France"]).in_pairs


def test_bm25_says_that_it_knows_no_word(tmp_path, capsys):
    name = write_beir(tmp_path / "c", PASSAGES, QUERIES | {"q2": "xyz"}, QRELS)
    bm25(load(name), "test", 3)
    assert "BM25 finds no word of 1 of 1 queries of split 'test'" in capsys.readouterr().err
    bm25(load(name), "train", 3)
    assert capsys.readouterr().err == ""


def test_ir_datasets_gives_the_same_answer_to_the_same_rows(home, tmp_path, capsys):
    add(home / "collection.tsv", "9\tA second one, naïve \N{SNOWMAN}\u2028 with   signs\n")
    add(home / "qrels.dl19", "6 0 10 1\n", "7 0 10 0\n", "5 0 gone 1\n")
    add(home / "queries.dl19.tsv", "7\tonly grade 0\n")
    collection = load("irds:toy-irds")
    said = capsys.readouterr().err
    assert collection.qrels["dl19"] == {"5": {"10": 1, "9": 2, "80": 3, "gone": 1}}
    assert list(collection.passages) == ["10", "9", "D7", "80"]
    assert list(collection.passages.values())[1:] == [
        collection.passages[p] for p in ("9", "D7", "80")
    ]
    for what in (
        "1 passages without text",
        "1 lines that stand there twice",
        "1 judged passages that are missing",
        "1 judgements of missing queries",
        "1 queries without a relevant passage",
    ):
        assert what in said
    with pytest.raises(ValueError, match="strict"):  # from the cache, too
        load("irds:toy-irds", strict=True)


def test_passages_of_ir_datasets_that_differ_under_one_id_are_refused(home):
    add(home / "collection.tsv", "9\tonce more\n")
    with pytest.raises(ValueError, match="passage id '9' stands there a second time; ids must be"):
        load("irds:toy-irds")
