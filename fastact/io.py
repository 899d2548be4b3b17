"""Model files: ``save`` and ``load``.

A model file is a safetensors file whose metadata holds under ``fastact`` the architecture as JSON. It is data, never
code.

    {"format": 1, "root": 2, "layers": [{"class": "Dense", "config": {"in_features": 4, ...}}, ...], "shared": {}}

A layer in another one's config is ``{"$layer": i}``, an earlier entry of ``layers``, so a shared layer stays shared; an
activation is ``{"$activation": name, "parameters": {...}}``; ``shared`` lists the further names of shared parameters,
``frozen``, where there are such, those that are not trainable.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastact import init, nn
from fastact._activations import Activation, activations
from fastact._custom import Scaled
from fastact._files import BESIDE, PathLike, read_tensors, write_tensors
from fastact.errors import ModelFileError
from fastact.nn.base import Layer
from fastact.nn.parameter import Buffer

FORMAT = 1


def save(model: Layer, path: PathLike, metadata: Mapping[str, str] | None = None) -> None:
    """Write a model, architecture and weights, to a safetensors file.

    The file is written beside ``path``, flushed to the disk and renamed: whatever goes wrong, an earlier file survives.

    Parameters
    ----------
    model : Layer
    path : str or path-like
    metadata : mapping of str to str, optional
        Further facts to keep in the file; ``read_model`` gives them back.

    Raises
    ------
    TypeError
        If the model has a part that a file cannot describe, such as an activation made of Python functions.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import fastact as fa
    >>> model = fa.nn.Sequential(fa.nn.Dense(4, 8, "relu"), fa.nn.Dense(8, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fa.save(model, f"{folder}/model.safetensors")
    ...     fa.load(f"{folder}/model.safetensors")
    Sequential(Dense(in_features=4, out_features=8, activation='relu', bias=True, dtype='float32'), \
Dense(in_features=8, out_features=3, activation=None, bias=True, dtype='float32'))
    """
    if not isinstance(model, Layer):
        raise TypeError(f"model: expected a layer or model, got {type(model).__name__}; the order is save(model, path)")
    given = dict(metadata or {})
    if "fastact" in given:
        raise ValueError("metadata: expected keys other than 'fastact', which holds the architecture, got it")
    tensors = {name: held.value for name, held in model._saved().items()}
    write_tensors(path, tensors, {**given, "fastact": describe(model)})


def load(path: PathLike, custom: Mapping[str, type[Layer]] | None = None) -> Any:
    """Read a model that ``save`` has written.

    Parameters
    ----------
    path : str or path-like
    custom : mapping of str to type, optional
        Layers of your own by the names of their classes.

    Returns
    -------
    Layer

    Raises
    ------
    FileNotFoundError
    ModelFileError
        If the file is damaged, truncated, or not a model file; the message says what to do.
    """
    return read_model(path, custom)[0]


def read_model(path: PathLike, custom: Mapping[str, type[Layer]] | None = None) -> tuple[Any, dict[str, str]]:
    """The model of a file and the metadata that was saved with it."""
    tensors, metadata = read_tensors(path)
    tensors = {name: array for name, array in tensors.items() if not name.startswith(BESIDE)}
    if "fastact" not in metadata:
        raise ModelFileError(
            f"path: {os.fsdecode(path)} holds {len(tensors)} arrays but no architecture of fastact; build the model, "
            "then model.load_state_dict(safetensors.numpy.load_file(path))"
        )
    with init.skipped(allowance=4 * sum(t.nbytes for t in tensors.values()) + (1 << 20)):
        model = restore(metadata["fastact"], custom, os.fsdecode(path))
    try:
        model.load_state_dict(tensors)
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"path: the arrays in {os.fsdecode(path)} do not fit its architecture: {error}") from error
    return model, {key: value for key, value in metadata.items() if key != "fastact"}


def describe(model: Layer) -> str:
    """The architecture of a model as JSON, without its weights."""
    places: dict[int, int] = {}
    entries: list[dict[str, Any]] = []

    def encode(value: Any, where: str) -> Any:
        if isinstance(value, Layer):
            return {"$layer": place(value)}
        if isinstance(value, Activation):
            return encode_activation(value, where)
        if isinstance(value, np.dtype):
            return value.name
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Mapping) and all(isinstance(k, str) and not k.startswith("$") for k in value):
            return {key: encode(item, f"{where}[{key!r}]") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [encode(item, where) for item in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(
            f"model: {where} is a {type(value).__name__}, which a file cannot hold; expected numbers, strings, lists, "
            "dicts with string keys, layers or activations of the catalogue"
        )

    def place(layer: Layer) -> int:
        if id(layer) not in places:
            places[id(layer)] = -1
            kind = type(layer)
            config = {k: encode(v, f"{k} of {kind.__name__}") for k, v in layer.config().items()}
            entry: dict[str, Any] = {"class": kind.__name__, "config": config}
            if getattr(nn, kind.__name__, None) is not kind:
                entry["custom"] = True
            places[id(layer)] = len(entries)
            entries.append(entry)
        if places[id(layer)] < 0:
            raise TypeError(f"model: {type(layer).__name__} contains itself; a file holds trees of layers")
        return places[id(layer)]

    root = place(model)
    first: dict[int, str] = {}
    shared = {name: kept for name, p in model._names() if (kept := first.setdefault(id(p), name)) != name}
    document = {"format": FORMAT, "root": root, "layers": entries, "shared": shared}
    if frozen := [name for name, held in model._saved().items() if not held.trainable]:
        document["frozen"] = frozen
    return json.dumps(document)


def encode_activation(function: Activation, where: str) -> dict[str, Any]:
    """An activation of the catalogue by name and parameters, or one scaled and shifted."""
    if isinstance(function, Scaled):
        return {**encode_activation(function.inner, where), "scaled": dict(function.parameters)}
    known = activations.get(function.name)
    if known is None or known.ufunc is not function.ufunc or type(known) is not type(function):
        raise TypeError(
            f"model: {where}, {function!r}, is made of Python functions; model files hold data, never code. Save "
            "model.state_dict() and build the model again in code"
        )
    parameters = {}
    for name, value in function.parameters.items():
        if np.ndim(value):
            raise TypeError(f"model: {where}, {function!r}: expected a number as {name}, got an array")
        parameters[name] = float(value)
    return {"$activation": function.name, "parameters": parameters}


def restore(description: str, custom: Mapping[str, type[Layer]] | None = None, path: str = "the file") -> Layer:
    """A model, its weights not yet loaded, from what ``describe`` gave."""
    custom = custom or {}
    for name, kind in custom.items():
        if not (isinstance(kind, type) and issubclass(kind, Layer)):
            raise TypeError(f"custom: expected classes derived from fastact.nn.Layer, got {name!r}: {kind!r}")
    layers: list[Layer] = []

    def layer_at(place: int) -> Layer:
        if not 0 <= place < len(layers):
            raise IndexError(f"no layer {place} before its use")
        return layers[place]

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$layer" in value:
            return layer_at(value["$layer"])
        if "$activation" in value:
            function = activations[value["$activation"]]
            function = function.with_params(**value["parameters"]) if value["parameters"] else function
            return function.scaled(**value["scaled"]) if "scaled" in value else function
        return {key: decode(item) for key, item in value.items()}

    try:
        document = json.loads(description)
        if document["format"] > FORMAT:
            raise ModelFileError(
                f"path: {path} has format {document['format']}, this fastact reads up to {FORMAT}; upgrade fastact"
            )
        for entry in document["layers"]:
            layers.append(class_of(entry, custom, path).from_config(decode(entry["config"])))
        model = layer_at(document["root"])
        for name, kept in document["shared"].items():
            share_parameter(model, name, kept)
        held = model._saved()
        for name in document.get("frozen", ()):
            held[name].trainable = False
        return model
    except ModelFileError:
        raise
    except RecursionError as error:
        raise ModelFileError(f"path: the architecture in {path} is damaged: nested too deeply") from error
    except Exception as error:  # whatever a constructor makes of wrong arguments
        raise ModelFileError(
            f"path: the architecture in {path} cannot be built: {type(error).__name__}: {error}; it is damaged, or a "
            "class has changed since"
        ) from error


def class_of(entry: dict[str, Any], custom: Mapping[str, type[Layer]], path: str) -> type[Layer]:
    """The class that an entry of ``layers`` names: one of fastact.nn or of ``custom``."""
    name = entry["class"]
    kind = custom.get(name) if entry.get("custom") else getattr(nn, name, None)
    if isinstance(kind, type) and issubclass(kind, Layer):
        return kind
    raise ModelFileError(
        f"path: {path} has a layer of class {name!r}, which is not one of fastact.nn; "
        f"give the class: fa.load(path, custom={{{name!r}: {name}}})"
    )


def share_parameter(model: Layer, name: str, kept: str) -> None:
    """Make ``name`` the same parameter as ``kept``, as it was in the model that was saved."""
    found: dict[str, tuple[Layer, str, Buffer]] = {}
    for prefix, layer in model._tree():
        for own, member in layer._members():
            if isinstance(member, Buffer):
                found[prefix + own] = layer, own, member
    layer, own, member = found[name]
    parameter = found[kept][2]
    if parameter is not member:
        if parameter.shape != member.shape or getattr(layer, own, None) is not member:
            raise ValueError(f"{name} cannot be shared with {kept}")
        setattr(layer, own, parameter)
