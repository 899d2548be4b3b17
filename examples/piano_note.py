"""A piano-note detector: does middle A (440 Hz) sound in this chord?

Chords of one to five notes are synthesised: harmonics that fall off and are a little too high, as of a stiff string,
an attack and a decay, and noise. The network sees the logarithm of a spectrum and has one sigmoid output. Half of the
chords that it learns from have the note; of those that it will hear, one in twenty. So it says yes too easily: at 0.5
many alarms are false. The threshold is chosen by F1 on validation data that are as rare, and precision, recall and F1
are measured on test data that nothing was chosen on.

    python examples/piano_note.py

What makes it hard are the octaves: half of the harmonics of A3 are those of A4. Takes 15 s on one core, most of it the
synthesis.
"""

from __future__ import annotations

import argparse

import numpy as np

import fastact as fa

RATE, SAMPLES = 8000, 2048  # Hz; a quarter of a second
LOWEST, HIGHEST, NOTE = 45, 84, 69  # MIDI numbers: A2 to C6, and A4
HARMONICS = 12


def tone(rng: np.random.Generator, midi: int) -> np.ndarray:
    """A note (SAMPLES,), somewhat out of tune, struck within the first 50 ms."""
    time = np.arange(SAMPLES) / RATE
    n = np.arange(1, HARMONICS + 1)
    cents = rng.normal(0, 4)
    frequency = 440 * 2 ** ((midi - 69 + cents / 100) / 12)
    partials = frequency * n * np.sqrt(1 + 4e-4 * n**2)  # inharmonicity of a stiff string
    loudness = n ** -rng.uniform(0.8, 1.8) * rng.uniform(0.5, 1.5, HARMONICS) * (partials < RATE / 2)
    decay = rng.uniform(1, 3) * np.sqrt(n)  # 1/s: high partials die first
    since = time - rng.uniform(0, 0.05)
    envelope = np.where(since > 0, 1 - np.exp(-since.clip(0) / 0.005), 0) * np.exp(-decay[:, None] * since.clip(0))
    phases = rng.uniform(0, 2 * np.pi, (HARMONICS, 1))
    return loudness @ (envelope * np.sin(2 * np.pi * partials[:, None] * time + phases))


def chords(rng: np.random.Generator, count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Logarithmic spectra (B, F) of noisy chords, and whether the note is in each, (B, 1): a ``share`` has it."""
    others = np.setdiff1d(np.arange(LOWEST, HIGHEST + 1), NOTE)
    audio, there = np.empty((count, SAMPLES)), rng.random((count, 1)) < share
    for sound, (has,) in zip(audio, there, strict=True):
        notes = rng.choice(others, rng.integers(1, 6), replace=False)
        notes[0] = NOTE if has else notes[0]
        sound[:] = sum(rng.uniform(0.3, 1.0) * tone(rng, note) for note in notes)
        sound += rng.normal(0, rng.uniform(0.02, 0.3), SAMPLES)
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(SAMPLES)))[:, 20:640]  # 78 to 2500 Hz
    return np.log(spectrum + 1).astype(np.float32), there.astype(np.float32)


def scores(p: np.ndarray, y: np.ndarray, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of "p is above the threshold", and that."""
    kinds = (fa.metrics.Precision, fa.metrics.Recall, fa.metrics.F1)
    metrics = [kind(threshold=threshold) for kind in kinds]
    for metric in metrics:
        metric.update(p, y)
    return {"threshold": threshold, **{metric.name: metric.result() for metric in metrics}}


def main(count: int = 4000, epochs: int = 30, seed: int = 0) -> dict[str, dict[str, float]]:
    """Scores on test chords: at the chosen threshold, at 0.5, and of saying yes always."""
    rng = np.random.default_rng(seed)
    x, y = chords(rng, count, 0.5)
    x_validation, y_validation = chords(rng, count, 0.05)
    x_test, y_test = chords(rng, count, 0.05)

    features = x.shape[1]
    model = fa.nn.Sequential(
        fa.nn.BatchNorm(features),  # takes mean and scale off each frequency
        fa.nn.Dense(features, 64, "relu", rng=rng),
        fa.nn.Dropout(0.5),
        fa.nn.Dense(64, 1, "sigmoid", rng=rng),
    )
    trainer = fa.Trainer(model, loss="binary_cross_entropy", optimizer=fa.optim.AdamW(1e-3), seed=seed)
    trainer.fit(x, y, epochs=epochs, batch_size=32)

    p_validation, p_test = model(x_validation), model(x_test)
    chosen = fa.metrics.best_threshold(p_validation, y_validation).threshold  # by F1
    result = {
        "chosen": scores(p_test, y_test, chosen),
        "half": scores(p_test, y_test, 0.5),
        "always": scores(np.ones_like(p_test), y_test, 0.0),
    }
    for name, values in result.items():
        print(f"{name:>7}:", ", ".join(f"{key} {value:.3f}" for key, value in values.items()))
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=4000, help="chords to learn from (4000)")
    parser.add_argument("--epochs", type=int, default=30, help="readings of them (30)")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
