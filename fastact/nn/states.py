"""The state of a recurrent layer: in the user's form, and by letter and layer as the passes of the core take it."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from fastact._arguments import Array, as_floats
from fastact._core.workspace import empty

#: Of one letter of the state: an array (directions, B, H) for each layer.
Layers = list[Array]


class States:
    """Shapes and forms of a layer's state: (layers x directions, B, H) a letter, or, where the layers have different
    sizes, a tuple of one (directions, B, H) a layer."""

    def __init__(self, letters: str, sizes: tuple[int, ...], directions: int, dtype: np.dtype[Any]) -> None:
        self.letters, self.sizes, self.directions, self.dtype = letters, sizes, directions, dtype
        self.one_size = len(set(sizes)) == 1

    def new(self, batch: int) -> list[Layers]:
        """Uninitialised, by letter and layer."""
        D, count = self.directions, len(self.sizes)
        if count == 1:
            shape = (D, batch, self.sizes[0])
            return [[empty(shape, self.dtype)] for _ in self.letters]
        if self.one_size:
            return [self._split(empty((count * D, batch, self.sizes[0]), self.dtype)) for _ in self.letters]
        return [[empty((D, batch, H), self.dtype) for H in self.sizes] for _ in self.letters]

    def new_single(self, batch: int) -> tuple[Array, ...]:
        """``new`` of a single layer in one direction, which is what its pass takes."""
        shape, dtype = (1, batch, self.sizes[0]), self.dtype
        return tuple([empty(shape, dtype) for _ in self.letters])

    def public_single(self, state: tuple[Array, ...]) -> Any:
        return state if len(state) > 1 else state[0]

    def _split(self, whole: Array) -> Layers:
        D = self.directions
        return [whole] if len(self.sizes) == 1 else [whole[n * D : n * D + D] for n in range(len(self.sizes))]

    def public(self, state: list[Layers]) -> Any:
        """In the user's form."""
        parts = [layers[0] if len(layers) == 1 else self.joined(layers) for layers in state]
        return tuple(parts) if len(self.letters) > 1 else parts[0]

    def joined(self, layers: Layers) -> Any:
        """One letter in the user's form."""
        if not self.one_size:
            return tuple(layers)
        if len(layers) == 1:
            return layers[0]
        whole = layers[0].base
        shape = (len(layers) * self.directions, *layers[0].shape[1:])
        return whole if whole is not None and whole.shape == shape else np.concatenate(layers)

    def check(self, state: Any, name: str, batch: int) -> list[Layers] | None:
        """The user's ``state`` by letter and layer, C-contiguous; None for None."""
        if state is None:
            return None
        parts = [state]
        if len(self.letters) > 1:
            try:
                parts = [*state]
                if len(parts) != len(self.letters):
                    raise ValueError
            except (TypeError, ValueError):
                raise TypeError(
                    f"{name}: expected a pair (h, c) of arrays of shape {self._meaning()} = {self._shape(batch)}, "
                    f"got {describe(state)}"
                ) from None
        if self.one_size:
            shape = self._shape(batch)
            return [
                self._split(self._array(part, name, letter, shape, self._meaning()))
                for part, letter in zip(parts, self.letters, strict=True)
            ]
        checked = []
        for part, letter in zip(parts, self.letters, strict=True):
            if not isinstance(part, (tuple, list)) or len(part) != len(self.sizes):
                raise TypeError(
                    f"{name}: expected {letter} as a tuple of {len(self.sizes)} arrays, one for each layer, as the "
                    f"layers have different sizes, got {describe(part)}"
                )
            checked.append(
                [
                    self._array(p, name, f"{letter}[{n}]", (self.directions, batch, H), "(directions, B, H)")
                    for n, (p, H) in enumerate(zip(part, self.sizes, strict=True))
                ]
            )
        return checked

    def _meaning(self) -> str:
        return "(num_layers, B, H)" if self.directions == 1 else "(num_layers x 2 directions, B, H)"

    def _shape(self, batch: int) -> Any:
        if self.one_size:
            return len(self.sizes) * self.directions, batch, self.sizes[0]
        return tuple((self.directions, batch, H) for H in self.sizes)

    def _array(self, part: Any, name: str, letter: str, shape: tuple[int, ...], meaning: str) -> Array:
        array = as_floats(part, self.dtype, f"{name}: {letter}")
        if array.shape != shape:
            fix = f"; add the axis of layers: {letter}[None]" if array.shape == shape[1:] and shape[0] == 1 else ""
            raise ValueError(f"{name}: expected {letter} of shape {meaning} = {shape}, got {array.shape}{fix}")
        return np.ascontiguousarray(array)


@overload
def part(state: list[Layers], layer: int, direction: int) -> tuple[Array, ...]: ...
@overload
def part(state: list[Layers] | None, layer: int, direction: int) -> tuple[Array, ...] | None: ...
def part(state: list[Layers] | None, layer: int, direction: int) -> tuple[Array, ...] | None:
    """What one pass of the core takes of a state."""
    return None if state is None else tuple([layers[layer][direction] for layers in state])


def describe(value: Any) -> str:
    """A value in an error message: arrays by shape, sequences by length."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
