"""DE: the dual encoder."""

from torch import Tensor

from leadkit import scores
from leadkit.models.batch import Tokens
from leadkit.models.retriever import TwoTowers


class DualEncoder(TwoTowers):
    """DE: the dot product of the [CLS] states of query and passage, Eq. (1).

    With pooling "mean": of the means of their token states, for encoders that were trained so.
    """

    architecture = "DE"
    searches = True
    poolings = ("cls", "mean")

    @staticmethod
    def score_scale(hidden: int, pooling: str = "cls") -> float:
        if pooling == "mean":
            return 1.0  # the states of one text differ, so their mean is short
        return hidden**-0.5  # as in scaled dot-product attention

    def compared(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.tower.pooling == "cls":
            return self.head(states[:, :1])  # (P, 1, H)
        counted = mask[..., None]  # (P, T, 1)
        # \bar{E}(t) = \frac{1}{|t|} \sum_{x \in t} E(t)_x
        mean = (states * counted).sum(1, keepdim=True) / counted.sum(1, keepdim=True)  # (P, 1, H)
        return self.head(mean)

    def compare(self, queries: Tensor, passages: Tensor, q_mask: Tensor, p_mask: Tensor) -> Tensor:
        # f_{DE}(q, p) = E_Q(q)^T \cdot E_P(p)
        return scores.dot(queries[None, :, 0], passages[None, :, 0])[0]  # (B, N)

    def encode(self, tokens: Tokens) -> Tensor:
        """(P, H): the vector of each text; dot products are the final scores over `scale`."""
        states = self.states(tokens, (self.layers,))[0]  # (P, T, H)
        return self.compared(states, tokens.mask)[:, 0]
