"""MaxSim, one layer, forward and backward: leadkit's chunks against one einsum.

The einsum holds the products of all token pairs at once.
"""

import json
import sys

import records
import torch
from measuring import in_own_process, peak_mib, seconds
from torch import Tensor

from leadkit.scores import maxsim

B, N, X, Y, H = 64, 128, 32, 144, 128


def einsum(q: Tensor, p: Tensor, p_mask: Tensor, q_mask: Tensor) -> Tensor:
    """The obvious way: every product, then the maximum. Shapes as in `maxsim`."""
    pairs = torch.einsum("kbxh,knyh->kbnxy", q, p)  # (K, B, N, X, Y)
    pairs = pairs.masked_fill(~p_mask[:, None], float("-inf"))
    best = pairs.amax(-1)  # (K, B, N, X)
    return (best * q_mask[:, None]).sum(-1)  # (K, B, N)


VERSIONS = {"einsum": einsum, "leadkit": maxsim}


def measure(name: str) -> dict:
    """Seconds (best of three) and peak extra memory of one version, in this process."""
    torch.manual_seed(0)
    q = torch.randn(1, B, X, H, requires_grad=True)
    p = torch.randn(1, N, Y, H, requires_grad=True)
    p_mask = torch.arange(Y) < torch.randint(16, Y + 1, (N, 1))  # (N, Y)
    q_mask = torch.arange(X) < torch.randint(4, X + 1, (B, 1))  # (B, X)
    version = VERSIONS[name]
    # What the libraries allocate once is not counted.
    few_q = torch.randn(1, 2, X, H, requires_grad=True)
    few_p = torch.randn(1, 2, Y, H, requires_grad=True)
    version(few_q, few_p, p_mask[:2], q_mask[:2]).sum().backward()
    before = peak_mib()
    spent = seconds(lambda: version(q, p, p_mask, q_mask).sum().backward(), 3)
    return {"seconds": min(spent), "mib": peak_mib() - before}


def compare() -> None:
    measured = {name: in_own_process(name) for name in VERSIONS}
    ratio = {key: measured["leadkit"][key] / measured["einsum"][key] for key in ("seconds", "mib")}
    print(f"MaxSim B {B}, N {N}, X {X}, Y {Y}, H {H}, forward and backward")
    print(f"threads {torch.get_num_threads()}")
    for name, row in measured.items():
        print(f"{name:8}  {row['seconds']:7.3f} s  {row['mib']:7.0f} MiB above start")
    print(f"ratio     {ratio['seconds']:7.3f}    {ratio['mib']:7.3f}")
    records.write(measured | {"ratio": ratio})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        compare()
