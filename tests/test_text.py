"""Text as training data: listing, decoding, splitting, numbering, batching."""

from __future__ import annotations

import codecs
import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastact.training.text import (
    REST,
    Corpus,
    Lanes,
    Vocabulary,
    find_files,
    read_text,
    split_held_out,
    standard_library,
)


def write(root: Path, name: str, data: str | bytes = "text\n") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


class TestFindFiles:
    def test_folder_is_read_to_its_leaves_in_sorted_order(self, tmp_path):
        names = ["b.txt", "a/z.txt", "a/b/c.md", "a.txt", "no_suffix"]
        files = [write(tmp_path, name) for name in names]
        assert find_files([tmp_path]) == sorted(files, key=lambda file: file.parts)

    def test_hidden_caches_and_binaries_are_passed_over(self, tmp_path):
        kept = write(tmp_path, "kept.txt")
        for name in (".hidden", ".git/config", "__pycache__/a.txt", "x/site-packages/b.txt"):
            write(tmp_path, name)
        write(tmp_path, "picture.bin", b"\x89PNG\0\0")
        assert find_files([tmp_path]) == [kept]

    def test_a_file_given_by_name_is_taken_whatever_its_name(self, tmp_path):
        hidden = write(tmp_path, ".hidden")
        assert find_files([str(hidden)]) == [hidden]

    def test_nothing_is_read_twice(self, tmp_path):
        file = write(tmp_path, "a/one.txt")
        assert find_files([file, tmp_path, tmp_path / "a", tmp_path / "a" / ".." / "a" / "one.txt"]) == [file]

    @pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links")
    def test_a_link_to_a_folder_above_ends(self, tmp_path):
        file = write(tmp_path, "a/one.txt")
        (tmp_path / "a" / "loop").symlink_to(tmp_path)
        assert find_files([tmp_path]) == [file]

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name")
    def test_a_pipe_in_a_folder_is_no_file(self, tmp_path):
        file = write(tmp_path, "one.txt")
        os.mkfifo(tmp_path / "pipe")
        assert find_files([tmp_path]) == [file]

    def test_missing_path(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"paths: .*nowhere does not exist"):
            find_files([tmp_path / "nowhere"])

    def test_folder_without_text(self, tmp_path):
        write(tmp_path, "data.bin", b"\0")
        with pytest.raises(FileNotFoundError, match="found none"):
            find_files([tmp_path])


class TestStandardLibrary:
    def test_sources_without_tests_and_packages(self):
        files = standard_library()
        root = Path(sysconfig.get_path("stdlib"))
        assert root / "abc.py" in files
        assert root / "json" / "decoder.py" in files
        assert files == sorted(files, key=lambda file: file.parts)
        folders = {part for file in files for part in file.relative_to(root).parts[:-1]}
        assert not folders & {"test", "tests", "idle_test", "site-packages", "__pycache__"}
        assert {file.suffix for file in files} == {".py"}


class TestReadText:
    @pytest.mark.parametrize(
        ("data", "text"),
        [
            (b"", ""),
            (b"a\r\nb\rc\n", "a\nb\nc\n"),
            (codecs.BOM_UTF8 + b"a", "a"),
            ("ß→🎈".encode(), "ß→🎈"),
        ],
    )
    def test_decoding(self, tmp_path, data, text):
        assert read_text(write(tmp_path, "t", data)) == text

    def test_bytes_that_are_no_text_are_named_by_place(self, tmp_path):
        path = write(tmp_path, "latin.txt", b"one\ntwo\ncaf\xe9 three\n")
        message = r"latin\.txt: expected utf-8 text, got byte 0xe9 at position 11 \(line 3\)"
        with pytest.raises(ValueError, match=message):
            read_text(path)
        assert read_text(path, "latin-1").endswith("café three\n")
        assert read_text(path, errors="replace").endswith(f"caf{REST} three\n")
        assert read_text(path, errors="ignore").endswith("caf three\n")

    def test_truncated_character_at_the_end(self, tmp_path):
        with pytest.raises(ValueError, match=r"byte 0xe2 at position 2 .*unexpected end"):
            read_text(write(tmp_path, "t", "ab€".encode()[:-1]))

    @pytest.mark.parametrize("arguments", [("no-such",), ("utf-8", "no-such")])
    def test_unknown_encoding_or_errors(self, tmp_path, arguments):
        with pytest.raises(ValueError, match="no-such"):
            read_text(write(tmp_path, "t", b"\xff"), *arguments)

    def test_utf_16(self, tmp_path):
        assert read_text(write(tmp_path, "t", "häuser".encode("utf-16")), "utf-16") == "häuser"


