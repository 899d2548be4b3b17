"""Attention: against the reference and PyTorch, every gradient, masks, lengths, blocks, dropout, bits, bad input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from gradients import assert_gradient, check_gradients, numeric_gradient

import fastact as fa
from fastact import reference
from fastact._core import attention as core
from fastact.nn import Attention, DotProductAttention, Sequential

# Of a score: D products, the softmax, S products; in units of eps times the sizes of the sums.
ROUNDING = 64


def drawn(shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def with_weights(layer, seed=1):
    """Weights that tell every part apart, biases too."""
    for i, p in enumerate(layer.parameters().values()):
        p.value = 0.5 * drawn(p.shape, seed + i)
    return layer


# -- the kernel against the reference ---------------------------------------------------------------------------------

SHAPES = [  # B, h, T, S, D, V
    (1, 1, 1, 1, 1, 1),
    (2, 3, 5, 7, 4, 3),
    (3, 2, 17, 16, 9, 15),
    (1, 2, 33, 65, 16, 8),
    (2, 1, 300, 400, 3, 2),  # several blocks of queries
    (2, 2, 0, 3, 4, 4),
    (2, 2, 3, 0, 4, 4),
    (0, 2, 3, 3, 4, 4),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_against_the_reference(shape, causal, ragged, dtype, isa):
    B, h, T, S, D, V = shape
    q, k, v = (drawn(s, i, dtype) for i, s in enumerate([(B, h, T, D), (B, h, S, D), (B, h, S, V)]))
    dy = drawn((B, h, T, V), 3, dtype)
    lengths = np.random.default_rng(4).integers(0, S + 1, B) if ragged else None
    layer = DotProductAttention(causal=causal)
    y, backward = layer.forward(q, k, v, lengths=lengths)
    found = backward(dy)
    seen = reference.visible(B, T, S, causal, lengths)
    expected_y, expected_p = reference.attention(q, k, v, D**-0.5, seen)
    bound = ROUNDING * np.finfo(dtype).eps * (D + S + T) * max(abs(a).max(initial=1) for a in (q, k, v, dy)) ** 3
    assert abs(y - expected_y).max(initial=0) <= bound
    for got, expected in zip(found, reference.attention_backward(dy, q, k, v, D**-0.5, seen), strict=True):
        assert got.dtype == dtype
        assert got.shape == expected.shape
        assert abs(got - expected).max(initial=0) <= bound
    result = layer.run(q, k, v, lengths=lengths)
    np.testing.assert_array_equal(result.y, y)
    np.testing.assert_array_equal(layer(q, k, v, lengths=lengths), y)
    np.testing.assert_allclose(result.weights, expected_p, rtol=1e4 * np.finfo(dtype).eps, atol=np.finfo(dtype).eps)


def test_scale_and_mask():
    q, k, v = drawn((2, 3, 5, 4)), drawn((2, 3, 6, 4), 1), drawn((2, 3, 6, 4), 2)
    mask = np.random.default_rng(3).random((2, 1, 5, 6)) < 0.6
    mask[1, 0, 2] = False  # sees nothing
    layer = DotProductAttention(scale=0.7)
    y, backward = layer.forward(q, k, v, mask=mask)
    np.testing.assert_allclose(y, reference.attention(q, k, v, 0.7, mask)[0], rtol=1e-13, atol=1e-13)
    dy = drawn(y.shape, 4)
    for got, expected in zip(backward(dy), reference.attention_backward(dy, q, k, v, 0.7, mask), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(layer(q, k, v, mask=mask[0, 0]), layer(q, k, v, mask=np.stack([mask[0], mask[0]])))


def test_a_query_that_sees_nothing_gets_zeros_and_gives_none():
    q, k, v = drawn((2, 3, 4)), drawn((2, 5, 4), 1), drawn((2, 5, 4), 2)
    k[1], v[1] = np.nan, np.inf  # padding is never read
    y, backward = DotProductAttention().forward(q, k, v, lengths=[5, 0])
    assert np.isfinite(y).all()
    assert not y[1].any()
    for d in backward(np.ones_like(y)):
        assert np.isfinite(d).all()
        assert d[0].any() or d is None
        assert not d[1].any()


@pytest.mark.parametrize("causal", [False, True])
def test_same_bits_for_any_threads_and_layout(causal, dtype, n_threads):
    arrays = [drawn((4, 3, 130, 24), i, dtype) for i in range(4)]
    lengths = [130, 1, 60, 129]

    def run(q, k, v, dy):
        y, backward = DotProductAttention(causal=causal, dropout=0.1, rng=np.random.default_rng(5)).forward(
            q, k, v, lengths=lengths
        )
        return y, *backward(dy)

    with fa.num_threads(1):
        expected = run(*arrays)
    for got in (run(*arrays), run(*(np.ascontiguousarray(a.swapaxes(1, 2)).swapaxes(1, 2) for a in arrays))):
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_operands_of_any_layout_and_type():
    q = np.random.default_rng(0).integers(-2, 3, (2, 4, 6))
    layer = DotProductAttention()
    expected = layer(q.astype(float))
    backing = np.zeros((2, 4, 12))
    backing[..., ::2] = q
    unaligned = np.frombuffer(b"\0" + q.astype(float).tobytes(), np.uint8)[1:].view("f8").reshape(q.shape)
    for same in (q, q.tolist(), backing[..., ::2], np.asfortranarray(q.astype(float)), q.astype(">f8"), unaligned):
        np.testing.assert_array_equal(layer(same), expected)
    assert layer(q.astype(np.float16)).dtype == np.float32
    assert layer(q.astype(np.float32), q.astype(float)).dtype == np.float64


# -- gradients by differences -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_of_queries_keys_and_values(given, causal):
    arrays = [drawn((2, 3, 4), i) for i in range(given)]
    layer = DotProductAttention(causal=causal)
    y, backward = layer.forward(*arrays, lengths=[3, 2])
    dy = drawn(y.shape, 7)
    found = backward(dy)
    for i, (a, d) in enumerate(zip(arrays, found if given > 1 else [found], strict=True)):
        assert_gradient(str(i), d, numeric_gradient(lambda: np.sum(layer(*arrays, lengths=[3, 2]) * dy), a))


KINDS = {
    "self": {},
    "one head": {"num_heads": 1},
    "causal": {"causal": True},
    "no bias": {"bias": False},
    "dropout": {"dropout": 0.3},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T", [1, 5])
def test_gradients_of_self_attention(kind, T):
    layer = with_weights(Attention(6, **{"num_heads": 2, "dtype": "float64", **KINDS[kind]}))
    lengths = np.array([T, 1, 0])

    def forward(x):
        layer.rng = np.random.default_rng(9)  # the same dropout each time
        return layer.forward(x, lengths=lengths)

    check_gradients(layer, drawn((3, T, 6)), forward=forward)


@pytest.mark.parametrize("widths", [{}, {"kdim": 3}, {"vdim": 4}, {"kdim": 3, "vdim": 3}, {"kdim": 5, "vdim": 3}])
@pytest.mark.parametrize("with_values", [False, True])
def test_gradients_of_cross_attention(widths, with_values):
    layer = with_weights(Attention(4, 2, dtype="float64", **widths))
    memory, values = drawn((2, 5, layer.kdim), 1), drawn((2, 5, layer.vdim), 2) if with_values else None
    if not with_values and layer.kdim != layer.vdim:
        with pytest.raises(ValueError, match="values"):
            layer(drawn((2, 3, 4)), memory)
        return
    x = drawn((2, 3, 4))

    def forward(x):
        return layer.forward(x, memory, values=values, lengths=[5, 3])

    check_gradients(layer, x, forward=forward)
    y, backward = forward(x)
    dy = drawn(y.shape, 3)
    backward(dy)

    def total():
        return np.sum(layer(x, memory, values=values, lengths=[5, 3]) * dy)

    assert_gradient("memory", backward.dmemory, numeric_gradient(total, memory))
    if with_values:
        assert_gradient("values", backward.dvalues, numeric_gradient(total, values))
    else:
        assert backward.dvalues is None


def test_gradients_without_that_of_the_input_and_added_up():
    layer = with_weights(Attention(4, 2, dtype="float64"))
    x, dy = drawn((2, 3, 4)), drawn((2, 3, 4), 1)
    layer.forward(x)[1](dy)
    once = {name: p.grad.copy() for name, p in layer.parameters().items()}
    assert layer.forward(x)[1](dy, input_gradient=False) is None
    for name, p in layer.parameters().items():
        np.testing.assert_allclose(p.grad, 2 * once[name], rtol=1e-13, atol=1e-14)  # a product adds to what is there


# -- dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_takes_its_share_and_keeps_the_mean():
    S, p = 4000, 0.25
    q, v = np.zeros((1, 40, 8)), np.eye(S)[np.newaxis]
    layer = DotProductAttention(dropout=p, rng=0)
    k = np.zeros((1, S, 8))
    y = layer.forward(q, k, v)[0] * S  # the weights, 1 each without dropout
    assert set(np.unique(y.round(9))) == {0.0, round(1 / (1 - p), 9)}
    n = y.size
    assert abs((y == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
    kept = y[0] > 0
    assert abs((kept[:-1] == kept[1:]).mean() - (p**2 + (1 - p) ** 2)) < 5 * np.sqrt(0.25 / n)  # rows are independent
    assert (layer.forward(q, k, v)[0] * S != y).any()
    assert (layer(q, k, v) == layer(q, k, v)).all()
    np.testing.assert_allclose(layer(q, k, v) * S, 1)  # none in inference


def test_dropout_against_the_reference(dtype):
    q, k, v, dy = (drawn((2, 2, 50, 6), i, dtype) for i in range(4))
    layer = DotProductAttention(dropout=0.4, rng=3)
    seed = copy.deepcopy(layer)
    y, backward = layer.forward(q, k, v)
    ones = np.broadcast_to(np.eye(50, dtype=dtype), (2, 2, 50, 50))
    seed.scale = 6**-0.5
    factors = seed.forward(q, k, ones)[0] / DotProductAttention(scale=6**-0.5).run(q, k, ones).weights
    expected = reference.attention(q, k, v, 6**-0.5, True, factors)[0]
    tolerance = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=tolerance, atol=10 * tolerance)
    for got, d in zip(backward(dy), reference.attention_backward(dy, q, k, v, 6**-0.5, True, factors), strict=True):
        np.testing.assert_allclose(got, d, rtol=tolerance, atol=20 * tolerance)


# -- as a layer -------------------------------------------------------------------------------------------------------


def test_state_copies_files_and_inference_after_a_change(tmp_path):
    layer = Attention(8, 2, causal=True, rng=0)
    x = drawn((2, 5, 8), dtype=np.float32)
    y = layer(x)
    for same in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(same(x), y)
    fa.save(Sequential(layer, fa.nn.Dense(8, 2, rng=0)), tmp_path / "model.safetensors")
    loaded = fa.load(tmp_path / "model.safetensors")[0]
    np.testing.assert_array_equal(loaded(x), y)
    assert repr(loaded) == repr(layer)
    layer.in_proj_weight[:8] = 0  # the prepacked one is stale
    np.testing.assert_allclose(layer(x), layer.forward(x)[0], rtol=1e-5, atol=1e-6)
    assert (layer(x) != y).any()


def test_initial_weights_are_pytorch_s_kind():
    layer = Attention(64, 4, rng=0)
    assert abs(layer.in_proj_weight.value).max() <= np.sqrt(6 / (4 * 64))
    assert not layer.in_proj_bias.value.any()
    assert not layer.out_proj.bias.value.any()
    np.testing.assert_array_equal(Attention(64, 4, rng=0).in_proj_weight.value, layer.in_proj_weight.value)
    assert Attention.takes_lengths
    assert DotProductAttention.takes_lengths


def test_one_step_of_training_makes_a_causal_copy_better():
    fa.seed(0)
    x = np.random.default_rng(0).integers(0, 5, (64, 12))
    y = np.concatenate([x[:, :1], x[:, :-1]], axis=1)  # the token before
    model = Sequential(
        fa.nn.Embedding(5 * 12, 16), Attention(16, 2, causal=True), fa.nn.Dense(16, 32, "relu"), fa.nn.Dense(32, 5)
    )
    x = x + 5 * np.arange(12)  # token and place
    trainer = fa.Trainer(model, optimizer=fa.optim.Adam(1e-2), seed=0)
    losses = trainer.fit(x, y, epochs=120, batch_size=16)["loss"]
    assert losses[-1] < 0.1 < 1 < losses[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Attention(6, 4), "num_heads: expected a divisor of embed_dim = 6, got 4"),
        (lambda: Attention(4, dropout=1.0), "dropout"),
        (lambda: Attention(4)(np.ones((2, 3, 5))), r"x: expected shape \(B, T, 4\), got \(2, 3, 5\)"),
        (lambda: Attention(4)(np.ones((3, 4))), "x: expected shape"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), np.ones((3, 3, 4))), r"memory: expected shape \(2, S, 4\)"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), values=np.ones((2, 3, 4))), "memory: expected an array"),
        (lambda: Attention(4, kdim=3)(np.ones((2, 3, 4))), "memory: expected an array"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), lengths=[3]), "lengths: expected one for each of the 2"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), lengths=[3, 4]), "lengths: expected each from 0 to T = 3"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), lengths=[1.5, 2]), "lengths: expected integers"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), mask=np.ones((3, 3))), "mask: expected booleans"),
        (lambda: Attention(4)(np.ones((2, 3, 4)), mask=np.ones((2, 3, 3), bool)[:, :, :2]), "mask: expected a shape"),
        (lambda: DotProductAttention()(np.ones((3, 4))), "q: expected shape"),
        (lambda: DotProductAttention()(np.ones((2, 3, 4)), np.ones((2, 3, 5))), "k: expected shape"),
        (lambda: DotProductAttention()(np.ones((2, 3, 4)), np.ones(4)), "k: expected shape"),
        (lambda: DotProductAttention()(np.ones((2, 3, 4)), v=np.ones((2, 4, 4))), "v: expected shape"),
        (lambda: DotProductAttention()(np.ones((2, 3, 4)) * 1j), "q: expected an array of real"),
        (lambda: DotProductAttention(scale=0), "scale"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_core_refuses_what_would_leave_an_array():
    a = np.ones((2, 3, 4, 5))
    y = np.empty((2, 3, 4, 5))
    plain = (1.0, False, None, None, 0.0, 0)
    with pytest.raises(ValueError, match="lengths"):
        core.forward((a, a, a), y, (1.0, False, np.array([3, 4]), None, 0.0, 0))
    with pytest.raises(ValueError, match="k:"):
        core.forward((a, a[..., :4], a), y, plain)
    with pytest.raises(ValueError, match="v:"):
        core.forward((a, a, a[:, :2]), y, plain)
    with pytest.raises(ValueError, match="y:"):
        core.forward((a, a, a), y[:, :, :2], plain)
    with pytest.raises(ValueError, match="weights"):
        core.forward((a, a, a), y, plain, np.zeros((2, 4, 3, 2)))
    with pytest.raises(ValueError, match="dv"):
        core.backward(y, (a, a, a), (a.copy(), a.copy(), a.astype("f4")), plain)


# -- PyTorch ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 10}])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["plain", "causal", "lengths"])
def test_against_pytorch(widths, bias, kind):
    torch = pytest.importorskip("torch")
    B, T, E, h = 3, 9, 8, 2
    S = 7 if widths else T
    theirs = torch.nn.MultiheadAttention(E, h, batch_first=True, bias=bias, dtype=torch.float64, **widths)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.from_numpy(0.5 * drawn(tuple(p.shape))))
    ours = Attention(E, h, bias=bias, causal=kind == "causal", dtype="float64", **widths)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    x, memory, values = drawn((B, T, E), 1), drawn((B, S, widths.get("kdim", E)), 2), drawn((B, S, ours.vdim), 3)
    arrays = [x, memory, values] if widths else [x]
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    lengths = np.array([S, 2, 5]) if kind == "lengths" else None
    options = {}
    if kind == "causal":
        options["attn_mask"] = torch.from_numpy(~reference.visible(1, T, S, True)[0, 0])
    if lengths is not None:
        options["key_padding_mask"] = torch.from_numpy(np.arange(S) >= lengths[:, None])
    y, weights = theirs(*(tensors if widths else tensors * 3), average_attn_weights=False, **options)
    dy = drawn((B, T, E), 4)
    y.backward(torch.from_numpy(dy))
    call = (x, memory) if widths else (x,)
    more = {"values": values} if widths else {}
    result, backward = ours.forward(*call, **more, lengths=lengths)
    dx = backward(dy)
    close = {"rtol": 1e-11, "atol": 1e-12}
    np.testing.assert_allclose(result, y.detach().numpy(), **close)
    np.testing.assert_allclose(ours.run(*call, **more, lengths=lengths).weights, weights.detach().numpy(), **close)
    for got, tensor in zip([dx, backward.dmemory, backward.dvalues], tensors, strict=False):
        np.testing.assert_allclose(got, tensor.grad.numpy(), **close)
    for name, p in theirs.named_parameters():
        np.testing.assert_allclose(ours.parameters()[name].grad, p.grad.numpy(), **close)
