"""Miniature BERTs: a WordPiece tokeniser and encoders of hidden size 128, pre-trained on the text of a collection.

Two random spans are cut from every docstring of a batch. The objectives, the first always and one of the others or none with it:
- masked LM: 15 % of the tokens are masked and predicted (Devlin et al. 2018, section 3.1);
- contrastive: the [CLS] states of the two spans must find each other, all other docstrings of the batch being negatives
  (Izacard et al. 2022, "independent cropping");
- bottlenecked: a decoder of one layer predicts half of the tokens from the [CLS] state and the other half (Xiao et al. 2022,
  section 2.2, "basic decoding"); it is thrown away afterwards.
With the first alone [CLS] carries next to nothing. Table 8 starts students from each of the three.

The encoder grows by stacking: 3 layers, then 6, then 12, each start twice the layers of the one before (Gong et al. 2019).
Text: the passages of the collection, with the training queries before theirs; no dev or test query.
"""

import copy
import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from leadkit.config import Schedule
from leadkit.data.collections import Collection, load
from leadkit.files import alone, digest, fingerprint, write_folder, write_json
from leadkit.models.attention import set_attention
from leadkit.models.encoders import grow
from leadkit.training.loop import fit

OBJECTIVES = {
    "contrastive": "",
    "masked LM": "-masked-lm",
    "bottlenecked": "-bottlenecked",
}  # what an encoder's name ends in


@dataclass(frozen=True)
class Pretraining:
    """One growth stage after the other; every field is recorded beside the weights."""

    objective: str = "contrastive"
    collection: str = "python-docs"
    vocabulary: int = 8192
    hidden: int = 128
    layers: tuple[int, ...] = (3, 6, 12)
    steps: tuple[int, ...] = (2500, 2000, 1500)
    batch: int = 128  # docstrings; two spans of each
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
        """The same without the growth stages behind the one of so many layers."""
        if layers not in self.layers:
            raise ValueError(f"layers is {layers}: use one of {', '.join(map(str, self.layers))}")
        last = self.layers.index(layers) + 1
        return replace(
            self,
            layers=self.layers[:last],
            steps=self.steps[:last],
            learning_rate=self.learning_rate[:last],
        )

    def name(self, layers: int) -> str:
        """The folder of the encoder of so many layers."""
        return f"bert-{layers}x{self.hidden}{OBJECTIVES[self.objective]}"


def texts(collection: Collection) -> list[str]:
    """Every passage, with its training query before it where it has one."""
    text = dict(collection.passages)
    for qid, relevant in collection.qrels["train"].items():
        for pid in relevant:
            text[pid] = f"{collection.queries[qid]} {collection.passages[pid]}"
    return list(text.values())


def train_tokenizer(lines: list[str], vocabulary: int) -> BertTokenizerFast:
    """An uncased WordPiece tokeniser with BERT's special tokens: of the same lines the same, word by word and number by number."""
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    normalizer, splitter = wordpiece._tokenizer.normalizer, wordpiece._tokenizer.pre_tokenizer
    pieces = {piece for line in lines for piece in normalizer.normalize_str(line).split()}
    words = {word for piece in pieces for word, _ in splitter.pre_tokenize_str(piece)}
    # The trainer would number the characters inside of words as chance has it, and by these numbers it chooses between pairs.
    inside = [
        f"##{character}"
        for character in sorted({character for word in words for character in word[1:]})
    ]
    wordpiece.train_from_iterator(
        lines,
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *inside],
    )
    wordpiece = BertWordPieceTokenizer(
        wordpiece.get_vocab(), lowercase=True
    )  # where those characters are words like others
    return BertTokenizerFast(
        tokenizer_object=wordpiece._tokenizer, do_lower_case=True, model_max_length=256
    )


