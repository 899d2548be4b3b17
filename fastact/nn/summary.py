"""``Summary``: a model as a table of layers, shapes of outputs and numbers of parameters."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fastact._arguments import as_size

if TYPE_CHECKING:
    from fastact.nn.base import Layer
    from fastact.nn.parameter import Buffer

Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A layer in the table.

    Attributes
    ----------
    name : str
        Its place in the layer above; empty for the model itself.
    kind : str
        Its class.
    depth : int
        0 for the model.
    output_shape : tuple or None
        None where nothing tells what goes in: a layer of one's own that does not call it, or takes no zeros.
    parameters : int
        Of its own and, in the last row of a branch, of the layers within; those of an earlier row do not count again.
    frozen : int
        Those among them that are not trained.
    shared : bool
        Whether an earlier row has the same layer.
    """

    name: str
    kind: str
    depth: int
    output_shape: Shape | None
    parameters: int
    frozen: int
    shared: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """What ``Layer.summary`` returns; ``print`` it.

    Attributes
    ----------
    rows : list of Row
    parameters, trainable : int
        Numbers in all parameters, and in those that are trained.
    buffers : int
        Numbers in buffers, such as running statistics.
    nbytes : int
        Memory of the parameters.
    """

    rows: list[Row] = field(repr=False)
    parameters: int
    trainable: int
    buffers: int
    nbytes: int

    def __str__(self) -> str:
        cells = [("Layer", "Output shape", "Parameters")]
        for row in self.rows:
            name = f"{row.name}: {row.kind}" if row.name else row.kind
            count = "shared" if row.shared else f"{row.parameters:,}" if row.parameters else ""
            if row.frozen:
                count += " frozen" if row.frozen == row.parameters else f" ({row.frozen:,} frozen)"
            cells.append(("  " * row.depth + name, "?" if row.output_shape is None else str(row.output_shape), count))
        first, second, third = (max(len(cell[k]) for cell in cells) for k in range(3))
        lines = [f"{a:<{first}}  {b:<{second}}  {c:>{third}}".rstrip() for a, b, c in cells]
        rule = "-" * max(map(len, lines))
        total = f"{self.parameters:,} parameters ({_size(self.nbytes)})"
        if self.trainable < self.parameters:
            total += f", {self.trainable:,} trained, {self.parameters - self.trainable:,} frozen"
        if self.buffers:
            total += f"; {self.buffers:,} in buffers"
        return "\n".join([lines[0], rule, *lines[1:], rule, total])


def summarise(layer: Layer, input_shape: Shape, depth: int | None) -> Summary:
    """See ``Layer.summary``."""
    if not isinstance(input_shape, (tuple, list)) or not input_shape:
        raise ValueError(f"input_shape: expected a tuple that begins with the batch axis, got {input_shape!r}")
    most = None if depth is None else as_size(depth, "depth", least=0)
    any_batch = input_shape[0] is None
    known = [1 if any_batch else as_size(input_shape[0], "input_shape[0]")]
    known += [as_size(n, f"input_shape[{k}]") for k, n in enumerate(input_shape[1:], 1)]
    layer.output_shape(tuple(known))  # whatever does not fit is said with the place of the layer

    seen: set[int] = set()

    def new(held: dict[str, Buffer]) -> list[Buffer]:
        found = [h for h in held.values() if id(h) not in seen]
        seen.update(map(id, found))
        return found

    def rows(name: str, at: Layer, shape: tuple[int, ...] | None, level: int) -> Iterator[Row]:
        output: Shape | None = None if shape is None else at.output_shape(shape)
        if any_batch and output:
            output = (None, *output[1:])
        children = list(at._parts(shape)) if shape is not None else [(n, c, None) for n, c in at.children().items()]
        leaf = not children or level == most
        shared = id(at) in seen
        seen.add(id(at))
        inside = at.parameters() if leaf else {n: p for n, p in at.parameters().items() if n in dict(at._members())}
        held = new(inside)  # type: ignore[arg-type]
        count, frozen = sum(p.size for p in held), sum(p.size for p in held if not p.trainable)
        yield Row(name, type(at).__name__, level, output, count, frozen, shared)
        if not leaf and not shared:
            for child_name, child, inner in children:
                yield from rows(child_name, child, inner, level + 1)

    table = list(rows("", layer, tuple(known), 0))
    parameters = layer.parameters().values()
    return Summary(
        table,
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if p.trainable),
        sum(b.size for b in layer.buffers().values()),
        sum(p.size * p.dtype.itemsize for p in parameters),
    )


def inputs_of_members(layer: Layer, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of what a layer of the user's own first gives its inner layers, by one call of a copy with zeros.

    In the copy, each inner layer is of a class derived from its own that notes what it is called with. One that cannot
    tell by the shape of x alone what comes out, as it takes more, is left out.
    """
    copied = copy.deepcopy(layer)
    noted: dict[str, tuple[int, ...]] = {}
    for name, child in copied.children().items():
        child.__class__ = _noting(type(child), functools.partial(noted.setdefault, name))
    with suppress(Exception):  # whatever the user's code raises: the shapes that it got to remain
        copied.output_shape(shape)
    found = {}
    for name, child in layer.children().items():
        with suppress(Exception):
            child.output_shape(noted[name])
            found[name] = noted[name]
    return found


def _noting(kind: type[Layer], note: Callable[[tuple[int, ...]], Any]) -> type[Layer]:
    class Noting(kind):  # type: ignore[misc,valid-type]
        def __call__(self, x: Any, /, *args: Any, **kwargs: Any) -> Any:
            note(np.shape(x))
            return super().__call__(x, *args, **kwargs)

        def forward(self, x: Any, /, *args: Any, **kwargs: Any) -> Any:
            note(np.shape(x))
            return super().forward(x, *args, **kwargs)

    return Noting


def _size(nbytes: int) -> str:
    """Bytes in words."""
    for unit, bytes_of in (("MB", 1 << 20), ("kB", 1 << 10)):
        if nbytes >= bytes_of:
            return f"{nbytes / bytes_of:.1f} {unit}"
    return f"{nbytes} bytes"
