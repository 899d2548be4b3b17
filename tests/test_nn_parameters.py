"""Parameter, Arena and what Layer does with them: versions, flat buffers, copies, state dicts."""

from __future__ import annotations

import copy
import gc
import pickle

import numpy as np
import pytest

import fastact as fa
from fastact.nn import Arena, Dense, Embedding, Layer, Parameter, Sequential


class Tied(Layer):
    """Layers in a list, a dict and a back-reference; one parameter under two names."""

    def __init__(self, dtype="float32"):
        self.dtype = dtype
        self.inner = [Dense(3, 4, dtype=dtype, rng=1), Dense(4, 3, dtype=dtype, rng=2)]
        self.named = {"head": Dense(3, 4, dtype=dtype, rng=3)}
        self.named["head"].weight = self.inner[0].weight
        self.parent = self

    def forward(self, x):
        y, first = self.inner[0].forward(x)
        y, second = self.inner[1].forward(y)
        y, third = self.named["head"].forward(y)
        return y, lambda dy: first(second(third(dy)))


def aligned(array):
    return array.ctypes.data % 64 == 0


def model(dtype=np.float32):
    shared = Dense(4, 4, "tanh", dtype=dtype, rng=0)
    return Sequential(Embedding(5, 4, dtype=dtype, rng=1), shared, shared, Dense(4, 3, dtype=dtype, rng=2))


def test_parameter_reads_through_a_read_only_view_and_counts_writes(dtype):
    p = Parameter(np.arange(6, dtype=dtype).reshape(2, 3), "w")
    assert p.value.dtype == p.dtype == dtype
    assert (p.shape, p.size, p.version) == ((2, 3), 6, 0)
    assert aligned(p.value)
    assert aligned(p.grad)
    with pytest.raises(ValueError, match="read-only"):
        p.value[0, 0] = 1
    p.value = np.ones((2, 3))
    assert p.version == 1
    p[0] = 7
    assert p.version == 2
    np.testing.assert_array_equal(p.value, [[7, 7, 7], [1, 1, 1]])
    np.testing.assert_array_equal(np.asarray(p), p.value)
    assert np.asarray(p, np.float16).dtype == np.float16


def test_parameter_owns_its_memory():
    given = np.zeros(3, np.float32)
    p = Parameter(given)
    given[0] = 5
    assert p.value[0] == 0
    assert not np.shares_memory(p.value, given)


@pytest.mark.parametrize("flat", [False, True])
def test_a_write_into_a_value_says_how_to_write(flat):
    layer = Dense(3, 2, rng=0)
    if flat:
        layer.flatten()
    p, before = layer.weight, layer.weight.value.copy()

    def scale():
        p.value *= 2

    writes = [
        lambda: p.value.__setitem__(slice(1), 1),
        lambda: p.value[0].__setitem__(1, 1),
        lambda: p.value.T.fill(3),
        lambda: layer.flat_parameters.__setitem__(0, 1),
        scale,
    ]
    for write in writes:
        with pytest.raises(ValueError, match=r"read-only view.*write p\[index\] = a, p\.value = a"):
            write()
    with pytest.raises(ValueError, match="read-only"):
        np.negative(p.value, out=p.value)
    assert p.version == 0
    np.testing.assert_array_equal(p.value, before)
    stale = layer(np.ones((1, 3), np.float32))
    p[:1] = 7
    assert p.version == 1
    np.testing.assert_allclose(layer(np.ones((1, 3), np.float32)) - stale, [[21 - before[0].sum(), 0]], rtol=1e-6)


def test_what_is_made_of_a_value_is_a_plain_array():
    value = Parameter(np.ones((2, 3), np.float32)).value
    for made in (value.copy(), np.array(value), value + 1, 1 - value, np.exp(value), value.sum(0), value @ value.T):
        assert type(made) is np.ndarray
        made[...] = 5
    assert type(value.sum()) is np.float32
    assert repr(value) == repr(np.ones((2, 3), np.float32))
    assert (value == 1).all()
    assert Dense(2, 3, rng=0)(value.T).shape == (3, 3)


