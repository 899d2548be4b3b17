"""A process killed with SIGKILL at random moments, and resumed each time, ends in the bits of an unbroken one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastact as fa

PROGRAM = '''
"""argv: folder. Trains from the last checkpoint, or from the start; writes done.safetensors in the end."""
import os, sys, time
import numpy as np
import fastact as fa
from fastact import init

class Noise(fa.nn.Layer):
    def forward(self, x):
        mask = (init.generator().random(x.shape) < 0.8).astype(x.dtype)
        return x * mask, lambda dy: dy * mask
    def __call__(self, x):
        return x * x.dtype.type(0.8)

folder, pause = sys.argv[1], float(sys.argv[2])
rng = np.random.default_rng(0)
x, y = rng.standard_normal((60, 6)), rng.integers(0, 3, 60)
path = os.path.join(folder, "run.safetensors")
stopping = fa.training.EarlyStopping("loss", patience=50)
callbacks = [
    stopping,
    fa.training.Checkpoint(path, steps=1),
    fa.training.CSVLogger(os.path.join(folder, "log.csv")),
    fa.training.LambdaCallback(on_step=lambda t: time.sleep(pause)),
]
if os.path.exists(path):
    trainer = fa.Trainer.load(path, custom={"Noise": Noise})
else:
    model = fa.nn.Sequential(fa.nn.Dense(6, 20, "relu", rng=0), Noise(), fa.nn.Dense(20, 3, rng=1))
    trainer = fa.Trainer(model, optimizer=fa.optim.Adam(0.02), seed=5, average=0.95, accumulate=2, clip_norm=1.0,
                         schedule=fa.schedules.Cosine(48, warmup=8))
print("ready", flush=True)
if trainer.interrupted:
    trainer.resume(x, y, callbacks=callbacks)
elif trainer.epochs == 0:
    trainer.fit(x, y, epochs=8, batch_size=5, validation=0.2, callbacks=callbacks)
trainer.save(os.path.join(folder, "done.safetensors"))
'''


def start(folder, pause):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, program, folder, str(pause)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_at_random_moments(tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir()
    broken.mkdir()
    finish(start(unbroken, 0))
    moment = random.Random(0)
    kills = 0
    while not (broken / "done.safetensors").exists():
        process = start(broken, 0.02)  # 40 updates: about 1 s
        assert process.stdout.readline() == "ready\n"
        if kills < 6:
            time.sleep(moment.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            kills += process.returncode == -signal.SIGKILL
        else:
            finish(process)
    assert kills >= 3
    a, b = (
        fa.Trainer.load(folder / "done.safetensors", custom={"Noise": type("Noise", (fa.nn.Layer,), {})})
        for folder in (unbroken, broken)
    )
    assert a.steps == b.steps == 40
    np.testing.assert_array_equal(a.model.flat_parameters, b.model.flat_parameters)
    np.testing.assert_array_equal(a.average.values, b.average.values)
    for name, array in a.optimizer.state_dict()["arrays"].items():
        np.testing.assert_array_equal(array, b.optimizer.state_dict()["arrays"][name])
    for name in a.history:
        if name != "seconds":
            assert a.history[name] == b.history[name], name
    logs = [[line.rsplit(",", 1)[0] for line in (f / "log.csv").read_text().splitlines()] for f in (unbroken, broken)]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 9
