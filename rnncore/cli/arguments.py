"""The arguments of the command line."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import rnncore

from .. import checks
from ..engine.cells import CELLS
from ..engine.quantization import PRECISIONS
from .commands import bench, info, quantize, sample, score
from .training import train

EPILOG = """\
examples:
  rnncore train                                  train on the English text that Python carries: a minute
  rnncore train book.txt -o book.npz             train on a text; the loss curve goes to book.png
  mpiexec -n 4 rnncore train book.txt            train on four processes; also srun
  rnncore sample book.npz --prompt "It was " --stream
  rnncore score book.npz other.txt               how well the model predicts another text
  rnncore info book.npz                          what a model file holds
  rnncore bench --mode forward                   the engine beside NumPy and, where installed, its peers
  rnncore bench --mine mymodel:pairs             your own model, before and after
  rnncore --print-completion bash                completion of options and files; also zsh and tcsh

exit codes:
  0    done
  1    the reader of the output closed it, two calls of bench --mine return different results, or a rank failed
  2    an argument, a file or a model cannot be used; the message says why
  130  interrupted by Ctrl-C; train first saves what was learned

Output has no colours. There is a progress bar only on a terminal.
"""


def argument_type(convert: Any, rule: Any) -> Any:
    """Return a type of argparse that converts a text and checks the value with a rule of :mod:`rnncore.checks`."""

    def parse(text: Any) -> Any:
        try:
            value = convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {convert.__name__} value: {text!r}") from None
        try:
            return rule("", value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error).strip()) from None

    return parse


count = argument_type(int, partial(checks.integer, least=1))
positive = argument_type(float, checks.positive)
proper_share = argument_type(float, checks.proper_share)


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the defaults that there are, and the examples as they are written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class PrintCompletion(argparse.Action):
    """Print the completion script of a shell, made by shtab."""

    def __call__(self, parser: Any, namespace: Any, shell: Any, option_string: str | None = None) -> None:
        try:
            import shtab
        except ModuleNotFoundError:
            parser.error("--print-completion needs shtab: pip install shtab")
        print(shtab.complete(parser, shell))
        parser.exit()


def file_argument(parser: Any, *names: str, **options: Any) -> None:
    """Add an argument that the shell completes with the names of files."""
    parser.add_argument(*names, **options).complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}


def precision_argument(parser: Any) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, help="round the weights first: fewer bytes, less time")


def make_parser() -> Any:
    description = "Recurrent networks on the CPU: train, sample and score language models, and measure the engine."
    parser = argparse.ArgumentParser(prog="rnncore", description=description, epilog=EPILOG, formatter_class=Help)
    parser.add_argument("--version", action="version", version=f"rnncore {rnncore.__version__}")
    shells = ["bash", "zsh", "tcsh"]
    completion = "print the script that completes options and files in a shell"
    parser.add_argument("--print-completion", action=PrintCompletion, choices=shells, help=completion)
    commands = parser.add_subparsers(dest="command", required=True)

    p = commands.add_parser("train", help="train a language model on a text file", formatter_class=Help)
    file_argument(p, "file", nargs="?", help="a text file; without one, Python's own help topics")
    file_argument(p, "-o", "--output", default="model.npz", help="model file; the loss curve goes beside it")
    resume = "go on with the run of the output file, if there is one; other options as they were, but for --epochs"
    p.add_argument("--resume", action="store_true", help=f"{resume}, --minutes, --patience and --sample")
    p.add_argument("--level", choices=["char", "word"], default="char", help="what a token is")
    p.add_argument("--cell", choices=CELLS, default="lstm", help="recurrent cell")
    p.add_argument("--hidden", type=count, default=256, help="hidden size")
    p.add_argument("--layers", type=count, default=1, help="layers")
    p.add_argument(
        "--embedding",
        type=int,
        help="embedding size; if not given 64 for characters, --hidden for words; 0 for one-hot",
    )
    p.add_argument("--dropout", type=float, default=0.0, help="after the embedding and after each layer")
    p.add_argument(
        "--recurrent-dropout", type=float, default=0.0, help="of hidden units, for each stream the same at all steps"
    )
    p.add_argument("--vocabulary", type=count, help="largest vocabulary; 10000 for words")
    p.add_argument("--epochs", type=count, default=6, help="passes over the text")
    p.add_argument("--minutes", type=positive, help="stop after so many minutes")
    p.add_argument("--batch", type=count, default=32, help="streams side by side")
    p.add_argument("--chunk", type=count, default=64, help="steps that gradients go back")
    p.add_argument("--learning-rate", type=positive, default=2e-3, help="of Adam")
    p.add_argument("--decay", type=positive, default=1.0, help="factor of the learning rate after each epoch")
    p.add_argument("--patience", type=count, help="stop after so many epochs without a better held-out loss")
    p.add_argument("--clip", type=positive, default=5.0, help="largest norm of the gradients")
    p.add_argument("--held-out", type=proper_share, default=0.1, help="share of the text, its end, that is held out")
    file_argument(p, "--held-out-file", help="a text file that is held out, instead of a share of the other")
    p.add_argument("--sample", type=count, default=200, help="tokens of the sample after each epoch")
    p.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="type of all numbers")
    p.add_argument("--seed", type=int, default=0, help="of the initial parameters and dropout")
    p.add_argument("--encoding", default="utf-8-sig", help="encoding of the file")
    together = "with mpiexec or srun:"
    p.add_argument("--shards", type=count, help=f"{together} pieces of a batch, at least as many as ranks; 8")
    p.add_argument("--timeout", type=positive, default=600.0, help=f"{together} seconds that a rank may be silent")
    p.add_argument("--ranks-check", action="store_true", help=f"{together} print what each rank sees, and end")
    p.set_defaults(run=train)

    p = commands.add_parser("sample", help="draw text from a model", formatter_class=Help)
    file_argument(p, "model", help="a model file of rnncore train")
    p.add_argument("-n", type=count, default=500, help="tokens")
    p.add_argument("--prompt", default="", help="text to go on from")
    p.add_argument("--stream", action="store_true", help="print each token when it is drawn")
    p.add_argument("--temperature", type=float, default=0.8, help="below 1 more careful, 0 always the likeliest")
    p.add_argument("--top-k", type=count, help="draw among the k likeliest")
    p.add_argument("--top-p", type=float, help="draw among the likeliest that reach this probability")
    p.add_argument("--seed", type=int, help="for the same text again")
    precision_argument(p)
    p.set_defaults(run=sample)

    p = commands.add_parser("score", help="how well a model predicts a text", formatter_class=Help)
    file_argument(p, "model", help="a model file of rnncore train")
    file_argument(p, "file", help="a text file")
    p.add_argument("--encoding", default="utf-8-sig", help="encoding of the file")
    precision_argument(p)
    p.set_defaults(run=score)

    p = commands.add_parser("quantize", help="write a model in bfloat16 or int8: a smaller file", formatter_class=Help)
    file_argument(p, "model", help="a model file")
    p.add_argument("precision", choices=PRECISIONS, help="of the weights")
    file_argument(p, "-o", "--output", help="the new file; MODEL-PRECISION.npz if not given")
    p.set_defaults(run=quantize)

    p = commands.add_parser("bench", add_help=False, help="the engine beside NumPy and its peers, or your own model")
    p.set_defaults(run=bench)

    p = commands.add_parser("info", help="what a bug report needs, or what a model file holds", formatter_class=Help)
    file_argument(p, "model", nargs="?", help="a model file; without one: versions, build, processor, threads")
    p.set_defaults(run=info)
    return parser
