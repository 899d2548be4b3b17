"""Optimisers over a model's flat buffers: the same path as the formulas and as PyTorch, exact resume, messages."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import reference
from fastact.optim import (
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    NAdam,
    RMSprop,
    Rprop,
    clip_by_global_norm,
    clip_by_value,
    global_norm,
)

SETTINGS = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    (Adam, {"lr": 0.01}),
    (Adam, {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.1}),
    (Adam, {"lr": 0.01, "betas": (0.8, 0.6), "eps": 1e-5, "amsgrad": True}),
    (AdamW, {"lr": 0.01, "weight_decay": 0.2}),
    (NAdam, {"lr": 0.01, "momentum_decay": 0.05}),
    (Lion, {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    (RMSprop, {"lr": 0.01}),
    (RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.5}),
    (RMSprop, {"lr": 0.01, "alpha": 0.9, "eps": 1e-3, "centered": True}),
    (RMSprop, {"lr": 0.01, "alpha": 0.8, "eps": 1e-3, "momentum": 0.7, "centered": True}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.01}),
    (Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-3}),
    (Adadelta, {"lr": 1.0, "rho": 0.8, "eps": 1e-4}),
    (Rprop, {"lr": 0.3}),
    (Rprop, {"lr": 0.5, "etas": (0.3, 1.5), "step_sizes": (1e-2, 0.8)}),
]


def expected_step(optimizer, w, gradient, kept, t):
    """New w by the twins in fastact.reference; ``kept`` holds m, v and u."""
    o, (m, v, u) = optimizer, kept
    if isinstance(o, SGD):
        w, m = reference.sgd(w, gradient, m, **o.config())
    elif isinstance(o, AdamW):
        w, m, v = reference.adamw(w, gradient, m, v, t, o.lr, o.weight_decay)
    elif isinstance(o, Adam) and o.amsgrad:
        w, m, v, u = reference.amsgrad(w, gradient, m, v, u, t, o.lr, o.betas, o.eps)
    elif isinstance(o, Adam):
        w, m, v = reference.adam(w, gradient, m, v, t, o.lr, o.betas, o.eps, o.weight_decay)
    elif isinstance(o, NAdam):
        w, m, v = reference.nadam(w, gradient, m, v, t, o.lr, o.momentum_decay)
    elif isinstance(o, Lion):
        w, m = reference.lion(w, gradient, m, o.lr, o.betas, o.weight_decay)
    elif isinstance(o, RMSprop):
        w, m, v, u = reference.rmsprop(w, gradient, m, v, u, **o.config())
    elif isinstance(o, Adagrad):
        v = v + (o.initial_accumulator_value if t == 1 else 0)
        w, v = reference.adagrad(w, gradient, v, t, o.lr, o.lr_decay, o.eps)
    elif isinstance(o, Adadelta):
        w, v, u = reference.adadelta(w, gradient, v, u, o.lr, o.rho, o.eps)
    else:
        u = u + (o.lr if t == 1 else 0)
        w, m, u = reference.rprop(w, gradient, m, u, o.etas, o.step_sizes)
    kept[:] = m, v, u
    return w


class Bowl(fa.nn.Layer):
    """Two parameters of odd sizes; the gradient of 0.5 sum(scale (w - best)^2)."""

    def __init__(self, dtype=np.float64):
        rng = np.random.default_rng(0)
        self.add_parameter("a", rng.standard_normal((3, 5)).astype(dtype))
        self.add_parameter("b", rng.standard_normal(7).astype(dtype))

    def set_gradients(self, weights=None):
        for p in (self.a, self.b) if weights is None else weights:
            scale = np.linspace(0.5, 2, p.size).reshape(p.shape)
            gradient = scale * (p.value - 0.25)
            p.grad[...] = gradient


@pytest.mark.parametrize(("kind", "settings"), SETTINGS, ids=lambda v: getattr(v, "__name__", None) or str(v))
def test_path_of_the_formulas(kind, settings, isa, dtype):
    model = Bowl(dtype)
    optimizer = kind(**settings)
    expected = {name: p.value.astype(float) for name, p in model.parameters().items()}
    kept = {name: [np.zeros(p.shape) for _ in range(3)] for name, p in model.parameters().items()}
    for t in range(1, 31):
        model.set_gradients()
        for name, p in model.parameters().items():
            # the gradient at the model's own place: a sign that turns there turns here
            expected[name] = expected_step(optimizer, expected[name], p.grad.astype(float), kept[name], t)
        optimizer.step(model)
    assert optimizer.steps == 30
    for name, p in model.parameters().items():
        np.testing.assert_allclose(p.value, expected[name], rtol=0, atol=300 * float(np.finfo(dtype).eps))
        assert np.abs(p.value - Bowl(dtype).parameters()[name].value).min() > 1e-3


def test_path_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    for kind, settings in SETTINGS:
        if kind is Lion:
            continue
        model = Bowl(dtype)
        optimizer = kind(**settings)
        tensors = {n: torch.nn.Parameter(torch.tensor(np.array(p.value))) for n, p in model.parameters().items()}
        peer = getattr(torch.optim, kind.__name__)(tensors.values(), **settings)
        for _ in range(30):
            model.set_gradients()
            for name, p in model.parameters().items():
                w = tensors[name]
                scale = torch.linspace(0.5, 2, p.size, dtype=torch.float64).reshape(p.shape)
                w.grad = (scale * (w.detach() - 0.25)).to(w.dtype)
            norm = clip_by_global_norm(model, 1.5)
            assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(tensors.values(), 1.5)), rel=1e-5)
            optimizer.step(model)
            peer.step()
        for name, p in model.parameters().items():
            got, expected = p.value, tensors[name].detach().numpy()
            atol = 300 * float(np.finfo(dtype if kind is not NAdam else np.float32).eps)  # its M_t is a float32 there
            np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


def test_step_raises_versions_and_keeps_gradients():
    model = Bowl()
    model.set_gradients()
    before = model.flat_gradients.copy()
    versions = [p.version for p in model.parameters().values()]
    SGD(0.1).step(model)
    assert [p.version for p in model.parameters().values()] == [v + 1 for v in versions]
    np.testing.assert_array_equal(model.flat_gradients, before)


def test_padding_of_the_flat_buffer_stays_zero():
    model = Bowl()
    optimizer = Adam(weight_decay=0.1)
    for _ in range(3):
        model.set_gradients()
        optimizer.step(model)
    used = np.zeros(model.arena.size, bool)
    for p, offset in zip(model.arena.parameters, model.arena.offsets, strict=True):
        used[offset : offset + p.size] = True
    assert not used.all()
    assert (model.flat_parameters[~used] == 0).all()


def test_gradient_scale_is_a_scaled_gradient():
    models = [Bowl(), Bowl()]
    for model, optimizer, scale in zip(models, (SGD(0.1, 0.9), SGD(0.1, 0.9)), (0.5, 1.0), strict=True):
        model.set_gradients()
        if scale == 1.0:
            model.flat_gradients *= 0.5
        optimizer.step(model, scale)
    np.testing.assert_array_equal(models[0].flat_parameters, models[1].flat_parameters)


@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_state_dict_goes_on_to_the_same_bits(kind, settings):
    def steps(model, optimizer, number):
        for _ in range(number):
            model.set_gradients()
            optimizer.step(model)

    unbroken, broken = Bowl(), Bowl()
    first, second = kind(**settings), kind(**settings)
    steps(unbroken, first, 10)
    steps(broken, second, 4)
    state = second.state_dict()
    steps(broken, second, 1)  # the state is a copy
    again, fresh = Bowl(), kind(lr=7)
    steps(other := Bowl(), kind(**settings), 4)
    again.load_state_dict(other.state_dict())
    fresh.load_state_dict(state)
    assert fresh.steps == 4
    assert fresh.config() == first.config()
    steps(again, fresh, 6)
    np.testing.assert_array_equal(again.flat_parameters, unbroken.flat_parameters)


def test_copy_and_pickle_take_the_state_to_a_copied_model():
    model, optimizer = Bowl(), Adam(0.01)
    model.set_gradients()
    optimizer.step(model)
    for make in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        other_model, other = make((model, optimizer))
        other_model.set_gradients()
        other.step(other_model)
        expected_model, expected = copy.deepcopy((model, optimizer))
        expected_model.set_gradients()
        expected.step(expected_model)
        np.testing.assert_array_equal(other_model.flat_parameters, expected_model.flat_parameters)
        assert other.steps == 2
    assert optimizer.steps == 1


def test_an_optimiser_belongs_to_one_model():
    optimizer = Adam()
    optimizer.step(Bowl())
    with pytest.raises(ValueError, match="another model"):
        optimizer.step(Bowl())
    small = fa.nn.Layer()
    small.add_parameter("w", np.zeros(2))
    fresh = Adam()
    fresh.load_state_dict(optimizer.state_dict())
    with pytest.raises(ValueError, match="has state for"):
        fresh.step(small)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD(-0.1), ValueError, ["lr", "-0.1"]),
        (lambda: SGD(math.nan), ValueError, ["lr", "nan"]),
        (lambda: SGD("0.1"), TypeError, ["lr", "'0.1'"]),
        (lambda: SGD(0.1, momentum=1.0), ValueError, ["momentum", "0 <= momentum < 1"]),
        (lambda: SGD(0.1, nesterov=True), ValueError, ["nesterov", "momentum=0.9"]),
        (lambda: SGD(0.1, weight_decay=-1), ValueError, ["weight_decay"]),
        (lambda: Adam(betas=0.9), ValueError, ["betas", "0.9"]),
        (lambda: Adam(betas=(0.9, 1.0)), ValueError, ["betas[1]"]),
        (lambda: Adam(eps=0), ValueError, ["eps"]),
        (lambda: Adam(math.inf), ValueError, ["lr", "finite"]),
        (lambda: Adam().step(np.zeros(3)), TypeError, ["model", "ndarray"]),
        (lambda: Adam().load_state_dict(SGD(0.1).state_dict()), ValueError, ["Adam", "SGD"]),
        (lambda: Adam().load_state_dict({"name": "Adam"}), ValueError, ["settings"]),
        (lambda: Adam().load_state_dict({**Adam().state_dict(), "settings": None}), ValueError, ["settings"]),
        (lambda: clip_by_global_norm(Bowl(), 0), ValueError, ["max_norm"]),
        (lambda: clip_by_value(Bowl(), -1), ValueError, ["limit"]),
        (lambda: RMSprop(alpha=1.0), ValueError, ["alpha"]),
        (lambda: RMSprop(momentum=1.0), ValueError, ["momentum"]),
        (lambda: Adagrad(initial_accumulator_value=-1), ValueError, ["initial_accumulator_value"]),
        (lambda: Adadelta(rho="0.9"), TypeError, ["rho"]),
        (lambda: NAdam(momentum_decay=-1), ValueError, ["momentum_decay"]),
        (lambda: Lion(betas=(0.9,)), ValueError, ["betas"]),
        (lambda: Rprop(etas=(1.2, 0.5)), ValueError, ["etas", "PyTorch's"]),
        (lambda: Rprop(step_sizes=(50, 1e-6)), ValueError, ["step_sizes", "swap"]),
        (lambda: LBFGS(max_iter=0), ValueError, ["max_iter"]),
        (lambda: LBFGS().minimize(np.zeros(3), float), TypeError, ["model"]),
    ],
)
def test_refuses(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)


def test_clipping():
    model = Bowl()
    model.set_gradients()
    expected = reference.global_norm([p.grad for p in model.parameters().values()])
    assert global_norm(model) == pytest.approx(expected, rel=1e-14)
    before = model.flat_gradients.copy()
    assert clip_by_global_norm(model, 2 * expected) == pytest.approx(expected)
    np.testing.assert_array_equal(model.flat_gradients, before)
    assert clip_by_global_norm(model, expected / 4) == pytest.approx(expected)
    assert global_norm(model) == pytest.approx(expected / 4, rel=1e-5)


def test_clipping_leaves_an_infinite_gradient_to_be_seen():
    model = Bowl()
    model.set_gradients()
    model.a.grad[0, 0] = math.inf
    before = model.flat_gradients.copy()
    assert clip_by_global_norm(model, 1.0) == math.inf
    np.testing.assert_array_equal(model.flat_gradients, before)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SGD, {"lr": 0.4}),
        (SGD, {"lr": 0.1, "momentum": 0.8}),
        (Adam, {"lr": 0.02}),
        (AdamW, {"lr": 0.02, "weight_decay": 0.0}),
        (Adam, {"lr": 0.02, "amsgrad": True}),
        (NAdam, {"lr": 0.02}),
        (Adagrad, {"lr": 0.5}),
        (Rprop, {}),
    ],
)
def test_reaches_the_known_optimum(kind, settings):
    model, optimizer = Bowl(), kind(**settings)
    for _ in range(600):
        model.set_gradients()
        optimizer.step(model)
    for p in model.parameters().values():
        np.testing.assert_allclose(p.value, 0.25, atol=1e-4)


def test_a_gradient_that_is_not_a_number_is_seen():
    for kind, settings in SETTINGS:
        model, optimizer = Bowl(), kind(**settings)
        model.set_gradients()
        optimizer.step(model)
        model.set_gradients()
        model.a.grad[0, 0] = np.nan
        optimizer.step(model)
        assert np.isnan(model.a.value[0, 0]), kind
        assert np.isfinite(model.a.value.reshape(-1)[1:]).all()


def test_lbfgs_finds_the_optimum():
    pytest.importorskip("scipy")
    for dtype in (np.float32, np.float64):
        model = Bowl(dtype)

        def closure(model=model):
            assert not model.flat_gradients.any()
            model.set_gradients()
            return sum(0.5 * float(np.sum(p.grad * (p.value - 0.25))) for p in model.parameters().values())

        found = LBFGS().minimize(model, closure)
        assert found.fun < 1e-6
        for p in model.parameters().values():
            np.testing.assert_allclose(p.value, 0.25, atol=1e-3)


def test_clipping_by_value():
    model = Bowl()
    model.set_gradients()
    before = model.flat_gradients.copy()
    clip_by_value(model, 0.5)
    np.testing.assert_array_equal(model.flat_gradients, np.clip(before, -0.5, 0.5))
    assert (np.abs(before) > 0.5).any()


def test_a_model_without_parameters_is_fine():
    Adam().step(fa.nn.Layer())
