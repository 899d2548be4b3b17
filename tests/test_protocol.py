"""Arrays of other libraries: Dask, xarray, pandas, masked arrays, subclasses, bfloat16; out=, where=, dtype=.

What comes back is of the library's own type, with the numbers that the plain array gives.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastact as fa

ROWS, COLUMNS = 6, 8
PLAIN = np.random.default_rng(0).normal(size=(ROWS, COLUMNS)).astype(np.float32)
OTHER = np.random.default_rng(1).normal(size=(ROWS, COLUMNS)).astype(np.float32)

# Each call, given the array and another of its kind.
ELEMENTWISE = {
    "gelu": lambda x, dy: fa.gelu(x),
    "leaky_relu": lambda x, dy: fa.leaky_relu(x, alpha=0.2),
    "prelu's backward": lambda x, dy: fa.prelu.backward(dy, x=x),
    "rrelu": lambda x, dy: fa.rrelu(x),
    "derivative": lambda x, dy: fa.gelu.derivative(x),
    "derivative2": lambda x, dy: fa.softplus.derivative(x, order=2, beta=2.0),
    "backward": lambda x, dy: fa.gelu.backward(dy, x=x),
    "backward with parameter": lambda x, dy: fa.leaky_relu.backward(dy, x=x, alpha=0.3),
    "backward from y": lambda x, dy: fa.tanh.backward(dy, y=x),
}
ROWWISE = {
    "softmax": lambda x, dy: fa.softmax(x),
    "softmax down": lambda x, dy: fa.softmax(x, axis=0),
    "log_softmax": lambda x, dy: fa.log_softmax(x, axis=-2),
    "backward": lambda x, dy: fa.softmax.backward(dy, y=x),
    "backward down": lambda x, dy: fa.log_softmax.backward(dy, y=x, axis=0),
}
BOTH = [pytest.param(call, id=name) for name, call in ELEMENTWISE.items()]
BOTH += [pytest.param(call, id=f"rows: {name}") for name, call in ROWWISE.items()]
on_both = pytest.mark.parametrize("call", BOTH)


@on_both
def test_dask(call):
    dask = pytest.importorskip("dask.array")
    x, dy = (dask.from_array(a, chunks=(ROWS, COLUMNS)) for a in (PLAIN, OTHER))
    y = call(x, dy)
    assert type(y) is dask.Array
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y.compute(), call(PLAIN, OTHER))


@pytest.mark.parametrize("call", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_dask_in_chunks(call):
    dask = pytest.importorskip("dask.array")
    x, dy = (dask.from_array(a, chunks=(4, 3)) for a in (PLAIN, OTHER))
    np.testing.assert_array_equal(call(x, dy).compute(), call(PLAIN, OTHER))


def test_dask_rows():
    dask = pytest.importorskip("dask.array")
    x = dask.from_array(PLAIN, chunks=(2, COLUMNS))
    assert fa.softmax(x).chunks == x.chunks
    np.testing.assert_array_equal(fa.softmax(x).compute(), fa.softmax(PLAIN))
    np.testing.assert_array_equal(fa.softmax(x, where=x < 1).compute(), fa.softmax(PLAIN, where=PLAIN < 1))
    np.testing.assert_array_equal(fa.gelu(x, dtype="f8").compute(), np.float64(fa.gelu(PLAIN)))  # as np.sin on Dask
    shown = dask.where(x > 0, fa.gelu(x, where=x > 0), 0)
    np.testing.assert_array_equal(shown.compute(), np.where(PLAIN > 0, fa.gelu(PLAIN), 0))
    with pytest.raises(ValueError, match=r"got chunks \(2, 2, 2\) along axis 0; use x.rechunk\({0: -1}\)"):
        fa.softmax(x, axis=0)
    assert fa.leaky_relu(x.astype("i1")).dtype == np.sin(PLAIN.astype("i1")).dtype
    assert fa.leaky_relu(x, alpha=dask.from_array(OTHER[0], chunks=4)).compute().shape == x.shape


@on_both
def test_xarray(call):
    xarray = pytest.importorskip("xarray")
    coords = {"time": np.arange(ROWS) * 10, "unit": list("abcdefgh")}
    x, dy = (xarray.DataArray(a, coords, ("time", "unit"), attrs={"units": "mV"}) for a in (PLAIN, OTHER))
    y = call(x, dy)
    assert type(y) is xarray.DataArray
    assert y.dims == ("time", "unit")
    assert y.dtype == np.float32
    assert (y.time == x.time).all()
    np.testing.assert_array_equal(y.to_numpy(), call(PLAIN, OTHER))
    np.testing.assert_array_equal(call(x.variable, dy.variable).to_numpy(), call(PLAIN, OTHER))


def test_xarray_rows():
    xarray = pytest.importorskip("xarray")
    x = xarray.DataArray(PLAIN, dims=("time", "unit"))
    np.testing.assert_array_equal(fa.softmax(x, axis="time"), fa.softmax(PLAIN, axis=0))
    turned = fa.softmax.backward(xarray.DataArray(OTHER.T, dims=("unit", "time")), y=fa.softmax(x), axis="unit")
    np.testing.assert_array_equal(turned.transpose("time", "unit"), fa.softmax.backward(OTHER, y=fa.softmax(PLAIN)))
    np.testing.assert_array_equal(fa.softmax(x, where=x < 1), fa.softmax(PLAIN, where=PLAIN < 1))
    with pytest.raises(ValueError, match=r"axis: expected one of the dimensions \('time', 'unit'\), got 'space'"):
        fa.softmax(x, axis="space")
    dataset = xarray.Dataset({"u": x, "v": x * 2})
    np.testing.assert_array_equal(fa.softmax(dataset, axis="unit").v, fa.softmax(2 * PLAIN))
    np.testing.assert_array_equal(fa.gelu(dataset).v, fa.gelu(2 * PLAIN))
    with pytest.raises(TypeError, match="axis: a Dataset has no order of dimensions"):
        fa.softmax(dataset)


def test_slopes_along_an_axis():
    xarray, dask = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    slopes = np.linspace(0.1, 0.6, ROWS, dtype=np.float32)
    want = fa.prelu(PLAIN, alpha=slopes, axis=0)
    for x in (dask.from_array(PLAIN, chunks=(4, 3)), xarray.DataArray(PLAIN, dims=("time", "unit"))):
        y = fa.prelu(x, alpha=slopes, axis=0)
        assert type(y) is type(x)
        np.testing.assert_array_equal(np.asarray(y), want)
    np.testing.assert_array_equal(fa.prelu(x, alpha=slopes, axis="time"), want)


def test_xarray_over_dask():
    xarray, dask = pytest.importorskip("xarray"), pytest.importorskip("dask.array")
    x = xarray.DataArray(PLAIN, dims=("time", "unit")).chunk({"time": 2, "unit": -1})
    y = fa.softmax(x)
    assert type(y.data) is dask.Array
    np.testing.assert_array_equal(y.compute(), fa.softmax(PLAIN))
    assert type(fa.leaky_relu(x, alpha=0.5).data) is dask.Array


@on_both
def test_pandas(call):
    pandas = pytest.importorskip("pandas")
    x, dy = (pandas.DataFrame(a, index=range(10, 10 + ROWS), columns=list("abcdefgh")) for a in (PLAIN, OTHER))
    y = call(x, dy)
    assert type(y) is pandas.DataFrame
    assert (y.dtypes == np.float32).all()
    assert list(y.index) == list(x.index)
    assert list(y.columns) == list(x.columns)
    np.testing.assert_array_equal(y.to_numpy(), call(PLAIN, OTHER))


@pytest.mark.parametrize("call", [*ELEMENTWISE.values(), ROWWISE["softmax"], ROWWISE["backward"]])
def test_pandas_series(call):
    pandas = pytest.importorskip("pandas")
    x, dy = (pandas.Series(a[0], index=list("abcdefgh"), name="u") for a in (PLAIN, OTHER))
    y = call(x, dy)
    assert type(y) is pandas.Series
    assert y.dtype == np.float32
    assert list(y.index) == list(x.index)
    np.testing.assert_array_equal(y, call(PLAIN[0], OTHER[0]))


def test_pandas_columns_of_several_types():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": PLAIN[:, 0], "b": PLAIN[:, 1].astype("f8"), "c": np.arange(ROWS)})
    for axis in (0, 1):
        want = fa.softmax(frame.to_numpy(), axis=axis)
        np.testing.assert_array_equal(fa.softmax(frame, axis=axis).to_numpy(), want)
        shown = frame.to_numpy() < 1
        np.testing.assert_array_equal(
            fa.softmax(frame, axis=axis, where=shown), fa.softmax(frame.to_numpy(), axis=axis, where=shown)
        )
    series = pandas.Series([1, None, 3.0], dtype="Float64")
    for y in (fa.gelu(series), fa.leaky_relu(series, alpha=0.2)):
        assert y.dtype == "Float64"
        assert y.isna().tolist() == [False, True, False]


@pytest.mark.parametrize("call", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_masked_arrays(call):
    x, dy = np.ma.array(PLAIN, mask=PLAIN > 1), np.ma.array(OTHER, mask=OTHER < -1)
    y = call(x, dy)
    assert type(y) is np.ma.MaskedArray
    want = call(PLAIN, OTHER)
    uses_dy = not np.array_equal(want, call(PLAIN, 2 * OTHER))
    np.testing.assert_array_equal(np.ma.getmaskarray(y), (PLAIN > 1) | ((OTHER < -1) & uses_dy))
    np.testing.assert_array_equal(y.compressed(), want[~y.mask])
    np.testing.assert_array_equal(x.data, PLAIN)


def test_masked_rows():
    """Masked entries of x count as -inf, those of dy as 0, whatever lies beneath; the output stays masked there."""
    x = np.ma.array(np.where(PLAIN > 1, np.nan, PLAIN), mask=PLAIN > 1)
    y = fa.softmax(x)
    np.testing.assert_array_equal(y.mask, x.mask)
    np.testing.assert_array_equal(y.filled(0), fa.softmax(PLAIN, where=PLAIN <= 1))
    dy = np.ma.array(np.where(OTHER < -1, np.inf, OTHER), mask=OTHER < -1)
    for f in (fa.softmax, fa.log_softmax):
        dx = f.backward(dy, y=f(x))
        np.testing.assert_array_equal(dx.mask, dy.mask | x.mask)
        shown = ~dx.mask
        want = f.backward(np.where(shown, OTHER, 0), y=f(PLAIN, where=PLAIN <= 1))
        np.testing.assert_array_equal(dx.data[shown], want[shown])


class Subclass(np.ndarray):
    """An array with a note that goes along."""

    def __array_finalize__(self, obj):
        self.note = getattr(obj, "note", None)


@on_both
def test_subclasses(call):
    x, dy = PLAIN.view(Subclass), OTHER.view(Subclass)
    x.note = dy.note = "kept"
    y = call(x, dy)
    assert type(y) is Subclass
    np.testing.assert_array_equal(np.asarray(y), call(PLAIN, OTHER))


def test_subclass_with_a_mask():
    y = fa.softmax(PLAIN.view(Subclass), where=PLAIN < 1)
    assert type(y) is Subclass
    np.testing.assert_array_equal(np.asarray(y), fa.softmax(PLAIN, where=PLAIN < 1))


@on_both
def test_bfloat16(call):
    """In and out, computed in float32 and rounded once."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, dy = PLAIN.astype(ml_dtypes.bfloat16), OTHER.astype(ml_dtypes.bfloat16)
    y = call(x, dy)
    assert y.dtype == x.dtype
    want = call(x.astype(np.float32), dy.astype(np.float32)).astype(x.dtype)
    np.testing.assert_array_equal(y.view(np.uint16), want.view(np.uint16))


