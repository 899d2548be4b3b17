"""The state of a recurrent layer: in the user's form, and by letter and layer as the passes of the core take it."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from fastact._arguments import Array, as_floats
from fastact._core.workspace import empty

#: Of one letter of the state: an array (directions, B, H) for each layer.
Layers = list[Array]


class States:
    """Shapes and forms of a layer's state: for each of its letters (layers x directions, B, H), or, where the layers
    have different sizes, a tuple of one (directions, B, H) a layer.

    Parameters
    ----------
    sizes : dict of tuples of int
        By letter, that of each layer.
    """

    def __init__(self, sizes: dict[str, tuple[int, ...]], directions: int, dtype: np.dtype[Any]) -> None:
        self.sizes, self.directions, self.dtype = sizes, directions, dtype
        self.letters = "".join(sizes)

    def new(self, batch: int) -> list[Layers]:
        """Uninitialised, by letter and layer."""
        D, dtype = self.directions, self.dtype
        state = []
        for sizes in self.sizes.values():
            if len(set(sizes)) == 1:
                state.append(self._split(empty((len(sizes) * D, batch, sizes[0]), dtype)))
            else:
                state.append([empty((D, batch, H), dtype) for H in sizes])
        return state

    def new_single(self, batch: int) -> tuple[Array, ...]:
        """``new`` of a single layer in one direction, which is what its pass takes."""
        dtype = self.dtype
        return tuple([empty((1, batch, sizes[0]), dtype) for sizes in self.sizes.values()])

    def public_single(self, state: tuple[Array, ...]) -> Any:
        return state if len(state) > 1 else state[0]

    def zeros(self, batch: int) -> list[Layers]:
        state = self.new(batch)
        for layers in state:
            for each in layers:
                each.fill(0)
        return state

    def _split(self, whole: Array) -> Layers:
        D = self.directions
        return [whole] if len(whole) == D else [whole[n : n + D] for n in range(0, len(whole), D)]

    def public(self, state: list[Layers]) -> Any:
        """In the user's form."""
        parts = [layers[0] if len(layers) == 1 else self.joined(layers) for layers in state]
        return tuple(parts) if len(self.letters) > 1 else parts[0]

    def joined(self, layers: Layers) -> Any:
        """One letter in the user's form."""
        if len({each.shape for each in layers}) > 1:
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
                kind = "pair" if len(self.letters) == 2 else "tuple"
                shapes = {f"{self._meaning()} = {self._shape(sizes, batch)}" for sizes in self.sizes.values()}
                raise TypeError(
                    f"{name}: expected a {kind} ({', '.join(self.letters)}) of arrays of shape "
                    f"{' and '.join(sorted(shapes))}, got {describe(state)}"
                ) from None
        return [self._check_letter(*one, name, batch) for one in zip(parts, self.sizes.items(), strict=True)]

    def _check_letter(self, part: Any, item: tuple[str, tuple[int, ...]], name: str, batch: int) -> Layers:
        letter, sizes = item
        if len(set(sizes)) == 1:
            return self._split(self._array(part, name, letter, self._shape(sizes, batch), self._meaning()))
        if not isinstance(part, (tuple, list)) or len(part) != len(sizes):
            raise TypeError(
                f"{name}: expected {letter} as a tuple of {len(sizes)} arrays, one for each layer, as the layers have "
                f"different sizes, got {describe(part)}"
            )
        return [
            self._array(p, name, f"{letter}[{n}]", (self.directions, batch, H), "(directions, B, H)")
            for n, (p, H) in enumerate(zip(part, sizes, strict=True))
        ]

    def _meaning(self) -> str:
        return "(num_layers, B, H)" if self.directions == 1 else "(num_layers x 2 directions, B, H)"

    def _shape(self, sizes: tuple[int, ...], batch: int) -> Any:
        if len(set(sizes)) == 1:
            return len(sizes) * self.directions, batch, sizes[0]
        return tuple((self.directions, batch, H) for H in sizes)

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
