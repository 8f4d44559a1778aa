"""Pre-training objectives, computed on two random spans of each text of a batch.

- masked LM: 15 % of the tokens are masked and predicted (Devlin et al. 2018, section 3.1). It is
  always part of the loss; one of the other two may be added.
- contrastive: the [CLS] states of the two spans must find each other among the spans of all texts
  of the batch (Izacard et al. 2022, "independent cropping").
- bottlenecked: a decoder of one layer predicts half of the tokens from the [CLS] state and the
  other half of the tokens (Xiao et al. 2022, section 2.2, "basic decoding").

Shapes: B texts in a batch, T tokens in a span, V words of the tokeniser, hidden size H.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertForMaskedLM, BertTokenizer

# objective -> what is appended to the name of an encoder
OBJECTIVES = {"contrastive": "", "masked LM": "-masked-lm", "bottlenecked": "-bottlenecked"}


class Spans:
    """Random spans of tokenised texts, padded.

    All tokens are in one flat array; each text has a start and a length in it.
    """

    def __init__(self, tokenizer: BertTokenizer, lines: list[str]):
        ids = tokenizer(lines, add_special_tokens=False, verbose=False)["input_ids"]
        self.flat = torch.tensor([token for row in ids for token in row])  # (all tokens,)
        self.length = torch.tensor([len(row) for row in ids])  # (texts,)
        self.start = self.length.cumsum(0) - self.length  # (texts,)
        self.cls = tokenizer.cls_token_id
        self.sep = tokenizer.sep_token_id

    def draw(self, rows: Tensor, shortest: int, longest: int) -> tuple[Tensor, Tensor]:
        """One span of each text in `rows` (B,), between [CLS] and [SEP]: ids and mask, (B, T).

        shortest: tokens of a span at least, where its text has so many. longest: T at most.
        """
        B = len(rows)
        length = self.length[rows]  # (B,)
        size = torch.randint(shortest, longest - 1, (B,)).minimum(length)  # (B,)
        first = self.start[rows] + (torch.rand(B) * (length - size + 1)).long()  # (B,)
        position = torch.arange(int(size.max()))  # (T - 2,)
        inside = position < size[:, None]  # (B, T - 2)
        index = (first[:, None] + position).clamp(max=len(self.flat) - 1)  # (B, T - 2)
        body = self.flat[index] * inside  # (B, T - 2); [PAD] is 0
        cls = torch.full((B, 1), self.cls)
        padding = torch.zeros(B, 1, dtype=torch.long)
        ids = torch.cat([cls, body, padding], 1)  # (B, T)
        ids[torch.arange(B), size + 1] = self.sep
        mask = torch.arange(ids.shape[1]) < size[:, None] + 2  # (B, T)
        return ids, mask


def mask_tokens(
    ids: Tensor, special: int, mask_id: int, vocabulary: int, rate: float = 0.15
) -> tuple[Tensor, Tensor]:
    """Choose `rate` of the ordinary tokens of ids (B, T): masked ids and chosen positions, (B, T).

    Of the chosen tokens 80 % become [MASK], 10 % a random token; 10 % stay as they are.
    Tokens below `special` are special tokens and never chosen.
    """
    chosen = (torch.rand(ids.shape) < rate) & (ids >= special)
    kind = torch.rand(ids.shape)
    masked = torch.where(chosen & (kind < 0.8), mask_id, ids)
    random = torch.randint(special, vocabulary, ids.shape)
    return torch.where(chosen & (kind > 0.9), random, masked), chosen


def contrastive_loss(a: Tensor, b: Tensor) -> Tensor:
    """InfoNCE, in both directions, between the [CLS] states (B, H) of two spans of each text."""
    H = a.shape[1]
    scores = a @ b.T / H**0.5  # (B, B)
    same = torch.arange(len(scores), device=scores.device)  # (B,)
    # -\log \frac{\exp(a_i \cdot b_i / \sqrt{H})}{\sum_j \exp(a_i \cdot b_j / \sqrt{H})}
    return (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2


def bottleneck_loss(
    model: BertForMaskedLM, cls: Tensor, ids: Tensor, mask: Tensor, special: int, mask_id: int
) -> Tensor:
    """`model.decoder` predicts half of the tokens from the [CLS] states and the other half.

    cls: (B, H). ids, mask: (B, T).
    """
    device = cls.device
    masked, chosen = mask_tokens(ids, special, mask_id, model.config.vocab_size, rate=0.5)
    embedded = model.bert.embeddings(masked.to(device))  # (B, T, H)
    seen = torch.cat([cls[:, None].to(embedded.dtype), embedded[:, 1:]], 1)  # (B, T, H)
    decoder = cast(nn.Module, model.decoder)
    states = decoder(seen, src_key_padding_mask=~mask.to(device))  # (B, T, H)
    return _prediction_loss(model, states, ids, chosen)


def span_loss(
    model: BertForMaskedLM,
    spans: list[tuple[Tensor, Tensor]],
    special: int,
    mask_id: int,
    objective: str = "contrastive",
) -> dict[str, Tensor]:
    """The loss of two spans, (ids, mask) each: its parts and their sum, "total"."""
    device = model.device
    cls_states = []
    losses = []
    for ids, mask in spans:
        masked, chosen = mask_tokens(ids, special, mask_id, model.config.vocab_size)
        encoded = model.bert(masked.to(device), attention_mask=mask.to(device))
        states = encoded.last_hidden_state  # (B, T, H)
        cls_states.append(states[:, 0].float())  # (B, H)
        losses.append(_prediction_loss(model, states, ids, chosen))
    parts = {"masked_lm": (losses[0] + losses[1]) / 2}
    if objective == "contrastive":
        parts["contrastive"] = contrastive_loss(*cls_states)
    if objective == "bottlenecked":
        first, second = (
            bottleneck_loss(model, cls, ids, mask, special, mask_id)
            for cls, (ids, mask) in zip(cls_states, spans, strict=True)
        )
        parts["bottleneck"] = (first + second) / 2
    total = torch.stack(list(parts.values())).sum()
    return {"total": total, **parts}


def _prediction_loss(model: BertForMaskedLM, states: Tensor, ids: Tensor, chosen: Tensor) -> Tensor:
    """Cross-entropy of the chosen tokens, predicted from their states (B, T, H)."""
    logits = model.cls(states[chosen.to(states.device)])  # (chosen tokens, V)
    return F.cross_entropy(logits.float(), ids[chosen].to(states.device))
