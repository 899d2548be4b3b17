"""The pure-NumPy twin of every kernel: readable, in float64, right in the tails; what the kernels are tested against.

One module a family of kernels. Nothing here is fast, and nothing here imports the compiled core.
"""

from fastact.reference import losses as losses
from fastact.reference.attention import attention as attention
from fastact.reference.attention import attention_backward as attention_backward
from fastact.reference.attention import content_weights as content_weights
from fastact.reference.attention import sharpened as sharpened
from fastact.reference.attention import visible as visible
from fastact.reference.catalogue import *  # noqa: F403  (an activation is named once, there)
from fastact.reference.layers import batch_norm as batch_norm
from fastact.reference.layers import batch_norm_backward as batch_norm_backward
from fastact.reference.layers import dense as dense
from fastact.reference.layers import dense_backward as dense_backward
from fastact.reference.layers import layer_norm as layer_norm
from fastact.reference.layers import layer_norm_backward as layer_norm_backward
from fastact.reference.layers import rms_norm as rms_norm
from fastact.reference.layers import rms_norm_backward as rms_norm_backward
from fastact.reference.losses import cross_entropy as cross_entropy
from fastact.reference.losses import squared_error as squared_error
from fastact.reference.products import matmul as matmul
from fastact.reference.recurrent import GRUTrace as GRUTrace
from fastact.reference.recurrent import LSTMTrace as LSTMTrace
from fastact.reference.recurrent import LSTMVariant as LSTMVariant
from fastact.reference.recurrent import RNNTrace as RNNTrace
from fastact.reference.recurrent import clipped as clipped
from fastact.reference.recurrent import gru_backward as gru_backward
from fastact.reference.recurrent import gru_forward as gru_forward
from fastact.reference.recurrent import lstm_backward as lstm_backward
from fastact.reference.recurrent import lstm_forward as lstm_forward
from fastact.reference.recurrent import rnn_backward as rnn_backward
from fastact.reference.recurrent import rnn_forward as rnn_forward
from fastact.reference.training import adadelta as adadelta
from fastact.reference.training import adagrad as adagrad
from fastact.reference.training import adam as adam
from fastact.reference.training import adamw as adamw
from fastact.reference.training import amsgrad as amsgrad
from fastact.reference.training import embedding_backward as embedding_backward
from fastact.reference.training import embedding_forward as embedding_forward
from fastact.reference.training import global_norm as global_norm
from fastact.reference.training import lion as lion
from fastact.reference.training import nadam as nadam
from fastact.reference.training import rmsprop as rmsprop
from fastact.reference.training import rprop as rprop
from fastact.reference.training import sgd as sgd
