"""Layers made of layers: how they hold their members, and what they pass to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastact.nn.base import Backward, Layer
from fastact.nn.parameter import Buffer


class Members(Layer):
    """Layers in a tuple, named as torch.nn names those of a Sequential: ``"0.weight"``, ``"1.weight"``."""

    layers: tuple[Layer, ...]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Layer:
        return cls(*config["layers"])

    def config(self) -> dict[str, Any]:
        return {"layers": list(self.layers)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    def _members(self) -> Iterator[tuple[str, Buffer | Layer]]:
        for name, member in super()._members():
            yield name.removeprefix("layers."), member


def with_lengths(layer: Layer, lengths: Any) -> dict[str, Any]:
    """The argument ``lengths`` of a call, for a layer that takes it."""
    return {"lengths": lengths} if lengths is not None and layer.takes_lengths else {}


def each_state(state: Any, expected: int, name: str = "state") -> tuple[Any, ...]:
    """A state, or its gradient, for each of so many recurrent members; None for each of them where there is none.

    Raises
    ------
    ValueError
        For anything but None or a tuple of as many.
    """
    if state is None:
        return (None,) * expected
    if not isinstance(state, (tuple, list)) or len(state) != expected:
        got = f"{len(state)}" if isinstance(state, (tuple, list)) else f"a {type(state).__name__}"
        raise ValueError(f"{name}: expected a tuple of {expected}, one for each recurrent layer, got {got}")
    return tuple(state)


def pass_back(backward: Any, dy: Any, input_gradient: bool, **dstate: Any) -> Any:
    """``backward(dy)``; a Backward is told whether dx is wanted, a plain function of the user's takes dy alone."""
    if input_gradient or not isinstance(backward, Backward):
        return backward(dy, **dstate)
    return backward(dy, input_gradient=False, **dstate)
