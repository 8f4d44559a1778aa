"""The one contract: layer scores (K, B, C) and final scores (B, C) for a batch (section 3.2).

Layers are numbered from 1: layer i is the state after the i-th Transformer block; embeddings are
no layer. An appended linear layer is layer L + 1. Every score is multiplied by the constant `scale`
(paper: 1): states after a layer norm have norm sqrt(H), so raw products saturate every softmax.
"""

from dataclasses import asdict
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput

from leadkit import processes, scores
from leadkit.files import write_folder, write_json, write_tensors
from leadkit.models.attention import set_attention
from leadkit.models.batch import Batch, Tokens
from leadkit.models.encoders import load_encoder
from leadkit.models.heads import build_head, head_width
from leadkit.models.tower import Tower


class Retriever(nn.Module):
    """A pile of layers and a score function. A subclass is an architecture.

    An architecture declares what it is (the class variables and `score_scale`) and answers
    `layer_scores` and `interactions`.
    """

    architecture: ClassVar[str]  # its name
    searches: ClassVar[bool] = False  # one vector a text, so it can search a collection
    pairs_only: ClassVar[bool] = False  # it sees a query and a passage together or not at all
    poolings: ClassVar[tuple[str, ...]] = ("cls",)  # of `Tower.pooling`
    # In the released code [Q] and [D] begin its texts and [MASK] fills its queries
    marks: ClassVar[bool] = False

    def __init__(self, tower: Tower):
        super().__init__()
        if tower.pooling not in self.poolings:
            allowed = " or ".join(map(repr, self.poolings))
            raise ValueError(
                f"pooling {tower.pooling!r} is not for a {self.architecture}: use {allowed}"
            )
        self.tower = tower
        self.encoder = load_encoder(tower.encoder, tower.dropout, tower.head)
        set_attention(self.encoder, tower.bf16)
        hidden = self.encoder.config.hidden_size
        self.linear = nn.Linear(hidden, tower.linear) if tower.linear else None
        self.head = build_head(tower.head, tower.linear or hidden)
        self.width = head_width(self.head, tower.linear or hidden)
        # Texts that pass through the encoder at once in training, None for all. The states alone
        # are kept and the gradient computes the rest again (gradient caching, Gao et al. 2021).
        self.at_once: int | None = None

    @staticmethod
    def score_scale(hidden: int, pooling: str = "cls") -> float:
        """The factor that brings scores of states of this size into a softmax's range."""
        return 1.0

    @property
    def layers(self) -> int:
        """Number of layers, the appended linear layer included."""
        return self.encoder.config.num_hidden_layers + (self.linear is not None)

    def encode(self, tokens: Tokens) -> Tensor:
        """(P, H): the vector of each text. Only where the architecture searches."""
        raise NotImplementedError

    def score(self, pairs: Tokens, layers: tuple[int, ...]) -> Tensor:
        """(K, P): scores of P pairs at each layer. Only where the architecture sees pairs only."""
        raise NotImplementedError

    def encode_tokens(self, tokens: Tokens, **wanted: bool) -> BaseModelOutput:
        """What the encoder answers, in the tower's precision."""
        kinds = {}
        types = getattr(self.encoder.config, "type_vocab_size", 0)  # DistilBERT has none
        if tokens.kinds is not None and types > 1:
            kinds = {"token_type_ids": tokens.kinds}
        with torch.autocast(tokens.ids.device.type, torch.bfloat16, enabled=self.tower.bf16):
            return self.encoder(tokens.ids, attention_mask=tokens.mask, **kinds, **wanted)

    def states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        """Token states after each of the 1-based `layers`, float32: a list of (P, T, H)."""
        size = self.at_once
        if size is None or not torch.is_grad_enabled() or len(tokens.ids) <= size:
            return self._states(tokens, layers)
        parts = [
            checkpoint(self._states, part, layers, use_reentrant=False)
            for part in tokens.split(size)
        ]
        return [torch.cat(states) for states in zip(*parts, strict=True)]  # K times (P, T, H)

    def _states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        hidden = self.encode_tokens(tokens, output_hidden_states=True).hidden_states
        assert hidden is not None
        # hidden[0] is the embeddings, so hidden[i] is layer i.
        states = {i: hidden[i].float() for i in layers if i < len(hidden)}
        if self.linear is not None and len(hidden) in layers:
            states[len(hidden)] = self.linear(hidden[-1].float())
        return [states[i] for i in layers]

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        """(K, B, C): one slice of scores per 1-based layer, in the given order."""
        raise NotImplementedError

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """FD's features (after VIRT): maps (K, B, n, X, Y), and final scores (B, C).

        A map holds the soft-maxed attention of a query's tokens over a passage's tokens. Each query
        is mapped onto its own n passages only, as in VIRT. A released tower maps it onto all N of
        the batch, as the released code does: (K, B, N, X, Y). Rows of padding are zero. Where a CE
        takes part a passage's [CLS] is left out: a pair has none.
        """
        raise NotImplementedError

    def check_layers(self, layers: tuple[int, ...]) -> None:
        """ValueError for a layer that does not exist."""
        for layer in layers:
            if not 1 <= layer <= self.layers:
                raise ValueError(
                    f"layer {layer} does not exist: this {self.architecture} has layers 1 to "
                    f"{self.layers}"
                )

    def forward(self, batch: Batch, layers: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Layer scores (K, B, C) of the selected layers and final scores (B, C)."""
        self.check_layers(layers)
        if self.layers in layers:
            every = self.layer_scores(batch, layers)  # (K, B, C)
            return every, every[layers.index(self.layers)]
        every = self.layer_scores(batch, (*layers, self.layers))  # (K + 1, B, C)
        return every[:-1], every[-1]

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Encoder, tokeniser, `retriever.json` and the head, if any; safetensors and JSON only."""
        head = {
            name: tensor
            for name, tensor in self.state_dict().items()
            if not name.startswith("encoder.")
        }

        def save(part: Path) -> None:
            self.encoder.save_pretrained(part)
            tokenizer.save_pretrained(part)
            if head:
                write_tensors(part / "head" / "head.safetensors", head)
            write_json(part / "retriever.json", asdict(self.tower) | {"encoder": "."})

        write_folder(folder, save)


class TwoTowers(Retriever):
    """DE and CB: one shared tower encodes query and passage apart; a score function compares them.

    With several processes each compares its own queries with the passages of all (cross-batch
    negatives).
    """

    kept_as: ClassVar[torch.dtype] = torch.float32  # what `represent` keeps

    def token_states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        """What the score function is given: K times (P, T, H)."""
        return self.states(tokens, layers)

    def final_states(self, states: Tensor) -> Tensor:
        """What the final score is computed from, out of the last layer's token states (P, T, H)."""
        return states

    def compared(self, states: Tensor, mask: Tensor) -> Tensor:
        """What the score function compares, from the token states (P, T, H) and their mask (P, T).

        A part of the states or something made of them, through the head.
        """
        return self.head(states)

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        """Scores (B, N) of one layer's `compared` states (B, X, H) and (N, Y, H).

        Masks are (B, X) and (N, Y). The constant `scale` is not applied.
        """
        raise NotImplementedError

    def represent(self, tokens: Tokens) -> list[Tensor]:
        """What re-ranking keeps of each text: its `compared` final states without padding."""
        last = self.token_states(tokens, (self.layers,))[0]  # (P, T, H)
        states = self.compared(self.final_states(last), tokens.mask)
        lengths = tokens.mask.sum(1).tolist()
        kept = states.to(self.kept_as)
        return [state[:length].clone() for state, length in zip(kept, lengths, strict=True)]

    def score_states(self, queries: list[Tensor], passages: list[Tensor], batch: Batch) -> Tensor:
        """(K, B, C): scores of K layers' token states (B, X, H) and (B * n, Y, H)."""
        q_mask = batch.queries.mask
        p_mask = batch.passages.mask
        queries = [self.compared(states, q_mask) for states in queries]
        passages = [self.compared(states, p_mask) for states in passages]
        if not batch.own:
            passages = [processes.gather(states) for states in passages]
            p_mask = processes.gather(p_mask)
        pairs = zip(queries, passages, strict=True)
        every = torch.stack([self.compare(q, p, q_mask, p_mask) for q, p in pairs])  # (K, B, N)
        return batch.candidates(every * self.tower.scale)  # (K, B, C)

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        queries = self.token_states(batch.queries, layers)
        passages = self.token_states(batch.passages, layers)
        return self.score_states(queries, passages, batch)

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        wanted = (*layers, self.layers)
        queries = self.token_states(batch.queries, wanted)
        passages = self.token_states(batch.passages, wanted)
        p_mask = batch.passages.mask.clone()
        if batch.own:
            p_mask[:, 0] = False
        q = torch.stack(queries[:-1])  # (K, B, X, H)
        p = torch.stack(passages[:-1])  # (K, B * n, Y, H)
        q_mask = batch.queries.mask
        last_queries = self.final_states(queries[-1])
        last_passages = self.final_states(passages[-1])
        final = self.score_states([last_queries], [last_passages], batch)[0]  # (B, C)
        if self.tower.released and not batch.own:
            p = processes.gather(p.transpose(0, 1)).transpose(0, 1)  # (K, N, Y, H)
            return scores.attention_maps(q, p, q_mask, processes.gather(p_mask)), final
        maps = []
        for b, rows in enumerate(torch.arange(len(p_mask)).split(batch.n)):
            one = slice(b, b + 1)
            maps.append(scores.attention_maps(q[:, one], p[:, rows], q_mask[one], p_mask[rows]))
        return torch.cat(maps, 1), final  # (K, B, n, X, Y), (B, C)
