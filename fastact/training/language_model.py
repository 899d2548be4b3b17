"""A character-level LSTM language model: what it is, how it is trained, measured and sampled.

`LanguageModel` is a network with its vocabulary; it reads and writes model files. `TextTraining` is one run over a
`Corpus`: truncated backpropagation through time with the state carried from batch to batch. Everything a run will do
follows from its settings and the number of the step, so that one resumed from a checkpoint ends in the same bits as one
that was never interrupted.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastact import io, losses, nn, optim
from fastact.errors import ModelFileError
from fastact.training import checkpoints
from fastact.training.history import History
from fastact.training.text import Corpus, Lanes, Vocabulary
from fastact.training.trainer import Trainer

PathLike = str | os.PathLike[str]

QUICK_LOOK = 32_768
"""Held-out characters of the quick look during training: 0.1 s, and always the same ones."""


class LanguageModel:
    """A network that predicts the next character, with the vocabulary that numbers characters.

    Parameters
    ----------
    network : Sequential
        Character indices (B, T) to logits (B, T, V).
    vocabulary : Vocabulary
        Of V indices.

    Examples
    --------
    >>> from fastact.training.language_model import LanguageModel
    >>> from fastact.training.text import Vocabulary
    >>> model = LanguageModel.create(Vocabulary("abc"), embedding=4, hidden=8, seed=0)
    >>> model.network.num_parameters
    500
    >>> len("".join(model.sample(5, prompt="ab", seed=0)))
    5
    """

    def __init__(self, network: nn.Sequential, vocabulary: Vocabulary) -> None:
        self.network = network
        self.vocabulary = vocabulary

    @classmethod
    def create(
        cls, vocabulary: Vocabulary, embedding: int = 32, hidden: int = 256, layers: int = 1, seed: int = 0
    ) -> LanguageModel:
        """An untrained model: embedding (V, E), LSTM layers of H units, dense (H, V)."""
        rng = np.random.default_rng(seed)
        network = nn.Sequential(
            nn.Embedding(len(vocabulary), embedding, rng=rng),
            nn.LSTM(embedding, hidden, num_layers=layers, rng=rng),
            nn.Dense(hidden, len(vocabulary), rng=rng),
        )
        return cls(network, vocabulary)

    def save(self, path: PathLike) -> None:
        """Write network and vocabulary to a model file, which `fastact.load` reads too."""
        io.save(self.network, path, metadata={"vocabulary": json.dumps(self.vocabulary.characters)})

    @classmethod
    def load(cls, path: PathLike) -> LanguageModel:
        """Read what `save` has written; the checkpoint of a run serves as well.

        Raises
        ------
        FileNotFoundError
        ModelFileError
            If the file is damaged, or is no language model.
        """
        network, metadata = io.read_model(path)
        if "vocabulary" not in metadata and "trainer" not in metadata:
            raise ModelFileError(f"path: expected a model that `fastact train` wrote, {path} has no vocabulary")
        try:
            if "vocabulary" in metadata:
                vocabulary = Vocabulary(json.loads(metadata["vocabulary"]))
            else:
                vocabulary = Vocabulary(read_checkpoint(path)["vocabulary"])
            shape = network.run(np.zeros((1, 1), np.int64)).y.shape
            if shape != (1, 1, len(vocabulary)):
                raise ValueError(f"it has {len(vocabulary)} indices, the network puts out {shape[-1]}")
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelFileError(f"path: the vocabulary in {path} does not serve the network: {error}") from error
        return cls(network, vocabulary)

    def bits_per_character(self, indices: NDArray[np.int32], most: int | None = None) -> float:
        """Mean of -log2 p(character | all before it) over a text.

        The text is read as up to 64 rows side by side, each from an empty state, so the figure errs to the high side by
        what those rows' first characters cost.

        Parameters
        ----------
        indices : ndarray (N,)
            N >= 2.
        most : int or None
            Only about so many characters, taken from all over the text.
        """
        count = len(indices) - 1
        rows = min(64, max(1, (count if most is None else min(most, count)) // 1024))
        length = count // rows
        starts = np.arange(rows)[:, None] * length
        if most is not None:
            length = min(length, max(1, most // rows))
        grid = indices[starts + np.arange(length + 1)].astype(np.int64)
        loss = losses.CrossEntropy()
        state, total = None, 0.0
        for start in range(0, length, 128):
            stop = min(start + 128, length)
            result = self.network.run(grid[:, start:stop], state=state)
            state = result.state
            total += loss.measure(result.y, grid[:, start + 1 : stop + 1]).mean * (stop - start)
        return total / length / math.log(2)

    def sample(
        self, length: int, prompt: str = "", temperature: float = 1.0, seed: int | list[int] | None = None
    ) -> Iterator[str]:
        """Characters that the model writes after ``prompt``, one at a time.

        Parameters
        ----------
        length : int
            How many.
        prompt : str
            Text to go on from; empty: the start of a line.
        temperature : float
            Logits are divided by it: 1 writes as the model predicts, less is more careful, 0 takes the likeliest.
        seed : int, list of int, or None
            Of the random choices.

        Notes
        -----
        The index that stands for "every other character" is never chosen.
        """
        if not (temperature >= 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature: expected a finite number of at least 0, got {temperature}")
        rng = np.random.default_rng(seed)
        indices = self.vocabulary.encode(prompt or "\n").astype(np.int64)[None]
        state = None
        for _ in range(length):
            result = self.network.run(indices, state=state)
            state = result.state
            logits = result.y[0, -1, :-1].astype(np.float64)
            if temperature == 0:
                choice = int(logits.argmax())
            else:
                with np.errstate(over="ignore"):  # a tiny temperature: -inf, whose exp is 0
                    cumulative = np.exp((logits - logits.max()) / temperature).cumsum()
                choice = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            yield self.vocabulary.decode([choice])
            indices = np.array([[choice]])


@dataclass(frozen=True)
class Settings:
    """What decides a run, besides its text. The defaults suit the standard library in two minutes on two cores.

    Attributes
    ----------
    steps : int
        Updates; the learning rate falls linearly to zero over them.
    batch_size, window : int
        Rows B, and time steps T between two updates. The state is carried over, gradients are not: short windows
        mean more updates a character, which here pays more than longer gradients.
    embedding, hidden, layers : int
        Of the model.
    vocabulary : int
        So many of the most frequent characters have an index of their own.
    learning_rate : float
        Of Adam, at the start.
    clip_norm : float
        Gradients are scaled down to this global norm.
    seed : int
        Of the initial weights, of later epochs' beginnings, and of the samples.
    """

    steps: int = 9_600
    batch_size: int = 32
    window: int = 50
    embedding: int = 32
    hidden: int = 256
    layers: int = 1
    vocabulary: int = 127
    learning_rate: float = 7e-3
    clip_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "window", "embedding", "hidden", "layers", "vocabulary"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number above 0, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the update number ``step``."""
        return self.learning_rate * (1 - step / self.steps)


