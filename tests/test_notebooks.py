"""The notebooks run from top to bottom."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs" / "notebooks").glob("*.ipynb"))
NEEDS = {"numpy_loop": "matplotlib", "sampling_and_gates": "matplotlib", "pytorch": "torch"}


@pytest.mark.filterwarnings("ignore")  # of the Jupyter libraries
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip(NEEDS[notebook.stem])
    monkeypatch.setenv("MPLBACKEND", "agg")
    content = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(content, timeout=300, kernel_name="python3", resources=resources).execute()


def test_saved_outputs_are_of_the_saved_code():
    """In order, and without an error."""
    for notebook in NOTEBOOKS:
        cells = [c for c in json.loads(notebook.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
        assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
