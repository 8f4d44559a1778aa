"""A training step of the 6DE at classroom size on a CPU, by the attention of its encoder.

sdpa: torch's fused attention. eager: the plain one. lean: leadkit's, in bfloat16 only.
"""

import records
import torch
from measuring import seconds

from leadkit.losses import student_loss
from leadkit.models.batch import Batch, Tokens
from leadkit.models.retrievers import build
from leadkit.models.tower import Tower

B, N, X, Y = 32, 64, 24, 96
ATTENTIONS = {"float32": ("sdpa", "eager"), "bfloat16": ("sdpa", "eager", "lean")}


def random_tokens(texts: int, length: int) -> Tokens:
    """Texts of random words, without padding."""
    ids = torch.randint(5, 8192, (texts, length))
    return Tokens(ids, torch.ones(texts, length, dtype=torch.bool))


def measure(attention: str, bf16: bool) -> float:
    """Seconds of a step, best of five."""
    torch.manual_seed(0)
    model = build(Tower("DE", "bert-6x128", 128**-0.5, dropout=0.0, bf16=bf16)).train()
    model.encoder.set_attn_implementation(attention)
    batch = Batch(random_tokens(B, X), random_tokens(N, Y), torch.arange(0, N, N // B))

    def step() -> None:
        _, final = model(batch)
        student_loss(final, batch.positive).total.backward()

    return min(seconds(step, 5))


def main() -> None:
    print(f"step of the 6DE, B {B}, N {N}, X {X}, Y {Y}; threads {torch.get_num_threads()}")
    measured = {}
    for precision, attentions in ATTENTIONS.items():
        row = {name: measure(name, precision == "bfloat16") for name in attentions}
        ratio = row["eager"] / row["sdpa"]
        each = "  ".join(f"{name} {value:.3f} s" for name, value in row.items())
        print(f"{precision:8}  {each}  plain to fused {ratio:.3f}")
        measured[precision] = row | {"ratio": ratio}
    records.write(measured)


if __name__ == "__main__":
    main()
