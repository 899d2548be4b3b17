"""Model files: round trips, damage at every byte, failure while writing, foreign files."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import fastact as fa
from fastact import _files
from fastact.errors import ModelFileError
from fastact.io import describe, read_model, restore
from fastact.nn import LSTM, Activation, Dense, Embedding, Layer, Sequential


def model(dtype="float32"):
    shared = Dense(4, 4, "tanh", dtype=dtype, rng=1)
    return Sequential(
        Embedding(5, 4, dtype=dtype, rng=0),
        shared,
        Activation(fa.leaky_relu.with_params(alpha=0.25)),
        shared,
        Sequential(Dense(4, 3, "gelu", bias=False, dtype=dtype, rng=2)),
    )


X = np.array([[0, 1, 4], [3, 3, 2]])


class Scale(Layer):
    """A user's own layer: config() by attributes, an inner layer in its arguments."""

    def __init__(self, factor, inner=None, options=None):
        self.factor, self.inner, self.options = factor, inner, options
        self.add_parameter("shift", np.zeros(1, np.float32))

    def forward(self, x):
        y, backward = self.inner.forward(x)
        return y * self.factor + self.shift.value, lambda dy: backward(dy * self.factor)


class Tied(Layer):
    def __init__(self, width=4):
        self.width = width
        self.table = Embedding(5, width, rng=0)
        self.out = Dense(width, 5, rng=1)
        self.out.weight = self.table.weight

    def forward(self, x):
        y, first = self.table.forward(x)
        y, second = self.out.forward(y)
        return y, lambda dy: first(second(dy))


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
def test_round_trip(tmp_path, dtype, flat):
    m = model(dtype)
    if flat:
        m.flatten()
    path = tmp_path / "m.safetensors"
    fa.save(m, path, metadata={"vocabulary": "abc\n☃"})
    twin, metadata = read_model(path)
    assert metadata == {"vocabulary": "abc\n☃"}
    assert repr(twin) == repr(m)
    assert twin[1] is twin[3]
    assert twin[2].function.parameters == {"alpha": 0.25}
    np.testing.assert_array_equal(twin(X), m(X))
    assert twin(X).dtype == dtype
    assert list(twin.parameters()) == list(m.parameters())
    assert os.listdir(tmp_path) == ["m.safetensors"]
    assert repr(fa.load(str(path))) == repr(m)


def test_the_file_is_plain_safetensors_with_names_of_torch_nn(tmp_path):
    path = tmp_path / "m.safetensors"
    m = model()
    fa.save(m, path)
    arrays = safetensors.numpy.load_file(path)
    assert set(arrays) == {"0.weight", "1.weight", "1.bias", "4.0.weight"}
    np.testing.assert_array_equal(arrays["1.weight"], m[1].weight.value)


