"""Layers: ``forward(x)`` gives the output and its backward, gradients add up in ``parameter.grad``."""

from fastact.nn.activation import Activation as Activation
from fastact.nn.addressing import ContentAddressing as ContentAddressing
from fastact.nn.addressing import Sharpening as Sharpening
from fastact.nn.attention import Attention as Attention
from fastact.nn.attention import DotProductAttention as DotProductAttention
from fastact.nn.base import Backward as Backward
from fastact.nn.base import Layer as Layer
from fastact.nn.base import RunResult as RunResult
from fastact.nn.dense import Dense as Dense
from fastact.nn.embedding import Embedding as Embedding
from fastact.nn.gru import GRU as GRU
from fastact.nn.lstm import LSTM as LSTM
from fastact.nn.parameter import Arena as Arena
from fastact.nn.parameter import Parameter as Parameter
from fastact.nn.rnn import RNN as RNN
from fastact.nn.sequential import Sequential as Sequential
