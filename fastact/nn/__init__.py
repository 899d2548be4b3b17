"""Layers: ``forward(x)`` gives the output and its backward, gradients add up in ``parameter.grad``."""

from fastact.nn.base import Arena as Arena
from fastact.nn.base import Backward as Backward
from fastact.nn.base import Layer as Layer
from fastact.nn.base import Parameter as Parameter
from fastact.nn.base import RunResult as RunResult
