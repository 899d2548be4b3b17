"""The packed matrix product: ``fastact.matmul`` and ``fastact.pack``."""

from __future__ import annotations

from fastact._core.product import PackedMatrix as PackedMatrix
from fastact._core.product import pack as pack
from fastact._core.product import public_matmul as matmul

__all__ = ["PackedMatrix", "matmul", "pack"]
