"""What a bug report needs: versions, build, processor, threads."""

from __future__ import annotations

import os
import platform

import numpy as np

from . import _engine
from .engine.settings import available_isas, get_num_threads, usable_cores

__all__ = ["config", "show_config"]

EXTRAS = ("tqdm", "matplotlib", "torch", "onnx", "onnxruntime", "safetensors", "scikit-learn", "mpi4py", "joblib")
VARIABLES = ("RNNCORE_NUM_THREADS", "RNNCORE_ISA", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def config() -> dict[str, str]:
    """Return the settings that results and times depend on, by name, as :func:`show_config` prints them."""
    from . import __version__  # the package is complete only when this is called

    isas = [f"{isa} (in use)" if isa == _engine.get_isa() else isa for isa in available_isas()]
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]
    return {
        "rnncore": __version__,
        "build": _engine.build,
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "NumPy": f"{np.__version__}, BLAS {blas['name']} {blas['version']}",
        "system": platform.platform(),
        "processor": f"{processor() or platform.machine()}, {os.cpu_count()} cores, {usable_cores()} of them usable",
        "instruction sets": ", ".join(isas),
        "threads": f"{get_num_threads()} at most",
        "environment": ", ".join(variables) or "none of " + ", ".join(VARIABLES),
        "extras": ", ".join(filter(None, map(_installed, EXTRAS))) or "none",
    }


def processor() -> str:
    """Return the name of the processor."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()


def _installed(package: str) -> str:
    from importlib import metadata  # 20 ms that ``import rnncore`` need not take

    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return ""


def show_config() -> None:
    """Print versions, compiler and flags, processor, instruction sets, threads and extras: for a bug report.

    Examples
    --------
    >>> show_config()  # doctest: +ELLIPSIS
    rnncore           ...
    build             ...
    Python            ...
    """
    for name, value in config().items():
        print(f"{name:<17} {value}")
