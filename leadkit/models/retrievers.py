"""Three retrievers, one contract: layer scores (K, B, C) and final scores (B, C) for a batch (LEAD, section 3.2).

Layers are numbered from 1: layer i is the state after the i-th Transformer block; embeddings are no layer. A linear layer that is
appended to the tower is layer L + 1. Every score is multiplied by the retriever's constant `scale` (paper: 1): states after a layer
norm have norm sqrt(H), so raw products saturate every softmax.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from leadkit import processes, scores
from leadkit.models import encoders
from leadkit.models.attention import set_attention
from leadkit.data.sampling import Batch, Tokens, separators
from leadkit.models.encoders import load_config, load_encoder, load_tokenizer
from leadkit.files import read_tensors, write_folder, write_json, write_tensors

# Texts that pass through an encoder at once in training, None for all. Their states alone are kept; the gradient computes the rest
# again (gradient caching, Gao et al. 2021, as checkpoints): a larger batch in the same memory, the same numbers.
AT_ONCE: int | None = None


@dataclass(frozen=True)
class Tower:
    """What a retriever is built from."""

    architecture: str  # DE, CB or CE
    encoder: str  # one of data/models, a folder, or a name on the Hugging Face hub
    scale: float = 1.0  # multiplies every score; paper: 1
    linear: int = 0  # width of an appended linear layer, 0 for none (section 4.6.1)
    dropout: float = 0.1  # paper: 0.1 (released scripts)
    bf16: bool = False  # the encoder computes in bfloat16; weights, states between modules and scores stay float32
    released: bool = False  # CB only: normalise the final output and count every query position, as the released code does


def depth(tower: Tower) -> int:
    """Number of layers of a tower, the appended linear layer included, without loading its weights."""
    return encoders.layers(tower.encoder) + (tower.linear > 0)


def check_lengths(tower: Tower, query_tokens: int, passage_tokens: int) -> None:
    """ValueError where a text, of a CE a pair of texts, can be longer than the position table of the tower's encoder."""
    tokenizer = load_tokenizer(tower.encoder)
    longest, field = max((query_tokens, "query_tokens"), (passage_tokens, "passage_tokens"))
    is_too_long = f"data.{field} is {longest}"
    if tower.architecture == "CE":
        longest = query_tokens + passage_tokens + len(separators(tokenizer)[0]) - 1
        is_too_long = f"data.query_tokens {query_tokens} and data.passage_tokens {passage_tokens} make pairs of {longest} tokens"
    with torch.device("meta"):  # no weights
        modules = AutoModel.from_config(load_config(tower.encoder)).named_modules()
    for table in (
        m
        for name, m in modules
        if isinstance(m, nn.Embedding) and name.endswith("position_embeddings")
    ):
        first = (
            0 if table.padding_idx is None else table.padding_idx + 1
        )  # RoBERTa and its kin count on from the padding's id
        if first and first != tokenizer.pad_token_id + 1:
            raise ValueError(
                f"encoder {tower.encoder!r}: its tokeniser pads with id {tokenizer.pad_token_id}, its position table "
                f"with {table.padding_idx}; they do not belong together"
            )
        if longest > table.num_embeddings - first:
            raise ValueError(
                f"{is_too_long}: the position table of encoder {tower.encoder!r} holds "
                f"{table.num_embeddings - first}, use at most that"
            )


