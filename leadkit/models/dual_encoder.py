"""DE: the dual encoder."""

from torch import Tensor

from leadkit import scores
from leadkit.models.batch import Tokens
from leadkit.models.retriever import TwoTowers


class DualEncoder(TwoTowers):
    """DE: the dot product of the [CLS] states of query and passage, Eq. (1)."""

    architecture = "DE"
    searches = True

    @staticmethod
    def score_scale(hidden: int) -> float:
        return hidden**-0.5  # as in scaled dot-product attention

    def compared(self, states: Tensor) -> Tensor:
        return states[:, :1]  # (P, 1, H)

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        # f_{DE}(q, p) = E_Q(q)^T \cdot E_P(p)
        return scores.dot(queries[None, :, 0], passages[None, :, 0])[0]  # (B, N)

    def encode(self, tokens: Tokens) -> Tensor:
        """(P, H): the vector of each text; dot products are the final scores over `scale`."""
        return self.states(tokens, (self.layers,))[0][:, 0]
