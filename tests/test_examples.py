# SPDX-License-Identifier: Apache-2.0
"""The notebook runs from beginning to end, and the napari script puts volumes where they belong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import numpy as np
import pytest
import torch
from bundle_run import BUNDLE
from monai.data import MetaTensor
from napari_layers import layer_data, main
from nbclient import NotebookClient
from scripts.errors import InputError
from scripts.volumes.writing import write_volume

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOK = EXAMPLES / "reconstruct_in_memory.ipynb"


def run_notebook(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """Run the notebook in ``folder`` with this interpreter, whatever kernels are installed elsewhere."""
    kernel = home / "kernels" / "python3"
    kernel.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    description = {"argv": words, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(description), encoding="utf-8")
    for variable in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own shows pictures in the cells
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


@pytest.mark.slow
def test_notebook_reconstructs_an_array(tmp_path, monkeypatch):
    cells = [cell for cell in run_notebook(EXAMPLES, tmp_path, monkeypatch).cells if cell.cell_type == "code"]
    printed = "".join(output.get("text", "") for output in cells[-1].outputs)
    assert "shape (96, 96, 65) uint8" in printed
    assert "voxel size [10.0, 10.0, 10.0] nanometer" in printed
    assert "input slices unchanged: True" in printed
    assert any("image/png" in output.get("data", {}) for output in cells[-2].outputs), "no picture of before and after"


@pytest.mark.parametrize("folder", [EXAMPLES, EXAMPLES.parent], ids=["examples", "repository"])
def test_notebook_finds_the_bundle(folder, monkeypatch):
    first = next(cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the cell adds to it
    names: dict = {}
    exec(first.source, names)
    assert names["bundle"] == BUNDLE and sys.path[0] == str(BUNDLE)


def test_notebook_is_stored_without_results():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    for cell in notebook.cells:
        assert cell.cell_type != "code" or (cell.outputs == [] and cell.execution_count is None)


def write(path: Path, array: np.ndarray, voxel_size: tuple[float, float, float], unit: str) -> Path:
    meta = {"unit": unit, "dtype": array.dtype.name}
    affine = torch.diag(torch.tensor([*voxel_size, 1.0], dtype=torch.float64))
    write_volume(MetaTensor(torch.from_numpy(array.astype(np.float32))[None], affine=affine, meta=meta), path)
    return path


@pytest.fixture
def array() -> np.ndarray:
    """Voxels (x, y, z), no two sizes the same."""
    return np.random.default_rng(0).integers(0, 255, (5, 4, 3), dtype=np.uint8)


def test_layers_of_input_and_result_cover_the_same_place(array, tmp_path):
    coarse = write(tmp_path / "in.tif", array, (10, 10, 40), "nanometer")
    fine = write(tmp_path / "out.nii.gz", np.repeat(array, 4, axis=2)[..., :9], (0.01, 0.01, 0.01), "micrometer")
    (voxels, keywords, kind), (_, fine_keywords, _) = layer_data([coarse, fine])
    np.testing.assert_array_equal(voxels, array.transpose(2, 1, 0))
    assert voxels.dtype == np.uint8 and kind == "image"
    assert keywords["name"] == "in.tif" and fine_keywords["name"] == "out.nii.gz"
    assert keywords["units"] == fine_keywords["units"] == "micrometer"
    np.testing.assert_allclose(
        keywords["scale"], [0.04, 0.01, 0.01]
    )  # z, y, x in micrometers, whatever the file's unit
    np.testing.assert_allclose(fine_keywords["scale"], [0.01, 0.01, 0.01], rtol=1e-6)


def test_spacing_is_that_of_the_first_layer(array, tmp_path):
    paths = [write(tmp_path / f"{name}.tif", array, (1, 1, 1), "micrometer") for name in ("in", "out")]
    first, second = layer_data(paths, spacing=[8, 1, 2])
    assert first[1]["scale"] == pytest.approx((8, 1, 2)) and second[1]["scale"] == pytest.approx((1, 1, 1))


def test_a_file_without_voxel_size_is_not_laid_over_one_that_has_it(array, tmp_path):
    without = write(tmp_path / "in.tif", array, (1, 1, 1), "pixel")
    result = write(tmp_path / "out.tif", array, (10, 10, 10), "nanometer")
    _, keywords, _ = layer_data([without])[0]
    assert keywords["scale"] == (1, 1, 1) and keywords["units"] == "pixel"
    with pytest.raises(InputError, match=r"in\.tif: has no voxel size.*--spacing"):
        layer_data([without, result])
    assert layer_data([without, result], spacing=[0.04, 0.01, 0.01])[0][1]["scale"] == pytest.approx((0.04, 0.01, 0.01))


def test_missing_napari_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", None)  # as if it were not installed
    with pytest.raises(SystemExit, match=r"^error: napari is not installed: run pip install .*$"):
        main(["in.tif"])


def test_mistake_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "napari", ModuleType("napari"))
    with pytest.raises(SystemExit, match=r"^error: .*missing\.tif: no such file or folder$"):
        main([str(tmp_path / "missing.tif")])
