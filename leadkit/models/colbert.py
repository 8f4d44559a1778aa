"""CB: ColBERT."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from leadkit import scores
from leadkit.models.batch import Tokens
from leadkit.models.retriever import TwoTowers


class ColBERT(TwoTowers):
    """CB: late interaction, Eq. (2); no punctuation filter, no last linear layer."""

    architecture = "CB"
    kept_as = torch.float16  # re-ranking keeps every token of every candidate

    @staticmethod
    def score_scale(hidden: int) -> float:
        return 3.84 / hidden  # a MaxSim adds up one product of length H per query token

    def token_states(self, tokens: Tokens, layers: tuple[int, ...]) -> list[Tensor]:
        states = self.states(tokens, layers)
        if not self.tower.released:
            return states
        return [
            normalize(state, dim=-1) if layer == self.layers else state
            for layer, state in zip(layers, states, strict=True)
        ]

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
        q = self.token_states(query.to(self.encoder.device), last)[0][0]  # (X, H)
        p = self.token_states(passage.to(self.encoder.device), last)[0][0]  # (Y, H)
        return q @ p.T * self.tower.scale  # (X, Y)
