"""SciPy: its special functions, and its BLAS."""

from __future__ import annotations

import numpy as np

from ..timing import Run
from .base import UNIT_SLOPE, Array, Peer


class SciPy(Peer):
    name = "SciPy"

    def __init__(self, threads: int) -> None:
        import scipy
        import scipy.special

        self.special = scipy.special
        self.version = scipy.__version__

    def forward(self, activation: str, x: Array, out: Array, axis: int = -1) -> Run | None:
        special = self.special
        work = x.dtype.type(np.sqrt(0.5))

        def gelu() -> Array:
            np.multiply(x, work, out=out)
            special.erf(out, out=out)
            np.add(out, 1, out=out)
            np.multiply(out, x, out=out)
            return np.multiply(out, x.dtype.type(0.5), out=out)

        runs: dict[str, Run] = {
            "sigmoid": lambda: special.expit(x, out=out),
            "gelu": gelu,
            "erf": lambda: special.erf(np.multiply(x, x.dtype.type(UNIT_SLOPE), out=out), out=out),
            "log_sigmoid": lambda: special.log_expit(x, out=out),
            "softmax": lambda: special.softmax(x, axis=axis),
            "log_softmax": lambda: special.log_softmax(x, axis=axis),
            "logsumexp": lambda: special.logsumexp(x, axis=axis),
        }
        return runs.get(activation)

    def product(self, a: Array, b: Array, out: Array) -> Run | None:
        from scipy.linalg import blas

        gemm = blas.sgemm if a.dtype == np.float32 else blas.dgemm

        def transposed(m: Array) -> tuple[Array, int]:
            """SciPy's BLAS wants Fortran order: hand over the transpose and a flag instead of copying."""
            return (m.T, 0) if m.T.flags.f_contiguous else (m, 1)

        (left, left_flag), (right, right_flag) = transposed(b), transposed(a)  # (A B)^T = B^T A^T
        target = out.T
        return lambda: gemm(1.0, left, right, 0.0, target, left_flag, right_flag, overwrite_c=1).T
