"""How a recurrent layer's sequences lie in arrays: all of one length, or of unequal lengths, without padding.

Inside, arrays are time-major: (T, B, K), or (N, K) with the rows of unequal sequences packed.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from fastact._arguments import Array, as_real
from fastact._core import recurrent as core
from fastact._core.workspace import empty
from fastact.nn.states import Layers


class Equal:
    """Sequences of one length: the core reads and writes the user's arrays in place."""

    starts = None

    def __init__(self, time_major: bool) -> None:
        self.time_major = time_major

    def pack(self, a: Array) -> Array:
        """The user's array as the core takes it."""
        return a if self.time_major else a.swapaxes(0, 1)

    def mirror(self, a: Array) -> Array:
        """Each sequence from its end to its beginning."""
        return a[::-1]

    def sort(self, state: list[Layers]) -> list[Layers]:
        """A state in the order in which the core has the sequences."""
        return state

    unsort = sort


EQUAL = {False: Equal(False), True: Equal(True)}  # by time_major


class Ragged:
    """Sequences of unequal lengths, longest first, the rows of each step one behind the other (src_c/recurrent.h).

    Only steps that are there are computed: rows without gaps, as in PyTorch's packed sequences.
    """

    def __init__(self, lengths: Array, steps: int, time_major: bool) -> None:
        batch = len(lengths)
        self.order = np.argsort(-lengths, kind="stable")
        lengths = lengths[self.order]
        longest = int(lengths[0])
        counts = np.searchsorted(-lengths, -np.arange(longest))  # sequences with a step t
        self.starts = np.concatenate([[-batch, 0], np.cumsum(counts)]).astype(np.intp)
        t = np.repeat(np.arange(longest), counts)
        b = np.arange(len(t)) - self.starts[1:-1][t]
        self._rows = t * batch + self.order[b] if time_major else self.order[b] * steps + t  # in the user's arrays
        self._places = np.full(steps * batch, -1, np.intp)  # of the user's rows in ours
        self._places[self._rows] = np.arange(len(t))
        self._lengths, self._of_step, self._of_batch = lengths, t, b

    @cached_property
    def _mirror(self) -> Array:
        """Of each of our rows, the one as far from the end of its sequence as this from the beginning."""
        b = self._of_batch
        return np.asarray(self.starts[self._lengths[b] - self._of_step] + b)

    def pack(self, a: Array) -> Array:
        return _taken(a.reshape(-1, a.shape[-1]), self._rows)

    def unpack(self, rows: Array, out: Array) -> None:
        """Into the user's array, zero where there is no step."""
        core.take_rows(rows, self._places, out.reshape(-1, rows.shape[-1]))

    def mirror(self, a: Array) -> Array:
        return _taken(a, self._mirror)

    def sort(self, state: list[Layers]) -> list[Layers]:
        return [[np.ascontiguousarray(a[:, self.order]) for a in layers] for layers in state]

    def unsort(self, state: list[Layers]) -> list[Layers]:
        back = np.argsort(self.order)
        return [[np.ascontiguousarray(a[:, back]) for a in layers] for layers in state]


def _taken(a: Array, rows: Array) -> Array:
    """Those rows of a, of any strides."""
    if a.shape[1] > 1 and a.strides[1] != a.itemsize:
        a = np.ascontiguousarray(a)
    out = empty((len(rows), a.shape[1]), a.dtype, 1)
    core.take_rows(a, rows, out)
    return out


def as_lengths(lengths: npt.ArrayLike, batch: int, steps: int, least: int = 1) -> Array:
    """``lengths`` as an integer array (B,), each from 1 (or ``least``) to T."""
    array = as_real(lengths, "lengths")
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths: expected integers, got {array.dtype}")
    if array.shape != (batch,):
        raise ValueError(
            f"lengths: expected one for each of the {batch} sequences, shape ({batch},), got {array.shape}"
        )
    wrong = np.flatnonzero((array < least) | (array > steps))
    if len(wrong):
        raise ValueError(
            f"lengths: expected each from {least} to T = {steps}, got {array[wrong[0]]} for sequence {wrong[0]}"
            + ("; leave out sequences without a step" if least else "")
        )
    return array.astype(np.intp)
