"""Miniature BERTs: a WordPiece tokeniser and encoders of hidden size 128, pre-trained on the text of a collection.

Two objectives in one forward pass over masked spans:
- masked language modelling: 15 % of the tokens (Devlin et al. 2018, section 3.1);
- a contrastive loss between the [CLS] states of two random spans of the same docstring, all other docstrings of the batch being
  negatives (Izacard et al. 2022, "independent cropping"): without it [CLS] carries next to nothing, and short fine-tuning fails.

The encoder grows by stacking: 3 layers, then 6, then 12, each start twice the layers of the one before (Gong et al. 2019).
Text: the passages of the collection, with the training queries before theirs; no dev or test query.
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import BertWordPieceTokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

from leadkit.collection import Collection, load
from leadkit.files import write_json
from leadkit.train import Schedule, fit


@dataclass(frozen=True)
class Pretraining:
    """One growth stage after the other; every field is recorded beside the weights."""

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


def texts(collection: Collection) -> list[str]:
    """Every passage, with its training query before it where it has one."""
    text = dict(collection.passages)
    for qid, relevant in collection.qrels["train"].items():
        for pid in relevant:
            text[pid] = f"{collection.queries[qid]} {collection.passages[pid]}"
    return list(text.values())


def train_tokenizer(lines: list[str] | Iterator[str], vocabulary: int) -> BertTokenizerFast:
    """An uncased WordPiece tokeniser with BERT's special tokens."""
    wordpiece = BertWordPieceTokenizer(lowercase=True)
    wordpiece.train_from_iterator(lines, vocab_size=vocabulary, min_frequency=2, show_progress=False)
    return BertTokenizerFast(tokenizer_object=wordpiece._tokenizer, do_lower_case=True, model_max_length=256)


def grow(model: BertForMaskedLM, layers: int) -> BertForMaskedLM:
    """The same encoder with its pile of layers repeated until there are `layers` of them."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = layers
    grown = BertForMaskedLM(config)
    grown.load_state_dict(model.state_dict(), strict=False)
    pile = model.bert.encoder.layer
    for i, layer in enumerate(grown.bert.encoder.layer):
        layer.load_state_dict(pile[i % len(pile)].state_dict())
    return grown


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
        body = self.flat[(first[:, None] + at).clamp(max=len(self.flat) - 1)] * inside  # (B, T - 2), [PAD] is 0
        ids = torch.cat([torch.full((B, 1), self.cls), body, torch.zeros(B, 1, dtype=torch.long)], 1)  # (B, T)
        ids[torch.arange(B), size + 1] = self.sep
        return ids, torch.arange(ids.shape[1]) < size[:, None] + 2


def mask_tokens(ids: Tensor, special: int, mask_id: int, vocabulary: int) -> tuple[Tensor, Tensor]:
    """(masked ids, chosen positions): 15 % of the ordinary tokens, of these 80 % [MASK], 10 % a random token, 10 % as they are."""
    chosen = (torch.rand(ids.shape) < 0.15) & (ids >= special)
    kind = torch.rand(ids.shape)
    masked = torch.where(chosen & (kind < 0.8), mask_id, ids)
    return torch.where(chosen & (kind > 0.9), torch.randint(special, vocabulary, ids.shape), masked), chosen


def span_loss(model: BertForMaskedLM, spans: list[tuple[Tensor, Tensor]], special: int, mask_id: int) -> dict[str, Tensor]:
    """Masked language modelling on both spans plus InfoNCE between their [CLS] states, scaled by 1 / sqrt(hidden)."""
    device, cls, mlm = model.device, [], []
    for ids, mask in spans:
        masked, chosen = mask_tokens(ids, special, mask_id, model.config.vocab_size)
        states = model.bert(masked.to(device), attention_mask=mask.to(device)).last_hidden_state  # (B, T, H)
        cls.append(states[:, 0].float())  # (B, H)
        logits = model.cls(states[chosen.to(device)])  # (masked tokens, V)
        mlm.append(F.cross_entropy(logits.float(), ids[chosen].to(device)))
    scores = cls[0] @ cls[1].T / model.config.hidden_size**0.5  # (B, B)
    same = torch.arange(len(scores), device=device)
    contrastive = (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2
    masked_lm = sum(mlm) / 2
    return {"total": masked_lm + contrastive, "masked_lm": masked_lm, "contrastive": contrastive}


def pretrain(config: Pretraining, out: Path) -> None:
    """Write `out`/bert-{layers}x{hidden} for every growth stage of six layers or more: weights (float16), tokeniser, record."""
    collection = load(config.collection)
    lines = texts(collection)
    tokenizer = train_tokenizer(lines, config.vocabulary)
    spans = Spans(tokenizer, lines)
    special = max(tokenizer.all_special_ids) + 1
    torch.manual_seed(config.seed)
    model: nn.Module = BertForMaskedLM(BertConfig(
        vocab_size=len(tokenizer), hidden_size=config.hidden, num_hidden_layers=config.layers[0],
        num_attention_heads=config.hidden // 64 or 1, intermediate_size=4 * config.hidden, max_position_embeddings=256,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))

    def loss_at(step: int) -> dict[str, Tensor]:
        rows = torch.randint(len(lines), (config.batch,))
        drawn = [spans.draw(rows, 6, 24), spans.draw(rows, 16, config.tokens)]
        with torch.autocast(model.device.type, torch.bfloat16, enabled=config.bf16):
            return span_loss(model, drawn, special, tokenizer.mask_token_id)

    for layers, steps, learning_rate in zip(config.layers, config.steps, config.learning_rate, strict=True):
        if layers > model.config.num_hidden_layers:
            model = grow(model, layers)
        started = time.time()
        schedule = Schedule(steps, learning_rate, clip=1.0)
        log = fit(model, loss_at, schedule, config.seed, out / f"growing-{layers}", f"pre-training, {layers} layers")
        folder = out / f"bert-{layers}x{config.hidden}"
        encoder = copy.deepcopy(model.bert).half()
        encoder.config.hidden_dropout_prob = encoder.config.attention_probs_dropout_prob = 0.1
        encoder.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json(folder / "record.json", {
            "config": asdict(config), "fingerprint": collection.fingerprint, "layers": layers, "texts": len(lines),
            "seconds": round(time.time() - started), "torch": torch.__version__, "log": log[:: max(1, steps // 50)]})