class Spans:
    """Random spans of tokenised texts, padded: one flat array of token ids and the offset of each text."""

    def __init__(self, tokenizer: BertTokenizerFast, lines: list[str]):
        ids = tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"]
        self.flat = torch.tensor([token for row in ids for token in row])
        self.length = torch.tensor([len(row) for row in ids])
        self.start = self.length.cumsum(0) - self.length
        self.cls, self.sep = tokenizer.cls_token_id, tokenizer.sep_token_id

    def draw(self, rows: Tensor, shortest: int, longest: int) -> tuple[Tensor, Tensor]:
        """(ids, mask) of one span per row, [CLS] and [SEP] around it; (B, T)."""
        B = len(rows)
        size = torch.randint(shortest, longest - 1, (B,)).minimum(self.length[rows])
        first = self.start[rows] + (torch.rand(B) * (self.length[rows] - size + 1)).long()
        at = torch.arange(int(size.max()))  # (T - 2,)
        inside = at < size[:, None]  # (B, T - 2)
        body = (
            self.flat[(first[:, None] + at).clamp(max=len(self.flat) - 1)] * inside
        )  # (B, T - 2), [PAD] is 0
        ids = torch.cat(
            [torch.full((B, 1), self.cls), body, torch.zeros(B, 1, dtype=torch.long)], 1
        )  # (B, T)
        ids[torch.arange(B), size + 1] = self.sep
        return ids, torch.arange(ids.shape[1]) < size[:, None] + 2


def mask_tokens(
    ids: Tensor, special: int, mask_id: int, vocabulary: int, rate: float = 0.15
) -> tuple[Tensor, Tensor]:
    """(masked ids, chosen positions): `rate` of the ordinary tokens; of these 80 % [MASK], 10 % a random token, 10 % unchanged."""
    chosen = (torch.rand(ids.shape) < rate) & (ids >= special)
    kind = torch.rand(ids.shape)
    masked = torch.where(chosen & (kind < 0.8), mask_id, ids)
    return torch.where(
        chosen & (kind > 0.9), torch.randint(special, vocabulary, ids.shape), masked
    ), chosen


def contrastive_loss(a: Tensor, b: Tensor) -> Tensor:
    """InfoNCE between the [CLS] states (B, H) of two spans of the same texts, in both directions, scaled by 1 / sqrt(H)."""
    scores = a @ b.T / a.shape[1] ** 0.5  # (B, B)
    same = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2


def bottleneck_loss(
    model: BertForMaskedLM, cls: Tensor, ids: Tensor, mask: Tensor, special: int, mask_id: int
) -> Tensor:
    """`model.decoder` predicts half of the tokens of `ids` (B, T), from the [CLS] states (B, H) and the other half."""
    masked, chosen = mask_tokens(ids, special, mask_id, model.config.vocab_size, rate=0.5)
    seen = model.bert.embeddings(masked.to(cls.device))  # (B, T, H)
    states = model.decoder(
        torch.cat([cls[:, None].to(seen.dtype), seen[:, 1:]], 1),
        src_key_padding_mask=~mask.to(cls.device),
    )
    return F.cross_entropy(
        model.cls(states[chosen.to(cls.device)]).float(), ids[chosen].to(cls.device)
    )


def span_loss(
    model: BertForMaskedLM,
    spans: list[tuple[Tensor, Tensor]],
    special: int,
    mask_id: int,
    objective: str = "contrastive",
) -> dict[str, Tensor]:
    """Masked LM on both spans plus the objective's own term."""
    device, cls, mlm = model.device, [], []
    for ids, mask in spans:
        masked, chosen = mask_tokens(ids, special, mask_id, model.config.vocab_size)
        states = model.bert(
            masked.to(device), attention_mask=mask.to(device)
        ).last_hidden_state  # (B, T, H)
        cls.append(states[:, 0].float())  # (B, H)
        logits = model.cls(states[chosen.to(device)])  # (masked tokens, V)
        mlm.append(F.cross_entropy(logits.float(), ids[chosen].to(device)))
    parts = {"masked_lm": sum(mlm) / 2}
    if objective == "contrastive":
        parts["contrastive"] = contrastive_loss(*cls)
    if objective == "bottlenecked":
        decoded = (
            bottleneck_loss(model, c, *span, special, mask_id)
            for c, span in zip(cls, spans, strict=True)
        )
        parts["bottleneck"] = sum(decoded) / 2
    return {"total": sum(parts.values()), **parts}


