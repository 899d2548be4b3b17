"""Options of a Trainer's update: accumulation, averaged weights, clipping by value, draws that follow from the step."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import init
from fastact.errors import NonFiniteError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 5)).astype(np.float64)
Y = RNG.integers(0, 3, 48)


def model(dtype=np.float64):
    rng = np.random.default_rng(1)
    return fa.nn.Sequential(fa.nn.Dense(5, 7, "tanh", dtype=dtype, rng=rng), fa.nn.Dense(7, 3, dtype=dtype, rng=rng))


class Noise(fa.nn.Layer):
    """Zeroes about half of what comes in, by draws of whatever generator rng=None means."""

    def __init__(self, rng=None):
        self.rng = rng

    def forward(self, x):
        mask = (init.generator(self.rng).random(x.shape) < 0.5).astype(x.dtype)
        return x * mask, lambda dy: dy * mask

    def __call__(self, x):
        return x * x.dtype.type(0.5)


def noisy():
    rng = np.random.default_rng(1)
    return fa.nn.Sequential(fa.nn.Dense(5, 7, rng=rng), Noise(), Noise(), fa.nn.Dense(7, 3, rng=rng))


# ---- accumulation ----


@pytest.mark.parametrize("settings", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}, {"average": 0.5}], ids=repr)
def test_accumulated_batches_are_one_large_batch(settings):
    whole = fa.Trainer(model(), optimizer=fa.optim.Adam(0.05), **settings)
    parts = fa.Trainer(model(), optimizer=fa.optim.Adam(0.05), accumulate=3, **settings)
    for _ in range(4):
        expected = whole.step(X, Y)
        found = [parts.step(X[rows], Y[rows]) for rows in (slice(0, 7), slice(7, 30), slice(30, 48))]
        assert np.dot(found, [7, 23, 18]) / 48 == pytest.approx(expected, rel=1e-12)
    assert parts.steps == whole.steps == 4
    np.testing.assert_allclose(parts.model.flat_parameters, whole.model.flat_parameters, rtol=0, atol=1e-12)
    if "clip_norm" in settings:
        assert parts.last_gradient_norm == pytest.approx(whole.last_gradient_norm, rel=1e-12)


def test_a_loss_that_is_a_sum_is_one_over_any_batches():
    """History and evaluation have the sum over all rows, and accumulated batches the gradient of one large batch."""
    trainers = [fa.Trainer(model(), fa.losses.CrossEntropy(reduction="sum"), fa.optim.SGD(1e-3)) for _ in range(2)]
    (whole, parts), expected = trainers, 48 * fa.losses.CrossEntropy().measure(model()(X), Y).mean
    parts.accumulate = 3
    assert [parts.evaluate(X, Y, size)["loss"] for size in (None, 20, 7)] == pytest.approx([expected] * 3, rel=1e-12)
    for t, size in ((whole, 48), (parts, 16)):
        assert t.fit(X, Y, 2, size)["loss"][0] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(parts.model.flat_parameters, whole.model.flat_parameters, rtol=0, atol=1e-12)


def test_an_accumulating_fit_is_that_of_larger_batches():
    whole = fa.Trainer(model(), optimizer=fa.optim.Adam(0.05))
    parts = fa.Trainer(model(), optimizer=fa.optim.Adam(0.05), accumulate=4)
    a = whole.fit(X, Y, epochs=3, batch_size=20)
    b = parts.fit(X, Y, epochs=3, batch_size=5)  # 10 batches: updates of 4, 4, 2
    assert a["step"] == b["step"] == [3, 6, 9]
    np.testing.assert_allclose(b["loss"], a["loss"], rtol=1e-12)
    assert b["accuracy"] == a["accuracy"]
    np.testing.assert_allclose(parts.model.flat_parameters, whole.model.flat_parameters, rtol=0, atol=1e-12)


def test_an_interrupted_accumulation_begins_anew(tmp_path):
    unbroken, broken = (fa.Trainer(model(), optimizer=fa.optim.Adam(0.05), accumulate=4) for _ in range(2))
    unbroken.fit(X, Y, epochs=2, batch_size=5)

    class Stop(fa.losses.CrossEntropy):
        calls = 0

        def measure(self, *args):
            self.calls += 1
            if self.calls == 17:  # in the middle of the second epoch's second update
                raise KeyboardInterrupt
            return super().measure(*args)

    broken.loss = Stop()
    with pytest.raises(KeyboardInterrupt):
        broken.fit(X, Y, epochs=2, batch_size=5, checkpoint=tmp_path / "run")
    assert broken.steps == 4
    for again in (broken, fa.Trainer.load(tmp_path / "run", loss=Stop())):
        again.loss = fa.losses.CrossEntropy()
        again.resume(X, Y)
        np.testing.assert_array_equal(again.model.flat_parameters, unbroken.model.flat_parameters)
        assert again.history["loss"] == unbroken.history["loss"]


def test_an_error_drops_what_was_accumulated():
    clean, spoilt = (fa.Trainer(model(), accumulate=2) for _ in range(2))
    spoilt.step(X[:5], Y[:5])
    with pytest.raises(NonFiniteError):
        spoilt.step(np.full((5, 5), np.nan), Y[:5])
    for t in (clean, spoilt):
        t.step(X[:5], Y[:5])
        assert t.steps == 0
        t.step(X[5:10], Y[5:10])
        assert t.steps == 1
    np.testing.assert_array_equal(clean.model.flat_parameters, spoilt.model.flat_parameters)


# ---- clipping by value ----


def test_clipping_by_value_is_that_of_the_optimisers():
    a, b = model(), model()
    trainer = fa.Trainer(a, optimizer=fa.optim.SGD(0.1), clip_value=0.02, clip_norm=0.05)
    optimizer, loss = fa.optim.SGD(0.1), fa.losses.CrossEntropy()
    for _ in range(3):
        trainer.step(X, Y)
        b.zero_grad()
        output, backward = b.forward(X)
        backward(loss.forward(output, Y)[1]())
        assert np.abs(b.flat_gradients).max() > 0.02
        fa.optim.clip_by_value(b, 0.02)
        fa.optim.clip_by_global_norm(b, 0.05)
        optimizer.step(b)
    np.testing.assert_allclose(a.flat_parameters, b.flat_parameters, rtol=0, atol=1e-15)


# ---- the average of the weights ----


def test_the_average_is_what_its_formula_says(dtype, n_threads):
    trainer = fa.Trainer(model(dtype), optimizer=fa.optim.SGD(0.5), average=0.9)
    expected = None
    for _ in range(20):
        trainer.step(X, Y)
        w = trainer.model.flat_parameters.astype(np.float64)
        expected = w.copy() if expected is None else 0.9 * expected + (1 - 0.9) * w
    tolerance = 1e-6 if dtype == np.float32 else 1e-14
    np.testing.assert_allclose(trainer.average.values, expected, rtol=0, atol=tolerance)


def test_the_average_of_pytorch():
    torch = pytest.importorskip("torch")
    trainer = fa.Trainer(model(), optimizer=fa.optim.SGD(0.5), average=0.8)
    peer = torch.nn.Linear(1, 1, dtype=torch.float64)
    peer.weight = torch.nn.Parameter(torch.zeros(trainer.model.arena.size, dtype=torch.float64))
    average = torch.optim.swa_utils.AveragedModel(peer, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.8))
    for _ in range(10):
        trainer.step(X, Y)
        with torch.no_grad():
            peer.weight.copy_(torch.tensor(trainer.model.flat_parameters))
        average.update_parameters(peer)
    np.testing.assert_allclose(trainer.average.values, average.module.weight.detach().numpy(), rtol=0, atol=1e-14)


def test_the_model_holds_the_average_for_a_while():
    trainer = fa.Trainer(model(), optimizer=fa.optim.SGD(0.5), average=0.9)
    with pytest.raises(ValueError, match="averaged: expected at least one update"), trainer.averaged():
        pass
    trainer.fit(X, Y, epochs=3, batch_size=16, validation=0.25)
    weights, average = trainer.model.flat_parameters.copy(), trainer.average.values.copy()
    assert (weights != average).any()
    before = trainer.evaluate(X, Y)
    with trainer.averaged():
        np.testing.assert_array_equal(trainer.model.flat_parameters, average)
        behind = trainer.evaluate(X, Y)
        with pytest.raises(RuntimeError, match="holds their average"):
            trainer.step(X, Y)
        with pytest.raises(RuntimeError, match="already"), trainer.averaged():
            pass
    assert trainer.steps == 9
    np.testing.assert_array_equal(trainer.model.flat_parameters, weights)
    assert trainer.evaluate(X, Y) == before != behind == trainer.evaluate(X, Y, averaged=True)
    assert trainer.history["val_loss"][-1] == trainer.evaluate(X[36:], Y[36:], averaged=True)["loss"]


def test_the_average_comes_back_from_a_checkpoint(tmp_path):
    unbroken, broken = (fa.Trainer(model(), optimizer=fa.optim.Adam(0.05), average=0.9, seed=3) for _ in range(2))
    unbroken.fit(X, Y, epochs=4)
    broken.fit(X, Y, epochs=2)
    broken.save(tmp_path / "run")
    for again in (fa.Trainer.load(tmp_path / "run"), copy.deepcopy(broken), pickle.loads(pickle.dumps(broken))):
        again.fit(X, Y, epochs=2)
        np.testing.assert_array_equal(again.average.values, unbroken.average.values)
        np.testing.assert_array_equal(again.model.flat_parameters, unbroken.model.flat_parameters)
    with broken.averaged():
        fa.save(broken.model, tmp_path / "averaged")
    loaded = fa.load(tmp_path / "averaged")
    np.testing.assert_array_equal(loaded.flat_parameters, broken.average.values)


def test_weights_can_be_kept_and_set():
    trainer = fa.Trainer(model(), average=0.9)
    trainer.step(X, Y)
    kept, average = trainer.weights(), trainer.average.values.copy()
    values = trainer.model.flat_parameters.copy()
    for _ in range(3):
        trainer.step(X, Y)
    assert (trainer.model.flat_parameters != values).any()
    trainer.set_weights(kept)
    np.testing.assert_array_equal(trainer.model.flat_parameters, values)
    np.testing.assert_array_equal(trainer.average.values, average)


# ---- draws ----


def test_draws_follow_from_seed_and_step():
    def path(seed, mess):
        fa.seed(mess)  # what the shared generator does is of no account
        trainer = fa.Trainer(noisy(), seed=seed)
        losses = []
        for _ in range(4):
            losses.append(trainer.step(X, Y))
            init.generator().random(mess)
        return losses

    assert path(0, 1) == path(0, 2) != path(1, 1)


def test_each_draw_of_a_step_and_each_accumulated_batch_is_another():
    seen = []

    class Spy(Noise):
        def forward(self, x):
            seen.append(init.generator(self.rng).random(3).tolist())
            return x, lambda dy: dy

    chain = fa.nn.Sequential(fa.nn.Dense(5, 3, rng=0), Spy(), Spy())
    trainer = fa.Trainer(chain, accumulate=2)
    for _ in range(4):
        trainer.step(X, Y)
    assert len(seen) == 8
    assert len({tuple(s) for s in seen}) == 8
    own = fa.Trainer(fa.nn.Sequential(fa.nn.Dense(5, 3, rng=0), Spy(np.random.default_rng(5))))
    seen.clear()
    own.step(X, Y)
    assert seen == [np.random.default_rng(5).random(3).tolist()]


def test_the_shared_generator_is_back_after_a_step():
    fa.seed(4)
    expected = init.generator().random(4).tolist()
    fa.seed(4)
    trainer = fa.Trainer(noisy())
    found = [init.generator().random()]
    trainer.step(X, Y)
    found.append(init.generator().random())
    with pytest.raises(ValueError, match="in layer 0"):
        trainer.step(X[:, :2], Y)
    found += init.generator().random(2).tolist()
    assert found == expected


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "average": 0.9, "clip_norm": 0.5}], ids=repr)
def test_a_resumed_fit_makes_the_same_draws(tmp_path, settings):
    settings = {"seed": 7, "schedule": fa.schedules.Cosine(30, warmup=5), **settings}
    unbroken, broken = (fa.Trainer(noisy(), optimizer=fa.optim.Adam(0.05), **settings) for _ in range(2))
    unbroken.fit(X, Y, epochs=3, batch_size=7, validation=0.1)

    def stop(t):
        if t.steps == 5:
            t.stop()

    broken.fit(X, Y, epochs=3, batch_size=7, validation=0.1, on_step=stop, checkpoint=tmp_path / "run")
    assert broken.interrupted
    again = fa.Trainer.load(tmp_path / "run", custom={"Noise": Noise})
    again.resume(X, Y)
    np.testing.assert_array_equal(again.model.flat_parameters, unbroken.model.flat_parameters)
    assert again.history["val_loss"] == unbroken.history["val_loss"]


def test_same_bits_with_every_option_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 100)).astype(np.float32), rng.integers(0, 4, 300)
    found = []
    for n in (1, 2, 3):
        layers = [fa.nn.Dense(100, 200, "relu", rng=0), Noise(), fa.nn.Dense(200, 4, rng=1)]
        trainer = fa.Trainer(
            fa.nn.Sequential(*layers),
            accumulate=3,
            average=0.9,
            clip_norm=0.1,
            clip_value=0.05,
            schedule=fa.schedules.OneCycle(12),
        )
        with fa.num_threads(n):
            trainer.fit(x, y, epochs=2, batch_size=30)
        found.append((trainer.model.flat_parameters.copy(), trainer.average.values, trainer.history["loss"]))
    for other in found[1:]:
        np.testing.assert_array_equal(other[0], found[0][0])
        np.testing.assert_array_equal(other[1], found[0][1])
        assert other[2] == found[0][2]


# ---- what is not finite ----


class Overflow(fa.nn.Layer):
    def forward(self, x):
        return np.where(x > 0, x * x.dtype.type(1e30) * x.dtype.type(1e30), x), lambda dy: dy


class Both(fa.nn.Layer):
    """Two branches added: a container that is no Sequential."""

    def __init__(self, left, right):
        self.left, self.right = left, right

    def forward(self, x):
        (a, da), (b, db) = self.left.forward(x), self.right.forward(x)
        return a + b, lambda dy: da(dy) + db(dy)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (lambda: [fa.nn.Dense(5, 5, rng=0), Overflow(), fa.nn.Dense(5, 3, rng=0)], "Layer 1, Overflow, puts out inf"),
        (
            lambda: [fa.nn.Sequential(fa.nn.Dense(5, 5, rng=0), Overflow()), fa.nn.Dense(5, 3, rng=0)],
            r"Layer 0\.1, Overflow, puts out inf",
        ),
        (
            lambda: [Both(fa.nn.Dense(5, 5, rng=0), Overflow()), fa.nn.Dense(5, 3, rng=0)],
            r"Layer 0\.right, Overflow, puts out inf",
        ),
    ],
)
def test_the_innermost_layer_that_overflows_is_named(layers, words):
    chain = fa.nn.Sequential(*layers())
    trainer = fa.Trainer(chain)
    with pytest.raises(NonFiniteError, match=words), np.errstate(all="ignore"):
        trainer.fit(X.astype(np.float32), Y)
    assert not any("forward" in vars(layer) for _, layer in chain._tree())


def test_a_fit_says_where_in_the_data_the_first_nan_is():
    x = X.copy()
    x[29, 3] = np.nan
    with pytest.raises(NonFiniteError, match=r"The data have x = nan at position \(29, 3\) first"):
        fa.Trainer(model()).fit(x, Y, batch_size=5)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"accumulate": 0}, ValueError, "accumulate"),
        ({"accumulate": 1.5}, TypeError, "accumulate"),
        ({"clip_value": 0}, ValueError, "clip_value"),
        ({"average": 1.0}, ValueError, "average: expected 0 <= average < 1"),
        ({"average": True}, TypeError, "average"),
        ({"metrics": "accuracy"}, TypeError, r"write \['accuracy'\]"),
    ],
)
def test_refuses(settings, error, words):
    with pytest.raises(error, match=words):
        fa.Trainer(model(), **settings)


def test_averaged_needs_an_average():
    with pytest.raises(ValueError, match=r"average=0\.999"):
        fa.Trainer(model()).averaged()


def test_the_description_names_what_is_set():
    assert "accumulate" not in repr(fa.Trainer(model()))
    text = repr(fa.Trainer(model(), accumulate=2, average=0.9, schedule=fa.schedules.Step(3), clip_value=1))
    for part in ("accumulate=2", "average=0.9", "schedule=Step(size=3, gamma=0.1)", "clip_value=1.0"):
        assert part in text
