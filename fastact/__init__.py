"""fastact: activation functions, LSTM cells and small networks, fast and exact on CPUs, from plain NumPy arrays."""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from fastact import _custom as _custom
from fastact import _gated as _gated
from fastact import init as init
from fastact import losses as losses
from fastact import metrics as metrics
from fastact import nn as nn
from fastact import optim as optim
from fastact import schedules as schedules
from fastact import testing as testing
from fastact import threads as threads
from fastact import training as training
from fastact._activations import Activation as Activation
from fastact._activations import activations as activations
from fastact._config import select_isa as _select_isa
from fastact._config import show_config as show_config
from fastact._product import PackedMatrix as PackedMatrix
from fastact._product import matmul as matmul
from fastact._product import pack as pack
from fastact._rows import gumbel_softmax as gumbel_softmax
from fastact._slopes import rrelu as rrelu
from fastact.init import seed as seed
from fastact.io import load as load
from fastact.io import save as save
from fastact.threads import get_num_threads as get_num_threads
from fastact.threads import num_threads as num_threads
from fastact.threads import set_num_threads as set_num_threads
from fastact.training import Trainer as Trainer

__version__ = "0.1.0"

_select_isa()

# fa.sigmoid, fa.gelu ...: every row of the table, by all its names.
globals().update({**activations, **activations.aliases})
if _TYPE_CHECKING:

    def __getattr__(name: str) -> Activation:
        raise AttributeError(name)
