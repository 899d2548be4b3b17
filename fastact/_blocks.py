"""Several steps over arrays block by block: the next step finds in cache what the last one left; no temporaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BLOCK = 16384  # elements: three operands in float64 fit in L2; shorter, Python's 1 us a step begins to count


def blockwise(step: Callable[..., None], inputs: Sequence[Any], outputs: Sequence[Any], work: np.dtype[Any]) -> None:
    """Call ``step(*input_blocks, *output_blocks)`` for corresponding 1-d blocks of ``work`` dtype, over all elements.

    Operands broadcast and may lie and overlap in any way; the dtypes are converted block by block.
    """
    options: dict[str, Any] = {
        "flags": ["external_loop", "buffered", "zerosize_ok", "copy_if_overlap"],
        "op_flags": [["readonly"]] * len(inputs) + [["writeonly", "no_broadcast"]] * len(outputs),
        "op_dtypes": [work] * (len(inputs) + len(outputs)),
        "casting": "same_kind",
        "buffersize": BLOCK,
    }
    iterator = np.nditer([*inputs, *outputs], **options)
    with iterator:
        for blocks in iterator:
            step(*blocks)


def work_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What to compute in for results of this dtype."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def float_dtype(*arrays: Any) -> np.dtype[Any]:
    """The dtype that ``numpy.sin`` would give for arrays of a common type."""
    dtype = np.result_type(*arrays)
    return dtype if dtype.kind not in "iub" else np.result_type(dtype, np.float16)