def test_bfloat16_options():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = PLAIN.astype(ml_dtypes.bfloat16)
    assert fa.gelu(x, dtype=np.float32).dtype == np.float32
    assert fa.softmax(x, dtype=np.float32).dtype == np.float32
    assert fa.gelu.backward(OTHER, x=x).dtype == np.float32
    out = np.empty_like(x)
    assert fa.gelu(x, out=out) is out
    np.testing.assert_array_equal(out, fa.gelu(x))
    assert fa.leaky_relu(x, alpha=OTHER[0]).shape == x.shape
    np.testing.assert_array_equal(fa.softmax(x, where=PLAIN < 1) == 0, PLAIN >= 1)


@pytest.mark.parametrize("call", ELEMENTWISE.values(), ids=ELEMENTWISE)
@pytest.mark.parametrize("kind", ["?", "b", "B", "h", "i", "l", "e", "f", "d", ">f4"])
def test_dtype_as_sin(call, kind):
    x = PLAIN.astype(kind)
    assert call(x, x).dtype == np.sin(x).dtype


OPTIONED = {
    "forward": lambda **options: fa.leaky_relu(PLAIN, alpha=0.2, **options),
    "backward": lambda **options: fa.leaky_relu.backward(OTHER, x=PLAIN, **options),
    "derivative": lambda **options: fa.gelu.derivative(PLAIN, 2, **options),
}


@pytest.mark.parametrize("call", OPTIONED.values(), ids=OPTIONED)
def test_out_where_dtype(call):
    want = call()
    out = np.full(PLAIN.shape, 7, np.float32)
    assert call(out=out, where=PLAIN > 0) is out
    np.testing.assert_array_equal(out, np.where(PLAIN > 0, want, 7))
    wide = call(dtype=np.float64)
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide, want, rtol=1e-6)
    masked = np.ma.masked_array(np.zeros_like(PLAIN))
    assert call(out=masked) is masked
    np.testing.assert_array_equal(masked, want)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_row_that_is_masked_whole(name, isa, dtype):
    """Zeros, no NaN; -inf from log_softmax; nothing flows back."""
    f = fa.activations[name]
    x = PLAIN.astype(dtype)
    shown = np.ones(x.shape, bool)
    shown[1] = False
    with np.errstate(all="raise"):
        for axis, mask in ((-1, shown), (0, shown.T)):
            y = f(x if axis else x.T, where=mask, axis=axis)
            y = y if axis else y.T
            assert (y[1] == (0 if name == "softmax" else -np.inf)).all()
            np.testing.assert_array_equal(y[0], f(x)[0])
    assert not f.backward(np.ones_like(y), y=y)[1].any()
