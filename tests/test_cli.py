"""The command line as a user runs it: what it prints, what it leaves behind, how it fails."""

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import threading

import numpy as np
import pytest
from support.files import NULL, make_device

import rnncore as rc
from rnncore.cli import main
from rnncore.cli.training import Report

TEXT = "It was the best of times, it was the worst of times.\n" * 60
SMALL = ["--hidden", "12", "--batch", "4", "--chunk", "16", "--sample", "20"]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def model_file(tmp_path, text_file):
    path = tmp_path / "trained.npz"
    assert main(["train", str(text_file), "-o", str(path), "--epochs", "1", *SMALL]) == 0
    return path


def fails(capsys, *arguments):
    """-> the one line on stderr of a command that must exit with 2."""
    assert main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("rnncore: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_train_reports_and_saves(tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    assert main(["train", str(text_file), "-o", str(path), "--epochs", "2", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "2,862 characters to train on, 318 held out" in out
    assert re.search(r"\d+\.\d times as fast a training step as with the NumPy reference in the engine's place", out)
    for epoch in (1, 2):
        assert re.search(
            rf"epoch {epoch}/2: training loss \d\.\d+, held-out \d\.\d+ nats = \d\.\d+ bits a character; "
            r"[\d,]+ tokens/s",
            out,
        )
    model = rc.load(path)
    assert (model.hidden_size, model.batch_size, len(model.history)) == (12, 4, 2)
    held_out = re.findall(r"held-out (\d\.\d+) nats", out)
    np.testing.assert_allclose(float(held_out[-1]), np.log(model.perplexity(TEXT[2862:])), atol=6e-4)
    nats, bits = map(float, re.search(r"held-out (\d\.\d+) nats = (\d\.\d+) bits", out).groups())
    np.testing.assert_allclose(bits, nats / np.log(2), atol=2e-3)


def test_train_draws_the_loss_curve(tmp_path, text_file):
    pytest.importorskip("matplotlib")
    path, picture = tmp_path / "model.npz", tmp_path / "model.png"
    train = ["train", str(text_file), "-o", str(path), "--epochs", "1", *SMALL]
    assert main(train) == 0
    first = picture.read_bytes()
    assert first.startswith(b"\x89PNG")
    # An earlier one is replaced, with its permissions.
    picture.chmod(0o600)
    assert main([*train, "--seed", "1"]) == 0
    assert picture.read_bytes() != first
    assert picture.stat().st_mode & 0o777 == 0o600


def test_the_loss_curve_replaces_nothing_else(tmp_path, text_file, capsys):
    """Not the text that the command was given, nor a picture of the user, nor what is no file."""
    figure = pytest.importorskip("matplotlib.figure").Figure()
    text = tmp_path / "notes.png"
    text.write_text(TEXT)
    figure.savefig(tmp_path / "book.png")
    book = (tmp_path / "book.png").read_bytes()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("notes", "book", "pipe", "folder"):
        path = tmp_path / f"{name}.npz"
        assert main(["train", str(text), "-o", str(path), "--epochs", "1", *SMALL]) == 0
        captured = capsys.readouterr()
        message = f"no loss curve: {path.with_suffix('.png')} is something else, and stays as it is"
        assert captured.err.splitlines()[-1] == f"rnncore: {message}"
        assert "loss curve:" not in captured.out
        assert len(rc.load(path).sample(10)) == 10
    assert text.read_text() == TEXT
    assert (tmp_path / "book.png").read_bytes() == book
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


def test_train_through_a_link(tmp_path, text_file):
    link, target = tmp_path / "model.npz", tmp_path / "store" / "model-1.npz"
    target.parent.mkdir()
    link.symlink_to(target)
    assert main(["train", str(text_file), "-o", str(link), "--epochs", "1", *SMALL]) == 0
    assert link.is_symlink()
    assert len(rc.load(target).sample(10)) == 10


def test_train_into_a_device(tmp_path, text_file, capsys):
    device = make_device(tmp_path / "null.npz", NULL)
    before = os.stat(device)
    assert main(["train", str(text_file), "-o", str(device), "--epochs", "1", *SMALL]) == 0
    assert os.path.samestat(os.stat(device), before)
    assert sorted(os.listdir(tmp_path)) == ["null.npz", text_file.name]
    captured = capsys.readouterr()
    assert f"model: {device} " in captured.out
    assert "loss curve" not in captured.out + captured.err


def test_an_interrupt_while_the_model_is_saved(tmp_path, text_file, capsys, monkeypatch):
    """Again, before it is written and while it is."""
    path = tmp_path / "model.npz"

    def interrupted(function):
        def call(*arguments):
            signal.raise_signal(signal.SIGINT)
            return function(*arguments)

        return call

    monkeypatch.setattr(Report, "close", interrupted(Report.close))
    monkeypatch.setattr(os, "fsync", interrupted(os.fsync))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["train", str(text_file), "-o", str(path), "--epochs", "1", *SMALL]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    assert f"model: {path} " in captured.out
    assert captured.err.endswith("rnncore: interrupted\n")
    assert len(rc.load(path).sample(10)) == 10


def test_train_words(tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    options = ["--level", "word", "--epochs", "1", "--vocabulary", "9", *SMALL]
    assert main(["train", str(text_file), "-o", str(path), *options]) == 0
    assert re.search(r"held-out .* nats a word \(perplexity [\d.]+\), \d\.\d+ bits", capsys.readouterr().out)
    assert len(rc.load(path).vocabulary) == 9
    # The same held-out text from a file, scored while training and afterwards.
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("It was the age of wisdom,\nit was the age of foolishness,\n" * 3)
    options += ["--held-out-file", str(held_out)]
    assert main(["train", str(text_file), "-o", str(path), *options]) == 0
    trained = re.search(r"held-out (.* bits a character)", capsys.readouterr().out)
    assert main(["score", str(path), str(held_out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == trained[1]


def test_train_stops_after_minutes(tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    options = ["--epochs", "100000", "--minutes", "0.01", *SMALL]
    assert main(["train", str(text_file), "-o", str(path), *options]) == 0
    assert "stopped after 0.01 minutes; held-out" in capsys.readouterr().out
    assert path.exists()


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_interrupt_keeps_the_model(tmp_path, text_file):
    path = tmp_path / "model.npz"
    command = [sys.executable, "-m", "rnncore", "train", str(text_file), "-o", str(path), "--epochs", "100000"]
    process = subprocess.Popen(
        command + SMALL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        # Where tests run in the background of a shell, SIGINT is ignored, and programs inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509  # no other thread here
    )
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    found = re.search(r"interrupted after ([\d,]+) updates: \S+ has the parameters of update ([\d,]+)", out)
    assert found, out
    assert "Traceback" not in out
    assert len(rc.load(path).sample(10)) > 0
    assert (tmp_path / "model.last.npz").exists() == (found[1] != found[2])


def test_an_interrupt_keeps_the_best_epoch_and_the_last_update(tmp_path, text_file, capsys, monkeypatch):
    """Both, and says which is which."""
    path = tmp_path / "model.npz"
    held_out, call = [], Report.__call__

    def interrupt(report, progress):
        """Three updates after the end of the first epoch."""
        call(report, progress)
        held_out.append(progress.held_out)
        if len(held_out) > 3 and held_out[-4] is not None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Report, "__call__", interrupt)
    assert main(["train", str(text_file), "-o", str(path), "--epochs", "9", *SMALL]) == 130
    out = capsys.readouterr().out
    best, last = rc.load(path), rc.load(tmp_path / "model.last.npz")
    assert all((best.params[name] != last.params[name]).any() for name in best.params)
    np.testing.assert_allclose(np.log(best.perplexity(TEXT[2862:])), held_out[-4], rtol=1e-5)
    updates = len(held_out)
    assert f"interrupted after {updates} updates: {path} has the parameters of update {updates - 3}, of the best" in out
    assert f"{tmp_path / 'model.last.npz'} has those of update {updates}, the last" in out
    # It replaces no file that is something else.
    held_out.clear()
    (tmp_path / "model.last.npz").write_text("mine")
    assert main(["train", str(text_file), "-o", str(path), "--epochs", "9", *SMALL]) == 130
    assert (tmp_path / "model.last.npz").read_text() == "mine"
    captured = capsys.readouterr()
    assert "model.last.npz is something else, and stays as it is" in captured.err
    assert "the last   (" not in captured.out


def test_an_interrupt_ends_the_wait_for_a_reader(tmp_path, text_file, capsys, monkeypatch):
    fifo, close = tmp_path / "fifo", Report.close
    os.mkfifo(fifo)
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    late_reader = threading.Timer(5, fifo.read_bytes)  # so that the test ends in any case
    monkeypatch.setattr(Report, "close", lambda report: [close(report), interrupt.start(), late_reader.start()])
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["train", str(text_file), "-o", str(fifo), "--epochs", "1", *SMALL]) == 130
    finally:
        late_reader.cancel()
        signal.signal(signal.SIGINT, before)
    captured = capsys.readouterr()
    assert captured.err.endswith("rnncore: interrupted\n")
    assert "model:" not in captured.out


def test_patience_keeps_the_best_epoch(tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    command = ["train", str(text_file), "-o", str(path), "--epochs", "40", "--patience", "2", "--learning-rate", "0.5"]
    assert main(command + SMALL) == 0
    out = capsys.readouterr().out
    history = rc.load(path).history
    best = min(history, key=lambda record: record["held_out"])
    assert len(history) == best["epoch"] + 2 < 40
    assert f"keeping the model of epoch {best['epoch']}, held-out {best['held_out']:.3f} nats" in out


def test_models_of_another_class_are_refused(tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    rc.SequenceClassifier(hidden_size=3, epochs=1).fit(["ab", "ba"], [0, 1]).save(path)
    for command in (["sample", str(path)], ["score", str(path), str(text_file)]):
        assert main(command) == 2
        assert "holds a SequenceClassifier; this command takes a LanguageModel" in capsys.readouterr().err


def test_sample(model_file, capsys):
    capsys.readouterr()
    arguments = ["sample", str(model_file), "-n", "50", "--seed", "3", "--prompt", "It was"]
    texts = []
    for extra in ([], [], ["--top-k", "2"], ["--temperature", "0"], ["--top-p", "0.3"]):
        assert main(arguments + extra) == 0
        captured = capsys.readouterr()
        assert re.fullmatch(r"[\d,]+ chars a second\n", captured.err)
        texts.append(captured.out)
    assert all(text.startswith("It was") and len(text) == 57 for text in texts)
    assert texts[0] == texts[1]
    assert len(set(texts)) >= 3


@pytest.mark.parametrize("level", ["char", "word"])
def test_sample_stream_prints_the_same_text(level, tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    assert main(["train", str(text_file), "-o", str(path), "--level", level, "--epochs", "1", *SMALL]) == 0
    capsys.readouterr()
    arguments = ["sample", str(path), "-n", "40", "--seed", "3", "--prompt", "It was"]
    texts = []
    for extra in ([], ["--stream"]):
        assert main(arguments + extra) == 0
        captured = capsys.readouterr()
        assert re.fullmatch(rf"[\d,]+ {level}s a second\n", captured.err)
        texts.append(captured.out)
    assert texts[0] == texts[1]
    assert len(texts[0].split() if level == "word" else texts[0]) >= 35  # some tokens are ends of lines


def test_sample_streams_into_a_pipe(model_file):
    """Each character leaves when it is drawn, without a terminal; the reader may go before the end."""
    command = [sys.executable, "-m", "rnncore", "sample", str(model_file), "-n", "1000000000", "--stream"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert len(process.stdout.read(50)) == 50
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_sample_says_what_it_does_not_know_of_the_prompt(model_file, capsys):
    capsys.readouterr()
    assert main(["sample", str(model_file), "-n", "5", "--prompt", "It wäs ßo"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("rnncore: the model does not know these chars of the prompt: 'ä', 'ß'\n")


def test_score(model_file, text_file, capsys):
    capsys.readouterr()
    assert main(["score", str(model_file), str(text_file)]) == 0
    out = capsys.readouterr().out
    assert "3,180 chars, 0 of them unknown to the model" in out
    nats = float(re.search(r"(\d\.\d+) nats", out)[1])
    np.testing.assert_allclose(nats, np.log(rc.load(model_file).perplexity(TEXT)), atol=6e-4)


def test_precision(model_file, text_file, tmp_path, capsys):
    """Rounded on the way, or in a file of its own: the same text and the same score."""
    small = tmp_path / "trained-int8.npz"
    assert main(["quantize", str(model_file), "int8"]) == 0
    assert re.match(
        rf"{re.escape(str(small))}: <LanguageModel .*, int8, [\d,]+ bytes>, 0\.\d\d of the bytes",
        capsys.readouterr().out,
    )
    assert rc.load(small).precision == "int8"
    results = []
    for arguments in ([str(small)], [str(model_file), "--precision", "int8"], [str(small), "--precision", "int8"]):
        assert main(["sample", *arguments, "-n", "30", "--seed", "1"]) == 0
        text = capsys.readouterr().out
        assert main(["score", arguments[0], str(text_file), *arguments[1:]]) == 0
        results.append((text, capsys.readouterr().out))
    assert results[0] == results[1] == results[2]
    assert main(["info", str(small)]) == 0
    out = capsys.readouterr().out
    assert f"numbers in int8, {rc.load(small).nbytes:,} bytes" in out
    assert main(["quantize", str(model_file), "bfloat16", "-o", str(tmp_path / "half.npz")]) == 0
    assert rc.load(tmp_path / "half.npz").precision == "bfloat16"
    assert "those of this one are int8" in fails(capsys, "quantize", small, "bfloat16")
    assert "those of this one are int8" in fails(capsys, "sample", small, "--precision", "bfloat16")
    assert "is the model that is rounded" in fails(capsys, "quantize", model_file, "int8", "-o", model_file)
    assert "cannot read" in fails(capsys, "quantize", tmp_path / "none.npz", "int8")
    assert "cannot write" in fails(capsys, "quantize", model_file, "int8", "-o", tmp_path / "no" / "model.npz")


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^rnncore +{re.escape(rc.__version__)}$", out, re.MULTILINE)
    assert all(isa in out for isa in rc.available_isas())
    for name in ("build", "Python", "NumPy", "system", "processor", "threads", "environment", "extras"):
        assert re.search(rf"^{name} +\S", out, re.MULTILINE), name
    assert "-O3" in out


def test_info_of_a_model(model_file, tmp_path, capsys):
    capsys.readouterr()
    assert main(["info", str(model_file)]) == 0
    out = capsys.readouterr().out
    model = rc.load(model_file)
    assert "hidden_size=12" in out
    assert f"{sum(p.size for p in model.params.values()):,} numbers" in out
    assert f"held-out {model.history[0]['held_out']:.3f}" in out
    rc.SequenceClassifier(hidden_size=3, epochs=2).fit(["ab", "ba"], ["x", "y"]).save(tmp_path / "classes.npz")
    assert main(["info", str(tmp_path / "classes.npz")]) == 0
    out = capsys.readouterr().out
    assert "classes      x, y" in out
    assert "trained      2 epochs" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(shell, capsys):
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as stop:
        main(["--print-completion", shell])
    assert stop.value.code in (0, None)
    out = capsys.readouterr().out
    assert all(word in out for word in ("train", "sample", "print-completion", "lstm"))


def test_help_shows_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "130  interrupted" in out


def test_version_is_that_of_the_package(capsys):
    from importlib.metadata import version

    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"rnncore {rc.__version__}\n"
    assert rc.__version__ == version("rnncore")


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_unreadable_files(tmp_path, model_file, capsys):
    capsys.readouterr()
    missing = tmp_path / "missing.txt"
    assert f"cannot read {missing}: No such file" in fails(capsys, "train", missing)
    assert f"cannot read {tmp_path}: Is a directory" in fails(capsys, "train", tmp_path)
    assert "No such file" in fails(capsys, "sample", missing)
    assert "No such file" in fails(capsys, "score", model_file, missing)


def test_files_without_text(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_bytes(b"")
    assert f"{path} holds no text" in fails(capsys, "train", path)
    path.write_bytes(b" \n\n ")
    assert f"{path} holds no text" in fails(capsys, "train", path)
    path.write_bytes(b"short")
    message = fails(capsys, "train", path, "-o", tmp_path / "m.npz")
    assert "is too short: 4 training and 1 held-out tokens; --batch 32 needs at least 64 and 1" in message
    path.write_bytes("café".encode("latin-1") * 100)
    assert f"{path} is not utf-8" in fails(capsys, "train", path)
    assert "at byte 3; see --encoding" in fails(capsys, "train", path)
    assert "is not utf-16 text" in fails(capsys, "train", path, "--encoding", "utf-16")
    assert "'latin-99' is not an encoding" in fails(capsys, "train", path, "--encoding", "latin-99")
    arguments = ["train", path, "--encoding", "latin-1", "-o", tmp_path / "m.npz", "--epochs", "1", *SMALL]
    assert main([str(a) for a in arguments]) == 0
    assert not (tmp_path / "text.npz").exists()


def test_unwritable_output(tmp_path, text_file, capsys):
    missing = tmp_path / "no" / "model.npz"
    assert f"cannot write {missing}" in fails(capsys, "train", text_file, "-o", missing)
    assert f"cannot write {tmp_path}: Is a directory" in fails(capsys, "train", text_file, "-o", tmp_path)
    assert "the loss curve goes there" in fails(capsys, "train", text_file, "-o", tmp_path / "model.png")
    assert "it is a text that is read" in fails(capsys, "train", text_file, "-o", text_file)
    assert text_file.read_text() == TEXT


def test_a_broken_pipe_keeps_the_model(tmp_path, text_file):
    path = tmp_path / "model.npz"
    command = [sys.executable, "-m", "rnncore", "train", str(text_file), "-o", str(path), "--epochs", "30", *SMALL]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 1
    assert b"Traceback" not in errors
    assert len(rc.load(path).sample(10)) == 10


def test_text_that_the_terminal_cannot_show(tmp_path):
    path, text = tmp_path / "model.npz", tmp_path / "text.txt"
    text.write_text("déjà vu, naïve façade. " * 100, encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "rnncore", "train", str(text), "-o", str(path), "--epochs", "1", *SMALL]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert path.exists()


def test_wrong_model_files(tmp_path, text_file, capsys):
    assert "is not a model file of rnncore" in fails(capsys, "sample", text_file)
    assert "is not a model file of rnncore" in fails(capsys, "score", text_file, text_file)


def test_wrong_options(text_file, model_file, capsys):
    capsys.readouterr()
    assert "top_p must be in (0, 1]; got 3.0" in fails(capsys, "sample", model_file, "--top-p", "3")
    assert "temperature must be" in fails(capsys, "sample", model_file, "--temperature", "-1")
    assert "dropout must be in [0, 1); got 1.5" in fails(capsys, "train", text_file, "--dropout", "1.5")
    for arguments in (
        [],
        ["fly"],
        ["train", "--hidden", "0"],
        ["train", "--held-out", "1"],
        ["train", "--learning-rate", "nan"],
        ["sample"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2


def test_module_runs(tmp_path):
    command = [sys.executable, "-m", "rnncore", "info"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.startswith("rnncore ")


def test_resume(tmp_path, text_file, capsys, monkeypatch):
    """A run that is interrupted, and one whose process is killed, go on to the bits of one that is not."""
    whole, path = tmp_path / "whole.npz", tmp_path / "model.npz"
    command = ["train", str(text_file), "--epochs", "4", "--dropout", "0.2", *SMALL, "-o"]
    assert main([*command, str(whole)]) == 0
    whole = rc.load(whole)
    call = Report.__call__

    def end_with(error, update):
        def end(report, progress):
            call(report, progress)
            if progress.update == update:
                raise error

        return end

    updates = whole.history[0]["updates"]
    for error, update, going_on in (
        (KeyboardInterrupt, updates + 2, updates + 2),
        (KeyboardInterrupt, 2 * updates, 2 * updates),
        (SystemError, 2 * updates + 3, 2 * updates),  # as a kill: what counts is the file at the end of the epoch
    ):
        path.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(Report, "__call__", end_with(error, update))
            if error is SystemError:
                patch.setattr("rnncore.cli.training.save", kept := Kept())
                with pytest.raises(SystemError):
                    main([*command, str(path)])
                path.write_bytes(kept.files[-2])
            else:
                assert main([*command, str(path)]) == 130
                assert "the same command with --resume goes on" in capsys.readouterr().out
        assert main([*command, str(path), "--resume"]) == 0
        out = capsys.readouterr().out
        assert f"going on after update {going_on}, in epoch {-(-(going_on + 1) // updates)}\n" in out
        model = rc.load(path)
        assert model.losses == whole.losses
        assert all((model.params[name] == p).all() for name, p in whole.params.items())
    before = path.read_bytes()
    assert main([*command, str(path), "--resume"]) == 0
    assert f"{path}: the run has ended, after 4 epochs; a larger --epochs goes on" in capsys.readouterr().out
    assert main([*command, str(path), "--resume", "--hidden", "9"]) == 2
    assert "has hidden_size = 12; got 9" in capsys.readouterr().err
    text_file.write_text(TEXT.replace("best", "Best"))
    assert main([*command, str(path), "--resume", "--epochs", "5"]) == 2
    assert "resume needs the data of the run" in capsys.readouterr().err
    assert path.read_bytes() == before


class Kept:
    """Saves models, and keeps the bytes of every file."""

    def __init__(self):
        self.files = []

    def __call__(self, model, path, *, training=True):
        model.save(path, training=training)
        self.files.append(path.read_bytes())


def test_resume_of_a_run_that_patience_ended(tmp_path, text_file, capsys):
    path = tmp_path / "model.npz"
    command = ["train", str(text_file), "-o", str(path), "--epochs", "40", "--learning-rate", "0.5", *SMALL]
    assert main([*command, "--patience", "2"]) == 0
    epochs = len(rc.load(path).history)
    assert main([*command, "--patience", "2", "--resume"]) == 0
    assert f"the run has ended, after {epochs} epochs; a larger --patience goes on" in capsys.readouterr().out
    assert main([*command, "--patience", "3", "--resume"]) == 0
    assert len(rc.load(path).history) > epochs


def test_resume_of_a_model_without_its_run(tmp_path, text_file, model_file, capsys):
    """As files of version 0.2 are, whose history has no updates either."""
    model = rc.load(model_file)
    for record in model.history:
        del record["updates"]
    model.save(model_file)
    assert main(["train", str(text_file), "-o", str(model_file), "--epochs", "1", "--resume", *SMALL]) == 2
    assert f"{model_file} holds a model without its run" in capsys.readouterr().err


def test_resume_without_a_file_begins(tmp_path, text_file):
    path = tmp_path / "model.npz"
    assert main(["train", str(text_file), "-o", str(path), "--epochs", "1", "--resume", *SMALL]) == 0
    assert path.exists()


def test_a_disk_that_is_full_does_not_end_the_training(tmp_path, text_file, capsys, monkeypatch):
    """Only the last save of a run has to succeed."""
    path, save, calls = tmp_path / "model.npz", rc.LanguageModel.save, []

    def full(model, *arguments, **options):
        calls.append(None)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(model, *arguments, **options)

    monkeypatch.setattr(rc.LanguageModel, "save", full)
    assert main(["train", str(text_file), "-o", str(path), "--epochs", "2", *SMALL]) == 0
    assert f"cannot write {path}: No space left on device; the training goes on" in capsys.readouterr().out
    assert len(rc.load(path).history) == 2
