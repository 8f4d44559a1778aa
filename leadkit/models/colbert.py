"""CB: ColBERT."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from leadkit import scores
from leadkit.models.batch import Batch, Tokens
from leadkit.models.retriever import TwoTowers


class ColBERT(TwoTowers):
    """CB: late interaction, Eq. (2); no punctuation filter, a linear layer only as layer L + 1.

    The released code computes the final score from L2-normalised states, and counts every query
    position. A layer's score comes from the states as they are, the last layer's too.
    """

    architecture = "CB"
    marks = True
    kept_as = torch.float16  # re-ranking keeps every token of every candidate

    @staticmethod
    def score_scale(hidden: int, pooling: str = "cls") -> float:
        # A MaxSim adds up one product of length H per query token. 0.03 was tuned at H = 128.
        return 0.03 * 128 / hidden

    def final_states(self, states: Tensor) -> Tensor:
        return normalize(states, dim=-1) if self.tower.released else states

    def forward(self, batch: Batch, layers: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        if not self.tower.released:
            return super().forward(batch, layers)
        self.check_layers(layers)
        wanted = (*layers, self.layers)
        queries = self.token_states(batch.queries, wanted)
        passages = self.token_states(batch.passages, wanted)
        queries[-1] = self.final_states(queries[-1])
        passages[-1] = self.final_states(passages[-1])
        every = self.score_states(queries, passages, batch)  # (K + 1, B, C)
        return every[:-1], every[-1]

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        counted = None if self.tower.released else q_mask
        # f_{CB}(q, p) = \sum_x \max_y E_Q(q)_x \cdot E_P(p)_y
        return scores.maxsim(queries[None], passages[None], p_mask, counted)[0]  # (B, N)

    @torch.inference_mode()
    def token_products(self, query: Tokens, passage: Tokens) -> Tensor:
        """(X, Y): products of the final states of one query's and one passage's tokens.

        A MaxSim adds up the maxima of the rows. Times `scale`, as the final score is.
        """
        last = (self.layers,)
        texts = [each.to(self.encoder.device) for each in (query, passage)]
        states = [self.final_states(self.token_states(text, last)[0])[0] for text in texts]
        q, p = (self.head(state) for state in states)
        return q @ p.T * self.tower.scale  # (X, Y)