def test_gradient_accumulates_through_augmented_assignment():
    p = Parameter(np.zeros(3, np.float32))
    grad = p.grad
    p.grad += 2
    p.grad = p.grad * 2
    assert p.grad is grad
    np.testing.assert_array_equal(grad, [4, 4, 4])
    assert p.version == 0
    with pytest.raises(ValueError, match=r"expected shape \(3,\), got \(2,\)"):
        p.grad = np.zeros(2)


@pytest.mark.parametrize(
    ("new", "error", "message"),
    [
        (np.zeros((3, 2)), ValueError, r"w: expected shape \(2, 3\), got \(3, 2\)"),
        (np.zeros(3), ValueError, "broadcasts"),
        (np.zeros((2, 3), complex), TypeError, "real numbers, got dtype complex128"),
        ("text", TypeError, "real numbers"),
        ([[1, 2], [3]], TypeError, "cannot read"),
        (np.ma.masked_array(np.zeros((2, 3))), TypeError, "filled"),
    ],
)
def test_parameter_refuses_what_does_not_fit(new, error, message):
    p = Parameter(np.ones((2, 3), np.float32), "w")
    with pytest.raises(error, match=message):
        p.value = new
    assert p.version == 0
    np.testing.assert_array_equal(p.value, 1)


def test_parameter_is_float32_or_float64():
    for bad in (np.zeros(3, np.float16), np.zeros(3, int)):
        with pytest.raises(TypeError, match="dtype: expected float32 or float64"):
            Parameter(bad)


def test_names_follow_attributes_and_a_shared_parameter_counts_once():
    m = Tied()
    assert list(m.parameters()) == [
        "inner.0.weight",
        "inner.0.bias",
        "inner.1.weight",
        "inner.1.bias",
        "named.head.bias",
    ]
    assert m.num_parameters == 12 + 4 + 12 + 3 + 4
    assert list(model().parameters()) == ["0.weight", "1.weight", "1.bias", "3.weight", "3.bias"]


def test_flatten_keeps_identity_values_and_gradients(dtype):
    m = model(dtype)
    before = {name: (p, p.value.copy()) for name, p in m.parameters().items()}
    m[1].bias.grad[...] = 3
    arena = m.flatten()
    assert isinstance(arena, Arena)
    assert m.flatten() is arena
    assert m.arena is arena
    for (name, (p, value)), offset in zip(before.items(), arena.offsets, strict=True):
        assert m.parameters()[name] is p
        np.testing.assert_array_equal(p.value, value)
        assert p.version == 0
        assert aligned(p.value)
        assert aligned(p.grad)
        assert np.shares_memory(p.value, m.flat_parameters)
        assert np.shares_memory(p.grad, m.flat_gradients)
        assert p.value.ctypes.data == arena.values[offset:].ctypes.data
    assert m.flat_gradients.sum() == 12
    m.zero_grad()
    assert not m[1].bias.grad.any()


def test_padding_between_segments_is_zero():
    m = Sequential(Dense(3, 5, rng=0), Dense(5, 1, rng=0))
    for p in m.parameters().values():
        p[...] = 1
        p.grad[...] = 1
    assert m.flat_parameters.size == 16 * 4
    assert m.flat_parameters.sum() == m.flat_gradients.sum() == m.num_parameters
    m.flat_parameters = np.full(64, 2.0)
    assert m.flat_parameters.sum() == 2 * m.num_parameters


