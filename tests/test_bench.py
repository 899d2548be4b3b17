"""The benchmarks: the NumPy yardstick is right, contenders agree, figures and the JSON file are as documented."""

from __future__ import annotations

import dataclasses
import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from fastact.bench import (
    catalogue,
    cli,
    convergence,
    formulas,
    numpy_lstm,
    peers,
    recurrent,
    roofline,
    shapes,
    tables,
    timing,
    worker,
)

import fastact as fa
from fastact import reference
from fastact._core import probe


def language_model(rng, V=7, E=3, H=5, layers=2):
    """Random weights, large enough to tell every gate apart."""
    shapes = {"0.weight": (V, E)}
    for layer in range(layers):
        shapes |= {
            f"1.weight_ih_l{layer}": (4 * H, H if layer else E),
            f"1.weight_hh_l{layer}": (4 * H, H),
            f"1.bias_ih_l{layer}": (4 * H,),
            f"1.bias_hh_l{layer}": (4 * H,),
        }
    shapes |= {"2.weight": (V, H), "2.bias": (V,)}
    return {name: rng.normal(0, 0.7, shape) for name, shape in shapes.items()}


def hold_to_differences(function, name, array, gradient, rng, tolerance, step=1e-6):
    """Some entries of the gradient by ``array`` against central differences of the scalar ``function()``."""
    for index in zip(*(rng.integers(0, n, 6) for n in array.shape), strict=True):
        kept, values = array[index], []
        for offset in (step, -step):
            array[index] = kept + offset
            values.append(function())
        array[index] = kept
        assert gradient[index] == pytest.approx((values[0] - values[1]) / (2 * step), abs=tolerance), (name, index)


def test_language_model_gradients_are_those_of_its_loss():
    rng = np.random.default_rng(1)
    B, T, H, V = 2, 6, 5, 7
    parameters = language_model(rng, V=V, H=H)
    x, y = rng.integers(0, V, (2, B, T))
    state = rng.normal(size=(2, 2, B, H))
    buffers = numpy_lstm.Buffers()

    def loss():
        return numpy_lstm.language_model_gradients(parameters, x, y, state, buffers)[0]

    _, gradients, _ = numpy_lstm.language_model_gradients(parameters, x, y, state, buffers)
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    for name, value in parameters.items():
        hold_to_differences(loss, name, value, gradients[name], rng, tolerance=1e-8)


@pytest.mark.parametrize("steps", [1, 70])
def test_layer_gradients_of_input_and_initial_state(steps):
    rng = np.random.default_rng(2)
    B, inputs, H = 3, 4, 5
    layer = numpy_lstm.LSTMLayer(*(rng.normal(0, 0.5, s) for s in [(4 * H, inputs), (4 * H, H), 4 * H, 4 * H]))
    x, h0, c0 = rng.normal(size=(steps, B, inputs)), rng.normal(size=(B, H)), rng.normal(size=(B, H))
    dy, dh, dc = rng.normal(size=(steps, B, H)), rng.normal(size=(B, H)), rng.normal(size=(B, H))

    def value():
        y, (h, c) = layer.run(x, (h0, c0))
        return np.sum(y * dy) + np.sum(h * dh) + np.sum(c * dc)

    y, _, backward = layer.forward(x, (h0, c0))
    gradients = backward(dy, (dh, dc))
    gradients = {name: gradient.copy() for name, gradient in gradients.items()}
    np.testing.assert_allclose(y, layer.run(x, (h0, c0))[0], rtol=1e-12)
    for name, array in [("x", x), ("h0", h0), ("c0", c0)]:
        hold_to_differences(value, name, array, gradients[name], rng, tolerance=2e-8)


