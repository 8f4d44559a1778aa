"""Miniature BERTs: a WordPiece tokeniser and encoders, pre-trained on the text of a collection.

The objectives are in `objectives`. With masked LM alone [CLS] carries next to nothing; Table 8
starts students from each of the three.

The encoder grows by stacking: 3 layers, then 6, then 12. Each stage starts from twice the layers
of the one before (Gong et al. 2019).
"""

import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from leadkit.config import Schedule
from leadkit.data.collections import Collection, load
from leadkit.files import alone, digest, fingerprint, write_folder, write_json
from leadkit.models.attention import set_attention
from leadkit.models.encoders import grow
from leadkit.training.loop import LossAt, Operation, fit
from leadkit.training.objectives import OBJECTIVES, Spans, span_loss

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 256  # tokens of a text that an encoder takes


@dataclass(frozen=True)
class Pretraining:
    """The settings of one growth stage after the other. All are recorded beside the weights."""

    objective: str = "contrastive"
    collection: str = "python-docs"
    vocabulary: int = 8192
    hidden: int = 128
    layers: tuple[int, ...] = (3, 6, 12)
    steps: tuple[int, ...] = (2500, 2000, 1500)
    batch: int = 128  # texts; two spans of each
    tokens: int = 64  # of the longer span, at most
    learning_rate: tuple[float, ...] = (1e-3, 1e-3, 5e-4)
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective {self.objective!r} is unknown: use one of {', '.join(OBJECTIVES)}"
            )

    def up_to(self, layers: int) -> "Pretraining":
        """The same, ending with the growth stage of so many layers; ValueError if there is none."""
        if layers not in self.layers:
            raise ValueError(f"layers is {layers}: use one of {', '.join(map(str, self.layers))}")
        stages = self.layers.index(layers) + 1
        return replace(
            self,
            layers=self.layers[:stages],
            steps=self.steps[:stages],
            learning_rate=self.learning_rate[:stages],
        )

    def name(self, layers: int) -> str:
        """The name of the encoder of so many layers, and of its folder."""
        return f"bert-{layers}x{self.hidden}{OBJECTIVES[self.objective]}"


def pretrain(config: Pretraining, out: Path, operation: Operation = Operation()) -> None:
    """Train an encoder in each growth stage and write `out`/`config.name(layers)`.

    A folder holds weights (float16), tokeniser and record.json. An interrupted run continues from
    its last checkpoint. If all folders are there, whole and of these settings and texts, nothing
    is trained.
    """
    collection = load(config.collection)
    folders = [out / config.name(layers) for layers in config.layers]
    checkpoints = fingerprint([asdict(config), collection.fingerprint])
    growing = out / f".{folders[0].name}-{checkpoints}"
    lock = out / f".{folders[0].name}.lock"
    with alone(lock, folders[-1]):
        if all(_is_whole(folder, config, collection) for folder in folders):
            print(
                f"{folders[-1]} stands from before, pre-trained with these settings on these texts"
            )
        else:
            _grow(config, collection, out, growing, operation)
        shutil.rmtree(growing, ignore_errors=True)
        for folder in folders:
            for left_by_a_killed_process in out.glob(f".{folder.name}.*"):
                shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
        lock.unlink()


def texts(collection: Collection) -> list[str]:
    """Every passage, with its training query before it where it has one. No dev or test query."""
    text = dict(collection.passages)
    for qid, relevant in collection.qrels["train"].items():
        for pid in relevant:
            text[pid] = f"{collection.queries[qid]} {collection.passages[pid]}"
    return list(text.values())


def train_tokenizer(lines: list[str], vocabulary: int) -> BertTokenizer:
    """An uncased WordPiece tokeniser with BERT's special tokens. The same lines give the same one.

    The trainer would number the characters inside of words at random, and it chooses between
    equally frequent pairs by these numbers. They are therefore given to it, sorted, as special
    tokens; in the tokeniser that is returned they are ordinary tokens.
    """
    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(
        lines,
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=SPECIAL_TOKENS + _inner_characters(trained, lines),
    )
    plain = BertWordPieceTokenizer(trained.get_vocab(), lowercase=True)
    return BertTokenizer(
        tokenizer_object=plain._tokenizer, do_lower_case=True, model_max_length=LONGEST
    )


