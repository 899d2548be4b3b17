"""The language model and its run: it learns, measures itself rightly, and resumes in the same bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastact as fa
from fastact import io
from fastact.errors import ModelFileError, NonFiniteError
from fastact.training.language_model import LanguageModel, Settings, TextTraining, read_checkpoint
from fastact.training.text import Corpus, Vocabulary

TEXT = "the quick brown fox jumps over the lazy dog;\nhow vexingly quick daft zebras jump!\n" * 60
SMALL = Settings(steps=24, batch_size=4, window=20, embedding=8, hidden=24, learning_rate=1e-2)


@pytest.fixture(scope="module")
def corpus():
    return Corpus.of([TEXT])


def run(corpus, settings=SMALL, upto=None):
    training = TextTraining(corpus, settings)
    while not training.done and training.step != upto:
        training.advance()
        if training.step % 5 == 0:
            training.evaluate()
    return training


def weights(training):
    return np.array(training.model.network.flat_parameters)


class TestModel:
    def test_bits_agree_with_a_reading_in_one_piece(self, corpus):
        model = LanguageModel.create(corpus.vocabulary, 8, 16, seed=1)
        indices = corpus.train[:200]  # one row: nothing is cut
        logits = model.network(indices[None, :-1].astype(np.int64)).astype(np.float64)[0]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = -log_p[np.arange(199), indices[1:]].mean() / math.log(2)
        assert model.bits_per_character(indices) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("length", [2, 3, 255, 258, 513, 700])
    def test_bits_of_texts_of_awkward_lengths(self, corpus, length):
        model = LanguageModel.create(corpus.vocabulary, 8, 16, seed=1)
        for parameter in model.network.parameters().values():
            parameter.value = np.zeros(parameter.shape, np.float32)
        # Zero logits: every character costs log2 V, however the text is cut.
        expected = math.log2(len(corpus.vocabulary))
        assert model.bits_per_character(corpus.train[:length]) == pytest.approx(expected, rel=1e-6)
        assert model.bits_per_character(corpus.train[:length], most=64) == pytest.approx(expected, rel=1e-6)

    def test_file_keeps_everything(self, corpus, tmp_path):
        model = LanguageModel.create(corpus.vocabulary, 8, 16, layers=2, seed=1)
        model.save(tmp_path / "m.safetensors")
        again = LanguageModel.load(tmp_path / "m.safetensors")
        assert again.vocabulary.characters == corpus.vocabulary.characters
        assert "".join(again.sample(50, seed=3)) == "".join(model.sample(50, seed=3))
        x = corpus.train[None, :20].astype(np.int64)
        np.testing.assert_array_equal(fa.load(tmp_path / "m.safetensors")(x), model.network(x))

    def test_a_file_of_another_kind(self, tmp_path):
        io.save(fa.nn.Sequential(fa.nn.Dense(2, 2)), tmp_path / "dense.safetensors")
        with pytest.raises(ModelFileError, match="no vocabulary"):
            LanguageModel.load(tmp_path / "dense.safetensors")
        with pytest.raises(ModelFileError):
            read_checkpoint(tmp_path / "dense.safetensors")

    @pytest.mark.parametrize("characters", ['"aab"', '"abc"', "3", "broken", '["a", "b"]'])
    def test_a_damaged_vocabulary(self, tmp_path, characters):
        network = LanguageModel.create(Vocabulary("ab"), 4, 4).network
        io.save(network, tmp_path / "m.safetensors", metadata={"vocabulary": characters})
        with pytest.raises(ModelFileError, match="vocabulary"):
            LanguageModel.load(tmp_path / "m.safetensors")


class TestSample:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, corpus):
        return run(
            corpus, Settings(steps=400, batch_size=8, window=20, embedding=8, hidden=48, learning_rate=2e-2)
        ).model

    def test_it_writes_what_it_has_learnt(self, model):
        assert (
            "".join(model.sample(30, prompt="the quick brown fox ", temperature=0)) == "jumps over the lazy dog;\nhow v"
        )

    def test_same_seed_same_text(self, model):
        texts = ["".join(model.sample(80, temperature=1.5, seed=seed)) for seed in (1, 1, 2)]
        assert texts[0] == texts[1] != texts[2]
        assert len(texts[0]) == 80

    def test_the_rest_is_never_written(self, model):
        dense = model.network[-1]
        bias = np.array(dense.bias.value)
        try:
            dense.bias[-1] = 1e4
            assert "\N{REPLACEMENT CHARACTER}" not in "".join(model.sample(50, seed=1))
        finally:
            dense.bias.value = bias

    def test_temperature_decides_how_wild(self, model):
        careful, wild = ("".join(model.sample(300, temperature=t, seed=1)) for t in (0.1, 100.0))
        assert set(careful) <= set(TEXT)
        counts = np.unique(list(wild), return_counts=True)[1]
        assert len(counts) == len(model.vocabulary) - 1  # every character turns up
        assert counts.max() < 30

    def test_the_smallest_temperature_takes_the_likeliest(self, model):
        coldest, cold = ("".join(model.sample(100, temperature=t, seed=1)) for t in (0, 5e-324))
        assert cold == coldest

    @pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
    def test_impossible_temperature(self, model, temperature):
        with pytest.raises(ValueError, match="temperature"):
            next(model.sample(1, temperature=temperature))

    def test_nothing_asked_nothing_written(self, model):
        assert list(model.sample(0)) == []


class TestSettings:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"steps": 0},
            {"hidden": -1},
            {"learning_rate": 0.0},
            {"clip_norm": math.nan},
            {"seed": -1},
            {"vocabulary": 0},
        ],
    )
    def test_impossible(self, wrong):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)

    def test_learning_rate_falls_to_zero(self):
        settings = Settings(steps=10, learning_rate=0.5)
        rates = [settings.learning_rate_at(step) for step in range(11)]
        assert rates[0] == 0.5
        assert rates[-1] == 0
        np.testing.assert_allclose(np.diff(rates), -0.05)


class TestTraining:
    def test_it_learns(self, corpus):
        training = run(corpus, Settings(steps=300, batch_size=8, window=20, embedding=8, hidden=32, learning_rate=1e-2))
        assert training.history["held_out"][0] > 3
        assert training.history["held_out"][-1] < 1

    def test_the_state_is_carried_from_batch_to_batch(self, corpus):
        training = TextTraining(corpus, SMALL)
        training.advance()
        states = [np.array(part) for part in training.trainer.state[0]]
        x, y, _ = training.lanes.batch(1)
        logits, _ = training.model.network.forward(x, state=training.trainer.state)
        carried = fa.losses.CrossEntropy().measure(logits, y).mean / math.log(2)
        fresh = fa.losses.CrossEntropy().measure(training.model.network(x), y).mean / math.log(2)
        training.advance()
        latest = training.trainer.last_loss / math.log(2)
        assert latest == pytest.approx(carried, rel=1e-6)
        assert latest != pytest.approx(fresh, rel=1e-6)
        assert any((a != np.asarray(b)).any() for a, b in zip(states, training.trainer.state[0], strict=True))

    def test_the_state_is_dropped_where_an_epoch_begins(self, corpus):
        training = run(corpus, SMALL)
        training.settings = Settings(**{**vars(SMALL), "steps": 1000})
        while training.step % training.lanes.steps_per_epoch:
            training.advance()
        x, y, first = training.lanes.batch(training.step)
        assert first
        fresh = fa.losses.CrossEntropy().measure(training.model.network(x), y).mean
        training.advance()
        assert training.trainer.last_loss == pytest.approx(fresh, rel=1e-6)

    @pytest.mark.parametrize("cut", [1, 5, 13, 23])
    def test_resumed_equals_unbroken_bit_for_bit(self, corpus, tmp_path, cut):
        settings = Settings(**{**vars(SMALL), "steps": 80, "batch_size": 8, "window": 25})  # more than one epoch
        assert settings.steps > TextTraining(corpus, settings).lanes.steps_per_epoch
        unbroken = run(corpus, settings)
        run(corpus, settings, upto=cut).save(tmp_path / "c")
        resumed = TextTraining(corpus, settings)
        with fa.num_threads(1):  # the number of threads changes no bit either
            resumed.restore(tmp_path / "c")
            assert resumed.step == cut
            while not resumed.done:
                resumed.advance()
                if resumed.step % 5 == 0:
                    resumed.evaluate()
        np.testing.assert_array_equal(weights(resumed), weights(unbroken))
        assert resumed.history.to_dict() == unbroken.history.to_dict()
        assert resumed.loss == unbroken.loss or (math.isnan(resumed.loss) and math.isnan(unbroken.loss))

    def test_same_seed_same_bits(self, corpus):
        first, again = run(corpus), run(corpus)
        other = run(corpus, Settings(**{**vars(SMALL), "seed": 1}))
        np.testing.assert_array_equal(weights(first), weights(again))
        assert (weights(first) != weights(other)).any()

    def test_a_checkpoint_serves_as_a_model(self, corpus, tmp_path):
        training = run(corpus, upto=5)
        training.save(tmp_path / "c")
        model = LanguageModel.load(tmp_path / "c")
        assert "".join(model.sample(30, seed=1)) == "".join(training.model.sample(30, seed=1))

    def test_another_text_is_refused(self, corpus, tmp_path):
        run(corpus, upto=2).save(tmp_path / "c")
        other = TextTraining(Corpus.of([TEXT.replace("fox", "cat")]), SMALL)
        before = weights(other)
        with pytest.raises(ValueError, match="text: expected the text"):
            other.restore(tmp_path / "c")
        np.testing.assert_array_equal(weights(other), before)

    @pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
    def test_a_truncated_checkpoint_changes_nothing(self, corpus, tmp_path, keep):
        path = tmp_path / "c"
        run(corpus, upto=2).save(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])
        training = TextTraining(corpus, SMALL)
        before = weights(training)
        with pytest.raises(ModelFileError):
            training.restore(path)
        np.testing.assert_array_equal(weights(training), before)

    def test_a_loss_that_is_no_number_stops_before_the_update(self, corpus):
        training = run(corpus, upto=3)
        dense = training.model.network[-1]
        dense.bias[0] = np.nan
        before = weights(training)
        with pytest.raises(NonFiniteError, match="step 4"):
            training.advance()
        np.testing.assert_array_equal(weights(training), before)
        assert training.step == 3

    def test_a_text_shorter_than_a_batch(self):
        text = "abcdefghij" * 5
        training = run(Corpus.of([text]), Settings(steps=3, hidden=8, embedding=4))
        assert (training.lanes.batch_size, training.lanes.window) == (1, 46)
        assert training.done
