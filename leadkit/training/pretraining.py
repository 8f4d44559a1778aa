"""Miniature BERTs: a WordPiece tokeniser and encoders, pre-trained on the text of a collection.

The objectives are in `objectives`. The usual one also distils the vectors of a larger encoder. With
masked LM alone [CLS] carries next to nothing; Table 8 starts students from several objectives.

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
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from leadkit.config import Schedule
from leadkit.data.collections import Collection, load
from leadkit.data.tokens import Tokenised, tokenise
from leadkit.files import alone, digest, fingerprint, write_folder, write_json
from leadkit.models.attention import set_attention
from leadkit.models.encoders import check, grow, hidden_size
from leadkit.training.loop import LossAt, Operation, fit
from leadkit.training.objectives import OBJECTIVES, step_loss
from leadkit.training.teaching import kept_vectors, word_vectors
from leadkit.training.views import Draws, long_views, short_views
from leadkit.training.wordpiece import LONGEST, train_tokenizer

TAUGHT = 128  # tokens of a view that the teacher reads


@dataclass(frozen=True)
class Pretraining:
    """The settings of one growth stage after the other. All are recorded beside the weights."""

    objective: str = "distilled"
    collection: str = "python-docs"
    teacher: str = "sentence-transformers/all-MiniLM-L6-v2"  # of the objective "distilled"
    vocabulary: int = 8192
    hidden: int = 128
    layers: tuple[int, ...] = (3, 6, 12)
    steps: tuple[int, ...] = (1000, 4000, 3000)
    batch: int = 64  # texts; two views of each
    short: int = 24  # tokens of a short view, at most
    long: int = 112  # tokens of a long view, at most
    paired: int = 8  # texts of a batch whose views are joined as pairs
    others: int = 3  # pairs of each with another text; without a teacher all are of one text
    learning_rate: tuple[float, ...] = (2e-3, 1.5e-3, 1e-3)
    seed: int = 0
    bf16: bool = False

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"objective {self.objective!r} is unknown: use one of {', '.join(OBJECTIVES)}"
            )
        pairs = self.paired * (self.others + 1)
        if pairs > self.batch:
            raise ValueError(
                f"paired is {self.paired}, others {self.others}: that makes {pairs} pairs; use at "
                f"most as many as the {self.batch} texts of a batch"
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
    is trained. Raises as `check` for a teacher that cannot be read.
    """
    if config.objective == "distilled":
        check(config.teacher)
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
    model = _smallest(config, tokenizer)
    loss_at = _loss_of_step(config, collection, model, tokenizer, growing)
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


def _smallest(config: Pretraining, tokenizer: BertTokenizer) -> BertForMaskedLM:
    """The model of the first growth stage, untrained, with what its objective needs beside it."""
    heads = config.hidden // 64 or 1
    model = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            num_hidden_layers=config.layers[0],
            num_attention_heads=heads,
            intermediate_size=4 * config.hidden,
            max_position_embeddings=LONGEST,
            initializer_range=config.hidden**-0.5,  # BERT's 0.02 makes [CLS] deaf for long
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    set_attention(model, config.bf16)
    if config.objective == "distilled":
        model.to_teacher = nn.Linear(config.hidden, hidden_size(config.teacher))
        model.match = nn.Linear(config.hidden, 1)
        words = word_vectors(config.teacher, tokenizer, config.hidden)  # (V, H)
        model.bert.embeddings.word_embeddings.weight.data.copy_(words)
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
    config: Pretraining,
    collection: Collection,
    model: BertForMaskedLM,
    tokenizer: BertTokenizer,
    folder: Path,
) -> LossAt:
    """Step -> loss. The tokens of all views, and the teacher's vectors, are kept in `folder`."""
    views = short_views(collection, config.seed), long_views(collection, config.seed)
    short = _tokenised(views[0], tokenizer, config.short, folder)
    long = _tokenised(views[1], tokenizer, config.long, folder)
    vectors = None
    if config.objective == "distilled":
        short_vectors, long_vectors = (
            kept_vectors(config.teacher, each, TAUGHT, config.bf16, folder) for each in views
        )
        vectors = short_vectors, long_vectors  # (2 * texts, D) each
    draw = Draws(short, long, vectors, config.batch, config.paired, config.others)
    special = max(tokenizer.all_special_ids) + 1
    mask_id = tokenizer.mask_token_id

    def loss_at(step: int) -> dict[str, Tensor]:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.bf16):
            return step_loss(model, draw(), special, mask_id, config.objective)

    return loss_at


def _tokenised(
    views: list[list[str]], tokenizer: BertTokenizer, longest: int, folder: Path
) -> Tokenised:
    lines = [line for view in views for line in view]
    named = {str(i): line for i, line in enumerate(lines)}
    return tokenise(named, tokenizer, longest, folder)


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
