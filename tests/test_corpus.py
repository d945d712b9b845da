"""Texts in files: the ids of the text as a whole, whatever the blocks; models that learn from them."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest
from support import ranks
from support.training import assert_same, make

import rnncore as rc
from rnncore import corpus as module
from rnncore.cli import texts

TEXT = "The cat sat on the mat.\n\nThe café — naïve 👩‍🚀 — was\tshut;  the end\n" * 7


@pytest.fixture
def files(tmp_path):
    """The text in three files, one of them compressed, cut within words and lines."""
    cuts = [0, 50, 301, len(TEXT)]
    for name, begin, end in zip(["a.txt", "b.txt.gz", "c.txt"], cuts[:-1], cuts[1:], strict=True):
        content = TEXT[begin:end].encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    return tmp_path


@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("level", ["char", "word"])
def test_blocks_do_not_change_the_ids(files, block, level, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    (files / "whole.txt").write_text(TEXT, encoding="utf-8")
    whole = rc.Corpus(files / "whole.txt")
    vocabulary = whole.vocabulary(level)
    assert vocabulary == rc.Vocabulary.from_text(TEXT, level)
    ids = whole.ids(vocabulary)
    np.testing.assert_array_equal(ids[:], vocabulary.encode(TEXT))
    assert len(ids) == len(vocabulary.encode(TEXT))
    several = rc.Corpus([files / "[ab].*", files / "c.txt"])
    assert [path.name for path in several.paths] == ["a.txt", "b.txt.gz", "c.txt"]
    if level == "char":
        assert several.vocabulary() == vocabulary
        np.testing.assert_array_equal(several.ids(vocabulary)[:], vocabulary.encode(TEXT))
    else:
        # The end of a file ends a word.
        parts = " ".join(TEXT[begin:end] for begin, end in [(0, 50), (50, 301), (301, None)])
        assert several.vocabulary("word") == rc.Vocabulary.from_text(parts, "word")
        np.testing.assert_array_equal(several.ids(vocabulary)[:], vocabulary.encode(parts))


@pytest.mark.parametrize("block", [1, 40, 1 << 20])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_part_is_held_out(files, block, share, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    corpus = rc.Corpus(sorted(files.glob("*.*")))
    training, held_out = corpus.split(share)
    cut = round(len(TEXT) * (1 - share))
    assert "".join(training.blocks()) == TEXT[:cut]
    assert "".join(held_out.blocks()) == TEXT[cut:]
    # A part may be cut again.
    cuts = [cut, cut + round((len(TEXT) - cut) * 0.7)]
    assert "".join(held_out.split(0.3)[1].blocks()) == TEXT[cuts[1] :]
    vocabulary = corpus.vocabulary()
    np.testing.assert_array_equal(held_out.ids(vocabulary)[:], vocabulary.encode(TEXT[cut:]))
    np.testing.assert_array_equal(training.ids(vocabulary)[:], vocabulary.encode(TEXT[:cut]))


def test_a_part_is_cut_between_words(tmp_path):
    (tmp_path / "text").write_text("to be or not to be")
    for share in np.linspace(0.05, 0.8, 16):
        training, held_out = rc.Corpus(tmp_path / "text").split(share, "word")
        parts = ["".join("".join(part.blocks("word")).split()) for part in (training, held_out)]
        assert "".join(parts) == "tobeornottobe"
        words = [word for part in (training, held_out) for block in part.blocks("word") for word in block.split()]
        assert words == ["to", "be", "or", "not", "to", "be"]
    for wrong in (0, 1, 1.5, "a"):
        with pytest.raises(ValueError, match="share must be in"):
            rc.Corpus(tmp_path / "text").split(wrong)


def test_line_ends_and_encodings(tmp_path):
    for encoding, content in [("utf-8-sig", b"\xef\xbb\xbfa\r\nb\rc"), ("utf-16", "a\nb\nc".encode("utf-16"))]:
        (tmp_path / "text").write_bytes(content)
        assert "".join(rc.Corpus(tmp_path / "text", encoding).blocks()) == "a\nb\nc"


def test_the_file_of_ids(tmp_path, monkeypatch):
    """It is found again, for the same text and vocabulary only; 2 bytes an id, or 4."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    vocabulary = rc.Corpus(path).vocabulary()
    first = rc.Corpus(path).write_ids(vocabulary)
    assert first.parent == tmp_path
    assert first.name.startswith("text.txt.")
    assert first.name.endswith(".ids.npy")
    stored = np.load(first)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, vocabulary.encode(TEXT))

    with monkeypatch.context() as patch:
        patch.setattr(rc.Corpus, "_write", None)
        assert rc.Corpus(path).write_ids(vocabulary) == first
    # A file that is damaged is written again.
    first.write_bytes(first.read_bytes()[:200])
    assert rc.Corpus(path).write_ids(vocabulary) == first
    np.testing.assert_array_equal(np.load(first), stored)

    other_vocabulary = rc.Corpus(path).write_ids(rc.Vocabulary("abc"))
    path.write_text(TEXT[::-1], encoding="utf-8")
    other_text = rc.Corpus(path).write_ids(vocabulary)
    assert len({first, other_vocabulary, other_text}) == 3
    np.testing.assert_array_equal(np.load(other_text), vocabulary.encode(TEXT[::-1]))
    many = rc.Vocabulary(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    assert np.load(rc.Corpus(path).write_ids(many)).dtype == np.uint16
    many = rc.Vocabulary(map(str, range(1 << 16)), "word")
    assert np.load(rc.Corpus(path).write_ids(many)).dtype == np.uint32
    # The files of ids do not match the pattern of a text.
    assert rc.Corpus(tmp_path / "text*").paths == [path]


def test_an_error_leaves_no_file_of_ids(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    corpus = rc.Corpus(path)
    vocabulary = corpus.vocabulary()

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        corpus.ids(vocabulary, tick=fail)
    assert os.listdir(tmp_path) == ["text.txt"]


def test_a_text_that_changes(tmp_path, monkeypatch):
    """The ids are those of the text as it is; if it changes while it is read, there are none."""
    path = tmp_path / "text.txt"
    path.write_text("abcabc")
    corpus = rc.Corpus(path)
    vocabulary = corpus.vocabulary()
    corpus.ids(vocabulary)
    path.write_text("ccbba")
    assert corpus.ids(vocabulary)[:].tolist() == vocabulary.encode("ccbba").tolist()
    assert rc.Corpus(path).ids(vocabulary)[:].tolist() == vocabulary.encode("ccbba").tolist()

    path.write_text("aabb")
    corpus, state = rc.Corpus(path), rc.Corpus._state(rc.Corpus(path), "char")
    vocabulary = corpus.vocabulary()
    path.write_text("bbbb")
    monkeypatch.setattr(rc.Corpus, "_state", lambda self, level: state)
    with pytest.raises(ValueError, match="must not change while it is read"):
        corpus.ids(vocabulary)


def header_of(text):
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\x93NUMPY",
        b"abc",
        header_of(b"{'descr': '<u2', 'fortran_order': False, 'shape': (%d,), }\n" % 2**60),
        header_of(b"{'descr': '<u2', 'fortran_order': False, 'shape': (%d,), }\n" % 10**30),
        header_of(b"{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
        header_of(b"{'descr': '<u2', 'fortran_order': False, 'shape': (1, 1), }\n") + bytes(2),
        header_of(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n") + bytes(8),
        header_of(b"(" * 9000),
    ],
)
def test_what_is_no_file_of_ids_is_written_again(content, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcabc")
    vocabulary = rc.Corpus(path).vocabulary()
    found = rc.Corpus(path).write_ids(vocabulary)
    found.write_bytes(content)
    assert rc.Corpus(path).ids(vocabulary)[:].tolist() == vocabulary.encode("abcabc").tolist()


def test_a_file_of_ids_that_was_truncated_is_written_again(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcabc")
    vocabulary = rc.Corpus(path).vocabulary()
    found = rc.Corpus(path).write_ids(vocabulary)
    content = found.read_bytes()
    for length in range(len(content)):
        found.write_bytes(content[:length])
        rc.Corpus(path).write_ids(vocabulary)
        assert found.read_bytes() == content


def test_what_cannot_be_a_file_of_ids(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcabc")
    vocabulary = rc.Corpus(path).vocabulary()
    found = rc.Corpus(path).write_ids(vocabulary)
    found.unlink()
    os.mkfifo(found)
    with pytest.raises(ValueError, match=f"^{found} must be a file, for ids; got a FIFO or a device"):
        rc.Corpus(path).write_ids(vocabulary)
    found.unlink()
    found.mkdir()
    with pytest.raises(IsADirectoryError, match=str(found)):
        rc.Corpus(path).write_ids(vocabulary)


def test_a_small_file_of_a_large_text(tmp_path, monkeypatch):
    """The command line reads it in blocks, as one that is large itself."""
    monkeypatch.setattr(texts, "LARGE", 10_000)
    for count in (100, 100_000):
        (path := tmp_path / f"{count}.gz").write_bytes(gzip.compress(b"a b " * count))
        assert path.stat().st_size < texts.LARGE
        text = texts.open_text(path, "utf-8")
        if count == 100:
            assert text == "a b " * count
        else:
            assert isinstance(text, rc.Corpus)
            assert sum(map(len, text.blocks())) == 4 * count


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    corpus, vocabulary = rc.Corpus(path), rc.Vocabulary.from_text(TEXT)
    write = rc.Corpus._write

    def refuse(self, target, *arguments):
        if target.parent == tmp_path:
            raise PermissionError(13, "Permission denied", str(target))
        write(self, target, *arguments)

    monkeypatch.setattr(rc.Corpus, "_write", refuse)
    with pytest.warns(UserWarning, match="go to a temporary file"):
        ids = corpus.ids(vocabulary)
    np.testing.assert_array_equal(ids[:], vocabulary.encode(TEXT))
    monkeypatch.setattr(rc.Corpus, "_write", None)  # it is found again
    np.testing.assert_array_equal(corpus.ids(vocabulary)[:], ids[:])


def test_refused(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"abc\xff")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"abc" * 1000)[:-9])
    (tmp_path / "no.gz").write_bytes(b"abc")
    damaged = bytearray(gzip.compress(TEXT.encode()))
    damaged[10] = 0xFF
    (tmp_path / "damaged.gz").write_bytes(damaged)
    for error, match, call in [
        (FileNotFoundError, "nothing.txt", lambda: rc.Corpus(tmp_path / "nothing.txt")),
        (FileNotFoundError, "no file matches", lambda: rc.Corpus(tmp_path / "*.none")),
        (ValueError, "paths must hold at least one path; got none", lambda: rc.Corpus([])),
        (TypeError, "paths must be a path or a list of paths; got int", lambda: rc.Corpus(3)),
        (TypeError, "paths must be str or path-like; got int", lambda: rc.Corpus([3])),
        (ValueError, "encoding must be one that Python knows; got 'x'", lambda: rc.Corpus(tmp_path / "cut.gz", "x")),
        (ValueError, "text.txt is not utf-8-sig text", lambda: rc.Corpus(tmp_path / "text.txt").vocabulary()),
        (OSError, "cut.gz is not a whole gzip file", lambda: rc.Corpus(tmp_path / "cut.gz").vocabulary()),
        (OSError, "damaged.gz is not a whole gzip file", lambda: rc.Corpus(tmp_path / "damaged.gz").vocabulary()),
        (OSError, "Not a gzipped file", lambda: rc.Corpus(tmp_path / "no.gz").vocabulary()),
        (IsADirectoryError, "directory", lambda: rc.Corpus(tmp_path).vocabulary()),
        (TypeError, "texts must be a str, a path, .*; got int", lambda: make("language").fit(3)),
        (TypeError, "texts must hold str; got int at 1", lambda: make("language").fit(iter(["a", 1]))),
        (ValueError, "at least one sentence or character", lambda: make("language").fit(iter([]))),
    ]:
        with pytest.raises(error, match=match):
            call()


# ---- models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["char", "word"])
def test_a_model_learns_from_files_as_from_a_str(files, level):
    (files / "whole.txt").write_text(TEXT, encoding="utf-8")
    settings = {"level": level, "epochs": 2, "dropout": 0.2}
    wanted = make("language", **settings).fit(TEXT, TEXT[100:200])
    path = files / "whole.txt"
    (files / "held-out.txt").write_text(TEXT[100:200], encoding="utf-8")
    for given in (path, rc.Corpus(path), [path]):
        model = make("language", **settings).fit(given, files / "held-out.txt")
        assert_same(model.params, wanted.params)
        assert model.history[-1]["held_out"] == wanted.history[-1]["held_out"]
        assert model.log_prob(given) == wanted.log_prob(TEXT)
        assert model.perplexity(given) == wanted.perplexity(TEXT)
    if level == "char":
        model = make("language", **settings).fit([files / "a.txt", files / "b.txt.gz", files / "c.txt"], TEXT[100:200])
        assert_same(model.params, wanted.params)


def test_a_run_on_files_goes_on(files):
    whole = make("language", epochs=3).fit(files / "c.txt")
    model = make("language", epochs=1).fit(files / "c.txt")
    model.epochs = 3
    with pytest.raises(ValueError, match="resume needs the data of the run"):
        model.fit(files / "a.txt", resume=True)
    model.fit(files / "c.txt", resume=True)
    assert_same(model.params, whole.params)


def test_an_iterator_of_sentences_is_a_list_of_them():
    lines = TEXT.splitlines()
    for settings in ({"level": "char"}, {"level": "word"}):
        wanted = make("language", epochs=2, **settings).fit(lines, lines[:3])
        model = make("language", epochs=2, **settings).fit((line for line in lines), (line for line in lines[:3]))
        assert_same(model.params, wanted.params)
        assert model.history[-1]["held_out"] == wanted.history[-1]["held_out"]
        np.testing.assert_array_equal(model.log_prob(line for line in lines), wanted.log_prob(lines))
    of_text = make("language", epochs=1).fit(TEXT, (line for line in lines))
    np.testing.assert_array_equal(of_text.log_prob(line for line in lines), of_text.log_prob(lines))
    assert of_text.score(line for line in lines) == of_text.score(lines)


def test_a_file_is_scored_as_a_str(tmp_path):
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    for given in (TEXT, TEXT.splitlines()):
        model = make("language", epochs=1).fit(given)
        assert model.log_prob(tmp_path / "text") == model.log_prob(TEXT)


def test_ranks_share_the_file_of_ids(files):
    (files / "results").mkdir()
    found = ranks.run_on_ranks(2, ranks.fit_files, files / "results", str(files / "c.txt"))
    wanted = make("language", epochs=2, batch_size=8).fit(files / "c.txt", shards=8)
    assert [result["parameters"] for result in found] == [ranks.checksum(wanted.params.values())] * 2
    assert [result["written"] for result in found] == [True, False]


MEMORY = """
import resource, sys
import rnncore as rc
from pathlib import Path
rc.LanguageModel(hidden_size=8, batch_size=16, epochs=1).fit("abc" * 2000, callback=lambda at: at.update == 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = rc.LanguageModel(hidden_size=8, batch_size=16, epochs=1)
model.fit(Path(sys.argv[1]), callback=lambda at: at.update == 400)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="units of ru_maxrss")
def test_memory_does_not_grow_with_the_text(tmp_path):
    """Of 60 MB of text, whose ids are 120 MB, a run needs less than 60 MB; the blocks of a pass are 25 of them."""
    (tmp_path / "text").write_text(TEXT * (60_000_000 // len(TEXT.encode())), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-P", "-c", MEMORY, str(tmp_path / "text")], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 60_000
