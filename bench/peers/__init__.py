"""The other libraries, each used in the fastest public way it has, and only where it is installed: a file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..timing import Run
from .base import Learner as Learner
from .base import Peer as Peer
from .base import layers_of as layers_of
from .jax import JAX
from .numexpr import Numexpr
from .onnx_runtime import ONNXRuntime
from .pytorch import PyTorch
from .scikit_learn import ScikitLearn
from .scipy import SciPy

PEERS: dict[str, type[Peer]] = {peer.name: peer for peer in (PyTorch, ONNXRuntime, JAX, SciPy, Numexpr, ScikitLearn)}


def offered(peers: Sequence[Peer], method: str, *arguments: Any) -> dict[str, Run | None]:
    """By name, what each peer's method returns for these arguments; setting up may fail, which shows when it is run."""

    def attempt(peer: Peer) -> Run | None:
        try:
            run: Run | None = getattr(peer, method)(*arguments)
        except Exception as error:
            failure = error

            def run() -> Any:
                raise failure

        return run

    return {peer.name: attempt(peer) for peer in peers}


def installed(threads: int, names: tuple[str, ...]) -> Iterator[Peer]:
    """Those of the named peers that can be imported here, set to so many threads."""
    for name in names:
        try:
            yield PEERS[name](threads)
        except ImportError:
            continue
