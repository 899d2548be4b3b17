"""Text as training data: files and folders in, character indices and batches out.

The path of a text: `find_files` lists the files, `read_text` decodes each, `split_held_out` keeps a twentieth aside,
`Vocabulary` numbers the most frequent characters (`Corpus.of` does these two), and `Lanes` cuts the numbered text into
batches whose rows go on where they stopped, so that an LSTM's state can be carried from one batch to the next.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HELD_OUT_EVERY = 20
"""One file in so many is held out; in a text of fewer files, this fraction of each file's end, rounded up."""

SMALLEST_TEXT = 2 * HELD_OUT_EVERY
"""Characters below which a text is refused: its held-out part would not hold one character and its successor."""

REST = "\N{REPLACEMENT CHARACTER}"
"""What the index of "every other character" decodes to."""

_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})
_PROBE_BYTES = 8192


def standard_library() -> list[Path]:
    """Python sources of the running interpreter's standard library, sorted by path, its tests left out."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [path for path in _walk(root, _SKIPPED_FOLDERS | _TEST_FOLDERS) if path.suffix == ".py"]
    if not files:
        raise FileNotFoundError(
            f"paths: none was given, and {root} holds no sources of the standard library to use instead; "
            "give text files or folders"
        )
    return files


def find_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files to read for ``paths``: each file as given, each folder's files below it, sorted by path, none twice.

    In folders, hidden files, caches, installed packages and binary files (a zero byte near the start) are passed over.

    Raises
    ------
    FileNotFoundError
        If a path does not exist, or a folder holds no text file.
    """
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = [file for file in _walk(path, _SKIPPED_FOLDERS) if not _is_binary(file)]
            if not files:
                raise FileNotFoundError(f"paths: expected text files in the folder {path}, found none")
        elif path.exists():
            files = [path]
        else:
            raise FileNotFoundError(f"paths: {path} does not exist")
        for file in files:
            found.setdefault(file.resolve(), file)
    return sorted(found.values(), key=lambda file: file.parts)


def _walk(root: Path, skipped: frozenset[str]) -> list[Path]:
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in skipped and not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted((file for file in files if file.is_file()), key=lambda file: file.parts)


