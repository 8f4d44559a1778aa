"""A training step of the 6DE at classroom size on a CPU: memory in pages of 4 KiB against 2 MiB, which glibc asks for if told so."""

import os
import subprocess
import sys
from pathlib import Path

# GLIBC_TUNABLES is read when a process starts, so each measurement is a process of its own.
MEASURE = "from attention import BF16, seconds; print(seconds('eager' if BF16 else 'sdpa', BF16))"


def measure(tunables: str) -> float:
    """Seconds of a step, in the precision of the classroom scale."""
    environment = os.environ | {"GLIBC_TUNABLES": tunables}
    done = subprocess.run([sys.executable, "-c", MEASURE], cwd=Path(__file__).parent, env=environment, text=True,
                          stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    small, large = measure(""), measure("glibc.malloc.hugetlb=1")
    print(f"step of the 6DE  pages of 4 KiB {small:.3f} s  of 2 MiB {large:.3f} s  ratio {large / small:.3f}")