@pytest.mark.parametrize("section", worker.SECTIONS)
def test_everybody_agrees_and_is_timed(section):
    items = list(worker.run((section,), level="tiny", threads=1, dtypes=("float32", "float64")))
    rows = [item["row"] for item in items if "row" in item]
    for measured in rows:
        assert not measured["failed"], (measured["name"], measured["failed"])
        assert measured["times_ns"]["fastact"] > 0
        if section not in ("activations", "values", *worker.WITHOUT_NUMPY):
            assert measured["times_ns"]["NumPy"] > 0
        assert section == "calls" or measured["limit_ns"] > 0
    dtypes = {"float32"} if section in worker.FLOAT32_ALONE else {"float32", "float64"}
    assert {measured["dtype"] for measured in rows} == dtypes
    if section == "activations":
        assert {measured["name"] for measured in rows} == {
            f"{name} {kind}" for name in fa.activations for kind in ("forward", "backward")
        }
        lengths = {measured["shape"] for measured in rows if measured["name"] == "softmax forward"}
        assert lengths == {"100", "rows of 6", "rows of 4, axis 0"}
        without = {measured["name"] for measured in rows if "NumPy" not in measured["times_ns"]}
        assert {name.split()[0] for name in without if not fa.activations[name.split()[0]].rowwise} == {"gelu", "erf"}


def test_a_wrong_result_is_reported_and_not_timed():
    right, wrong = np.ones(3), np.array([1, 1, 1.1])
    contenders = [timing.Contender("fastact", lambda: right), timing.Contender("other", lambda: wrong)]
    case = timing.Case("product", "p", "3", "float64", contenders, 1, "ms", tolerance=1e-6)
    row = timing.measure(case, threads=1, rounds=1, seconds=0)
    assert set(row.times_ns) == {"fastact"}
    assert "differs by 0.1" in row.failed["other"]
    assert row.errors["other"] == pytest.approx(0.1)


def test_a_nan_is_a_wrong_result_and_an_exception_is_told():
    def broken():
        raise NotImplementedError("no such operation")

    contenders = [
        timing.Contender("fastact", lambda: np.ones(2)),
        timing.Contender("a", lambda: np.array([1, np.nan])),
        timing.Contender("b", broken),
        timing.Contender("c", lambda: np.ones(3)),
    ]
    case = timing.Case("product", "p", "2", "float64", contenders, 1, "ms", tolerance=1e-6)
    row = timing.measure(case, threads=1, rounds=1, seconds=0)
    assert set(row.failed) == {"a", "b", "c"}
    assert row.failed["b"] == "NotImplementedError: no such operation"


def test_contenders_take_turns_and_the_minimum_counts():
    order = []

    def run(name):
        order.append(name)
        return np.zeros(1)

    contenders = [timing.Contender(name, lambda name=name: run(name)) for name in ("fastact", "other")]
    case = timing.Case("product", "p", "1", "float64", contenders, 1, "ms", tolerance=1e-6)
    timing.measure(case, threads=1, rounds=3, seconds=0)
    turns = [name for i, name in enumerate(order) if i == 0 or order[i - 1] != name]
    assert turns == ["fastact", "other"] * 4  # the check, then three rounds


def row(**fields):
    return {
        "section": "activations", "name": "sigmoid forward", "shape": "1M", "dtype": "float32", "threads": 2,
        "unit": "ns/element", "work": 1 << 20, "limit_ns": 2e4, "limit": "copy", "barrier_ns": 60.0,
        "times_ns": {"fastact": 1e5, "NumPy": 4e5, "PyTorch": 9e4}, "errors": {}, "failed": {},
    } | fields  # fmt: skip


def test_losing_cells_are_marked_and_listed_first():
    rows = [row(), row(name="tanh forward", times_ns={"fastact": 1e5, "PyTorch": 5e4})]
    assert tables.losing(rows[0]) == [("PyTorch", pytest.approx(0.9))]
    assert tables.losing(row(work=1 << 25)) == []  # 0.90 is equal from 32M elements on
    assert tables.losing(row(section="calls", times_ns={"fastact": 119.0, "NumPy": 100.0})) == []
    assert tables.losing(row(section="calls", times_ns={"fastact": 121.0, "NumPy": 100.0})) != []
    assert "(0.90)!" in tables.line(rows[0], ["fastact", "NumPy", "PyTorch"])
    assert "(4.00) " in tables.line(rows[0], ["fastact", "NumPy", "PyTorch"])
    text = "\n".join(tables.summary(rows))
    assert "faster in 1 of 3 comparisons" in text
    assert text.index("0.50 of PyTorch  tanh") < text.index("0.90 of PyTorch  sigmoid")


