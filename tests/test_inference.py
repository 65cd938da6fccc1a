# SPDX-License-Identifier: Apache-2.0
"""The one path of a reconstruction: blocks, and that what a config declares is what runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_run import succeed
from ignite.engine import Engine
from inference_run import refusal, run
from monai.data import MetaTensor
from sample_volumes import tissue
from scripts import lattice
from scripts.errors import InputError
from scripts.lattice import Block
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.reconstruction.block_dataset import named_after, volumes_in
from scripts.reconstruction.warm_up import WarmUp
from scripts.volumes.formats import stores
from scripts.volumes.prefetch_loader import PrefetchLoader
from scripts.volumes.reading import VolumeSource

# ------------------------------------------------------------------------------------------------- how a volume is cut


@pytest.mark.parametrize("shape, tile", [((300, 70, 7), 160), ((64, 64, 2), 512), ((257, 290, 11), 192)])
@pytest.mark.parametrize("factor", [2, 8, 3.5, 1.3, 10 / 3])
@pytest.mark.parametrize("intervals", [1, 3, 100])
def test_blocks_make_up_the_output_once(shape, tile, factor, intervals):
    x, y, slices = shape
    count = np.zeros((x, y, lattice.output_size(slices, factor)), np.uint8)
    for block in lattice.blocks(shape, tile, 64, 32, intervals, factor):
        count[block.output(factor)] += 1
        assert Block.of(block.numbers()) == block
        z = block.input[2]
        windows = {index for number in range(block.first, block.last) for index in lattice.window(number, slices)}
        assert windows <= set(range(z.start, z.stop))
    assert (count == 1).all()


@pytest.mark.parametrize("factor", [2, 3.5, 1.3, 10 / 3, 7.99])
@pytest.mark.parametrize("copy", [True, False])
def test_intervals_are_those_of_the_positions(factor, copy):
    slices, found = 6, {}
    for number in range(slices):
        interval = lattice.interval(number, slices, factor, copy)
        if interval.copied is not None:
            found[interval.copied] = (number, 0.0)
        found.update(
            {interval.first + i: (number, relative_depth) for i, relative_depth in enumerate(interval.relative_depths)}
        )
    assert [found[index] for index in sorted(found)] == [tuple(place) for place in lattice.positions(slices, factor)]
    most = max(len(lattice.interval(number, slices, factor, copy).relative_depths) for number in range(slices))
    assert lattice.most_in_interval(slices, factor, copy) == most


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 2.5])
@pytest.mark.parametrize("input_slices", ["copy", "predict"])
def test_a_voxel_does_not_depend_on_its_block(trained, factor, input_slices):
    data = tissue(140, 40, 6)[0]
    inferer = AxialInferer(factor, tile=96, halo=20, input_slices=input_slices)
    affine = torch.diag(torch.tensor([2.0, 3.0, 5.0, 1.0], dtype=torch.float64))
    whole: Any = inferer(MetaTensor(data, affine=affine)[None], trained)
    for block in lattice.blocks((140, 40, 6), 96, 20, 32, 2, factor):
        begin = [side.start for side in block.input]
        placed = affine.clone()
        placed[:3, 3] = affine[:3, :3] @ torch.tensor(begin, dtype=torch.float64)
        part = MetaTensor(
            data[(slice(None), *block.input)], affine=placed, meta={"block": torch.tensor(block.numbers())}
        )
        result: Any = inferer(part[None], trained)
        place = block.output(factor)
        assert torch.equal(result.as_tensor(), whole.as_tensor()[(slice(None), slice(None), *place)])
        corner = torch.tensor([2.0, 3.0, 5.0 / factor], dtype=torch.float64) * torch.tensor([s.start for s in place])
        assert torch.allclose(result.affine.reshape(4, 4)[:3, 3], corner)


# ------------------------------------------------------------------------------------ what is declared is what runs


@pytest.mark.slow
def test_several_volumes_in_one_run(folder, tmp_path, capsys):
    for name in ("a", "b"):
        run(folder, volume=str(folder / "volumes" / f"{name}.tif"), output=str(tmp_path / f"{name}.tif"))
    out = tmp_path / "all"
    run(folder, dataset_dir=str(folder / "volumes"), output_dir=str(out))
    assert sorted(file.name for file in out.iterdir()) == ["a_x2.5.tif", "b_x2.5.tif"]
    for name in ("a", "b"):
        assert (out / f"{name}_x2.5.tif").read_bytes() == (tmp_path / f"{name}.tif").read_bytes()
    data = [{"image": str(folder / "volumes" / f"{name}.tif")} for name in ("b", "a")]
    run(folder, output_dir=str(tmp_path / "data"), **{"dataset#data": data})
    assert (tmp_path / "data" / "b_x2.5.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert capsys.readouterr().out.count("wrote ") == 6


@pytest.mark.slow
def test_several_volumes_need_a_folder(folder, tmp_path):
    volumes = str(folder / "volumes")
    one = str(folder / "volumes" / "a.tif")
    assert "--output_dir" in refusal(folder, dataset_dir=volumes, output=str(tmp_path / "o.tif"))
    assert "both name the input" in refusal(folder, dataset_dir=volumes, volume=one, output_dir=str(tmp_path / "o"))
    both = {"output": str(tmp_path / "o.tif"), "output_dir": str(tmp_path / "o")}
    assert "both name the output" in refusal(folder, volume=one, **both)
    assert "no such folder" in refusal(folder, dataset_dir=str(tmp_path / "none"), output_dir=str(tmp_path / "o"))
    (tmp_path / "empty").mkdir()
    words = "holds no volume, which is TIFF (.tif"
    assert words in refusal(folder, dataset_dir=str(tmp_path / "empty"), output_dir=str(tmp_path / "o"))
    data = [{"image": one}, {"image": one}]
    assert "several volumes" in refusal(folder, output_dir=str(tmp_path / "o"), **{"dataset#data": data})
    assert not (tmp_path / "o").exists() and not (tmp_path / "o.tif").exists()


@pytest.mark.slow
def test_changed_transforms_have_their_effect(folder, tmp_path):
    volume = {"volume": str(folder / "volumes" / "a.tif")}
    run(folder, output=str(tmp_path / "plain.tif"), **volume)
    run(folder, output=str(tmp_path / "scaled.tif"), **volume, **{"preprocessing#transforms#1#lower": 20})
    negative = [{"_target_": "Lambdad", "keys": "pred", "func": "$lambda volume: 255 - volume"}]
    workflow_options = {"postprocessing#transforms#2": negative[0]}
    run(folder, output=str(tmp_path / "negative.tif"), **volume, **workflow_options)
    plain, scaled, inverse = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("plain", "scaled", "negative"))
    assert np.array_equal(inverse, 255 - plain)
    assert np.array_equal(scaled[::5], plain[::5]) and not np.array_equal(scaled, plain)  # copies stay


@pytest.mark.slow
@pytest.mark.parametrize("name", ["o.tif", "o.zarr"])
def test_postprocessing_that_changes_the_shape_is_refused(folder, tmp_path, name):
    pad = {"_target_": "SpatialPadd", "keys": "pred", "spatial_size": [80, 80, 80]}
    options = {"volume": str(folder / "volumes" / "a.tif"), "output": str(tmp_path / name)}
    said = refusal(folder, **options, **{"postprocessing#transforms#2": pad})
    assert f"{name}: postprocessing made" in said and "leave the shape as it is" in said
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_inferer_options_have_their_effect(folder, tmp_path):
    volume = {"volume": str(folder / "volumes" / "a.tif")}
    run(folder, output=str(tmp_path / "plain.tif"), **volume)
    run(folder, output=str(tmp_path / "predicted.tif"), **volume, **{"inferer#input_slices": "predict"})
    plain, predicted = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("plain", "predicted"))
    assert not np.array_equal(plain[::5], predicted[::5])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recorded_floats_are_copied_to_the_bit_unless_they_are_predicted(folder, tmp_path, dtype):
    voxels = np.random.default_rng(0).normal(size=(4, 40, 36)).astype(dtype)
    tifffile.imwrite(tmp_path / "v.tif", voxels, metadata={"axes": "ZYX"})
    run(folder, volume=str(tmp_path / "v.tif"), output=str(tmp_path / "copied.tif"))
    options = {"inferer#input_slices": "predict"}
    run(folder, volume=str(tmp_path / "v.tif"), output=str(tmp_path / "predicted.tif"), **options)
    copied, predicted = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("copied", "predicted"))
    assert copied.dtype == voxels.dtype
    assert np.array_equal(copied[::5], voxels[::2]) and not np.isclose(predicted[::5], voxels[::2]).all()


@pytest.mark.slow
def test_a_workflow_may_run_again(folder, tmp_path):
    workflow = run(folder, volume=str(folder / "volumes" / "a.tif"), output=str(tmp_path / "o.tif"))
    first = (tmp_path / "o.tif").read_bytes()
    (tmp_path / "o.tif").unlink()
    workflow.run()
    assert (tmp_path / "o.tif").read_bytes() == first


@pytest.mark.slow
def test_volume_in_memory_is_written(folder, tmp_path):
    voxels = tifffile.imread(folder / "volumes" / "a.tif").transpose(2, 1, 0).astype(np.float32)
    affine = torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0], dtype=torch.float64))
    volume = MetaTensor(torch.from_numpy(voxels)[None], affine=affine, meta={"unit": "micrometer", "dtype": "uint8"})
    options = {"dataset#data": [{"image": volume}], "preprocessing#transforms#0#_disabled_": True}
    run(folder, output=str(tmp_path / "o.tif"), **options)
    run(folder, volume=str(folder / "volumes" / "a.tif"), output=str(tmp_path / "expected.tif"))
    assert np.array_equal(tifffile.imread(tmp_path / "o.tif"), tifffile.imread(tmp_path / "expected.tif"))
    assert "in memory has no name" in refusal(folder, output_dir=str(tmp_path / "d"), **options)


def test_batches_are_of_one_block(folder, tmp_path):
    volume = {"volume": str(folder / "volumes" / "a.tif"), "output": str(tmp_path / "o.tif")}
    assert "--tile changes them" in refusal(folder, **volume, **{"dataloader#batch_size": 2})


@pytest.mark.slow
def test_without_an_output_the_whole_volume_stays_in_memory(folder):
    workflow = run(folder, volume=str(folder / "volumes" / "a.tif"))
    result = workflow.evaluator.state.output[0]["pred"]
    assert result.shape == (1, 72, 40, 11) and result.meta["unit"] == "micrometer"


@pytest.mark.slow
def test_file_is_what_memory_gives_by_the_config(folder, tmp_path):
    options = {"volume": str(folder / "volumes" / "a.tif"), "tile": 32, "halo": 0}
    in_memory = run(folder, **options).evaluator.state.output[0]["pred"]
    run(folder, output=str(tmp_path / "o.tif"), **options)
    assert np.array_equal(tifffile.imread(tmp_path / "o.tif"), in_memory[0].numpy().transpose(2, 1, 0).astype(np.uint8))


@pytest.mark.slow
def test_command_line_of_several_volumes(folder, tmp_path):
    options = {"dataset_dir": folder / "volumes", "output_dir": tmp_path / "all", "factor": 2, "device": "cpu"}
    done = succeed("inference.yaml", {**options, "weights": folder / "aenet.pt"})
    assert done.stdout.count("wrote ") == 2 and len(list((tmp_path / "all").iterdir())) == 2


# ------------------------------------------------------------------------------------------------- the loader


@pytest.mark.parametrize("readers", [1, 3])
def test_what_goes_wrong_in_the_loader_is_raised(readers):
    class Broken:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> torch.Tensor:
            if index == 3:
                raise InputError("slice 3 is damaged")
            return torch.tensor(index)

    loaded = []
    with pytest.raises(InputError, match="slice 3 is damaged"):
        for batch in PrefetchLoader(Broken(), readers=readers):
            loaded.append(int(batch))
    assert loaded == [0, 1, 2]


@pytest.mark.parametrize("readers", [1, 2, 3, 9])
def test_loader_gives_everything_in_order(readers):
    class Uneven:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> torch.Tensor:
            time.sleep(0.01 * (index % 3))
            return torch.tensor(index)

    assert [int(batch) for batch in PrefetchLoader(Uneven(), readers=readers)] == list(range(7))


def test_a_gpu_gets_ready_while_the_first_block_is_read(monkeypatch):
    """The loader reads while the work is recorded, and the work is that on the first block."""
    reads, recorded = threading.Event(), threading.Event()

    def warm_up(block: str, factor: float, network: Any, device: torch.device) -> None:
        assert (block, factor, network, device) == ("first", 2.5, None, torch.device("cpu"))
        assert reads.wait(10)
        recorded.set()

    class Blocks:
        volumes = [SimpleNamespace(blocks=[]), SimpleNamespace(blocks=["first", "second"], factor=2.5)]
        inferer = SimpleNamespace(warm_up=warm_up)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> torch.Tensor:
            reads.set()
            assert recorded.wait(10)
            return torch.tensor(index)

    found: list[bool] = []
    engine = Engine(lambda *_: found.append(recorded.is_set()))
    WarmUp(Blocks(), None, "cpu").attach(engine)  # type: ignore[arg-type]
    engine.run(PrefetchLoader(Blocks()))
    assert found == [True, True]


@pytest.mark.parametrize(
    "path, name",
    [
        ("in/a.tif", "a_x8.tif"),
        ("a.ome.tif", "a_x8.ome.tif"),
        ("a.nii.gz", "a_x8.nii.gz"),
        ("slices", "slices_x8.tif"),
        ("slices.tif", "slices.tif_x8.tif"),
        ("a.hdf5", "a_x8.hdf5"),
        ("a.rec", "a_x8.rec"),
        ("a.mhd", "a_x8.mha"),
        ("a.nhdr", "a_x8.nrrd"),
        ("a.czi", "a_x8.tif"),
        ("a.zarr", "a_x8.zarr"),
        ("a.ome.zarr", "a_x8.ome.zarr"),
        ("a.n5", "a_x8.zarr"),
        ("a.n5/volumes/raw", "raw_x8.zarr"),
        ("precomputed", "precomputed_x8.zarr"),
    ],
)
def test_an_output_has_the_format_of_its_input(path, name, tmp_path):
    make_empty(tmp_path / path)
    assert named_after(tmp_path / path, 8.0) == name


def test_volumes_behind_a_url_become_stores(monkeypatch):
    monkeypatch.setattr(stores, "has_file", lambda folder, name: name == ".zgroup")
    assert named_after("https://example.org/data/a.zarr", 2.5) == "a_x2.5.zarr"


def test_every_volume_of_a_folder_in_natural_order(tmp_path):
    names = ["10.mrc", "9.zarr", "8.n5", "7.h5", "2.tif", "1.nii.gz", "12.czi", "precomputed"]
    for name in [*names, "slices", ".hidden.tif", "9.raw"]:
        make_empty(tmp_path / name)
    (tmp_path / "slices" / "1.png").touch()
    expected = ["1.nii.gz", "2.tif", "7.h5", "8.n5", "9.zarr", "10.mrc", "12.czi", "precomputed"]
    assert [Path(str(each["image"])).name for each in volumes_in(None, tmp_path)] == expected


@pytest.mark.parametrize("name", ["a.zarr", "a.n5", "precomputed"])
def test_folder_that_is_itself_a_store(tmp_path, name):
    make_empty(tmp_path / name)
    (tmp_path / name / "0").mkdir()
    with pytest.raises(InputError, match=f"--dataset_dir .*{name}: is itself .*; give it as --volume"):
        volumes_in(None, tmp_path / name)


def make_empty(path: Path) -> None:
    """A file, a folder of slices or a store of this name, without voxels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = {".zarr": ".zgroup", ".n5": "attributes.json"}.get(path.suffix, "")
    if path.name == "precomputed":
        inside = "info"
    if inside or ".n5" in str(path) or path.name.startswith("slices"):
        path.mkdir()
        if inside:
            (path / inside).write_text("{}")
    else:
        path.touch()


@pytest.mark.slow
def test_the_scale_of_a_file_is_read_once(folder, tmp_path, monkeypatch):
    read: list[str] = []
    original = VolumeSource.checked_slices

    def counted(self: VolumeSource, *args: Any) -> Iterator[np.ndarray]:
        read.append("")
        return original(self, *args)

    monkeypatch.setattr(VolumeSource, "checked_slices", counted)
    volume = tmp_path / "v.tif"
    volume.write_bytes((folder / "volumes" / "a.tif").read_bytes())
    for number in range(2):
        run(folder, volume=str(volume), output=str(tmp_path / f"{number}.tif"))
    assert len(read) == 1
    volume.write_bytes((folder / "volumes" / "b.tif").read_bytes())
    run(folder, volume=str(volume), output=str(tmp_path / "other.tif"))
    assert len(read) == 2
