"""The machine that computes: its device, its name, and the versions that decide the numbers."""

import platform
import sys
from collections.abc import Mapping
from typing import Any

import psutil
import torch

from leadkit import processes

DEVICE = processes.device()


def cpu_capabilities() -> Mapping[str, Any]:
    """What the CPU can; an older torch answers these two questions alone."""
    if hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu.get_capabilities()
    return {
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
    }


def multiplies_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 itself; elsewhere float32 is faster."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = cpu_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))


BF16 = multiplies_bfloat16()


def processor() -> str:
    """The GPU, or the CPU's instructions: "AVX2", "AVX512 with BF16" or "AVX512 with AMX"."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    capabilities = cpu_capabilities()
    instructions = torch.backends.cpu.get_cpu_capability()
    if capabilities.get("amx_bf16"):
        return f"{instructions} with AMX"
    if capabilities.get("avx512_bf16"):
        return f"{instructions} with BF16"
    return instructions


def device_name() -> str:
    """The device that computes, in words."""
    if torch.cuda.is_available():
        return processor()
    return f"CPU, {processor()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    import numpy
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": numpy.__version__,
    }


def peak_memory_mib() -> int:
    """The most memory that this process has held so far."""
    try:
        import resource  # POSIX alone
    except ImportError:
        return (
            psutil.Process().memory_info().rss // 2**20
        )  # what it holds now, where no peak is kept
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes on macOS, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 2**20
