"""MaxSim, one layer, forward and backward: leadkit's chunked version against the einsum that holds all token pairs at once."""

import json
import resource
import subprocess
import sys
import time

import records
import torch

B, N, X, Y, H = 64, 128, 32, 144, 128


def einsum(
    q: torch.Tensor, p: torch.Tensor, p_mask: torch.Tensor, q_mask: torch.Tensor
) -> torch.Tensor:
    """The obvious way: the (K, B, N, X, Y) tensor, then its maximum."""
    pairs = torch.einsum("kbxh,knyh->kbnxy", q, p).masked_fill(
        ~p_mask[:, None], float("-inf")
    )  # (K, B, N, X, Y)
    return (pairs.amax(-1) * q_mask[:, None]).sum(-1)


def measure(name: str) -> dict:
    """Seconds (best of three) and peak extra memory of one version, in this process."""
    from leadkit.scores import maxsim

    torch.manual_seed(0)
    q, p = torch.randn(1, B, X, H, requires_grad=True), torch.randn(1, N, Y, H, requires_grad=True)
    p_mask, q_mask = (
        torch.arange(Y) < torch.randint(16, Y + 1, (N, 1)),
        torch.arange(X) < torch.randint(4, X + 1, (B, 1)),
    )
    version, seconds = {"einsum": einsum, "leadkit": maxsim}[name], []
    few = (torch.randn(1, 2, length, H, requires_grad=True) for length in (X, Y))
    version(
        *few, p_mask[:2], q_mask[:2]
    ).sum().backward()  # what the libraries take once is not counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        started = time.perf_counter()
        version(q, p, p_mask, q_mask).sum().backward()
        seconds.append(time.perf_counter() - started)
    return {
        "seconds": min(seconds),
        "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:  # a process of its own for each, so that peak memories are comparable
        found = {
            name: json.loads(subprocess.check_output([sys.executable, __file__, name]))
            for name in ("einsum", "leadkit")
        }
        ratio = {key: found["leadkit"][key] / found["einsum"][key] for key in ("seconds", "mib")}
        print(
            f"MaxSim B {B}, N {N}, X {X}, Y {Y}, H {H}, forward and backward; threads {torch.get_num_threads()}"
        )
        for name, row in found.items():
            print(f"{name:8}  {row['seconds']:7.3f} s  {row['mib']:7.0f} MiB above start")
        print(f"ratio     {ratio['seconds']:7.3f}    {ratio['mib']:7.3f}")
        records.write(found | {"ratio": ratio})