class TestSplit:
    def test_every_twentieth_file_is_held_out_whole(self):
        texts = [f"file {i:02d}\n" for i in range(1, 46)]
        train, held_out = split_held_out(texts)
        assert held_out == "file 20\nfile 40\n"
        assert train == "".join(text for text in texts if text not in held_out)

    def test_with_fewer_files_the_end_of_each(self):
        train, held_out = split_held_out(["ab" * 50, "cd" * 10 + "\n", "e"])
        assert held_out == "babab\n" + "d\n" + "\n"
        assert train == "ab" * 47 + "a" + "cd" * 9 + "c" + "e"

    def test_one_file_is_left_as_it_is(self):
        text = "".join(chr(97 + i % 7) for i in range(200))
        assert split_held_out([text]) == (text[:190], text[190:])

    def test_files_do_not_run_into_each_other(self):
        train, held_out = split_held_out(["abcdefgh"] * 40)
        assert set(train.splitlines()) == set(held_out.splitlines()) == {"abcdefgh"}

    def test_empty_files_count_for_nothing(self):
        texts = [""] * 30 + ["ab" * 50]
        assert split_held_out(texts) == split_held_out(["ab" * 50, ""])
        texts = ["a\n"] * 40 + [""] * 19 + ["held out\n"]
        assert split_held_out(texts)[1] == "a\na\nheld out\n"

    def test_held_out_is_never_empty(self):
        train, held_out = split_held_out(["xx"] * 19 + [""] + ["yy"] * 15)
        assert len(held_out) >= 2
        assert train

    @pytest.mark.parametrize(
        ("texts", "message"),
        [
            ([], "at least 40 characters, got none"),
            (["", ""], "at least 40 characters, got none"),
            (["short"], "at least 40 characters, got 5"),
            (["a" * 1000], "at least two distinct characters, got only 'a'"),
            (["\n" * 1000], "got only"),
            (["aaaa"] * 50, "at least two distinct characters, got only 'a'"),
        ],
    )
    def test_too_little(self, texts, message):
        with pytest.raises(ValueError, match=message):
            split_held_out(texts)

    @given(st.lists(st.text("ab\n", max_size=60), min_size=1, max_size=45))
    def test_nothing_is_lost_or_doubled(self, texts):
        try:
            train, held_out = split_held_out(texts)
        except ValueError:
            return
        assert len(held_out) >= 2
        assert len(train) >= 2
        joined = "".join(texts)
        for character in "ab":
            assert (train + held_out).count(character) == joined.count(character)


class TestVocabulary:
    def test_most_frequent_first_and_ties_by_code_point(self):
        assert Vocabulary.of("ccbbad", most=3).characters == "bca"

    def test_size_counts_the_rest(self):
        assert len(Vocabulary.of("abc")) == 4
        assert len(Vocabulary.of("".join(map(chr, range(32, 400))))) == 128

    def test_round_trip_and_the_rest(self):
        vocabulary = Vocabulary("ab\n→🎈")
        text = "ab🎈\n→a"
        indices = vocabulary.encode(text)
        assert indices.dtype == np.int32
        assert vocabulary.decode(indices) == text
        assert vocabulary.decode(vocabulary.encode("axb\U0010ffff\0")) == f"a{REST}b{REST}{REST}"

    def test_lone_surrogates_are_characters_too(self):
        assert Vocabulary("a").encode("\ud800a").tolist() == [1, 0]

    def test_empty(self):
        assert Vocabulary("").encode("ab").tolist() == [0, 0]
        assert Vocabulary("ab").encode("").shape == (0,)

    def test_doubled_characters_are_refused(self):
        with pytest.raises(ValueError, match="distinct"):
            Vocabulary("aba")

    @given(st.text(), st.text(st.characters(codec="utf-8"), max_size=30))
    def test_encoding_agrees_with_a_dictionary(self, text, source):
        vocabulary = Vocabulary.of(source, most=5)
        expected = [vocabulary.characters.find(character) % len(vocabulary) for character in text]
        assert vocabulary.encode(text).tolist() == expected


