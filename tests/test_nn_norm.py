"""LayerNorm, RMSNorm and BatchNorm: kernels against the reference, gradients, running statistics, PyTorch."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact import reference
from fastact._core import norm as core
from fastact.nn import BatchNorm, Dense, LayerNorm, RMSNorm, Sequential

pytestmark = pytest.mark.sanitise

SIZES = [1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 1024, 1025, 2500]
ROWS = [1, 2, 3, 4, 5, 63, 64, 65, 130]  # around the rows that go together, and the blocks
KINDS = [LayerNorm, RMSNorm, BatchNorm]
NAMES = {LayerNorm: "layer_norm", RMSNorm: "rms_norm", BatchNorm: "batch_norm"}


def made(kind, n, dtype, **options):
    """A layer whose parameters tell its features apart."""
    layer = kind(n, dtype=dtype, eps=1e-5, **options)
    rng = np.random.default_rng(n)
    for p in layer.parameters().values():
        p.value = rng.uniform(0.5, 1.5, p.shape) * rng.choice([-1, 1], p.shape)
    return layer


def check_against_the_reference(kind, rows, n, dtype):
    rng = np.random.default_rng(rows * 10_000 + n)
    layer = made(kind, n, dtype)
    x = (2 * rng.standard_normal((rows, n)) + 3).astype(dtype)
    dy = rng.standard_normal((rows, n)).astype(dtype)
    y, backward = layer.forward(x)
    dx = backward(dy)
    parameters = [p.value.astype(np.float64) for p in layer.parameters().values()]
    expected = getattr(reference, NAMES[kind])(x, *parameters)
    gradients = getattr(reference, NAMES[kind] + "_backward")(dy, x, parameters[0])
    got = [y, dx, *[p.grad for p in layer.parameters().values()]]
    # Rounding of x - mean is that of x, divided by the deviation; with a few numbers the deviation may be small.
    axis = 0 if kind is BatchNorm else -1
    spread = np.sqrt(np.float64(x).var(axis=axis, keepdims=True) + 1e-5) if kind is not RMSNorm else np.ones((1, 1))
    noise = 8 * np.finfo(dtype).eps * (1 + np.abs(x).max() / spread)
    assert (np.abs(y - expected) <= 2 * noise).all()
    for name, a, b, scale in (("dx", dx, gradients[0], 1 / spread + 1), ("gain", got[2], gradients[1], rows)):
        assert a.dtype == dtype
        bound = 16 * noise * scale * np.abs(dy).max() * (1 + np.abs(expected).max())
        assert (np.abs(a - b) <= (bound if name == "dx" else bound.max())).all(), name
    if kind is not RMSNorm:
        np.testing.assert_allclose(got[3], gradients[2], rtol=0, atol=rows * 4 * np.finfo(dtype).eps * np.abs(dy).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", SIZES)
def test_rows_of_any_width(kind, n, dtype, isa):
    for rows in (2, 5, 66):
        check_against_the_reference(kind, rows, n, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS)
def test_any_number_of_rows(kind, rows, dtype, isa):
    if kind is not BatchNorm or rows > 1:
        check_against_the_reference(kind, rows, 33, dtype)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leading", [(2,), (9,), (70,), (2, 3), (2, 1, 5)])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients(kind, leading, affine):
    x = np.random.default_rng(0).normal(size=(*leading, 5)) * 2 + 1
    layer = made(kind, 5, np.float64, affine=affine)
    assert bool(layer.parameters()) == affine
    fa.testing.check_gradients(layer, x)
    y = layer(x)
    assert y.shape == x.shape
    if kind is not BatchNorm:
        np.testing.assert_array_equal(y, layer.forward(x)[0])
        if leading == (2, 3):
            np.testing.assert_array_equal(y[1, 2], layer(x[1, 2]))


def test_layer_norm_without_bias():
    layer = LayerNorm(4, bias=False, dtype="float64")
    assert list(layer.parameters()) == ["weight"]
    assert LayerNorm.from_config(layer.config()).bias is None
    fa.testing.check_gradients(layer, np.random.default_rng(0).normal(size=(3, 4)))


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_for_any_number_of_threads(kind, dtype):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 1500, 130)).astype(dtype)
    found = []
    for n in (1, 2, 3):
        with fa.num_threads(n):
            layer = made(kind, 130, dtype)
            y, backward = layer.forward(x)
            dx = backward(dy)
            found.append([y, dx, layer(x), *[p.grad for p in layer.parameters().values()]])
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mean_far_from_zero_keeps_its_digits(kind, isa):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 64)) + 4096).astype(np.float32)
    layer = kind(64, eps=1e-5)
    y = layer.forward(x)[0]
    expected = getattr(reference, NAMES[kind])(x, eps=1e-5)
    # The mean itself is rounded to 2.4e-4 and its sum a little more; E[x^2] - E[x]^2 would be off by about 1.
    assert np.abs(y - expected).max() < (2e-3 if kind is not RMSNorm else 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_long_rows_and_many_rows_do_not_lose_digits(kind, isa):
    shape = (3, 200_000) if kind is not BatchNorm else (200_000, 3)
    x = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    layer = kind(shape[1], eps=1e-5)
    y, backward = layer.forward(x)
    np.testing.assert_allclose(y, getattr(reference, NAMES[kind])(x, eps=1e-5), rtol=0, atol=2e-5)
    backward(np.ones_like(x))
    if kind is BatchNorm:
        np.testing.assert_array_equal(layer.bias.grad, 200_000)


def test_constant_rows_and_columns(dtype, isa):
    x = np.full((6, 9), 7, dtype)
    for kind in (LayerNorm, BatchNorm):
        layer = made(kind, 9, dtype)
        y, backward = layer.forward(x)
        np.testing.assert_array_equal(y, np.broadcast_to(layer.bias.value, x.shape))
        assert np.isfinite(backward(np.ones_like(x))).all()


def test_nan_and_infinities_stay_in_their_row():
    x = np.ones((5, 40), np.float32) * np.arange(40, dtype=np.float32)
    x[1, 3], x[3, 39] = np.nan, np.inf
    for kind in (LayerNorm, RMSNorm):
        with np.errstate(all="raise"):
            y = kind(40)(x)
        assert np.isnan(y[1]).all()
        assert np.isnan(y[3]).any()
        assert np.isfinite(y[[0, 2, 4]]).all()


def test_any_layout_and_type_of_x():
    x = np.random.default_rng(0).normal(size=(6, 8))
    for kind in KINDS:
        layer = made(kind, 8, np.float32).freeze()  # so that running statistics stand still
        y = layer(x.astype(np.float32))
        backing = np.zeros((12, 16), np.float32)
        backing[::2, ::2] = x
        for same in (np.asfortranarray(x.astype("f4")), backing[::2, ::2], x.astype("f4").tolist()):
            np.testing.assert_array_equal(layer(same), y)
            backward = layer.forward(same)[1]
            assert backward(np.asfortranarray(y)).flags.c_contiguous
        assert layer(np.zeros((0, 8))).shape == (0, 8)
        stream = layer.stream(6)
        first = stream.step(x.astype(np.float32))
        np.testing.assert_array_equal(first, y)
        assert stream.step(x.astype(np.float32)) is first
    for kind in (LayerNorm, RMSNorm):
        y, backward = kind(8).forward(np.zeros((0, 8), np.float32))
        assert backward(y).shape == (0, 8)


def test_running_statistics():
    rng = np.random.default_rng(0)
    layer = BatchNorm(3, momentum=0.25, dtype="float64")
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(4):
        x = rng.normal(size=(5, 2, 3)) * [1, 2, 3] + [0, 5, 9]
        layer.forward(x)
        mean = 0.75 * mean + 0.25 * x.mean((0, 1))
        variance = 0.75 * variance + 0.25 * x.var((0, 1), ddof=1)
        np.testing.assert_allclose(layer.running_mean.value, mean, rtol=1e-13)
        np.testing.assert_allclose(layer.running_var.value, variance, rtol=1e-13)
    assert layer.running_mean.version == 4
    before = layer.state_dict()
    y = layer(x)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-12)
    for name, array in layer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert list(layer.parameters()) == ["weight", "bias"]


def test_a_frozen_batch_norm_uses_its_running_statistics_in_training(tmp_path):
    rng = np.random.default_rng(0)
    model = Sequential(
        Dense(4, 3, dtype="float64", rng=0), made(BatchNorm, 3, np.float64), Dense(3, 2, dtype="f8", rng=1)
    )
    x = rng.normal(size=(6, 4))
    model.forward(x)
    model[1].freeze()
    before = model.state_dict()
    y, backward = model.forward(x)
    np.testing.assert_array_equal(y, model.forward(x)[0])
    np.testing.assert_allclose(y, model(x), rtol=1e-13)
    backward(y)
    assert not model[1].weight.grad.any()
    fa.testing.check_gradients(model, x)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    fa.testing.check_gradients(model[1], x[:1, :3])  # a single row has no variance of its own, nor needs it
    fa.save(model, tmp_path / "m.safetensors")
    assert not fa.load(tmp_path / "m.safetensors")[1].running_mean.trainable
    model[1].unfreeze()
    model.forward(x)
    assert (model[1].running_mean.value != before["1.running_mean"]).all()


def test_without_momentum_the_running_statistics_are_means_over_batches(dtype, tmp_path):
    layer = BatchNorm(3, momentum=None, dtype=dtype)
    batches = np.random.default_rng(0).normal(2.0, 3.0, (5, 7, 3)).astype(dtype)
    for n, x in enumerate(batches, 1):
        layer.forward(x)
        assert layer.num_batches_tracked.value == n
        tolerance = {"rtol": 40 * np.finfo(dtype).eps, "atol": 40 * np.finfo(dtype).eps}
        np.testing.assert_allclose(layer.running_mean.value, batches[:n].mean(1).mean(0), **tolerance)
        np.testing.assert_allclose(layer.running_var.value, batches[:n].var(1, ddof=1).mean(0), **tolerance)
    fa.save(layer, tmp_path / "m.safetensors")
    twin = fa.load(tmp_path / "m.safetensors")
    for each in (layer, twin):
        each.forward(batches[0] + 1)
    assert twin.num_batches_tracked.value == 6
    np.testing.assert_array_equal(twin.running_mean.value, layer.running_mean.value)
    layer.freeze()
    layer.forward(batches[0])
    assert layer.num_batches_tracked.value == 6
    if dtype == np.float64:
        fa.testing.check_gradients(BatchNorm(3, momentum=None, dtype=dtype), batches[0])
    assert "num_batches_tracked" not in BatchNorm(3).state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_copies_pickles_and_files(kind, tmp_path):
    layer = made(kind, 5, np.float32)
    layer.forward(np.random.default_rng(0).normal(size=(4, 5)))
    fa.save(layer, tmp_path / "m.safetensors")
    x = np.random.default_rng(1).normal(size=(4, 5)).astype(np.float32)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fa.load(tmp_path / "m.safetensors")):
        assert repr(twin) == repr(layer)
        np.testing.assert_array_equal(twin(x), layer(x))


@pytest.mark.parametrize("kind", KINDS)
def test_refusals(kind):
    layer = kind(4)
    for call in (layer, layer.forward):
        with pytest.raises(
            ValueError, match=r"x: expected shape \(\.\.\., 4\), the layer's num_features, got \(2, 5\)"
        ):
            call(np.zeros((2, 5)))
        with pytest.raises(TypeError, match="x: expected an array of real numbers"):
            call("text")
    with pytest.raises(ValueError, match="num_features: expected an integer of at least 1"):
        kind(0)
    with pytest.raises(ValueError, match="eps: expected 0 <= eps"):
        kind(4, eps=-1.0)
    if kind is BatchNorm:
        with pytest.raises(ValueError, match=r"x: expected two positions or more.*got shape \(1, 4\)"):
            layer.forward(np.zeros((1, 4)))
        assert layer(np.zeros((1, 4))).shape == (1, 4)
        with pytest.raises(ValueError, match="momentum"):
            kind(4, momentum=1.5)


def test_kernels_refuse_arrays_that_do_not_fit():
    x, y = np.zeros((4, 5)), np.zeros((4, 5))
    with pytest.raises(ValueError, match="gain"):
        core.rows_forward(True, x, np.zeros(4), None, y, None, 1e-5)
    with pytest.raises(ValueError, match="y"):
        core.rows_forward(True, x, None, None, y[:, ::-1], None, 1e-5)
    with pytest.raises(ValueError, match="statistics"):
        core.rows_backward(True, x, y, None, np.zeros((4, 3)), None, None, None)
    with pytest.raises(ValueError, match="statistics"):
        core.batch_forward(x, None, None, y, np.zeros((2, 5), np.float32), np.zeros(5), np.zeros(5), 1e-5, 0.1, False)
    one = np.zeros((1, 5))
    with pytest.raises(ValueError, match="two rows"):
        core.batch_forward(one, None, None, one.copy(), np.zeros((2, 5)), np.zeros(5), np.zeros(5), 1e-5, 0.1, False)


def test_kernels_write_their_rows_only(isa, dtype):
    guard = np.full((8, 5), 9, dtype)
    core.rows_forward(True, np.eye(5, dtype=dtype)[:3], None, None, guard[2:5], None, 1e-5)
    assert (guard[[0, 1, 5, 6, 7]] == 9).all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [*[(kind, {}) for kind in KINDS], (BatchNorm, {"momentum": 0.3}), (BatchNorm, {"momentum": None})],
)
def test_the_same_as_pytorch(kind, options, dtype):
    torch = pytest.importorskip("torch")
    torch.set_default_dtype(torch.float64 if dtype == np.float64 else torch.float32)
    try:
        theirs = {LayerNorm: torch.nn.LayerNorm, RMSNorm: torch.nn.RMSNorm, BatchNorm: torch.nn.BatchNorm1d}[kind]
        theirs = theirs(6, **options)
        with torch.no_grad():
            for p in theirs.parameters():
                p.uniform_(0.5, 1.5)
        ours = kind(6, dtype=dtype, **options)
        ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
        rng = np.random.default_rng(0)
        for _ in range(3):
            x, dy = rng.normal(size=(2, 9, 6)).astype(dtype)
            y, backward = ours.forward(x)
            ours.zero_grad()
            theirs.zero_grad()
            dx = backward(dy)
            tx = torch.from_numpy(x).requires_grad_()
            ty = theirs(tx)
            ty.backward(torch.from_numpy(dy))
            tolerance = {"rtol": 40 * np.finfo(dtype).eps, "atol": 40 * np.finfo(dtype).eps}
            np.testing.assert_allclose(y, ty.detach().numpy(), **tolerance)
            np.testing.assert_allclose(dx, tx.grad.numpy(), **tolerance)
            for name, p in theirs.named_parameters():
                np.testing.assert_allclose(ours.parameters()[name].grad, p.grad.numpy(), **tolerance)
        theirs.eval()
        np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach().numpy(), **tolerance)
        for name, b in theirs.named_buffers():
            if name in ours.buffers():
                np.testing.assert_allclose(ours.buffers()[name].value, b.numpy(), **tolerance)
    finally:
        torch.set_default_dtype(torch.float32)
