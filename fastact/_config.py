"""The choice of instruction set at import, and ``show_config``."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from fastact import threads
from fastact._core import runtime


def select_isa() -> None:
    """Select the best instruction set, or the one that ``FASTACT_MAX_ISA`` names.

    Raises
    ------
    ImportError
        If the variable names a set that this build or CPU does not have.
    """
    wanted = os.environ.get("FASTACT_MAX_ISA", "").strip().lower()
    available = runtime.isa_available()
    if not wanted:
        runtime.isa_select(available[-1])
    elif wanted in available:
        runtime.isa_select(wanted)
    else:
        raise ImportError(
            f"FASTACT_MAX_ISA: expected one of {', '.join(available)} (available on this CPU), got {wanted!r}; "
            "unset it to use the best one"
        )


def config() -> dict[str, Any]:
    """Facts about this build and machine, as ``show_config`` prints them."""
    from fastact import __version__

    return {
        "fastact": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "instruction set": runtime.isa_active(),
        "available": runtime.isa_available(),
        "built in": runtime.isa_names(),
        "lanes float32, float64": runtime.lanes(),
        "OpenMP": runtime.has_openmp(),
        "cores": threads.available_cores(),
        "threads": threads.get_num_threads(),
    }


def show_config() -> None:
    """Print the instruction set in use, those available, and the threads.

    Examples
    --------
    >>> import fastact as fa
    >>> fa.show_config()  # doctest: +ELLIPSIS
    fastact: ...
    """
    for name, value in config().items():
        print(f"{name}: {', '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}")