def _inner_characters(wordpiece: BertWordPieceTokenizer, lines: list[str]) -> list[str]:
    """Every character that is not the first of a word, as a sorted list of tokens (##a)."""
    normalizer = wordpiece._tokenizer.normalizer
    splitter = wordpiece._tokenizer.pre_tokenizer
    pieces = {piece for line in lines for piece in normalizer.normalize_str(line).split()}
    words = {word for piece in pieces for word, _ in splitter.pre_tokenize_str(piece)}
    characters = {character for word in words for character in word[1:]}
    return [f"##{character}" for character in sorted(characters)]


def _is_whole(folder: Path, config: Pretraining, collection: Collection) -> bool:
    """Whether a folder holds the encoder of these settings and texts, undamaged."""
    try:
        record = json.loads((folder / "record.json").read_text())
        return (
            record["config"] == json.loads(json.dumps(asdict(config)))
            and record["fingerprint"] == collection.fingerprint
            and record["sha256"] == digest(folder / "model.safetensors")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _grow(
    config: Pretraining, collection: Collection, out: Path, growing: Path, operation: Operation
) -> None:
    """Train one growth stage after the other, with checkpoints in `growing`."""
    lines = texts(collection)
    tokenizer = train_tokenizer(lines, config.vocabulary)
    torch.manual_seed(config.seed)
    model = _smallest(config, len(tokenizer))
    loss_at = _loss_of_step(config, model, tokenizer, lines)
    for layers, steps, learning_rate in zip(
        config.layers, config.steps, config.learning_rate, strict=True
    ):
        if layers > model.config.num_hidden_layers:
            grow(model.bert, layers)
        started = time.monotonic()
        schedule = Schedule(steps, learning_rate, clip=1.0)
        label = f"pre-training ({config.objective}), {layers} layers"
        folder = growing / str(layers)
        log = fit(model, loss_at, schedule, config.seed, folder, label, operation=operation)
        record = {
            "config": asdict(config),
            "fingerprint": collection.fingerprint,
            "layers": layers,
            "texts": len(lines),
            "seconds": round(time.monotonic() - started),
            "torch": torch.__version__,
            "log": log[:: max(1, steps // 50)],
        }
        _save(model.bert, tokenizer, record, out / config.name(layers))


def _smallest(config: Pretraining, vocabulary: int) -> BertForMaskedLM:
    """The untrained model of the first growth stage, with the decoder of its objective."""
    heads = config.hidden // 64 or 1
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=config.hidden,
            num_hidden_layers=config.layers[0],
            num_attention_heads=heads,
            intermediate_size=4 * config.hidden,
            max_position_embeddings=LONGEST,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    set_attention(model, config.bf16)
    if config.objective == "bottlenecked":
        model.decoder = nn.TransformerEncoderLayer(
            config.hidden,
            heads,
            4 * config.hidden,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
        )
    return model


def _loss_of_step(
    config: Pretraining, model: BertForMaskedLM, tokenizer: BertTokenizer, lines: list[str]
) -> LossAt:
    spans = Spans(tokenizer, lines)
    special = max(tokenizer.all_special_ids) + 1
    mask_id = tokenizer.mask_token_id

    def loss_at(step: int) -> dict[str, Tensor]:
        rows = torch.randint(len(lines), (config.batch,))  # (B,)
        drawn = [spans.draw(rows, 6, 24), spans.draw(rows, 16, config.tokens)]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.bf16):
            return span_loss(model, drawn, special, mask_id, config.objective)

    return loss_at


def _save(bert: nn.Module, tokenizer: BertTokenizer, record: dict[str, Any], folder: Path) -> None:
    encoder: Any = copy.deepcopy(bert).half()
    encoder.config.hidden_dropout_prob = 0.1
    encoder.config.attention_probs_dropout_prob = 0.1

    def write(part: Path) -> None:
        encoder.save_pretrained(part)
        tokenizer.save_pretrained(part)
        sha256 = digest(part / "model.safetensors")
        write_json(part / "record.json", record | {"sha256": sha256})

    write_folder(folder, write)