class TestCorpus:
    def test_vocabulary_knows_nothing_of_the_held_out_text(self):
        corpus = Corpus.of(["ab" * 50] * 19 + ["xyz" * 10], most=5)
        assert corpus.vocabulary.characters == "ab\n"
        assert corpus.vocabulary.decode(corpus.train[:6]) == "ababab"
        assert corpus.vocabulary.decode(corpus.held_out[:2]) == REST * 2

    def test_fingerprint_tells_texts_apart(self):
        text = "the quick brown fox jumps over the lazy dog\n" * 3
        variants = [text, text.upper(), text + "x", text.replace("quick", "quack", 1), "x" + text[:-1]]
        prints = {Corpus.of([variant]).fingerprint() for variant in variants}
        prints.add(Corpus.of([text], most=3).fingerprint())
        assert len(prints) == 6
        assert Corpus.of([text]).fingerprint() in prints


class TestLanes:
    def test_rows_go_on_where_they_stopped(self):
        lanes = Lanes(np.arange(1000, dtype=np.int32), batch_size=4, window=16)
        before = None
        for step in range(lanes.steps_per_epoch):
            x, y, first = lanes.batch(step)
            assert x.shape == y.shape == (4, 16)
            assert x.dtype == y.dtype == np.int64
            assert x.flags.c_contiguous
            assert y.flags.c_contiguous
            assert first is (step == 0)
            np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
            np.testing.assert_array_equal(y, x + 1)
            if before is not None:
                np.testing.assert_array_equal(x[:, 0], before)
            before = y[:, -1]

    def test_an_epoch_reads_each_character_at_most_once(self):
        lanes = Lanes(np.arange(1003, dtype=np.int32), batch_size=5, window=20)
        assert lanes.steps_per_epoch == 10
        read = np.concatenate([lanes.batch(step)[0].ravel() for step in range(10)])
        assert len(set(read.tolist())) == len(read) == 1000

    def test_later_epochs_begin_elsewhere_and_drop_the_state(self):
        lanes = Lanes(np.arange(1000, dtype=np.int32), batch_size=2, window=10, seed=3)
        n = lanes.steps_per_epoch
        starts = []
        for epoch in range(4):
            x, _, first = lanes.batch(epoch * n)
            assert first
            starts.append(int(x[0, 0]))
        assert starts[0] == 0
        assert len(set(starts)) == 4

    def test_a_batch_follows_from_its_number_alone(self):
        text = np.arange(500, dtype=np.int32)
        forth = Lanes(text, 3, 7, seed=1)
        back = Lanes(text, 3, 7, seed=1)
        steps = range(3 * forth.steps_per_epoch)
        one = [forth.batch(step) for step in steps]
        other = [back.batch(step) for step in reversed(steps)][::-1]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])
            assert a[2] == b[2]
        assert any((Lanes(text, 3, 7, seed=2).batch(s)[0] != one[s][0]).any() for s in steps)

    @pytest.mark.parametrize(
        ("length", "batch_size", "window"),
        [(2, 1, 1), (10, 1, 9), (101, 1, 100), (150, 1, 100), (201, 2, 100), (3201, 32, 100)],
    )
    def test_short_texts_get_smaller_batches(self, length, batch_size, window):
        lanes = Lanes(np.arange(length, dtype=np.int32), batch_size=32, window=100)
        assert (lanes.batch_size, lanes.window) == (batch_size, window)
        x, y, _ = lanes.batch(0)
        assert x.shape == (batch_size, window)
        np.testing.assert_array_equal(y, x + 1)

    @pytest.mark.parametrize(("length", "batch_size", "window"), [(1, 1, 1), (0, 1, 1), (9, 0, 1), (9, 1, 0)])
    def test_impossible_sizes(self, length, batch_size, window):
        with pytest.raises(ValueError, match="expected at least"):
            Lanes(np.zeros(length, dtype=np.int32), batch_size, window)
