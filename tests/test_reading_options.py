# SPDX-License-Identifier: Apache-2.0
"""Options of what is read and of what is written, through the configs: ``--dataset``, ``--axis``, ``--target_spacing``,
``--slice_table`` and the layout of a store.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import torch
import zarr
from bundle_run import AENET, AENET_TRAINING, BUNDLE, succeed
from inference_run import refusal, run
from monai.bundle import ConfigWorkflow
from scripts.cli.failures import input_error
from scripts.errors import InputError
from scripts.lattice import Turn
from scripts.reconstruction.outputs import FileOutput, StoreOutput
from scripts.reconstruction.slice_table import SliceTable
from scripts.volumes.outputs import check_store_options
from scripts.volumes.reading import VolumeSource


def config(name: str, **options: Any) -> None:
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / name), workflow_type=None, logging_file=False, **options
    )
    workflow.initialize()
    workflow.run()


def voxels_of(path: Path) -> np.ndarray:
    """Voxels (z, y, x) of an output, read without the bundle."""
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_group(str(path), mode="r")["0"])
    return tifffile.imread(path)


def voxel_size_of(path: Path) -> list[float]:
    """Distance of the voxels (z, y, x) of an output."""
    if path.suffix == ".zarr":
        attributes: Any = dict(zarr.open_group(str(path), mode="r").attrs)
        return list(attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"])
    with tifffile.TiffFile(path) as file:
        metadata: Any = file.imagej_metadata
        x, y = (file.pages.first.tags[name].value for name in ("XResolution", "YResolution"))
        return [float(metadata["spacing"]), y[1] / y[0], x[1] / x[0]]


@pytest.fixture()
def several(folder, tmp_path) -> Path:
    """An HDF5 file of several volumes, of which ``volumes/raw`` is the volume ``a``."""
    voxels = tifffile.imread(folder / "volumes" / "a.tif")
    with h5py.File(tmp_path / "several.h5", "w") as file:
        file["volumes/raw"] = voxels
        file["volumes/raw"].attrs["element_size_um"] = [4.0, 1.0, 1.0]
        file["volumes/labels"] = voxels[::-1]
    return tmp_path / "several.h5"


# ------------------------------------------------------------------------------------------------- --dataset


@pytest.mark.slow
def test_dataset_names_the_array_of_a_file(folder, several, tmp_path):
    run(folder, volume=str(folder / "volumes" / "a.tif"), output=str(tmp_path / "expected.tif"))
    run(folder, volume=str(several), output=str(tmp_path / "found.tif"), dataset="volumes/raw")
    run(folder, volume=str(several), output=str(tmp_path / "other.tif"), dataset="volumes/labels")
    expected, found, other = (voxels_of(tmp_path / f"{name}.tif") for name in ("expected", "found", "other"))
    assert np.array_equal(found, expected) and np.array_equal(other[::5], expected[::-5])
    refused = refusal(folder, volume=str(several), output=str(tmp_path / "o.tif"))
    assert "volumes/raw" in refused and "volumes/labels" in refused and "--dataset" in refused
    refused = refusal(folder, volume=str(several), output=str(tmp_path / "o.tif"), dataset="volumes/none")
    assert "volumes/none" in refused and "\n" not in refused


@pytest.mark.parametrize("given", [{"dataset": "volumes/raw"}, {"array": "volumes/raw"}])
def test_section_of_the_config_is_still_that(folder, several, tmp_path, given):
    data = [{"image": str(several)}]
    workflow = run(folder, output=str(tmp_path / "o.tif"), **{"dataset#data": data}, array="volumes/raw")
    assert workflow.parser.get_parsed_content("dataset").data == data
    run(folder, volume=str(several), output=str(tmp_path / "given.tif"), **given)
    assert (tmp_path / "o.tif").read_bytes() == (tmp_path / "given.tif").read_bytes()


@pytest.mark.slow
def test_dataset_on_the_command_line(folder, several, tmp_path):
    options = {"volume": several, "factor": 2.5, "device": "cpu", "weights": folder / "aenet.pt"}
    succeed("inference.yaml", {**options, "dataset": "volumes/raw", "output": tmp_path / "found.tif"})
    run(folder, volume=str(folder / "volumes" / "a.tif"), output=str(tmp_path / "expected.tif"))
    assert np.array_equal(voxels_of(tmp_path / "found.tif"), voxels_of(tmp_path / "expected.tif"))


# ------------------------------------------------------------------------------------------------- --axis


@pytest.mark.slow
@pytest.mark.parametrize("axis, order", [("y", (1, 0, 2)), ("x", (1, 2, 0))])
@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_another_coarse_axis_is_turned_back(folder, tmp_path, axis, order, suffix):
    by_hand = tifffile.imread(folder / "volumes" / "a.tif")
    lying = tmp_path / "lying.tif"
    size = {"y": [1, 4, 1], "x": [1, 1, 4]}[axis]
    tifffile.imwrite(lying, np.ascontiguousarray(by_hand.transpose(order)), metadata={"axes": "ZYX"})
    options: Any = {"chunk": [4, 16, 16], "shard": [8, 32, 32]} if suffix == ".zarr" else {}
    run(folder, volume=str(lying), axis=axis, spacing=size, output=str(tmp_path / f"o{suffix}"), **options)
    run(folder, volume=str(folder / "volumes" / "a.tif"), output=str(tmp_path / "expected.tif"))
    found, expected = voxels_of(tmp_path / f"o{suffix}"), voxels_of(tmp_path / "expected.tif").transpose(order)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (suffix == ".zarr")  # where blocks meet, as where tiles do
    assert voxel_size_of(tmp_path / f"o{suffix}") == pytest.approx([1.6 if each == 4 else 1 for each in size])


@pytest.mark.parametrize("axis, place", [("y", 1), ("x", 2)])
@pytest.mark.parametrize("suffix", [".tif", ".zarr"])
def test_another_axis_is_made_coarse(tmp_path, capsys, axis, place, suffix):
    voxels = np.random.default_rng(0).integers(0, 255, (6, 9, 13), np.uint8)
    metadata = {"axes": "ZYX", "spacing": 1.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "v.tif", voxels, imagej=True, metadata=metadata, resolution=(1, 1))
    output = tmp_path / f"o{suffix}"
    config("decimate.yaml", volume=str(tmp_path / "v.tif"), axis=axis, factor=4, output=str(output))
    expected = voxels.take(range(0, voxels.shape[place], 4), axis=place)
    assert np.array_equal(voxels_of(output), expected)
    assert voxel_size_of(output) == [4.0 if each == place else 1.0 for each in range(3)]
    told = " x ".join(str(each) for each in expected.shape[::-1])
    assert f"{told} voxels (x, y, z)" in capsys.readouterr().out


def test_pseudo_volume_of_another_axis_is_read_along_it(tmp_path):
    """What stage II writes is turned back, so that d2r.yaml has stage III read it along the same axis."""
    voxels = np.random.default_rng(0).integers(0, 255, (40, 7, 36), np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", voxels, metadata={"axes": "ZYX"})
    options: Any = {"volume": str(tmp_path / "v.tif"), "axis": "y", "factor": 3, "device": torch.device("cpu")}
    config("generate.yaml", **options, prior_factor=1, output_dir=str(tmp_path / "pseudo"))
    pseudo = tmp_path / "pseudo" / "pseudo_hr.tif"
    assert np.array_equal(voxels_of(pseudo), voxels)
    workflow = ConfigWorkflow(str(BUNDLE / "configs" / "d2r.yaml"), workflow_type=None, logging_file=False, **options)
    workflow.parser.parse()
    workflow.parser.update({"workdir": str(tmp_path), "output": "o.tif"})
    read = [stage["options"] for stage in workflow.parser.get_parsed_content("stages")]
    assert all(stage["axis"] == "y" for stage in read)
    assert read[2]["volume"] == str(pseudo)


# ------------------------------------------------------------------------- --target_spacing and --slice_table


@pytest.mark.slow
def test_target_spacing_is_the_factor_it_stands_for(folder, tmp_path):
    volume: Any = {"volume": str(folder / "volumes" / "a.tif")}
    run(folder, **volume, factor=None, target_spacing=1.6, output=str(tmp_path / "spacing.tif"))
    run(folder, **volume, factor=2.5, output=str(tmp_path / "factor.tif"))
    assert (tmp_path / "spacing.tif").read_bytes() == (tmp_path / "factor.tif").read_bytes()
    output = {"output": str(tmp_path / "o.tif")}
    assert "give one of them" in refusal(folder, **volume, **output, factor=2.5, target_spacing=1.6)
    assert "the slices are 4 micrometer apart" in refusal(folder, **volume, **output, factor=None, target_spacing=4)
    tifffile.imwrite(tmp_path / "pixel.tif", tifffile.imread(folder / "volumes" / "a.tif"), metadata={"axes": "ZYX"})
    refused = refusal(folder, volume=str(tmp_path / "pixel.tif"), **output, factor=None, target_spacing=0.5)
    assert "voxel size is not known" in refused and not (tmp_path / "o.tif").exists()


def test_slice_table_says_where_the_slices_are(folder, tmp_path):
    options: Any = {"volume": str(folder / "volumes" / "a.tif"), "factor": 2.5, "slice_table": str(tmp_path / "t.csv")}
    run(folder, **options, output=str(tmp_path / "o.tif"))
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["input_slice", "output_position", "nearest_output_slice", "copied"]
    assert [row[:2] + row[3:] for row in rows[1:]] == [
        ["0", "0", "yes"],
        ["1", "2.5", "no"],
        ["2", "5", "yes"],
        ["3", "7.5", "no"],
        ["4", "10", "yes"],
    ]
    recorded, output = tifffile.imread(options["volume"]), voxels_of(tmp_path / "o.tif")
    for number, position, nearest, copied in rows[1:]:
        assert abs(float(position) - int(nearest)) <= 0.5
        assert np.array_equal(output[int(nearest)], recorded[int(number)]) == (copied == "yes")
    run(folder, **options, output=str(tmp_path / "p.tif"), input_slices="predict")
    assert "yes" not in (tmp_path / "t.csv").read_text()


def test_slice_table_replaces_nothing_by_itself(folder, tmp_path):
    volume, output, table = str(folder / "volumes" / "a.tif"), str(tmp_path / "o.tif"), tmp_path / "t.csv"
    table.write_text("mine")
    refused = refusal(folder, volume=volume, output=output, slice_table=str(table), overwrite=False)
    assert "exists already" in refused and table.read_text() == "mine" and not Path(output).exists()
    assert "never replaces" in refusal(folder, volume=volume, output=output, slice_table=volume)


@pytest.mark.slow
@pytest.mark.parametrize("name, output", [("o.tif", FileOutput), ("o.zarr", StoreOutput)])
def test_finished_output_has_its_table(folder, tmp_path, monkeypatch, name, output):
    """A run that is killed while the output gets its name has written the table, and the next one takes it as it is."""
    options: Any = {"volume": str(folder / "volumes" / "a.tif"), "factor": 2.5, "overwrite": False}
    options |= {"output": str(tmp_path / name), "slice_table": str(tmp_path / "t.csv")}

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(output, "close", killed)
        with pytest.raises(BaseException):  # noqa: B017 (MONAI wraps it)
            run(folder, **options)
    table = (tmp_path / "t.csv").read_text()
    assert table.startswith("input_slice") and not (tmp_path / name).exists()
    run(folder, **options)
    assert (tmp_path / name).exists() and (tmp_path / "t.csv").read_text() == table


def test_table_of_something_else_is_not_taken(tmp_path):
    SliceTable(tmp_path / "t.csv", 5, 2.5).write()
    SliceTable(tmp_path / "t.csv", 5, 2.5).check()
    for other in (SliceTable(tmp_path / "t.csv", 6, 2.5), SliceTable(tmp_path / "t.csv", 5, 2.5, copied=False)):
        with pytest.raises(InputError, match="exists already"):
            other.check()
        other.check(overwrite=True)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "options, says",
    [
        ({"time": 7}, "--time 7: "),
        ({"channel": 7}, "--channel 7: "),
        ({"axis": "q"}, "--axis q: "),
        ({"chunk": [0, 1, 2]}, "--chunk [0, 1, 2]: "),
        ({"chunk": [64, 64]}, "--chunk [64, 64]: "),
        ({"chunk": [4, 16, 16], "shard": [4, 32, 24]}, "--shard [4, 32, 24]: "),
        ({"chunk": [4, 16, 16], "shard": [4, 32, 32], "block": [4, 16, 32]}, "--block [4, 16, 32]: "),
        ({"compression": "x"}, "--compression x: "),
        ({"ome_zarr_version": "0.6"}, "--ome_zarr_version 0.6: "),
    ],
)
def test_impossible_value_is_refused_in_one_line(folder, tmp_path, options, says):
    output = tmp_path / "o.zarr"
    refused = refusal(folder, volume=str(folder / "volumes" / "a.tif"), output=str(output), **options)
    assert refused.startswith(says) and "\n" not in refused
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"ome_zarr_version": "0.5"},
        {"chunk": [64, 64, 64]},
        {"shard": [64, 64, 64]},
        {"compression": "zstd"},
        {"block": [64, 64, 64]},
    ],
)
def test_option_of_stores_is_refused_for_other_outputs(folder, tmp_path, options):
    """Even where it says what is the default, for it would have no effect."""
    volume = str(folder / "volumes" / "a.tif")
    (name, value), says = next(iter(options.items())), "is for an output in .zarr, and"
    refused = refusal(folder, volume=volume, output=str(tmp_path / "o.tif"), **options)
    assert refused.startswith(f"--{name} {value}: {says}") and "o.tif" in refused and "\n" not in refused
    assert says in refusal(folder, volume=volume, output_dir=str(tmp_path / "several"), **options)
    places = {"volume": volume, "output": str(tmp_path / "o.mrc"), "workdir": str(tmp_path / "W")}
    with pytest.raises((InputError, RuntimeError)) as error:
        config("d2r.yaml", **places, **options, factor=2.5, preset="quick", device="cpu")
    assert f"--{name} {value}: {says}" in str(input_error(error.value))
    assert not (tmp_path / "several").exists() and not (tmp_path / "W" / "run.json").exists()


def test_option_of_stores_is_taken_where_one_of_several_outputs_is_one():
    check_store_options(["a.tif", "b.zarr"], {"chunk": [8, 8, 8]})
    check_store_options(["a.tif"], {"chunk": None})


@pytest.mark.parametrize(
    "options, says",
    [
        ({"chunk": [16, 16, 16], "shard": [16, 24, 32]}, "--shard [16, 24, 32]: "),
        ({"chunk": [4, 16, 16], "shard": [4, 32, 32], "block": [4, 16, 32]}, "--block [4, 16, 32]: "),
        ({"slice_table": "volume"}, "never replaces"),
        ({"preset": "fast"}, "--preset fast: there is none of that name"),
        ({"prior_factor": 2}, "--prior_factor 2 does not divide the factor 2.5"),
        ({"architecture": "srunet"}, "SRUNet at factor 2.5"),
        (
            {"presets#quick#generate": {"num_steps": 101}},
            "stage II, restore XZ and YZ slices: --num_steps 101: give 1 to",
        ),
    ],
)
def test_what_a_stage_would_refuse_is_refused_before_the_volume_is_read(folder, tmp_path, monkeypatch, options, says):
    monkeypatch.setattr(VolumeSource, "checked_slices", lambda *_: pytest.fail("was read"))
    volume = str(folder / "volumes" / "a.tif")
    given = {name: volume if value == "volume" else value for name, value in options.items()}
    places = {"volume": volume, "output": str(tmp_path / "o.zarr"), "workdir": str(tmp_path / "W")}
    with pytest.raises((InputError, RuntimeError)) as error:
        config("d2r.yaml", **{**places, "factor": 2.5, "preset": "quick", "device": "cpu", **given})
    assert says in str(input_error(error.value))
    assert not (tmp_path / "W" / "run.json").exists()


@pytest.mark.parametrize("options", [{"val_factor": 100}, {"train_factors": [15, 16]}])
def test_training_on_too_small_a_volume_is_refused_before_it_is_read(folder, tmp_path, monkeypatch, options):
    monkeypatch.setattr(VolumeSource, "checked_slices", lambda *_: pytest.fail("was read"))
    given = {**AENET, **AENET_TRAINING, "volume": str(folder / "volumes" / "a.tif"), "device": "cpu", **options}
    with pytest.raises((InputError, RuntimeError)) as error:
        config("train.yaml", **given, output_dir=str(tmp_path / "T"))
    assert "too few for four planes" in str(input_error(error.value))
    assert not (tmp_path / "T").exists()


def test_turn_and_its_way_back():
    for axis in "zyx":
        turn = Turn.of(axis)
        assert turn.to_file(turn.to_volume(("x", "y", "z"))) == ("x", "y", "z")
        assert turn.to_volume(("x", "y", "z"))[2] == axis
