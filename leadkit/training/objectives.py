"""Pre-training objectives, computed on a short and a long view of each text of a batch.

- masked LM: the two views are joined as a pair, 15 % of the tokens are masked and predicted
  (Devlin et al. 2018, section 3.1). It is always part of the loss.
- contrastive: the [CLS] states of the two views must find each other among the views of all texts
  of the batch (Izacard et al. 2022, "independent cropping"); so must their token states, compared
  by MaxSim.
- distilled: contrastive, and three more losses. The similarities must be those of a teacher's
  vectors. A linear layer must find the teacher's vector in the [CLS] state. The [CLS] state of a
  pair must tell pairs of one text from pairs of two (Devlin et al. 2018, section 3.1, here with the
  hardest texts of the batch).
- bottlenecked: a decoder of one layer predicts half of the tokens from the [CLS] state and the
  other half of the tokens (Xiao et al. 2022, section 2.2, "basic decoding").

Shapes: B texts in a batch, T tokens in a view, P pairs of n long views each, V words of the
tokeniser, hidden size H, D numbers in a teacher's vector.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertForMaskedLM

from leadkit import scores
from leadkit.losses import kl
from leadkit.models.batch import Tokens
from leadkit.models.colbert import ColBERT
from leadkit.training.views import Seen

# objective -> what is appended to the name of an encoder
OBJECTIVES = {
    "distilled": "",
    "contrastive": "-contrastive",
    "masked LM": "-masked-lm",
    "bottlenecked": "-bottlenecked",
}
TEMPERATURE = 0.05  # of the teacher's cosines, as in its own training


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


def contrastive_loss(table: Tensor) -> Tensor:
    """InfoNCE, in both directions, of the scores (B, B) of short and long views."""
    same = torch.arange(len(table), device=table.device)  # (B,)
    # -\log \frac{\exp s_{ii}}{\sum_j \exp s_{ij}}
    return (F.cross_entropy(table, same) + F.cross_entropy(table.T, same)) / 2


def similarity_loss(table: Tensor, cosines: Tensor) -> Tensor:
    """KL from a teacher's cosines (B, B) to the scores (B, B), over rows and over columns."""
    taught = cosines / TEMPERATURE  # (B, B)
    # KL(\mathrm{softmax}(c_i / \tau) \| \mathrm{softmax}(s_i))
    both = kl(taught, table).mean() + kl(taught.T, table.T).mean()
    return both / 2


def vector_loss(made: Tensor, taught: Tensor) -> Tensor:
    """1 - cosine between vectors (B, D) and the teacher's, their mean."""
    return 1 - F.cosine_similarity(made, taught).mean()


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


def step_loss(
    model: BertForMaskedLM, seen: Seen, special: int, mask_id: int, objective: str
) -> dict[str, Tensor]:
    """The loss of a step: its parts and their sum, "total"."""
    masked, chosen = mask_tokens(seen.pairs.ids, special, mask_id, model.config.vocab_size)
    paired = _encode(model, Tokens(masked, seen.pairs.mask, seen.pairs.kinds))  # (P * n, T, H)
    parts = {"masked_lm": _prediction_loss(model, paired, seen.pairs.ids, chosen)}
    if objective in ("contrastive", "distilled"):
        states = _encode(model, seen.short), _encode(model, seen.long)  # (B, T, H) each
        parts |= _compared(seen, *states)
    if objective == "distilled":
        assert seen.taught is not None
        cls = torch.cat([state[:, 0] for state in states])  # (2 B, H)
        made = cast(nn.Module, model.to_teacher)(cls)  # (2 B, D)
        parts["vectors"] = vector_loss(made.float(), torch.cat(seen.taught).to(made.device))
        matches = cast(nn.Module, model.match)(paired[:, 0]).float().view(-1, seen.n)  # (P, n)
        parts["same_text"] = -matches.log_softmax(1)[:, 0].mean()
    if objective == "bottlenecked":
        losses = []
        for view in (seen.short, seen.long):
            cls = _encode(model, view)[:, 0]  # (B, H)
            losses.append(bottleneck_loss(model, cls, view.ids, view.mask, special, mask_id))
        parts["bottleneck"] = (losses[0] + losses[1]) / 2
    total = torch.stack(list(parts.values())).sum()
    return {"total": total, **parts}


def _compared(seen: Seen, short: Tensor, long: Tensor) -> dict[str, Tensor]:
    """The losses of both kinds of scores between views, from their states (B, T, H)."""
    H = short.shape[-1]
    device = short.device
    masks = seen.long.mask.to(device), seen.short.mask.to(device)
    dots = short[:, 0] @ long[:, 0].T / H**0.5  # (B, B)
    late = scores.maxsim(short[None], long[None], *masks)[0] * ColBERT.score_scale(H)  # (B, B)
    parts = {"contrastive": contrastive_loss(dots), "late": contrastive_loss(late)}
    if seen.taught:
        cosines = (seen.taught[0] @ seen.taught[1].T).to(device)  # (B, B)
        parts["similarity"] = similarity_loss(dots, cosines)
        parts["late_similarity"] = similarity_loss(late, cosines)
    return parts


def _encode(model: BertForMaskedLM, tokens: Tokens) -> Tensor:
    """(P, T, H): the final states of texts or pairs."""
    tokens = tokens.to(model.device)
    encoded = model.bert(tokens.ids, attention_mask=tokens.mask, token_type_ids=tokens.kinds)
    return encoded.last_hidden_state.float()


def _prediction_loss(model: BertForMaskedLM, states: Tensor, ids: Tensor, chosen: Tensor) -> Tensor:
    """Cross-entropy of the chosen tokens, predicted from their states (B, T, H)."""
    logits = model.cls(states[chosen.to(states.device)])  # (chosen tokens, V)
    return F.cross_entropy(logits.float(), ids[chosen].to(states.device))