def test_the_same_model_gives_the_same_bytes(tmp_path):
    m, facts = model(), {str(i): "☃" * i for i in range(20)}
    for name in "abc":
        fa.save(m, tmp_path / name, metadata=facts)
        facts = dict(reversed(facts.items()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    with safetensors.safe_open(tmp_path / "a", "numpy") as file:  # the library's own reader
        assert file.metadata()["19"] == "☃" * 19
        np.testing.assert_array_equal(file.get_tensor("1.bias"), m[1].bias.value)


def test_paths_may_be_bytes(tmp_path):
    fa.save(model(), os.fsencode(tmp_path / "m"))
    assert repr(fa.load(os.fsencode(tmp_path / "m"))) == repr(model())


def test_every_activation_of_the_catalogue(tmp_path):
    for name, function in fa.activations.items():
        fa.save(Activation(function), tmp_path / "m")
        assert fa.load(tmp_path / "m").function is fa.activations[name]
    bound = fa.leaky_relu.with_params(alpha=0.5).precise
    for function in (fa.gelu.precise, bound):
        fa.save(Dense(2, 3, activation=function), tmp_path / "m")
        assert fa.load(tmp_path / "m").activation == function


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bias": False}, {"double_bias": False, "time_major": True}])
def test_language_model(tmp_path, options):
    m = Sequential(Embedding(7, 3, rng=0), LSTM(3, 5, rng=1, **options), Dense(5, 7, rng=2))
    before = m(X)  # an inference leaves packed weights behind, which are no part of the model
    fa.save(m, tmp_path / "m")
    twin = fa.load(tmp_path / "m")
    assert repr(twin) == repr(m)
    np.testing.assert_array_equal(twin(X), before)


def test_users_own_layers(tmp_path):
    path = tmp_path / "m"
    m = Sequential(Scale(1.5, Scale(np.float32(2), Dense(2, 2, rng=0)), {"a": [1, None, True, "x"]}))
    m[0].shift[...] = 7
    fa.save(m, path)
    with pytest.raises(ModelFileError, match=r"class 'Scale'.*fa\.load\(path, custom={'Scale': Scale}\)"):
        fa.load(path)
    twin = fa.load(path, custom={"Scale": Scale})
    assert isinstance(twin[0].inner, Scale)
    assert twin[0].options == {"a": [1, None, True, "x"]}
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(twin(x), m(x))
    with pytest.raises(TypeError, match="custom: expected classes"):
        fa.load(path, custom={"Scale": 3})


def test_a_users_class_is_not_taken_for_ours_of_the_same_name(tmp_path):
    own = type("Dense", (Dense,), {})
    fa.save(own(2, 2, rng=0), tmp_path / "m")
    with pytest.raises(ModelFileError, match="custom"):
        fa.load(tmp_path / "m")
    assert type(fa.load(tmp_path / "m", custom={"Dense": own})) is own


def test_a_parameter_shared_between_layers_stays_shared(tmp_path):
    m = Tied()
    fa.save(m, tmp_path / "m")
    twin = fa.load(tmp_path / "m", custom={"Tied": Tied})
    assert twin.out.weight is twin.table.weight

    m = Sequential(Embedding(4, 4, rng=0), Dense(4, 4, rng=0))
    m[1].weight = m[0].weight
    fa.save(m, tmp_path / "m")
    twin = fa.load(tmp_path / "m")
    assert twin[1].weight is twin[0].weight
    np.testing.assert_array_equal(twin([1, 2]), m([1, 2]))


def test_loading_draws_no_random_numbers(tmp_path):
    fa.save(model(), tmp_path / "m")
    fa.seed(0)
    expected = Dense(3, 3).weight.value
    fa.seed(0)
    fa.load(tmp_path / "m")
    np.testing.assert_array_equal(Dense(3, 3).weight.value, expected)


@pytest.mark.parametrize(
    ("m", "message"),
    [
        ("path first", r"model: expected a layer or model, got str; the order is save\(model, path\)"),
        (Scale(np.zeros(3)), "factor of Scale is a ndarray, which a file cannot hold"),
        (Scale(1, options={1: 2}), "options of Scale is a dict"),
        (Scale(1, options={"$layer": 2}), "options of Scale is a dict"),
        (Scale(1, options=[print]), "options of Scale"),
    ],
)
def test_save_refuses_what_a_file_cannot_hold(tmp_path, m, message):
    with pytest.raises(TypeError, match=message):
        fa.save(m, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_save_refuses_an_activation_that_is_not_of_the_catalogue(tmp_path, monkeypatch):
    layer = Dense(2, 2, "tanh", rng=0)
    monkeypatch.setattr(fa.io, "activations", {"tanh": fa.sigmoid})
    with pytest.raises(TypeError, match=r"activation of Dense.*made of Python functions.*never code"):
        fa.save(layer, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_save_refuses_metadata():
    with pytest.raises(ValueError, match="metadata: expected keys other than 'fastact'"):
        fa.save(model(), "unused", metadata={"fastact": ""})
    for bad in ({"a": 1}, {1: "a"}, {"checksum": "a"}):
        with pytest.raises(TypeError, match="metadata: expected strings"):
            fa.save(model(), "unused", metadata=bad)


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    fa.save(Sequential(Dense(2, 1, "relu", rng=0), Dense(1, 1, rng=0)), path)
    return path


def test_cut_short_at_every_byte(small):
    size = small.stat().st_size
    with small.open("ab") as file:
        file.write(b"\0")
    for n in (size + 1, *range(size - 1, -1, -1)):
        os.truncate(small, n)
        with pytest.raises(ModelFileError, match=r"path: .*small\.safetensors"):
            fa.load(small)


def test_any_byte_changed_is_noticed(small):
    expected = fa.load(small).state_dict()
    harmless = 0
    with small.open("r+b", buffering=0) as file:
        for n, byte in enumerate(small.read_bytes()):
            for flip in (1, 0x20, 0x80, 0):  # the last one restores it
                file.seek(n)
                file.write(bytes([byte ^ flip]))
                try:
                    state = fa.load(small).state_dict()
                except ModelFileError:
                    assert flip
                    continue
                harmless += flip > 0  # white space of the header, say: then nothing has changed
                for name, array in expected.items():
                    np.testing.assert_array_equal(state[name], array)
    assert harmless < 24


def rewrite(path, change):
    """Change the architecture's JSON in a file and leave out the checksum, as another writer might."""
    tensors, metadata = _files.read_tensors(path)
    document = json.loads(metadata["fastact"])
    change(document)
    path.write_bytes(safetensors.numpy.save(tensors, {**metadata, "fastact": json.dumps(document)}))


def config_of(document, place=0):
    return document["layers"][place]["config"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=99), "format 99.*upgrade"),
        (lambda d: d.update(format="x"), "cannot be built"),
        (lambda d: d.pop("layers"), "cannot be built: KeyError"),
        (lambda d: d.update(layers=3), "cannot be built"),
        (lambda d: d.update(root=7), "no layer 7"),
        (lambda d: d.update(root=-1), "no layer -1"),
        (lambda d: config_of(d, 2)["layers"].append({"$layer": 2}), "no layer 2"),
        (lambda d: d["layers"][0].update({"class": "Parameter"}), "class 'Parameter', which is not one of"),
        (lambda d: d["layers"][0].update({"class": "base"}), "class 'base'"),
        (lambda d: config_of(d).update(in_features=3), "do not fit its architecture.*weight.*expected shape"),
        (lambda d: config_of(d).update(in_features=0), "in_features: expected"),
        (lambda d: config_of(d).update(in_features=10**14), "larger than what is there"),
        (lambda d: config_of(d).update(in_features=10**400), "larger than what is there|cannot be built"),
        (lambda d: config_of(d).update(typo=1), "cannot be built: TypeError"),
        (lambda d: config_of(d).update(activation={"$activation": "nix", "parameters": {}}), "cannot be built"),
        (lambda d: config_of(d).update(activation={"$activation": "relu", "parameters": {"a": 1}}), "cannot be built"),
        (lambda d: config_of(d).update(dtype="float64"), None),
        (lambda d: d.update(shared={"0.bias": "9.bias"}), "cannot be built: KeyError"),
        (lambda d: d.update(shared={"0.weight": "1.weight"}), "cannot be shared"),
    ],
)
def test_changed_architecture(small, change, message):
    rewrite(small, change)
    with pytest.raises(ModelFileError, match=message):
        fa.load(small)


def test_deeply_nested_architecture(small):
    tensors, _ = _files.read_tensors(small)
    small.write_bytes(safetensors.numpy.save(tensors, {"fastact": "[" * 100_000}))
    with pytest.raises(ModelFileError, match=r"too deeply|cannot be built"):
        fa.load(small)
    with pytest.raises(ModelFileError):
        restore("null")


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"hello world, this is a text", "damaged, truncated or no safetensors file"),
        (zipped(), "ZIP archive.*load_state_dict"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5.*load_state_dict"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"\x93NUMPY" + bytes(100), "npy"),
        (safetensors.numpy.save({"w": np.zeros(2)}), "1 arrays but no architecture.*load_state_dict"),
        (b"\xff" * 100, "damaged"),
        (b"\x02\0\0\0\0\0\0\0{}", "no architecture"),
        (b"\x02\0\0\0\0\0\0\0[]", "damaged"),
    ],
)
def test_foreign_files(tmp_path, data, message):
    path = tmp_path / "foreign"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=message):
        fa.load(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: no file .*nix"):
        fa.load(tmp_path / "nix")
    with pytest.raises(IsADirectoryError, match="path: expected a model file, got the folder"):
        fa.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"path: the folder .*no of .* does not exist; make it first"):
        fa.save(model(), tmp_path / "no" / "m")
    with pytest.raises(IsADirectoryError, match="path: expected a file name, got the folder"):
        fa.save(model(), tmp_path)


