"""Training: the Trainer and what it is made of. Losses, optimisers and schedules are modules of ``fastact``."""

from fastact.training.callbacks import Callback as Callback
from fastact.training.callbacks import Checkpoint as Checkpoint
from fastact.training.callbacks import CSVLogger as CSVLogger
from fastact.training.callbacks import EarlyStopping as EarlyStopping
from fastact.training.callbacks import JSONLogger as JSONLogger
from fastact.training.callbacks import LambdaCallback as LambdaCallback
from fastact.training.callbacks import LearningRateLogger as LearningRateLogger
from fastact.training.callbacks import TensorBoard as TensorBoard
from fastact.training.history import History as History
from fastact.training.trainer import Trainer as Trainer
