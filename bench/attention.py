"""A training step of the 6DE at classroom size on a CPU: torch's fused attention against the plain one, in float32 and bfloat16; in
bfloat16 also leadkit's, the plain one that keeps less."""

import time

import records
import torch

from leadkit.data.sampling import Batch, Tokens
from leadkit.losses import student_loss
from leadkit.models.retrievers import Tower, build

B, N, X, Y = 32, 64, 24, 96


def tokens(texts: int, length: int) -> Tokens:
    """Random words, no padding."""
    return Tokens(
        torch.randint(5, 8192, (texts, length)), torch.ones(texts, length, dtype=torch.bool)
    )


def seconds(attention: str, bf16: bool) -> float:
    """Best of five steps."""
    torch.manual_seed(0)
    model = build(Tower("DE", "bert-6x128", 128**-0.5, dropout=0.0, bf16=bf16)).train()
    model.encoder.set_attn_implementation(attention)
    batch, found = Batch(tokens(B, X), tokens(N, Y), torch.arange(0, N, N // B)), []
    for _ in range(5):
        started = time.perf_counter()
        student_loss(model(batch)[1], batch.positive).total.backward()
        found.append(time.perf_counter() - started)
    return min(found)


if __name__ == "__main__":
    print(f"step of the 6DE, B {B}, N {N}, X {X}, Y {Y}; threads {torch.get_num_threads()}")
    found = {}
    for precision in ("float32", "bfloat16"):
        names = ("sdpa", "eager", *(("lean",) if precision == "bfloat16" else ()))
        row = {name: seconds(name, precision == "bfloat16") for name in names}
        found[precision] = row | {"ratio": row["eager"] / row["sdpa"]}
        print(
            f"{precision:8}  "
            + "  ".join(f"{name} {row[name]:.3f} s" for name in names)
            + f"  plain to fused {found[precision]['ratio']:.3f}"
        )
    records.write(found)