class TextTraining:
    """One training run of a language model over a corpus.

    Parameters
    ----------
    corpus : Corpus
    settings : Settings
    sources : dict
        Where the text came from, in JSON's types; kept in checkpoints for the caller.

    Attributes
    ----------
    model : LanguageModel
    trainer : Trainer
        Of the model's network. Its history has an entry for each evaluation: ``step``; ``loss``, the mean training loss
        since the entry before, and ``held_out``, that of the held-out sample, both in bits per character; and ``speed``
        in characters a second.
    lanes : Lanes
        With the batch size and window that the text allowed.
    sources : dict
    """

    def __init__(self, corpus: Corpus, settings: Settings, sources: dict[str, Any] | None = None) -> None:
        self.corpus = corpus
        self.settings = settings
        self.sources = sources or {}
        self.model = LanguageModel.create(
            corpus.vocabulary, settings.embedding, settings.hidden, settings.layers, settings.seed
        )
        self.trainer = Trainer(
            self.model.network,
            loss="cross_entropy",
            optimizer=optim.Adam(settings.learning_rate, betas=(0.9, 0.99)),
            clip_norm=settings.clip_norm,
            seed=settings.seed,
        )
        self.lanes = Lanes(corpus.train, settings.batch_size, settings.window, settings.seed)
        self._losses = LossMean()

    @property
    def step(self) -> int:
        """Updates made."""
        return self.trainer.steps

    @property
    def done(self) -> bool:
        """Whether all steps are made."""
        return self.step >= self.settings.steps

    @property
    def history(self) -> History:
        """One entry an evaluation."""
        return self.trainer.history

    @property
    def characters_per_step(self) -> int:
        """Characters that one update reads."""
        return self.lanes.batch_size * self.lanes.window

    @property
    def loss(self) -> float:
        """Mean training loss since the last evaluation, in bits per character."""
        return self._losses.mean

    def advance(self) -> None:
        """Make one update.

        Raises
        ------
        NonFiniteError
            If loss or gradient are no finite numbers; the model is then as before.
        """
        trainer = self.trainer
        x, y, first = self.lanes.batch(trainer.steps)
        trainer.optimizer.lr = self.settings.learning_rate_at(trainer.steps)
        self._losses.add(trainer.step(x, y, state=None if first else trainer.state) / math.log(2))

    def evaluate(self, speed: float | None = None) -> dict[str, Any]:
        """Measure the held-out sample and add an entry, which is returned, to the history."""
        held_out = self.model.bits_per_character(self.corpus.held_out, QUICK_LOOK)
        entry = {"step": self.step, "loss": self._losses.mean, "held_out": held_out, "speed": speed}
        self.history.append(entry)
        self._losses = LossMean()
        return entry

    def save(self, path: PathLike) -> None:
        """Write a checkpoint: weights, optimiser, carried state, history, settings, and the text's fingerprint."""
        self.trainer.save(
            path,
            extra={
                "vocabulary": self.corpus.vocabulary.characters,
                "text": self.corpus.fingerprint(),
                "settings": asdict(self.settings),
                "sources": self.sources,
                "losses": asdict(self._losses),
            },
        )

    def restore(self, path: PathLike) -> None:
        """Go back, or on, to where a run over the same text with the same settings wrote a checkpoint.

        Raises
        ------
        ModelFileError
            If the file is damaged or no checkpoint of this kind.
        ValueError
            If it is that of another text or model.
        """
        facts = read_checkpoint(path)
        if facts["text"] != self.corpus.fingerprint():
            raise ValueError("text: expected the text that the checkpoint was made with, got another; begin a new run")
        self.trainer.restore(path)
        self.trainer.clip_norm = self.settings.clip_norm
        self._losses = LossMean(**facts["losses"])


@dataclass
class LossMean:
    """A running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, loss: float) -> None:
        self.total += loss
        self.count += 1

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """What `TextTraining.save` noted beside the arrays: settings, sources, vocabulary, text (a fingerprint).

    Raises
    ------
    ModelFileError
        If the file is damaged or no checkpoint of a language model.
    """
    facts = checkpoints.read(path)[1].get("extra")
    if not isinstance(facts, dict) or not {"vocabulary", "text", "settings", "sources", "losses"} <= facts.keys():
        raise ModelFileError(f"path: expected a checkpoint that `fastact train` wrote, {path} is another")
    return facts
