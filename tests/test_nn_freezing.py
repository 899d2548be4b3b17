"""Freezing, buffers, and lengths through a chain: what layers and models agree on beside parameters."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact.nn import GRU, LSTM, RNN, Activation, Dense, Embedding, Layer, Sequential

OPTIMIZERS = [
    fa.optim.SGD(0.1, weight_decay=0.1),
    fa.optim.SGD(0.1, momentum=0.9, nesterov=True),
    fa.optim.Adam(0.1, weight_decay=0.1),
    fa.optim.AdamW(0.1, weight_decay=0.5),
    fa.optim.Lion(0.1, weight_decay=0.5),
    fa.optim.Rprop(0.1),
]


def model(dtype=np.float32):
    return Sequential(
        Dense(3, 40, "tanh", dtype=dtype, rng=0),
        Dense(40, 40, "tanh", dtype=dtype, rng=1),
        Dense(40, 2, dtype=dtype, rng=2),
    )


def batch(dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 3)).astype(dtype), rng.integers(0, 2, 8)


class Counter(Layer):
    """Counts its training calls and scales by a parameter."""

    def __init__(self, size, dtype="float32"):
        self.size, self.dtype = size, dtype
        self.add_parameter("factor", np.ones(size, dtype))
        self.add_buffer("calls", np.zeros((), dtype))

    def forward(self, x):
        self.calls[...] = self.calls.value + 1

        def backward(dy):
            self.factor.grad[...] += (dy * x).sum(0)
            return dy * self.factor.value

        return x * self.factor.value, backward


# -- freezing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 2), (0, 1)])
def test_frozen_parameters_stay_and_the_others_go_where_they_would(optimizer, frozen):
    x, t = batch()
    m, free = model(), model()
    for i in frozen:
        assert m[i].freeze() is m[i]
    before = m.state_dict()
    trainer = fa.Trainer(m, optimizer=copy.deepcopy(optimizer))
    other = fa.Trainer(free, optimizer=copy.deepcopy(optimizer))
    trainer.step(x, t)
    other.step(x, t)
    for name, p in m.parameters().items():
        fixed = int(name[0]) in frozen
        assert p.trainable != fixed
        assert p.version == (0 if fixed else 1)
        np.testing.assert_array_equal(p.value, before[name] if fixed else free.parameters()[name].value, name)
    assert trainer.steps == 1


def test_all_frozen_and_thawed_again():
    x, t = batch()
    m = model().freeze()
    before = m.state_dict()
    trainer = fa.Trainer(m, optimizer=fa.optim.Adam(0.1))
    trainer.step(x, t)
    assert trainer.steps == 1
    for name, array in m.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    m.unfreeze()
    trainer.step(x, t)
    assert all((array != before[name]).any() for name, array in m.state_dict().items())


def test_a_single_parameter_is_frozen_by_its_flag():
    x, t = batch()
    m = model()
    m.flatten()
    m[1].weight.trainable = False
    before = m.state_dict()
    fa.Trainer(m, optimizer=fa.optim.SGD(0.1)).step(x, t)
    changed = {name for name, p in m.parameters().items() if (p.value != before[name]).any()}
    assert changed == set(before) - {"1.weight"}
    assert repr(m[1].weight) == "Parameter(weight, shape=(40, 40), dtype=float32, frozen)"


def test_the_global_norm_does_not_count_frozen_gradients():
    m = model()
    for p in m.parameters().values():
        p.grad[...] = 1
    m.flatten()
    m[0].freeze()
    assert fa.optim.global_norm(m) ** 2 == pytest.approx(m.num_parameters - m[0].num_parameters)
    m.freeze()
    assert fa.optim.global_norm(m) == 0
    m.unfreeze()
    assert fa.optim.global_norm(m) ** 2 == pytest.approx(m.num_parameters)


def test_gradients_flow_through_frozen_layers():
    m = model(np.float64)
    m[1].freeze()
    fa.testing.check_gradients(m, batch(np.float64)[0])
    m[0].freeze()
    fa.testing.check_gradients(m, batch(np.float64)[0])


def test_no_gradient_work_for_what_is_frozen():
    class Spy(Layer):
        def __init__(self):
            self.calls = 0

        def forward(self, x):
            def backward(dy):
                self.calls += 1
                return dy

            return x, backward

    spy, x = Spy(), batch()[0]
    m = Sequential(Dense(3, 4, rng=0), spy, Dense(4, 4, rng=0), Activation("tanh"))
    m.flatten()
    for frozen, wanted in (((0,), 0), ((0, 2), 0), ((2,), 1), ((), 1)):
        m.unfreeze()
        for i in frozen:
            m[i].freeze()
        m.zero_grad()
        spy.calls = 0
        y, backward = m.forward(x)
        assert backward(np.ones_like(y), input_gradient=False) is None
        assert spy.calls == wanted
        for i in (0, 2):
            assert m[i].weight.grad.any() == (i not in frozen)
        y, backward = m.forward(x)
        assert backward(np.ones_like(y)).shape == x.shape
    table = Embedding(5, 3, rng=0).freeze()
    y, backward = table.forward([1, 2])
    backward(y)
    assert not table.weight.grad.any()


RECURRENT = {
    "lstm": lambda: LSTM(3, 5, peepholes=True, dtype="float64", rng=0),
    "normalised": lambda: LSTM(3, 5, layer_norm=True, projection_size=4, dtype="float64", rng=0),
    "recurrence of all gates": lambda: LSTM.variant("FGR", 3, 5, dtype="float64", rng=0),
    "stack": lambda: GRU(3, 5, num_layers=2, bidirectional=True, dtype="float64", rng=0),
    "reset before": lambda: GRU(3, 5, reset_after=False, dtype="float64", rng=0),
    "rnn": lambda: RNN(3, 5, dtype="float64", rng=0),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("lengths", [None, [4, 2]])
def test_a_frozen_recurrent_layer_passes_the_same_gradients_on(name, lengths, n_threads):
    layer, x = RECURRENT[name](), np.random.default_rng(0).normal(size=(2, 4, 3))
    y, backward = layer.forward(x, lengths=lengths)
    dx = backward(y)
    assert all(p.grad.any() for p in layer.parameters().values())
    layer.zero_grad()
    y, again = layer.freeze().forward(x, lengths=lengths)
    np.testing.assert_array_equal(again(y), dx)
    for a, b in zip(again.dstate, backward.dstate, strict=True):  # h and c of an LSTM, the layers of the others' h
        np.testing.assert_array_equal(a, b)
    assert not any(p.grad.any() for p in layer.parameters().values())


def test_states_of_a_frozen_recurrent_layer():
    m = Sequential(LSTM(3, 4, rng=0), LSTM(4, 4, rng=1), Dense(4, 2, rng=2))
    m[0].freeze()
    m.flatten()
    y, backward = m.forward(np.ones((2, 5, 3), np.float32))
    assert len(backward.state) == 2
    backward(y, input_gradient=False)
    assert backward.dstate[0] is None
    assert len(backward.dstate[1]) == 2
    y, backward = m.forward(np.ones((2, 5, 3), np.float32))
    backward(y)
    assert len(backward.dstate[0]) == 2


def test_copies_pickles_and_files_keep_what_is_frozen(tmp_path):
    m = model()
    m[1].freeze()
    m[2].bias.trainable = False
    m.flatten()
    fa.save(m, tmp_path / "m.safetensors")
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), fa.load(tmp_path / "m.safetensors")):
        frozen = [name for name, p in twin.parameters().items() if not p.trainable]
        assert frozen == ["1.weight", "1.bias", "2.bias"]
        fa.Trainer(twin).step(*batch())
        np.testing.assert_array_equal(twin[1].weight.value, m[1].weight.value)
        assert (twin[2].weight.value != m[2].weight.value).any()


def test_an_interrupted_training_with_frozen_layers_goes_on_to_the_same_bits(tmp_path):
    x, t = batch()
    m = Sequential(Dense(3, 4, rng=0), Counter(4), Dense(4, 2, rng=1))
    m[0].freeze()
    trainer = fa.Trainer(m)
    trainer.step(x, t)
    trainer.save(tmp_path / "c.safetensors")
    again = fa.Trainer.load(tmp_path / "c.safetensors", custom={"Counter": Counter})
    for each in (trainer, again):
        each.step(x, t)
    for name, array in m.state_dict().items():
        np.testing.assert_array_equal(again.model.state_dict()[name], array, name)
    assert m[1].calls.value == 2


def test_lbfgs_moves_what_is_trained_only():
    pytest.importorskip("scipy")
    m = Sequential(Dense(3, 3, dtype="float64", rng=0), Dense(3, 1, dtype="float64", rng=1))
    m[0].freeze()
    before = m.state_dict()
    x = np.random.default_rng(0).normal(size=(20, 3))
    t = x.sum(1, keepdims=True)
    loss = fa.losses.MeanSquaredError()

    def closure():
        y, layers = m.forward(x)
        value, backward = loss.forward(y, t)
        layers(backward())
        return value

    found = fa.optim.LBFGS(max_iter=50).minimize(m, closure)
    np.testing.assert_array_equal(m[0].weight.value, before["0.weight"])
    assert found.x.shape == (16,)  # 3 weights and a bias, each padded to 64 bytes
    assert (m[1].weight.value != before["1.weight"]).any()
    assert found.fun < 1e-10


# -- buffers ----------------------------------------------------------------------------------------------------------


def test_a_buffer_is_kept_with_its_layer_and_is_no_parameter(tmp_path):
    m = Sequential(Counter(3), Dense(3, 2, rng=0))
    assert list(m.parameters()) == ["0.factor", "1.weight", "1.bias"]
    assert list(m.buffers()) == ["0.calls"]
    assert m.num_parameters == 11
    assert list(m.state_dict()) == ["0.factor", "0.calls", "1.weight", "1.bias"]
    for _ in range(3):
        m.forward(batch()[0])
    fa.save(m, tmp_path / "m.safetensors")
    twins = [copy.deepcopy(m), pickle.loads(pickle.dumps(m))]
    twins.append(fa.load(tmp_path / "m.safetensors", custom={"Counter": Counter}))
    for twin in twins:
        assert twin[0].calls.value == 3
        assert twin[0].calls.value.dtype == np.float32
        twin.forward(batch()[0])
        assert (twin[0].calls.value, m[0].calls.value) == (4, 3)
    state = m.state_dict()
    m.forward(batch()[0])
    m.load_state_dict(state)
    assert m[0].calls.value == 3
    del state["0.calls"]
    with pytest.raises(ValueError, match=r"missing '0.calls' \(\)"):
        m.load_state_dict(state)


def test_a_buffer_reads_through_a_read_only_view():
    b = Counter(3).calls
    with pytest.raises(ValueError, match="read-only"):
        b.value[...] = 1
    b.value = 2
    assert b.version == 1
    assert float(np.asarray(b)) == 2
    with pytest.raises(ValueError, match=r"calls: expected shape \(\), got \(2,\)"):
        b.value = [1, 2]
    with pytest.raises(ValueError, match="name: expected a Python identifier"):
        Layer().add_buffer("a b", np.zeros(2))


# -- lengths ----------------------------------------------------------------------------------------------------------


def test_lengths_go_to_the_members_that_take_them():
    inner = Sequential(LSTM(4, 5, dtype="float64", rng=1), Activation("tanh"))
    m = Sequential(Dense(3, 4, dtype="float64", rng=0), inner, LSTM(5, 2, dtype="float64", rng=2))
    assert m.takes_lengths
    assert inner.takes_lengths
    assert not Sequential(Dense(3, 4, rng=0)).takes_lengths
    x, lengths = np.random.default_rng(0).normal(size=(3, 6, 3)), np.array([2, 6, 4])
    y = m(x, lengths=lengths)
    for b, n in enumerate(lengths):
        np.testing.assert_allclose(y[b, :n], m(x[b : b + 1, :n])[0], rtol=1e-12, atol=1e-14)
        assert not y[b, n:].any()
    trained, _ = m.forward(x, lengths=lengths)
    np.testing.assert_allclose(trained, y, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(m.run(x, lengths=lengths).y, y)
    for size in (None, 1, 2, 5):
        np.testing.assert_allclose(m.predict(x, size, lengths=lengths), y, rtol=1e-12, atol=1e-14)
    fa.testing.check_gradients(m, x, lengths=lengths)


def test_lengths_that_nobody_heeds_are_an_error():
    m = Sequential(Dense(3, 4, rng=0))
    x = np.zeros((2, 5, 3), np.float32)
    for call in (m, m.forward, m.run, m.predict):
        with pytest.raises(ValueError, match="lengths: expected None, as Sequential has no layer that takes lengths"):
            call(x, lengths=[1, 2])
    with pytest.raises(ValueError, match="lengths: expected None, as Dense"):
        m[0].predict(x, lengths=[1, 2])
    recurrent = Sequential(LSTM(3, 4, rng=0))
    with pytest.raises(ValueError, match=r"lengths: expected one for each of the 2 rows of x, got shape \(3,\)"):
        recurrent.predict(x, 1, lengths=[1, 2, 3])
    with pytest.raises(ValueError, match=r"in layer 0.*lengths: expected one for each of the 2"):
        recurrent(x, lengths=[1, 2, 3])
