"""Names and keys: a key depends on all that decides a result; names mean what users expect."""

import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
from toys import encoder

from leadkit import config, paths
from leadkit.__main__ import main
from leadkit.experiments.pipeline import Pipeline
from leadkit.files import visible
from leadkit.lessons import site
from leadkit.models import encoders, names
from leadkit.results import records

MINILM = config.MINILM
# Keys of stages that exist in runs and records: only new weights in data/models change them
DIGESTS = {
    "bert-6x128": "90e55f34ed94",
    "bert-12x128": "050ce5dcc17c",
    "stacked:24:bert-12x128": "050ce5dcc17c",
    "layers:2,4:bert-6x128": "90e55f34ed94",
    MINILM: MINILM,
    f"layers:2,4,6:{MINILM}": f"layers:2,4,6:{MINILM}",
    "random:3x32": "random:3x32",
}
SMOKE = ("f7193d01fa2c", "47701fd2c643", "963e2c88c1fb", "9854cf123368")


def test_keys_of_the_projects_own_encoders_stay_as_they_were():
    assert {name: names.encoder_digest(name) for name in DIGESTS} == DIGESTS
    pipeline = Pipeline(config.scale("smoke"))
    stages = (pipeline.miner, pipeline.teacher, pipeline.student, pipeline.distil("LEAD"))
    assert tuple(stage.key for stage in stages) == SMOKE


def edit(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_file_that_decides_a_result_is_in_the_identity_of_a_folder(tmp_path):
    folder = Path(encoder(tmp_path / "bert", "bert"))
    seen = {names.encoder_digest(str(folder))}
    (folder / "1_Dense").mkdir()
    for change in (
        lambda: edit(folder / "config.json", layer_norm_eps=0.1),
        lambda: edit(folder / "tokenizer.json", normalizer=None),
        lambda: edit(folder / "tokenizer_config.json", do_lower_case=False),
        lambda: (folder / "vocab.txt").write_text("word"),
        lambda: (folder / "1_Dense" / "config.json").write_text('{"in_features": 4}'),
        lambda: (folder / "1_Dense" / "model.safetensors").write_bytes(b"other"),
        lambda: (folder / "model.safetensors").write_bytes(b"other"),
    ):
        change()
        seen.add(names.encoder_digest(str(folder)))
    assert len(seen) == 8
    for name in ("README.md", "._model.safetensors", "._config.json", "record.json"):
        (folder / name).write_text("nothing")
    assert names.encoder_digest(str(folder)) in seen


def test_a_miniature_whose_tokeniser_was_edited_is_another(tmp_path, monkeypatch):
    shutil.copytree(paths.MODELS / "bert-6x128", tmp_path / "bert-6x128")
    monkeypatch.setattr(paths, "MODELS", tmp_path)
    assert names.encoder_digest("bert-6x128") == DIGESTS["bert-6x128"]
    edit(tmp_path / "bert-6x128" / "tokenizer.json", normalizer=None)
    for name in ("bert-6x128", "random:3x32"):  # which has that tokeniser
        assert names.encoder_digest(name) != DIGESTS[name]


def test_a_hub_model_is_known_by_its_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(
        names,
        "try_to_load_from_cache",
        lambda *given: huggingface_hub.try_to_load_from_cache(*given, cache_dir=tmp_path),
    )
    assert names.encoder_digest("someone/tiny") == "someone/tiny"
    for commit in ("0" * 40, "1" * 40):
        model = tmp_path / "models--someone--tiny"
        (model / "refs").mkdir(parents=True, exist_ok=True)
        (model / "refs" / "main").write_text(commit)
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").write_text("{}")
        assert names.encoder_digest("someone/tiny") == f"someone/tiny@{commit}"
    assert names.encoder_digest(MINILM) == MINILM


def test_a_folder_of_the_users_own_is_not_a_miniature_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    encoder(tmp_path / "bert-6x128", "bert", layers=2)
    assert encoders.layers("bert-6x128") == 6
    for own in ("./bert-6x128", "~/bert-6x128", "layers:1,2:./bert-6x128"):
        assert encoders.layers(own) == 2


def test_files_of_another_system_are_no_weights(tmp_path):
    folder = Path(encoder(tmp_path / "bert", "bert"))
    (folder / "._model.safetensors").write_bytes(b"Mac OS X")
    encoders.check(str(folder))
    assert visible(folder, "*.safetensors") == [folder / "model.safetensors"]


@pytest.mark.parametrize("argument", ["--out=~/s", "--out=beir:~/s", "--out=a~b", "--out=~"])
def test_a_tilde_in_an_argument_is_the_users_home(argument, tmp_path, monkeypatch):
    given = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["leadkit", argument])
    monkeypatch.setattr("leadkit.__main__.app.cli", lambda **kwargs: given.extend(kwargs["args"]))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    main()
    expected = {"--out=~/s": f"--out={tmp_path}/s", "--out=~": f"--out={tmp_path}"}
    assert given == [expected.get(argument, argument)]


def test_copies_of_jupyterlab_are_no_lessons(tmp_path, capsys):
    for name in ("01_a.ipynb", "01_a-Copy1.ipynb", "01_a (1).ipynb", "02_b.ipynb", "._02_b.ipynb"):
        (tmp_path / name).write_text("half done")
    assert [path.name for path in site.numbered_notebooks(tmp_path)] == ["01_a.ipynb", "02_b.ipynb"]
    assert "01_a-Copy1.ipynb" in capsys.readouterr().out


class Planned:
    def __init__(self, fingerprint):
        self.print = fingerprint

    def fingerprint(self):
        return self.print

    def describe(self):
        return {"kind": "evaluate", "data": {"collection": f"beir:/{self.print}/beir"}}


def test_records_of_another_collection_are_not_replaced(tmp_path):
    row = {"experiment": "BM25", "seed": 0, "fingerprint": "a", "per_query": {}}
    row |= {"stage": Planned("a").describe()}
    (tmp_path / records.LINES).write_text(json.dumps(row) + "\n")
    message = "different collections or splits, fingerprints a and b: name another folder"
    with pytest.raises(ValueError, match=message):
        records.check_plan({0: {"BM25": Planned("b")}}, tmp_path)
    records.check_plan({0: {"BM25": Planned("a")}}, tmp_path)
