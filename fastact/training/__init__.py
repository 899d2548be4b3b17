"""Training: the Trainer and what it is made of. Losses and optimisers are ``fastact.losses`` and ``fastact.optim``."""

from fastact.training.history import History as History
from fastact.training.trainer import Trainer as Trainer
