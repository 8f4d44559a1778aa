"""What a checkpoint holds beside an encoder is refused by name, before any work."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from toys import encoder, scale
from transformers import AlbertConfig, AlbertModel, BertForMaskedLM, BertModel

from leadkit import paths
from leadkit.experiments.pipeline import Pipeline
from leadkit.models import encoders, names
from leadkit.models.tokenizers import load_tokenizer


def rewrite(folder: Path, change: Callable[[dict], dict]) -> None:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})


def rename(prefix: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda w: {prefix + key: t for key, t in w.items()})


def with_weight(name: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, lambda w: {**w, name: torch.randn(1, 32)})


def with_dense(folder: Path) -> None:
    (folder / "1_Dense").mkdir()
    save_file({"linear.weight": torch.randn(8, 32)}, folder / "1_Dense" / "model.safetensors")
    listed = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(listed))


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def pickled_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


REFUSED = {
    "classifier": (with_weight("classifier.weight"), r"its head \(classifier.weight\) would be"),
    "colbert-ai": (with_weight("linear.weight"), r"its head \(linear.weight\) would be dropped"),
    "dense": (with_dense, r"its head \(1_Dense\) would be dropped"),
    "adapter": (with_adapter, r"its adapter \(adapter_config.json\) would be dropped"),
    "prefix": (rename("module."), r"lack \d+ tensors .* it holds module\.embeddings\.\S+ and the"),
    "other-prefix": (rename("encoder_q."), r"lack \d+ tensors .* it holds encoder_q\."),
    "pickled": (pickled_only, "holds no weights .* are pickled and never read"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("whose", ["teacher_encoder", "student_encoder"])
def test_what_would_be_dropped_is_refused_before_any_work(kind, whose, name, tmp_path):
    change, message = REFUSED[kind]
    change(Path(encoder(tmp_path / kind, "bert", 2)))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        Pipeline(scale(name, **{whose: str(tmp_path / kind)}))
    assert str(tmp_path / kind) in str(error.value) and not paths.RUNS.exists()


def test_poolers_heads_of_pretraining_and_spare_blocks_are_no_heads(tmp_path):
    masked = Path(encoder(tmp_path / "mlm", "bert"))
    BertForMaskedLM(BertModel.from_pretrained(masked).config).save_pretrained(masked)
    cut = Path(encoder(tmp_path / "cut", "bert", 4))  # its config.json asks for fewer
    config = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    pooled = encoder(tmp_path / "pooled", "bert")
    for folder in map(str, (masked, cut, pooled)):
        encoders.check(folder)
        assert encoders.load_encoder(folder, 0.0).config.num_hidden_layers == 3


def test_a_changed_folder_is_looked_at_again(tmp_path):
    folder = Path(encoder(tmp_path / "encoder", "bert"))
    encoders.check(str(folder))
    with_weight("classifier.weight")(folder)
    with pytest.raises(ValueError, match="would be dropped"):
        encoders.check(str(folder))


def test_transformer_in_a_folder_of_its_own(tmp_path):
    """As old versions of sentence-transformers wrote it."""
    whole = tmp_path / "old"
    whole.mkdir()
    plain = encoder(whole / "0_Transformer", "bert")
    listed = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (whole / "modules.json").write_text(json.dumps(listed))
    encoders.check(str(whole))
    assert names.source(str(whole)) == plain
    before = names.encoder_digest(str(whole))
    weights = load_file(Path(plain) / "model.safetensors")
    first = next(iter(weights))
    save_file(weights | {first: weights[first] + 1}, Path(plain) / "model.safetensors")
    assert names.encoder_digest(str(whole)) != before


def test_a_head_counts_in_the_digest(tmp_path):
    folder = Path(encoder(tmp_path / "encoder", "bert"))
    before = names.encoder_digest(str(folder))
    with_dense(folder)
    first = names.encoder_digest(str(folder))
    save_file({"linear.weight": torch.zeros(8, 32)}, folder / "1_Dense" / "model.safetensors")
    assert len({before, first, names.encoder_digest(str(folder))}) == 3


def test_albert_cannot_be_stacked(tmp_path):
    words = load_tokenizer("bert-6x128")
    sizes = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    config = AlbertConfig(vocab_size=len(words), embedding_size=16, num_hidden_layers=3, **sizes)
    AlbertModel(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    encoders.check(str(tmp_path))
    with pytest.raises(ValueError, match="model type 'albert' has no pile of 3 blocks"):
        encoders.check(f"stacked:6:{tmp_path}")


@pytest.mark.slow
def test_a_model_of_the_hub_without_safetensors(tmp_path):
    """A snapshot in the hub's cache, without a network."""
    cached = tmp_path / "hub" / "models--someone--pickled"
    snapshot = cached / "snapshots" / "0123456789012345678901234567890123456789"
    made = Path(encoder(tmp_path / "made", "bert"))
    pickled_only(made)
    shutil.copytree(made, snapshot)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(snapshot.name)
    code = "from leadkit.models import encoders; encoders.check('someone/pickled')"
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(paths.ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | offline, capture_output=True, text=True
    )
    said = r"FileNotFoundError: encoder 'someone/pickled': it has no weights in safetensors"
    assert re.search(said, ran.stderr), ran.stderr