# -- failure while writing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_the_earlier_file_survives_a_failing_system_call(small, monkeypatch, step):
    before = small.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match=r"path: cannot write .*No space left on device; the earlier file is as it was"):
        fa.save(model(), small)
    monkeypatch.undo()
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


def test_an_interrupt_while_writing_leaves_no_half_file(small, monkeypatch):
    before = small.read_bytes()

    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fa.save(model(), small)
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs setrlimit")
def test_the_earlier_file_survives_a_full_disk(small):
    """A limit on the size of files stands in for the disk: write() itself fails, half-way."""
    before = small.read_bytes()
    code = """
import resource, sys, fastact as fa
big = fa.nn.Dense(300, 300, rng=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    fa.save(big, sys.argv[1])
except OSError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code, small], capture_output=True, text=True, timeout=60, check=True)
    assert "path: cannot write" in run.stdout
    assert "the earlier file is as it was" in run.stdout
    assert small.read_bytes() == before
    assert os.listdir(small.parent) == [small.name]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_the_earlier_file_survives_a_kill(tmp_path):
    """Killed at a random moment of saving in a loop: what stands under the name is always one whole model."""
    path = tmp_path / "m"
    code = """
import sys, fastact as fa
models = [fa.nn.Dense(300, 300, rng=i) for i in range(2)]
while True:
    for m in models:
        fa.save(m, sys.argv[1])
        print("saved", flush=True)