def test_flat_views_write_only_through_assignment():
    m = model()
    versions = [p.version for p in m.parameters().values()]
    with pytest.raises(ValueError, match="read-only"):
        m.flat_parameters[0] = 1
    m.flat_parameters = m.flat_parameters * 0 + 0.5
    assert [p.version for p in m.parameters().values()] == [v + 1 for v in versions]
    assert all((p.value == 0.5).all() for p in m.parameters().values())
    m.arena.values[:] = 0
    m.arena.bump()
    assert [p.version for p in m.parameters().values()] == [v + 2 for v in versions]
    m.flat_gradients[:] = 1
    m.flat_gradients *= 3
    assert (m[3].weight.grad == 3).all()
    with pytest.raises(ValueError, match="flat_parameters: expected shape"):
        m.flat_parameters = np.zeros(3)


def test_a_second_arena_is_an_error_until_the_first_model_is_gone():
    shared = Dense(2, 2, rng=0)
    first = Sequential(shared, Dense(2, 2, rng=0))
    first.flatten()
    second = Sequential(shared)
    with pytest.raises(ValueError, match=r"flatten: expected parameters that belong to no other.*0\.weight, 0\.bias"):
        second.flatten()
    with pytest.raises(ValueError, match="deepcopy"):
        shared.flatten()
    Sequential(copy.deepcopy(shared)).flatten()
    wrapped = Sequential(first)
    assert wrapped.flatten() is first.arena  # the very same set of parameters
    del first, wrapped
    gc.collect()
    value = shared.weight.value.copy()
    second.flatten()
    np.testing.assert_array_equal(shared.weight.value, value)


def test_a_flattened_model_cannot_change():
    m = Sequential(Dense(2, 2, rng=0))
    m.flatten()
    with pytest.raises(ValueError, match="name: cannot add 'extra'"):
        m[0].add_parameter("extra", np.zeros(2, np.float32))
    m.extra = Dense(2, 2, rng=0)
    with pytest.raises(ValueError, match="change of a flattened model"):
        m.flatten()
    assert copy.deepcopy(m).flat_parameters.size == 64


def test_one_dtype_in_a_model():
    with pytest.raises(TypeError, match=r"one dtype in a model.*float32.*float64"):
        Sequential(Dense(2, 2, rng=0), Dense(2, 2, dtype="float64", rng=0))
    mixed = Tied()
    mixed.other = Dense(2, 2, dtype="float64", rng=0)
    with pytest.raises(TypeError, match="one dtype for all parameters"):
        mixed.flatten()


def test_gradient_memory_is_made_at_first_use():
    m = model()
    m.flatten()
    m.zero_grad()
    m(np.array([1, 2]))
    assert m.arena._gradients is None
    assert m[0].weight.grad.shape == (5, 4)
    assert m.arena._gradients is not None


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("make", [model, Tied])
def test_copies_are_independent_and_rebuild_the_aliasing(duplicate, flat, make):
    m = make()
    first = next(iter(m.parameters().values()))
    first[...] = 2
    if flat:
        m.flatten()
    first.grad[...] = 4
    twin = duplicate(m)
    assert (twin._arena is not None) == flat
    assert list(twin.parameters()) == list(m.parameters())
    for name, p in twin.parameters().items():
        original = m.parameters()[name]
        assert p is not original
        assert p.version == original.version
        np.testing.assert_array_equal(p.value, original.value)
        assert not np.shares_memory(p.value, original.value)
        assert not p.grad.any()
    twin.flat_parameters = twin.flat_parameters * 0
    assert not any(p.value.any() for p in twin.parameters().values())
    assert (first.value == 2).all()
    if make is model:
        assert twin[1] is twin[2]
    else:
        assert twin.named["head"].weight is twin.inner[0].weight
        assert twin.parent is twin


def test_a_shallow_copy_shares_parameters():
    m = model()
    m.flatten()
    twin = copy.copy(m)
    assert twin.arena is m.arena
    assert twin[0] is m[0]


def test_state_dict_round_trip_is_by_copy():
    m = model()
    state = m.state_dict()
    kept = {name: a.copy() for name, a in state.items()}
    m.flat_parameters = m.flat_parameters * 0
    for name in state:
        np.testing.assert_array_equal(state[name], kept[name])
    m.load_state_dict(state)
    for name, p in m.parameters().items():
        np.testing.assert_array_equal(p.value, kept[name])
        assert p.version == 2


