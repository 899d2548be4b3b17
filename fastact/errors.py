"""Exceptions of fastact, and the rule for adding one.

Bad input raises the built-in type that NumPy users expect (``TypeError``, ``ValueError``, ``FileNotFoundError`` ...)
with a message of four parts: the argument's name, what was expected, what came, and the fix where it is not plain from
the first three. A class of our own exists only where a caller may want to catch that very case.
"""

from __future__ import annotations


class FastactError(Exception):
    """Base of the exceptions that only fastact raises."""


class ModelFileError(FastactError, ValueError):
    """A model or checkpoint file is damaged, truncated, or not one of ours."""


class NonFiniteError(FastactError, ArithmeticError):
    """Training produced a NaN or infinite loss; the message says at which step and what to try."""


class BackwardError(FastactError, RuntimeError):
    """A backward closure was called twice, or after its buffers were given back."""
