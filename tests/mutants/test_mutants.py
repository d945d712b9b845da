"""A test of the tests: the package broken on purpose, which a test must notice each time."""

import pytest
from mutants.run import names_of, prepare, survives


@pytest.fixture(scope="module")
def python_sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("python")
    prepare("python", folder)
    return folder


@pytest.fixture(scope="module")
def native_sources(tmp_path_factory):
    for needed, version in (("Cython", "3.1"), ("setuptools", "77")):
        pytest.importorskip(needed, version, reason="builds the engine anew, as pyproject.toml says")
    folder = tmp_path_factory.mktemp("native")
    prepare("native", folder)
    return folder


@pytest.mark.parametrize("name", names_of("python"))
def test_python_mutant_is_noticed(name, python_sources, tmp_path):
    said = survives("python", name, python_sources, tmp_path)
    assert not said, said


@pytest.mark.parametrize("name", names_of("native"))
def test_native_mutant_is_noticed(name, native_sources, tmp_path):
    said = survives("native", name, native_sources, tmp_path)
    assert not said, said