def _is_binary(path: Path) -> bool:
    with open(path, "rb") as file:
        return b"\0" in file.read(_PROBE_BYTES)


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8", errors: str = "strict") -> str:
    r"""One file's text, with line ends as ``\n`` and without a byte order mark.

    Raises
    ------
    ValueError
        If the bytes are not ``encoding``; the message says where.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode(encoding, errors)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: expected {encoding} text, got byte 0x{data[error.start]:02x} at position {error.start} "
            f"(line {line}): {error.reason}; name the right encoding, or let such bytes be replaced"
        ) from None
    except LookupError:
        raise ValueError(f"encoding, errors: expected names that Python knows, got {encoding!r}, {errors!r}") from None
    return text.removeprefix("\N{BYTE ORDER MARK}").replace("\r\n", "\n").replace("\r", "\n")


def split_held_out(texts: Sequence[str]) -> tuple[str, str]:
    """Training text and held-out text of the given files' texts, each joined in order.

    From 20 files on, every 20th file is held out whole: what is measured is then new text, not the rest of a known
    one. With fewer files it is the last twentieth of each. Where files are joined, one without a line end at its end
    gets one.

    Raises
    ------
    ValueError
        If there is too little text, or only one distinct character.
    """
    characters = set().union(*texts)
    length = sum(map(len, texts))
    if length < SMALLEST_TEXT:
        raise ValueError(f"text: expected at least {SMALLEST_TEXT} characters, got {length or 'none'}; give more text")
    if len(characters) == 1:
        raise ValueError(
            f"text: expected at least two distinct characters, got only {characters.pop()!r}; "
            "what comes next is then certain, and nothing can be learnt"
        )
    if len(texts) > 1:
        texts = [text if text.endswith("\n") or not text else text + "\n" for text in texts]
    held_out = "".join(texts[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY])
    if len(held_out) > 1:
        return "".join(text for i, text in enumerate(texts, 1) if i % HELD_OUT_EVERY), held_out
    cuts = [len(text) * (HELD_OUT_EVERY - 1) // HELD_OUT_EVERY for text in texts]
    return (
        "".join(text[:cut] for text, cut in zip(texts, cuts, strict=True)),
        "".join(text[cut:] for text, cut in zip(texts, cuts, strict=True)),
    )


class Vocabulary:
    """Characters and their indices; the last index stands for every other character.

    Parameters
    ----------
    characters : str
        Distinct characters; the i-th has index i, and ``len(characters)`` is the index of the rest.

    Examples
    --------
    >>> vocabulary = Vocabulary.of("banana", most=2)
    >>> vocabulary.characters
    'an'
    >>> vocabulary.encode("nab").tolist()
    [1, 0, 2]
    >>> vocabulary.decode([0, 1])
    'an'
    """

    def __init__(self, characters: str) -> None:
        if not isinstance(characters, str):
            raise TypeError(f"characters: expected a string, got {type(characters).__name__}")
        if len(set(characters)) != len(characters):
            raise ValueError("characters: expected distinct ones, got some twice")
        self.characters = characters
        self._index = {character: i for i, character in enumerate(characters)}
        self._decoded = [*characters, REST]
        # Index of each code point: one look-up encodes a whole text. Code points beyond the table are the rest.
        self._table = np.full(max(map(ord, characters), default=0) + 2, len(characters), dtype=np.int32)
        for character, i in self._index.items():
            self._table[ord(character)] = i

    @classmethod
    def of(cls, text: str, most: int = 127) -> Vocabulary:
        """The ``most`` most frequent characters of ``text``; equally frequent ones in code point order."""
        ranked = sorted(Counter(text).items(), key=lambda item: (-item[1], item[0]))
        return cls("".join(character for character, _ in ranked[:most]))

    def __len__(self) -> int:
        """Number of indices: the characters and one for the rest."""
        return len(self._decoded)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Indices (N,) of the characters of ``text``."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        return self._table[np.minimum(points, len(self._table) - 1)]

    def decode(self, indices: Iterable[int]) -> str:
        """Text of ``indices``; the index of the rest gives U+FFFD."""
        return "".join(self._decoded[i] for i in indices)


@dataclass(frozen=True)
class Corpus:
    """A numbered text in two parts.

    Attributes
    ----------
    vocabulary : Vocabulary
        Of the training part.
    train, held_out : ndarray (N,)
        Character indices.
    """

    vocabulary: Vocabulary
    train: NDArray[np.int32]
    held_out: NDArray[np.int32]

    @classmethod
    def of(cls, texts: Sequence[str], most: int = 127) -> Corpus:
        """Split the texts of files, and number the ``most`` most frequent characters of the training part."""
        train, held_out = split_held_out(texts)
        vocabulary = Vocabulary.of(train, most)
        return cls(vocabulary, vocabulary.encode(train), vocabulary.encode(held_out))

    def fingerprint(self) -> str:
        """Hash of all that training sees, by which a resumed run knows its text again."""
        digest = hashlib.sha256(self.vocabulary.characters.encode("utf-8", "surrogatepass"))
        for part in (self.train, self.held_out):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.astype("<i4", copy=False).data)
        return digest.hexdigest()


class Lanes:
    """Batches of a numbered text whose rows go on where they stopped in the batch before.

    The text is cut into ``batch_size`` lanes of equal length, read side by side. Which batch comes at which step
    follows from the step's number alone, so a run can be taken up at any step. Each epoch begins elsewhere in the text
    (it is read as a ring), so that the cuts between lanes and windows fall on other characters.

    Parameters
    ----------
    indices : ndarray (N,)
        The text. A short one gets fewer lanes, then shorter windows.
    batch_size, window : int
        Rows B and time steps T of a batch.
    seed : int
        Of the places where later epochs begin.

    Attributes
    ----------
    batch_size, window : int
        What the text allowed.
    steps_per_epoch : int
        Batches in one reading of the text.
    """

    def __init__(self, indices: NDArray[np.int32], batch_size: int, window: int, seed: int = 0) -> None:
        if batch_size < 1 or window < 1:
            raise ValueError(f"batch_size, window: expected at least 1, got {batch_size} and {window}")
        if len(indices) < 2:
            raise ValueError(f"indices: expected at least two characters, got {len(indices)}")
        self.window = min(window, len(indices) - 1)
        self.batch_size = min(batch_size, (len(indices) - 1) // self.window)
        self.steps_per_epoch = (len(indices) - 1) // self.batch_size // self.window
        self._indices = indices
        self._seed = seed
        self._epoch = -1
        self._lanes = np.empty((0, 0), dtype=np.int32)

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
        """Batch number ``step``: x (B, T), the characters that follow y (B, T), and whether an epoch begins here.

        At the beginning of an epoch the carried state is to be dropped.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._lanes = epoch, self._cut(epoch)
        start = place * self.window
        return (
            self._lanes[:, start : start + self.window].astype(np.int64),
            self._lanes[:, start + 1 : start + self.window + 1].astype(np.int64),
            place == 0,
        )

    def _cut(self, epoch: int) -> NDArray[np.int32]:
        """The lanes (B, L + 1) of an epoch; each ends with the first character of the next."""
        length = self.steps_per_epoch * self.window
        shift = 0 if epoch == 0 else int(np.random.default_rng([self._seed, epoch]).integers(len(self._indices)))
        ring = np.roll(self._indices, -shift)
        starts = np.arange(self.batch_size)[:, None] * length
        return ring[starts + np.arange(length + 1)]