def pretrain(config: Pretraining, out: Path) -> None:
    """Write `out`/`config.name(layers)` for every growth stage: weights (float16), tokeniser, record.

    What is interrupted goes on from its last checkpoint; what stands there whole is not trained again.
    """
    collection = load(config.collection)
    folders = [out / config.name(layers) for layers in config.layers]
    growing = out / f".{folders[0].name}-{fingerprint([asdict(config), collection.fingerprint])}"
    lock = out / f".{folders[0].name}.lock"
    with alone(lock, folders[-1]):
        if all(_stands(folder, config, collection) for folder in folders):
            print(
                f"{folders[-1]} stands from before, pre-trained with these settings on these texts"
            )
        else:
            _grow(config, collection, out, growing)
        for left in (
            growing,
            *(path for folder in folders for path in out.glob(f".{folder.name}.*")),
        ):  # of killed processes too
            shutil.rmtree(left, ignore_errors=True)
        lock.unlink()


def _stands(folder: Path, config: Pretraining, collection: Collection) -> bool:
    """Whether the encoder of the folder is whole and was pre-trained so."""
    try:
        record = json.loads((folder / "record.json").read_text())
        return (
            record["config"] == json.loads(json.dumps(asdict(config)))
            and record["fingerprint"] == collection.fingerprint
            and record["sha256"] == digest(folder / "model.safetensors")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _grow(config: Pretraining, collection: Collection, out: Path, growing: Path) -> None:
    """Train one growth stage after the other, with checkpoints in `growing`."""
    lines = texts(collection)
    tokenizer = train_tokenizer(lines, config.vocabulary)
    spans = Spans(tokenizer, lines)
    special = max(tokenizer.all_special_ids) + 1
    torch.manual_seed(config.seed)
    model: nn.Module = BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden,
            num_hidden_layers=config.layers[0],
            num_attention_heads=config.hidden // 64 or 1,
            intermediate_size=4 * config.hidden,
            max_position_embeddings=256,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    set_attention(model, config.bf16)
    heads, inner = model.config.num_attention_heads, model.config.intermediate_size
    if config.objective == "bottlenecked":
        model.decoder = nn.TransformerEncoderLayer(
            config.hidden, heads, inner, dropout=0.0, activation="gelu", batch_first=True
        )

    def loss_at(step: int) -> dict[str, Tensor]:
        rows = torch.randint(len(lines), (config.batch,))
        drawn = [spans.draw(rows, 6, 24), spans.draw(rows, 16, config.tokens)]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.bf16):
            return span_loss(model, drawn, special, tokenizer.mask_token_id, config.objective)

    for layers, steps, learning_rate in zip(
        config.layers, config.steps, config.learning_rate, strict=True
    ):
        if layers > model.config.num_hidden_layers:
            grow(model.bert, layers)
        started = time.monotonic()
        schedule = Schedule(steps, learning_rate, clip=1.0)
        label = f"pre-training ({config.objective}), {layers} layers"
        log = fit(model, loss_at, schedule, config.seed, growing / str(layers), label)
        encoder = copy.deepcopy(model.bert).half()
        encoder.config.hidden_dropout_prob = encoder.config.attention_probs_dropout_prob = 0.1
        record = {
            "config": asdict(config),
            "fingerprint": collection.fingerprint,
            "layers": layers,
            "texts": len(lines),
            "seconds": round(time.monotonic() - started),
            "torch": torch.__version__,
            "log": log[:: max(1, steps // 50)],
        }

        def save(folder: Path, encoder: nn.Module = encoder, record: dict = record) -> None:
            encoder.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            write_json(
                folder / "record.json", record | {"sha256": digest(folder / "model.safetensors")}
            )

        write_folder(out / config.name(layers), save)
