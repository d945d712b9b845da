"""The house: imports point one way, the public names are there, extras stay out, examples in docstrings run."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import rnncore as rc
from rnncore.engine.cells import CELLS

PACKAGE = Path(rc.__file__).parent

# What each module may import of the package; reference nothing, and no module that computes imports it.
MAY_IMPORT = {
    "_types": set(),
    "documentation": set(),
    "reference": set(),
    "checks": set(),
    "corpus": {"checks", "files", "text"},
    "distributed": {"checks", "engine"},
    "files": {"checks", "interrupts"},
    "interrupts": set(),
    "testing": {"checks", "engine"},
    "config": {"_engine", "engine", "__version__"},
    "text": {"checks", "engine"},
    "metrics": {"checks"},
    "optim": {"checks", "engine"},
    "plots": {"checks", "engine"},
    "engine": {"_blas", "_engine", "checks"},
    "functional": {"documentation", "engine"},
    "gates": {"checks", "engine"},
    "layers": {"checks", "engine", "functional"},
    "inspection": {"engine", "functional", "layers"},
    "losses": {"checks", "engine", "layers"},
    "sequence_losses": {"checks", "engine", "losses"},
    "models": {
        "checks",
        "corpus",
        "distributed",
        "documentation",
        "engine",
        "files",
        "functional",
        "interrupts",
        "layers",
        "losses",
        "optim",
        "metrics",
        "sequence_losses",
        "text",
    },
    "compat": {"checks", "engine", "functional", "gates", "layers", "losses"},
    "interop": {"checks", "engine", "files", "functional", "layers"},
    "bench": {
        *("_engine", "config", "engine", "files", "functional", "interop", "layers", "models", "optim", "reference"),
        *("testing", "text"),
    },
    "cli": {
        "bench",
        "checks",
        "config",
        "corpus",
        "distributed",
        "engine",
        "files",
        "functional",
        "interrupts",
        "models",
        "reference",
        "plots",
    },
}


def imports_of(path):
    """Names of the package's own modules that a file imports, relative to the package."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                yield name.split(".")[0]


def test_imports_point_one_way():
    for name, allowed in MAY_IMPORT.items():
        files = (PACKAGE / name).rglob("*.py") if (PACKAGE / name).is_dir() else [PACKAGE / f"{name}.py"]
        for file in files:
            used = set(imports_of(file)) - {"_types"}
            assert used <= allowed, (file.name, used - allowed)


def test_every_module_has_its_place():
    modules = {m.name for m in pkgutil.iter_modules([str(PACKAGE)])} - {"_blas", "_engine", "__main__"}
    assert modules == set(MAY_IMPORT)


def test_reference_imports_numpy_only():
    for file in (PACKAGE / "reference").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert [alias.name for alias in node.names] == ["numpy"], file.name
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module in ("__future__", "collections.abc", "numpy.typing", "typing"), file.name


def test_import_brings_in_no_extras(tmp_path):
    extras = ("matplotlib", "tqdm", "torch", "onnx", "safetensors", "pytest", "scipy")
    later = ("numpy.random", "rnncore.corpus", "rnncore.models", "rnncore.plots", "rnncore.reference")  # later
    needless = "rnncore, rnncore.interop.keras, rnncore.interop.onnx_operator, rnncore.interop.state_dict"
    code = f"import sys, {needless}; print([m for m in {extras + later} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "[]"


def test_public_names_are_documented():
    for name in rc.__all__:
        thing = getattr(rc, name)
        assert inspect.ismodule(thing) or inspect.getdoc(thing), name
    assert set(rc.__all__) <= set(dir(rc))


def modules():
    for info in pkgutil.walk_packages(rc.__path__, "rnncore."):
        if not info.name.endswith("__main__"):
            yield info.name


# What a module of the package needs beyond NumPy, or its examples do.
EXTRAS = {
    "rnncore.plots": ["matplotlib"],
    "rnncore.interop.torch": ["torch"],
    "rnncore.interop.onnx": ["onnx"],
    "rnncore.interop.onnx_graph": ["onnx"],
    "rnncore.interop.safetensors": ["safetensors"],
}


@pytest.mark.parametrize("name", ["rnncore", *modules()])
def test_examples_in_docstrings(name):
    for extra in EXTRAS.get(name, []):
        pytest.importorskip(extra)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


@pytest.mark.parametrize("name", CELLS)
def test_functions_have_examples(name):
    for module in (rc, rc.reference):
        for direction in ("forward", "backward"):
            assert ">>>" in getattr(module, f"{name}_{direction}").__doc__


@pytest.mark.parametrize("name", ["_engine", "_blas"])
def test_stub_matches_the_extension(name):
    """Every public name of a compiled module is in its .pyi, and the other way round."""
    stub = ast.parse((PACKAGE / f"{name}.pyi").read_text())
    written = {node.name for node in stub.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    written |= {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
    compiled = {name for name in vars(importlib.import_module(f"rnncore.{name}")) if not name.startswith("_")}
    assert written == compiled


def test_types_are_in_the_code():
    """Only the compiled modules have stubs; mypy checks the package and tests/downstream.py in CI."""
    assert {file.name for file in PACKAGE.rglob("*.pyi")} == {"_blas.pyi", "_engine.pyi"}


def test_no_file_is_too_long():
    """A subject that needs more lines is two subjects."""
    root = Path(__file__).parents[1]
    longest = {"rnncore": 700, "src": 700, "bench": 600, "tests": 600}
    for folder, limit in longest.items():
        for file in (root / folder).rglob("*.*"):
            if file.suffix in {".py", ".pyx", ".pxd", ".c", ".h"}:
                lines = len(file.read_text(encoding="utf-8").splitlines())
                assert lines <= limit, f"{file.relative_to(root)} has {lines} lines, more than {limit}"


def test_downstream_code_runs():
    runpy.run_path(str(Path(__file__).with_name("downstream.py")))
