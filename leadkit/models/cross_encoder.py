"""CE: the cross encoder."""

import torch
from torch import Tensor, nn

from leadkit import scores
from leadkit.models.batch import Batch, Tokens
from leadkit.models.retriever import Retriever
from leadkit.models.tower import Tower


class CrossEncoder(Retriever):
    """CE: one projection w of the [CLS] state of the pair, shared by all layers, Eq. (3).

    A checkpoint's own head stands in the place of w, shared by all layers too.
    """

    architecture = "CE"
    pairs_only = True

    def __init__(self, tower: Tower):
        super().__init__(tower)
        hidden = self.encoder.config.hidden_size
        if tower.linear and tower.linear != hidden:
            raise ValueError(
                f"linear {tower.linear} differs from the hidden size {hidden}: a CE shares one "
                "projection between all layers, so they must have one width"
            )
        if not tower.head:
            self.projection = nn.Parameter(torch.randn(self.width) * self.width**-0.5)

    def project(self, states: Tensor) -> Tensor:
        """(..., H) -> (...): the projection or the head, and the constant `scale`."""
        if self.tower.head:
            return self.head(states)[..., 0] * self.tower.scale
        # f_{CE}(q, p) = w^T \cdot E_{CE}([q; p])
        return scores.project(states, self.projection) * self.tower.scale

    def score(self, pairs: Tokens, layers: tuple[int, ...]) -> Tensor:
        """(K, P): scores of P pairs at each layer."""
        states = self.states(pairs, layers)
        cls = torch.stack([state[:, 0] for state in states])  # (K, P, H)
        return self.project(cls)  # (K, P)

    def layer_scores(self, batch: Batch, layers: tuple[int, ...]) -> Tensor:
        assert batch.pairs is not None
        return self.score(batch.pairs, layers).unflatten(1, (len(batch.positive), -1))  # (K, B, n)

    def interactions(self, batch: Batch, layers: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        assert batch.pairs is not None
        usual = self.encoder.config._attn_implementation
        self.encoder.set_attn_implementation("eager")  # the only one that returns attention
        answer = self.encode_tokens(batch.pairs, output_attentions=True)
        self.encoder.set_attn_implementation(usual)
        attentions = answer.attentions
        assert attentions is not None
        assert answer.last_hidden_state is not None
        columns, inside = self._passage_columns(batch)
        X = inside.shape[1]
        maps = []
        for layer in layers:
            # An appended linear layer attends as the last block does.
            block = min(layer, len(attentions))
            heads = attentions[block - 1].float()  # (P, heads, T, T)
            attention = heads.mean(1)[:, :X]  # (P, X, T)
            over = attention.gather(2, columns[:, None].expand(-1, X, -1)) * inside  # (P, X, Y)
            maps.append(over / over.sum(-1, keepdim=True).clamp_min(1e-9))
        last = answer.last_hidden_state.float()  # (P, T, H)
        if self.linear is not None:
            last = self.linear(last)
        final = self.project(last)[:, 0]  # (P,)
        B = len(batch.positive)
        return torch.stack(maps).unflatten(1, (B, -1)), final.view(B, -1)  # (K, B, n, X, Y), (B, n)

    def _passage_columns(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Where the passage's tokens stand in each pair (P, Y), and which count (P, X, Y).

        The tokens of a passage, but for its [CLS], are the last of its pair.
        """
        assert batch.pairs is not None
        p_mask = batch.passages.mask
        y = torch.arange(p_mask.shape[1], device=p_mask.device)  # (Y,)
        first = batch.pairs.mask.sum(1) - p_mask.sum(1)  # (P,)
        columns = (first[:, None] + y).clamp(max=batch.pairs.ids.shape[1] - 1)  # (P, Y)
        q_mask = batch.queries.mask.repeat_interleave(batch.n, 0)  # (P, X)
        return columns, (p_mask & (y > 0))[:, None] & q_mask[..., None]  # (P, Y), (P, X, Y)
