"""A character model that learns to close what it opened: brackets of three kinds and two kinds of quotes, nested.

The text is generated: words, and between them groups in ( ), [ ], { }, “ ” and « », within one another, up to four
deep. The words before a closing character say nothing about which it is: to choose among the five, the LSTM must keep a
stack of what stands open. Measured on new text, wherever a group is closed: the share of places where the right one of
the five scores best. A guess is right one time in five.

    python examples/brackets.py

Then it writes by itself, and its own groups are checked. Takes 12 s on one core.
"""

from __future__ import annotations

import argparse

import numpy as np

import fastact as fa

PAIRS = {"(": ")", "[": "]", "{": "}", "“": "”", "«": "»"}
LETTERS = "abcdefgh"
ALPHABET = "".join(PAIRS) + "".join(PAIRS.values()) + LETTERS + " \n"
OPENING = np.array([ALPHABET.index(c) for c in PAIRS])
CLOSING = np.array([ALPHABET.index(c) for c in PAIRS.values()])
DEEPEST = 4


def group(rng: np.random.Generator, depth: int) -> str:
    """Words and, less and less often, groups in brackets or quotes."""
    parts = []
    for _ in range(rng.integers(1, 4)):
        if depth < DEEPEST and rng.random() < 0.5:
            opening = rng.choice(list(PAIRS))
            parts.append(opening + group(rng, depth + 1) + PAIRS[opening])
        else:
            parts.append("".join(rng.choice(list(LETTERS), rng.integers(1, 5))))
    return " ".join(parts)


def lines(rng: np.random.Generator, characters: int) -> str:
    """Text of about so many characters, a group on each line."""
    text = []
    while characters > 0:
        text.append(group(rng, 0) + "\n")
        characters -= len(text[-1])
    return "".join(text)


def rightly_closed(text: str) -> tuple[int, int]:
    """Closing characters that match what stands open, and all that had to come: closed, or open at a line's end."""
    right = total = 0
    for line in text.split("\n")[:-1]:  # the last may be cut short
        stack: list[str] = []
        for character in line:
            if character in PAIRS:
                stack.append(PAIRS[character])
            elif character in PAIRS.values():
                total += 1
                right += bool(stack) and stack.pop() == character
        total += len(stack)
    return right, total


def share_closed(model: fa.nn.Sequential, text: np.ndarray) -> dict[str, float]:
    """Of the places where a text closes a group, the share where the right character scores best; also by depth."""
    opens, closes = np.isin(text, OPENING), np.isin(text, CLOSING)
    depth = np.cumsum(opens.astype(int) - closes)[:-1]  # before the next character
    best = CLOSING[model(text[None, :-1])[0][:, CLOSING].argmax(axis=1)]
    right, there = best == text[1:], closes[1:]
    shares = {"all": float(right[there].mean())}
    return shares | {f"depth {d}": float(right[there & (depth == d)].mean()) for d in range(1, DEEPEST + 1)}


def write(model: fa.nn.Sequential, after: np.ndarray, length: int, rng: np.random.Generator) -> str:
    """What the model writes after a text, each character drawn from its predictions, one step of a stream at a time."""
    stream, text = model.stream(), ""
    for index in after:
        scores = stream.step([index])
    for _ in range(length):
        index = rng.choice(len(ALPHABET), p=fa.softmax(scores[0].astype(np.float64)))
        text += ALPHABET[index]
        scores = stream.step([index])
    return text


def main(steps: int = 3000, units: int = 96, seed: int = 0) -> dict[str, float]:
    """Shares rightly closed: in new text, over all and by depth, before training, and in what the model writes."""
    rng = np.random.default_rng(seed)
    text, new = (np.array([ALPHABET.index(c) for c in lines(rng, length)]) for length in (400_000, 20_000))
    n = len(ALPHABET)
    model = fa.nn.Sequential(
        fa.nn.Embedding(n, 16, rng=rng), fa.nn.LSTM(16, units, rng=rng), fa.nn.Dense(units, n, rng=rng)
    )
    before = share_closed(model, new)["all"]
    trainer = fa.Trainer(
        model, optimizer=fa.optim.Adam(1e-2), schedule=fa.schedules.Polynomial(steps), clip_norm=1.0, seed=seed
    )
    rows, window = 32, 50
    places = np.arange(rows)[:, None] * (len(text) // rows) + np.arange(window)
    for _ in range(steps):  # each row goes on where it stopped, and so does the state; the text is a ring
        trainer.step(text[places % len(text)], text[(places + 1) % len(text)], state=trainer.state)
        places += window

    shares = {"before": before, **share_closed(model, new)}
    written = write(model, new, 5000, rng)
    right, total = rightly_closed(written)
    shares["written"] = right / total
    print("rightly closed:", ", ".join(f"{name} {share:.3f}" for name, share in shares.items()))
    print(f"written: {right} of {total}, beginning with", *written.split("\n")[:8], sep="\n  ")
    return shares


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="updates (3000)")
    parser.add_argument("--units", type=int, default=96, help="of the LSTM (96)")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