def test_load_state_dict_takes_foreign_arrays_and_all_names_of_a_shared_layer():
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return np.asarray(self.array, dtype)

    m = model()
    state = {name: Foreign(np.full(p.shape, 0.25)) for name, p in m._names()}
    assert "2.weight" in state
    m.load_state_dict(state)
    assert (m[2].weight.value == 0.25).all()
    state["2.weight"] = np.zeros((4, 4))
    with pytest.raises(ValueError, match=r"'2.weight': the same parameter as '1.weight'"):
        m.load_state_dict(state)


def test_load_state_dict_lists_everything_and_writes_nothing():
    m = model()
    state = m.state_dict()
    before = m.flat_parameters.copy()
    state["0.weight"] = state["0.weight"] + 1
    del state["1.bias"]
    state["3.weight"] = np.zeros((4, 3))
    state["extra"] = np.zeros(1)
    with pytest.raises(ValueError, match="state: does not fit this Sequential") as caught:
        m.load_state_dict(state)
    for part in ("missing '1.bias' (4,)", "'3.weight': expected shape (3, 4), got (4, 3)", "unexpected 'extra'"):
        assert part in str(caught.value)
    np.testing.assert_array_equal(m.flat_parameters, before)
    with pytest.raises(TypeError, match=r"state\['1.bias'\]: expected an array of real numbers"):
        m.load_state_dict({**m.state_dict(), "1.bias": "abcd"})
    with pytest.raises(TypeError, match="state: expected a mapping"):
        m.load_state_dict([1, 2])


def test_adapt_state_lets_a_layer_take_other_forms():
    class Summed(Dense):
        def adapt_state(self, state):
            if "bias_a" in state:
                state["bias"] = state.pop("bias_a") + state.pop("bias_b")
            return state

    m = Sequential(Dense(2, 2, rng=0), Summed(2, 2, rng=0))
    state = m.state_dict()
    del state["1.bias"]
    m.load_state_dict({**state, "1.bias_a": np.ones(2), "1.bias_b": np.ones(2)})
    np.testing.assert_array_equal(m[1].bias.value, [2, 2])


def test_seed_feeds_every_rng_none():
    fa.seed(3)
    a = model_without_rng().state_dict()
    b = model_without_rng().state_dict()
    fa.seed(3)
    c = model_without_rng().state_dict()
    for name in a:
        np.testing.assert_array_equal(a[name], c[name])
        assert (a[name] != b[name]).any()
    for bad, error in ((-1, ValueError), ("0", TypeError), (1.5, TypeError)):
        with pytest.raises(error, match="seed: expected a non-negative integer"):
            fa.seed(bad)
        with pytest.raises(error, match="rng: expected a non-negative integer"):
            Dense(2, 2, rng=bad)


def model_without_rng():
    return Sequential(Embedding(5, 4), Dense(4, 4))


def test_initial_weights_are_those_of_pytorch_in_distribution():
    d = Dense(100, 400, rng=0)
    for p in (d.weight, d.bias):
        assert np.abs(p.value).max() <= 0.1
        assert np.abs(p.value).max() > 0.099
        assert abs(p.value.mean()) < 0.01
        assert abs(p.value.std() - 0.1 / 3**0.5) < 0.003
    e = Embedding(100, 400, rng=0).weight.value
    assert abs(e.mean()) < 0.02
    assert abs(e.std() - 1) < 0.02
    twin = Dense(100, 400, dtype="float64", rng=0)
    np.testing.assert_array_equal(twin.weight.value.astype(np.float32), d.weight.value)


def test_what_a_cache_holds_is_no_part_of_the_model():
    class Cached(Layer):
        _transient = ("_cache",)

        def __init__(self):
            self.add_parameter("weight", np.ones(3))
            self._cache = (self.weight, Layer())

    assert [name for name, _ in Cached()._names()] == ["weight"]
    assert Cached().children() == {}
