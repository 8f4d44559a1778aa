"""A LEAD step at classroom size on a CPU: glibc's usual memory against the settings of a sweep and of the Makefile."""

import os
import subprocess
import sys
import time

import torch
from attention import B, N, X, Y, tokens

from leadkit import selection
from leadkit.batches import Batch
from leadkit.config import scale
from leadkit.losses import lead_loss
from leadkit.recipes import Pipeline
from leadkit.retrievers import build
from leadkit.sweep import MEMORY


def seconds() -> float:
    """Median of five steps of LEAD, 12CB -> 6DE, in this process."""
    torch.manual_seed(0)
    pipeline, found = Pipeline(scale("classroom")), []
    student, teacher = build(pipeline.student.tower).train(), build(pipeline.teacher.tower).train()
    batch = Batch(tokens(B, X), tokens(N, Y), torch.arange(0, N, N // B))
    for step in range(6):
        started = time.perf_counter()
        own, taught = selection.random_layers(5, student.layers, teacher.layers, torch.Generator().manual_seed(step))
        (teacher_layers, teacher_final), (student_layers, student_final) = teacher(batch, taught), student(batch, own)
        lead_loss(student_layers, teacher_layers, student_final, teacher_final, batch.positive).total.backward()
        found.append(time.perf_counter() - started)
    return sorted(found[1:])[2]


if __name__ == "__main__":
    if "inner" in sys.argv:
        print(seconds())
    else:  # GLIBC_TUNABLES is read when a process starts, so each measurement is a process of its own
        usual, large = (float(subprocess.check_output([sys.executable, __file__, "inner"], env=os.environ | {"GLIBC_TUNABLES": t}))
                        for t in ("", MEMORY))
        print(f"LEAD step, 12CB -> 6DE, B {B}, N {N}, X {X}, Y {Y}; threads {torch.get_num_threads()}")
        print(f"glibc's usual memory {usual:.3f} s  in pages of 2 MiB, kept {large:.3f} s  ratio {large / usual:.3f}")