class Retriever(nn.Module):
    """A pile of layers and a score function: subclasses answer `layer_scores` and `interactions`."""

    architecture: ClassVar[str]

    def __init__(self, tower: Tower):
        super().__init__()
        self.tower = tower
        self.encoder = load_encoder(tower.encoder, tower.dropout)
        set_attention(self.encoder, tower.bf16)
        width = self.encoder.config.hidden_size
        self.linear = nn.Linear(width, tower.linear) if tower.linear else None
        self.width = tower.linear or width

    @property
    def layers(self) -> int:
        """Number of layers, the appended linear layer included."""
        return self.encoder.config.num_hidden_layers + (self.linear is not None)

    def encode_tokens(self, tokens: Tokens, **wanted: bool) -> BaseModelOutput:
        """What the encoder answers, in the tower's precision."""
        typed = (
            tokens.kinds is not None and getattr(self.encoder.config, "type_vocab_size", 0) > 1
        )  # DistilBERT has no types
        kinds = {"token_type_ids": tokens.kinds} if typed else {}
        with torch.autocast(tokens.ids.device.type, torch.bfloat16, enabled=self.tower.bf16):
            return self.encoder(tokens.ids, attention_mask=tokens.mask, **kinds, **wanted)

    def states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        """Token states after each of the 1-based `layers`, float32: a list of (P, T, H)."""
        if AT_ONCE is None or not torch.is_grad_enabled() or len(tokens.ids) <= AT_ONCE:
            return self._states(tokens, layers)
        parts = [
            checkpoint(self._states, part, layers, use_reentrant=False)
            for part in tokens.split(AT_ONCE)
        ]
        return [torch.cat(states) for states in zip(*parts, strict=True)]

    def _states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        hidden = self.encode_tokens(tokens, output_hidden_states=True).hidden_states
        # hidden[0] is the embeddings, so hidden[i] is layer i.
        states = {i: hidden[i].float() for i in layers if i < len(hidden)}
        if len(hidden) in layers:
            states[len(hidden)] = self.linear(hidden[-1].float())
        return [states[i] for i in layers]

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        """(K, B, C): one slice of scores per 1-based layer, in the given order."""
        raise NotImplementedError

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """FD's features (after VIRT): soft-maxed maps of query tokens over passage tokens (K, B, n, X, Y); and final scores (B, C).

        Each query is mapped onto its own n passages only, as in VIRT; the released code maps it onto all N of the batch. Rows of
        padding are zero. Where a CE takes part, a passage's [CLS] is left out: a pair has none.
        """
        raise NotImplementedError

    def forward(self, batch: Batch, layers: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Layer scores (K, B, C) of the selected layers and final scores (B, C) of the last one."""
        for layer in layers:
            if not 1 <= layer <= self.layers:
                raise ValueError(
                    f"layer {layer} does not exist: this {self.architecture} has layers 1 to {self.layers}"
                )
        every = self.layer_scores(
            batch, (*layers, *(() if self.layers in layers else (self.layers,)))
        )
        final = every[layers.index(self.layers) if self.layers in layers else -1]  # (B, C)
        return every[: len(layers)], final

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Encoder, tokeniser, `retriever.json` and, where there is one, the head; safetensors and JSON only."""
        head = {name: t for name, t in self.state_dict().items() if not name.startswith("encoder.")}

        def save(part: Path) -> None:
            self.encoder.save_pretrained(part)
            tokenizer.save_pretrained(part)
            if head:
                write_tensors(part / "head" / "head.safetensors", head)
            write_json(part / "retriever.json", asdict(self.tower) | {"encoder": "."})

        write_folder(folder, save)


class TwoTowers(Retriever):
    """DE and CB: query and passage are encoded apart, by one shared tower, and meet in a score function.

    Of several processes each compares its own queries with the passages of all (cross-batch negatives).
    """

    def token_states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        """What the score function sees: a list of (P, T, H)."""
        return self.states(tokens, layers)

    def compared(self, states: Tensor) -> Tensor:
        """What of the token states (P, T, H) the score function sees."""
        return states

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        """`compared` states (B, X, H) and (N, Y, H) of one layer, masks (B, X) and (N, Y) -> scores (B, N)."""
        raise NotImplementedError

    def _scores(self, queries: list[Tensor], passages: list[Tensor], batch: Batch) -> Tensor:
        queries, passages, p_mask = (
            [*map(self.compared, queries)],
            [*map(self.compared, passages)],
            batch.passages.mask,
        )
        if not batch.own:
            passages, p_mask = [*map(processes.gather, passages)], processes.gather(p_mask)
        every = torch.stack(
            [
                self.compare(q, p, batch.queries.mask, p_mask)
                for q, p in zip(queries, passages, strict=True)
            ]
        )
        return batch.candidates(every * self.tower.scale)  # (K, B, N) -> (K, B, C)

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        return self._scores(
            self.token_states(batch.queries, layers),
            self.token_states(batch.passages, layers),
            batch,
        )

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        wanted, n = (*layers, self.layers), len(batch.passages.ids) // len(batch.positive)
        queries, passages = (
            self.token_states(batch.queries, wanted),
            self.token_states(batch.passages, wanted),
        )
        p_mask = batch.passages.mask.clone()
        p_mask[:, 0] = p_mask[:, 0] & (not batch.own)
        q, p, maps = torch.stack(queries[:-1]), torch.stack(passages[:-1]), []
        for b, own in enumerate(torch.arange(len(p_mask)).split(n)):
            query = q[:, b : b + 1], p[:, own], batch.queries.mask[b : b + 1], p_mask[own]
            maps.append(scores.attention_maps(*query))  # (K, 1, n, X, Y)
        return torch.cat(maps, 1), self._scores(queries[-1:], passages[-1:], batch)[
            0
        ]  # (K, B, n, X, Y), (B, C)


class DualEncoder(TwoTowers):
    """DE: the dot product of the [CLS] states of query and passage, Eq. (1)."""

    architecture = "DE"

    def compared(self, states: Tensor) -> Tensor:
        return states[:, :1]  # (P, 1, H)

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        # f_DE(q, p) = E_Q(q)^T E_P(p)
        return scores.dot(queries[None, :, 0], passages[None, :, 0])[0]  # (B, N)

    def encode(self, tokens: Tokens) -> Tensor:
        """(P, H): the vector of each text; their dot product is the final score over `scale`."""
        return self.states(tokens, (self.layers,))[0][:, 0]


class ColBERT(TwoTowers):
    """CB: late interaction, Eq. (2); no punctuation filter, no last linear layer."""

    architecture = "CB"

    def token_states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        states = self.states(tokens, layers)
        if self.tower.released:
            states = [
                nn.functional.normalize(s, dim=-1) if i == self.layers else s
                for i, s in zip(layers, states, strict=True)
            ]
        return states

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        # f_CB(q, p) = \sum_{x} \max_{y} E_Q(q)_x . E_P(p)_y
        return scores.maxsim(
            queries[None], passages[None], p_mask, None if self.tower.released else q_mask
        )[0]  # (B, N)


class CrossEncoder(Retriever):
    """CE: one projection w of the [CLS] state of the pair, shared by all layers, Eq. (3)."""

    architecture = "CE"

    def __init__(self, tower: Tower):
        super().__init__(tower)
        if tower.linear and tower.linear != self.encoder.config.hidden_size:
            raise ValueError(
                f"linear {tower.linear} differs from the hidden size {self.encoder.config.hidden_size}: a CE shares "
                "one projection between all layers, so they must have one width"
            )
        self.projection = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    def score(self, pairs: Tokens, layers: tuple[int, ...]) -> Tensor:
        """(K, P): scores of P pairs at each layer."""
        cls = torch.stack([s[:, 0] for s in self.states(pairs, layers)])  # (K, P, H)
        # f_CE(q, p) = w^T E_CE([q; p])
        return scores.project(cls, self.projection) * self.tower.scale  # (K, P)

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        return self.score(batch.pairs, layers).unflatten(1, (len(batch.positive), -1))  # (K, B, n)

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        pairs, usual = batch.pairs, self.encoder.config._attn_implementation
        self.encoder.set_attn_implementation("eager")  # the only one that returns attention
        out = self.encode_tokens(pairs, output_attentions=True)
        self.encoder.set_attn_implementation(usual)
        n, Y = len(batch.passages.ids) // len(batch.positive), batch.passages.mask.shape[1]
        q_mask = batch.queries.mask.repeat_interleave(n, 0)  # (P, X)
        # The tokens of a passage, but for its [CLS], are the last of its pair.
        y = torch.arange(Y, device=q_mask.device)
        first = (pairs.mask.sum(1) - batch.passages.mask.sum(1))[:, None]  # (P, 1)
        columns = (first + y).clamp(max=pairs.ids.shape[1] - 1)  # (P, Y)
        inside = (batch.passages.mask & (y > 0))[:, None] & q_mask[..., None]  # (P, X, Y)
        maps = []
        for layer in layers:
            block = min(
                layer, len(out.attentions)
            )  # an appended linear layer attends as the last block does
            attention = (
                out.attentions[block - 1].float().mean(1)[:, : q_mask.shape[1]]
            )  # heads averaged: (P, X, T)
            over = (
                attention.gather(2, columns[:, None].expand(-1, attention.shape[1], -1)) * inside
            )  # (P, X, Y)
            maps.append(over / over.sum(-1, keepdim=True).clamp_min(1e-9))
        last = out.last_hidden_state.float()  # (P, T, H)
        final = scores.project(self.linear(last) if self.linear else last, self.projection)[
            :, 0
        ]  # (P,)
        stacked = torch.stack(maps).unflatten(1, (len(batch.positive), n))  # (K, B, n, X, Y)
        return stacked, final.view(len(batch.positive), n) * self.tower.scale


RETRIEVERS = {cls.architecture: cls for cls in (DualEncoder, ColBERT, CrossEncoder)}


def build(tower: Tower) -> Retriever:
    """The retriever of a tower. ValueError for an unknown architecture."""
    if tower.architecture not in RETRIEVERS:
        raise ValueError(
            f"architecture {tower.architecture!r} is unknown: use one of {', '.join(RETRIEVERS)}"
        )
    return RETRIEVERS[tower.architecture](tower)


def load(folder: Path) -> Retriever:
    """A retriever saved by `Retriever.save`."""
    tower = Tower(**json.loads((folder / "retriever.json").read_text()) | {"encoder": str(folder)})
    retriever = build(tower)
    head = folder / "head" / "head.safetensors"
    wanted = {name for name in retriever.state_dict() if not name.startswith("encoder.")}
    if wanted and not head.exists():
        raise FileNotFoundError(f"{head} is missing: it holds {', '.join(sorted(wanted))}")
    if wanted:
        try:
            retriever.load_state_dict(
                retriever.encoder.state_dict(prefix="encoder.") | read_tensors(head)
            )
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{head} is damaged or of another retriever ({error})") from error
    return retriever.eval()
