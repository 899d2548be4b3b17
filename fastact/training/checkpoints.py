"""The file of a trainer: a model file with the optimiser's arrays beside the weights and facts as JSON.

Names of weights are identifiers joined by dots; everything else stands under ``trainer/``, which ``fa.load`` passes
over. Trees of arrays (the state of recurrent layers: tuples of arrays or None) are stored by the path to each array,
plain numbers and strings among them in the JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from fastact import io
from fastact._arguments import Array
from fastact._files import BESIDE, read_tensors, write_tensors
from fastact.errors import ModelFileError
from fastact.nn.base import Layer

FORMAT = 2  # 1 had no numbers and lists in its trees


def write(path: str | os.PathLike[str], model: Layer, facts: dict[str, Any], trees: dict[str, Any]) -> None:
    """Write a checkpoint, atomically.

    Parameters
    ----------
    path : path
    model : Layer
    facts : dict
        Of JSON's types.
    trees : dict
        Trees of arrays by name: arrays, None, numbers and strings in dicts, tuples and lists.
    """
    tensors: dict[str, Array] = {name: held.value for name, held in model._saved().items()}
    shapes = {name: _flatten(tree, f"{BESIDE}{name}", tensors) for name, tree in trees.items()}
    document = json.dumps({"format": FORMAT, "facts": facts, "trees": shapes})
    write_tensors(path, tensors, {"fastact": io.describe(model), "trainer": document})


def check(path: str | os.PathLike[str], model: Layer) -> None:
    """Raise now what ``write`` would raise hours later: a model that no file can hold, a missing folder."""
    io.describe(model)
    folder = os.path.dirname(os.path.realpath(os.fsdecode(path)))
    if not os.path.isdir(folder):
        raise FileNotFoundError(
            f"checkpoint: the folder {folder} does not exist; make it first: os.makedirs({folder!r})"
        )


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, Any], dict[str, Any]]:
    """Weights by name, facts and trees of a checkpoint.

    Raises
    ------
    ModelFileError
        If the file is damaged or holds a model without a trainer.
    """
    tensors, metadata = read_tensors(path)
    if "trainer" not in metadata:
        raise ModelFileError(
            f"path: expected a checkpoint of Trainer.save, {os.fsdecode(path)} holds no optimiser state; "
            "fa.load(path) reads its model"
        )
    try:
        document = json.loads(metadata["trainer"])
        if document["format"] > FORMAT:
            raise ModelFileError(
                f"path: {os.fsdecode(path)} has format {document['format']}, this fastact reads {FORMAT}; upgrade it"
            )
        trees = {name: _build(shape, tensors) for name, shape in document["trees"].items()}
        facts = document["facts"]
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"path: the training state in {os.fsdecode(path)} is damaged: {error!r}") from error
    weights = {name: array for name, array in tensors.items() if not name.startswith(BESIDE)}
    return weights, facts, trees


def _flatten(tree: Any, name: str, tensors: dict[str, Array]) -> Any:
    """The form of a tree with names for its arrays, which go into ``tensors``."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        return {"dict": {key: _flatten(item, f"{name}/{key}", tensors) for key, item in tree.items()}}
    if isinstance(tree, (tuple, list)):
        kind = "tuple" if isinstance(tree, tuple) else "list"
        return {kind: [_flatten(item, f"{name}/{i}", tensors) for i, item in enumerate(tree)]}
    if isinstance(tree, (bool, int, float, str)) and not isinstance(tree, np.generic):
        return {"value": tree}
    if not isinstance(tree, (np.ndarray, np.generic)):
        raise TypeError(f"{name.removeprefix(BESIDE)}: expected arrays, numbers and strings, got {type(tree).__name__}")
    tensors[name] = np.ascontiguousarray(tree)
    return name


def _build(form: Any, tensors: dict[str, Array]) -> Any:
    if form is None:
        return None
    if isinstance(form, str):
        return tensors[form]
    if "dict" in form:
        return {key: _build(item, tensors) for key, item in form["dict"].items()}
    if "value" in form:
        return form["value"]
    if "list" in form:
        return [_build(item, tensors) for item in form["list"]]
    return tuple(_build(item, tensors) for item in form["tuple"])
