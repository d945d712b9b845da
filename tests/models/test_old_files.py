"""Files of every release load in this one, and the models in them say what they said."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.written_files import digest, fit, values_of

import rnncore as rc
from rnncore.models.storage import READABLE, VERSION

DATA = Path(__file__).parents[1] / "data"
VALUES = {
    f"{folder.name}/{file}": entry
    for folder in sorted(DATA.iterdir())
    for file, entry in json.loads((folder / "values.json").read_text()).items()
}
each_file = pytest.mark.parametrize("file", VALUES)


def header_of(file):
    with np.load(DATA / file) as archive:
        return json.loads(str(archive["header"]))


def assert_says(model, entry, wanted, places):
    """Numbers to so many places, of their scale: instruction sets round in their own ways."""
    found = values_of(model, entry["entry"])
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        for one, other in zip(found[name], values, strict=True):
            if isinstance(other, (str, list)) and not (other and isinstance(np.array(other).flat[0], np.floating)):
                assert one == other
            else:
                np.testing.assert_allclose(one, other, rtol=10.0**-places, atol=10.0**-places, err_msg=name)


def places(model):
    return 5 if model.get_params()["dtype"] == "float32" else 10


@each_file
def test_a_file_of_an_older_release(file):
    """Parameters to the bit; a file without a checksum too."""
    entry = VALUES[file]
    model = rc.load(DATA / file)
    assert type(model).__name__ == entry["class"]
    assert digest(model) == entry["parameters"]
    assert_says(model, entry, entry["values"], places(model))


@pytest.mark.parametrize("file", [file for file in VALUES if "resumed" in VALUES[file]])
def test_a_run_of_an_older_release_goes_on(file):
    entry, wanted = VALUES[file], VALUES[file]["resumed"]
    model = rc.load(DATA / file)
    before = len(model.losses)
    fit(model, entry["entry"], resume=True)
    assert before < len(model.losses) == len(wanted["losses"])
    # Adam divides small gradients by their own size: an update has fewer places than a prediction.
    np.testing.assert_allclose(model.losses, wanted["losses"], rtol=10.0 ** (2 - places(model)))
    assert_says(model, entry, wanted["values"], places(model) - 2)


@pytest.mark.parametrize("file", VALUES)
def test_an_older_file_is_saved_as_one_of_this_release(file, tmp_path):
    entry = VALUES[file]
    rc.load(DATA / file).save(tmp_path / "model.npz", training="training" in file)
    with np.load(tmp_path / "model.npz") as archive:
        assert json.loads(str(archive["header"]))["version"] == VERSION
    model = rc.load(tmp_path / "model.npz")
    assert digest(model) == entry["parameters"]
    assert values_of(model, entry["entry"]) == values_of(rc.load(DATA / file), entry["entry"])


def test_there_is_a_file_of_every_version():
    versions = {file: header_of(file)["version"] for file in VALUES}
    assert {*versions.values(), VERSION} == set(READABLE)
    kinds = {entry["class"] for file, entry in VALUES.items() if versions[file] < VERSION}
    assert kinds == set(rc.models.__all__) - {"compare", "load"}