"""
    rng = np.random.default_rng(0)
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.01, 0.05))
            process.send_signal(signal.SIGKILL)
        assert fa.load(path).in_features == 300


def test_what_a_killed_process_left_goes_with_a_later_save(small):
    names = {
        f"{small.name}.123-0123abcd.tmp": False,  # an hour old
        f"{small.name}.124-0123abcd.tmp": True,  # young: another process may be writing it
        f"{small.name}.mine.tmp": True,
        f"{small.name}.1-original.tmp": True,
        "other.123-0123abcd.tmp": True,
    }
    for name in names:
        (small.parent / name).write_bytes(b"half")
        if ".124-" not in name:
            os.utime(small.parent / name, (0, time.time() - _files.STALE_SECONDS - 1))
    fa.save(model(), small)
    assert {name: (small.parent / name).exists() for name in names} == names


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and links")
def test_modes_and_links_are_kept(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    mask = os.umask(0o022)
    try:
        fa.save(model(), real)
    finally:
        os.umask(mask)
    assert real.stat().st_mode & 0o777 == 0o644
    real.chmod(0o600)
    link.symlink_to(real)
    fa.save(model("float64"), link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert fa.load(real)[1].dtype == np.float64


def test_describe_and_restore_without_weights():
    m = model()
    twin = restore(describe(m))
    assert repr(twin) == repr(m)
    cyclic = Scale(1)
    cyclic.inner = cyclic
    with pytest.raises(TypeError, match="contains itself"):
        describe(cyclic)