@pytest.mark.parametrize(("unit", "work", "expected"), [("GF/s", 2e5, 2.0), ("ns/element", 1e5, 1.0), ("ms", 1, 0.1)])
def test_figures_are_in_the_unit_of_the_row(unit, work, expected):
    assert tables.figure(row(unit=unit, work=work), 1e5) == pytest.approx(expected)


def test_flops():
    assert shapes.RecurrentShape(100, 64, 256, 512).flops(training=False) == 100 * 64 * 2 * 2048 * 768
    assert shapes.RecurrentShape(3, 2, 4, 5).flops(training=True, cell="GRU") == 3 * 2 * 3 * 2 * 15 * 9
    assert shapes.MLPShape((4, 3, 2), 5).flops() == 5 * 2 * (3 * (4 * 3 + 3 * 2) - 4 * 3)


def test_command_writes_what_it_prints(tmp_path):
    target = tmp_path / "figures.json"
    result = CliRunner().invoke(
        cli.bench, ["product", "--tiny", "--threads", "1", "--json", str(target)], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    document = json.loads(target.read_text())
    assert document["schema"] == cli.SCHEMA
    assert [m["threads"] for m in document["machines"]] == [1]
    fields = {field.name for field in dataclasses.fields(timing.Row)}
    assert document["rows"]
    for measured in document["rows"]:
        assert set(measured) == fields
        assert f"{measured['name']}  {measured['shape']}" in result.output
    assert document["machines"][0]["peak_gflops"]["float32"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "two"], "expected whole numbers"),
        (["--threads", "0"], "from 1 on"),
        (["--activation", "sigmoyd"], "'sigmoyd'"),
        (["--json", "no/such/folder/f.json"], "folder that exists"),
        (["nothing"], "nothing"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    result = CliRunner().invoke(cli.bench, arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_picture(tmp_path):
    pytest.importorskip("matplotlib")
    tables.draw([row(), row(section="lstm", unit="ms", work=1)], tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


def test_picture_of_the_catalogue(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        row(name=f"{name} {kind}", threads=threads, shape=shape)
        for name in ("relu", "gelu")
        for kind in ("forward", "backward")
        for threads in (2, 1)
        for shape in ("16K", "1M", "rows of 8")
    ]
    cell = catalogue.chosen(rows)
    assert [measured["name"] for measured in cell] == ["relu forward", "relu backward", "gelu forward", "gelu backward"]
    assert {(measured["shape"], measured["threads"]) for measured in cell} == {("1M", 1)}
    (tmp_path / "figures.json").write_text(json.dumps({"rows": rows}))
    for picture in ("a.svg", "b.svg"):
        catalogue.draw(rows, tmp_path / picture)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(word in text for word in ("relu", "gelu", "PyTorch", "1M elements, float32, 1 thread"))
    with pytest.raises(ValueError, match="expected figures of the section activations, got none"):
        catalogue.draw([row(section="lstm")], tmp_path / "c.svg")


def test_picture_of_the_roofline(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        row(section="recurrent", name=f"{cell} {kind}", shape=f"T={T} B={B} I=8 H=16", limit_ns=3.7e4, threads=threads)
        for cell in ("GRU", "LSTM")
        for kind in roofline.KINDS
        for T in (1, 100)
        for B in (1, 64)
        for threads in (1, 2)
    ]
    cell = roofline.chosen(rows)
    assert {(measured["name"].split()[0], measured["threads"]) for measured in cell} == {("LSTM", 2)}
    assert len(cell) == 8
    roofline.draw(rows, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert all(word in text for word in (">37<", "training, T=100", "I=8 H=16", "LSTM, float32, 2 threads"))
    with pytest.raises(ValueError, match="expected figures of the section recurrent or lstm, got none"):
        roofline.draw([row()], tmp_path / "b.svg")


def test_recurrent_grid():
    """Each value of each letter is there; GRU and RNN have the limit of their own products."""
    grid = shapes.RECURRENT_GRID
    assert {s.T for s in grid} == {1, 20, 100, 500}
    assert {s.B for s in grid} == {1, 4, 8, 16, 32, 64, 128}
    assert {s.H for s in grid} == {s.I for s in grid} == {16, 32, 64, 128, 256, 512, 1024}
    items = [item["row"] for item in worker.run(("recurrent",), level="tiny", only=("inference T=5",)) if "row" in item]
    limits = {measured["name"]: measured["limit_ns"] for measured in items}
    assert list(limits) == ["LSTM inference", "GRU inference", "RNN inference"]
    assert limits["GRU inference"] == pytest.approx(0.75 * limits["LSTM inference"])
    assert not [*worker.run(("streams",), level="tiny", only=("no such row",))][2:]


def test_stacks_have_the_limit_of_their_own_products():
    """Operations of T B 8 H (inputs + H) a layer and direction, the second layer's inputs being the H of the first."""
    items = [item["row"] for item in worker.run(("stacks",), level="tiny", only=("LSTM",)) if "row" in item]
    assert [item["name"] for item in items] == [
        f"LSTM {stack} {kind}" for stack in ("2 layers", "both ways") for kind in ("inference", "training")
    ]
    s = shapes.TINY_LSTM_SHAPES[0]
    once = s.T * s.B * 8 * s.H
    assert s.flops(False, "LSTM", 2, 1) == once * (s.I + 3 * s.H)
    assert s.flops(False, "LSTM", 1, 2) == once * 2 * (s.I + s.H)
    assert s.flops(True, "LSTM", 2, 2) == 3 * once * 2 * (s.I + s.H + 3 * s.H)
    assert items[1]["limit_ns"] == pytest.approx(3 * items[0]["limit_ns"])
    weights = recurrent.random_weights("GRU", s.I, s.H, "float64", np.random.default_rng(0), 2, 2)
    assert weights["weight_ih_l1_reverse"].shape == (3 * s.H, 2 * s.H)
    assert peers.layers_of(weights) == (2, 2)


def test_a_stream_that_goes_wrong_after_its_first_step_is_reported():
    case = next(recurrent.stream_cases(["GRU"], [shapes.RecurrentShape(1, 2, 3, 4)], "float64", 1, []))
    good = case.contenders[0].run
    kept = good().copy()
    broken = timing.Contender("other", lambda: kept, timing.first_results(lambda: kept))
    fresh = next(recurrent.stream_cases(["GRU"], [shapes.RecurrentShape(1, 2, 3, 4)], "float64", 1, []))
    fresh.contenders.append(broken)
    measured = timing.measure(fresh, 1, 1, 0)
    assert set(measured.times_ns) == {"fastact"}
    assert "differs" in measured.failed["other"]


@pytest.mark.parametrize("order", [0, 1])
def test_formulas_for_other_libraries(dtype, order):
    """What NumPy and numexpr are given computes the function, in the dtype of x."""
    x = np.random.default_rng(0).normal(size=500).astype(dtype) * 2
    for name, f in fa.activations.items():
        if f.rowwise:
            continue
        formula = reference.derivatives[name][0] if order else f.formula
        translated = formulas.translated(formula, dict(f.parameters), dtype)
        if translated is None:
            assert "erf" in formula or "Phi" in formula
            continue
        expression, constants = translated
        with np.errstate(over="ignore"):
            y = eval(expression, {**formulas.NUMPY, **constants, "x": x, "y": f(x)})
        assert y.dtype == dtype
        want = f.derivative(x) if order else f(x)
        np.testing.assert_allclose(y, want, atol=20 * np.finfo(dtype).eps * max(1, np.abs(want).max()), rtol=1e-5)


def test_values_are_held_against_ordinary_ones():
    rows = [item["row"] for item in worker.run(("values",), level="tiny", names=("silu",)) if "row" in item]
    assert {measured["shape"] for measured in rows} == {"subnormal", "saturated", "infinite", "NaN"}
    assert {measured["limit"] for measured in rows} == {"ordinary values"}
    assert not any(measured["failed"] for measured in rows)


def test_probes_measure_something():
    assert timing.peak("float32", 1) > 0.5
    assert timing.copy_ns(4096, "float64", 1) > 0
    source, to = np.arange(1000.0), np.zeros(1000)
    for stream in (False, True):
        to[...] = 0
        probe.copy(source, to, stream, 2)
        np.testing.assert_array_equal(to, source)
    with pytest.raises(ValueError, match="expected"):
        probe.copy(source, to[:5], False, 1)


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_peers_agree(name):
    """Each installed peer in each row that it offers, against the same expected arrays as fastact."""
    if not list(peers.installed(1, (name,))):
        pytest.skip(f"{name} is not installed")
    sections = tuple(section for section in worker.SECTIONS if peers.PEERS[name].offers(section))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's own
        rows = [item["row"] for item in worker.run(sections, level="tiny", with_peers=(name,)) if "row" in item]
    assert any(name in measured["times_ns"] for measured in rows)
    for measured in rows:
        assert name not in measured["failed"], (measured["name"], measured["failed"])


def racers(monkeypatch, paces):
    """A run of 4 steps whose loss is 10 less the progress; by name the seconds of a step and the progress it makes."""
    clock = [0.0]
    monkeypatch.setattr(convergence, "time", SimpleNamespace(perf_counter=lambda: clock[0], sleep=lambda _: None))

    def learner(seconds, progress):
        weights = {"w": np.zeros(())}

        def step(number):
            clock[0] += seconds
            weights["w"] = weights["w"] + progress

        return peers.Learner(lambda number: (number,), step, weights.copy)

    learners = {name: (lambda pace=pace: learner(*pace)) for name, pace in paces.items()}
    batches = [(number,) for number in range(6)]
    return convergence.Run("n", "s", batches, 4, 2, learners, lambda weights: 10 - float(weights["w"]), 1)


def test_time_to_the_loss_that_pytorch_reaches(monkeypatch):
    run = racers(monkeypatch, {"fastact": (1.0, 1.0), "PyTorch": (3.0, 1.0)})
    row = convergence.measured(run, 2, 1)
    assert row.times_ns == {"fastact": 4e9, "PyTorch": 12e9}
    assert row.shape == "s, loss 6.0000"
    assert row.curves["fastact"] == [(0.0, 10.0), (2.0, 8.0), (4.0, 6.0), (6.0, 4.0)]


def test_who_is_behind_at_the_end_may_go_on(monkeypatch):
    row = convergence.measured(racers(monkeypatch, {"fastact": (1.0, 0.995), "PyTorch": (3.0, 1.0)}), 1, 1)
    assert row.times_ns == {"fastact": 6e9, "PyTorch": 12e9}
    row = convergence.measured(racers(monkeypatch, {"fastact": (1.0, 1.0), "PyTorch": (3.0, 0.5)}), 1, 1)
    assert "after 2 steps its loss is 9.0000" in row.failed["PyTorch"]  # it does other work
    run = racers(monkeypatch, {"fastact": (1.0, 1.0), "PyTorch": (3.0, 1.0)})
    losses = iter([10.0, 8.0, 6.5, 6.4, 10.0, 8.0, 6.0, 4.0])
    run.loss = lambda weights: next(losses)
    assert "never below 6.0000: 6.4000 at best" in convergence.measured(run, 1, 1).failed["fastact"]
