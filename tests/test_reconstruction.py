# SPDX-License-Identifier: Apache-2.0
"""How a volume is walked: the axial inferer, with networks whose answer is known."""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from bundle_run import BUNDLE
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor, decollate_batch, list_data_collate
from sample_volumes import tissue, volume, with_spacing
from scripts import lattice
from scripts.cli.failures import input_error
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.weights import load_weights
from scripts.reconstruction import predictor
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.reconstruction.block_dataset import BlockDataset
from scripts.transforms.axial_interpolate import axial_interpolate
from scripts.transforms.scale_intensity import RestoreIntensity, ScalePercentiles
from scripts.volumes.claim import Claim
from scripts.volumes.reading import VolumeSource, read_volume
from scripts.volumes.writing import write_volume

PERCENTILES = (0.1, 99.9)


def reconstruct(network, data, factor, **options):
    return AxialInferer(factor, **options)(data, network)


@pytest.mark.parametrize("slices, factor", [(2, 8), (4, 5), (4, 2.5), (5, 10 / 3), (6, 1.3)])
def test_untrained_network_gives_linear_interpolation_everywhere(untrained, slices, factor):
    """Every interval, the first and the last included, on integer and real factors."""
    data = volume(10, 13, slices)
    result = reconstruct(untrained, data, factor)
    assert result.shape == (1, 1, 10, 13, lattice.output_size(slices, factor))
    assert torch.allclose(result, axial_interpolate(data, factor, "linear"), atol=1e-5)


@pytest.mark.parametrize("factor", [3, 2.5])
def test_originals_are_verbatim(trained, factor):
    data = tissue(32, 40, 7)
    result = reconstruct(trained, data, factor)
    kept = lattice.kept_indices(7, factor)
    assert torch.equal(result[..., kept], data[..., [round(j / factor) for j in kept]])
    inserted = [j for j in range(result.shape[-1]) if j not in kept]
    change = (result - axial_interpolate(data, factor, "linear"))[..., inserted].abs().mean((0, 1, 2, 3))
    assert (change > 1e-3).all()  # the network has had its say in every other slice


def test_each_slice_comes_from_its_own_window(trained):
    """Against the network called by hand, slice by slice."""
    data, factor = tissue(32, 32, 5), 2.5
    result = reconstruct(trained, data, factor)
    for j, place in enumerate(lattice.positions(5, factor)):
        if place.relative_depth > 0:
            window = data[..., lattice.window(place.interval, 5)]
            with torch.no_grad():
                expected = trained(window, torch.tensor(place.relative_depth), torch.tensor(factor))
            assert torch.allclose(result[..., j], expected, atol=1e-5), j


@pytest.mark.parametrize("factor", [8, 6.5])
def test_affine_is_refined(untrained, factor):
    result = reconstruct(untrained, with_spacing(volume(6, 7, 4), 2, 3, 26), factor)
    affine = np.asarray(result.affine).reshape(-1, 4, 4)[0]
    assert lattice.voxel_size(affine) == pytest.approx((2, 3, 26 / factor))
    assert affine[:3, 3].tolist() == [5, 6, 7]


def test_without_factor_the_voxel_becomes_a_cube(untrained):
    result = reconstruct(untrained, with_spacing(volume(6, 7, 4), 4, 4, 26), None)
    assert result.shape[-1] == 20  # 6.5
    assert lattice.voxel_size(np.asarray(result.affine).reshape(-1, 4, 4)[0]) == pytest.approx((4, 4, 4))


def test_distance_of_the_slices_of_the_result(untrained):
    """In the unit of each volume."""
    data = with_spacing(volume(6, 7, 4), 2, 3, 26)
    data.meta["unit"] = ["micrometer"]
    result = reconstruct(untrained, data, None, target_spacing=6.5)
    assert lattice.voxel_size(np.asarray(result.affine).reshape(-1, 4, 4)[0]) == pytest.approx((2, 3, 6.5))
    for meta in ({"unit": ["micrometer", "pixel"]}, {}):
        several = MetaTensor(torch.rand(2, 1, 6, 7, 4), affine=data.affine.reshape(-1, 4, 4).repeat(2, 1, 1), meta=meta)
        with pytest.raises(InputError, match="--target_spacing 6.5: the voxel size is not known"):
            reconstruct(untrained, several, None, target_spacing=6.5)


@pytest.mark.parametrize("data", [with_spacing(volume(6, 7, 4), 4, 4, 4), volume(6, 7, 4)])
def test_without_factor_a_cube_is_refused(untrained, data):
    with pytest.raises(InputError, match="--factor"):
        reconstruct(untrained, data, None)


@pytest.mark.parametrize("factor", [1, 0.5, float("nan")])
def test_impossible_factor(factor):
    with pytest.raises(InputError, match="--factor"):
        AxialInferer(factor)


def test_factor_outside_the_trained_range_warns(untrained, caplog):
    with caplog.at_level(logging.WARNING):
        reconstruct(untrained, volume(6, 7, 2), 6.5, train_factors=(2, 12))
        assert not caplog.records
        reconstruct(untrained, volume(6, 7, 2), 13, train_factors=(2, 12))
    assert "factor 13 is outside the range 2 to 12" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 2.5])
def test_factor_of_a_network_that_knows_one_alone(untrained, factor, tmp_path):
    inferer = AxialInferer(factor, train_factors=(3, 3))
    words = f"--factor {factor}: the weights were trained for the factor 3 alone; give --factor 3"
    with pytest.raises(InputError, match=words):
        inferer(volume(6, 7, 4), untrained)
    path = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 4)
    with pytest.raises(InputError, match=words):
        stream(path, tmp_path / "b.tif", untrained, inferer)
    inferer.factor = 3.0
    assert inferer(volume(6, 7, 4), untrained).shape[-1] == 10


@pytest.mark.parametrize("depth_batch", [1, 3])
def test_depth_batch_does_not_matter(trained, depth_batch):
    data = tissue(32, 37, 3)
    whole = reconstruct(trained, data, 6.5, depth_batch=16)
    assert torch.allclose(reconstruct(trained, data, 6.5, depth_batch=depth_batch), whole, atol=1e-6)


@pytest.mark.parametrize("halo, share", [(32, 0.05), (64, 1e-3)])
def test_tiled_equals_untiled_within_what_reaches_over_the_margin(trained, halo, share):
    """On an image that grows brighter along x, with the largest difference as a share of what the network adds to
    interpolation.

    An average over the tile, in place of fixed cells, would show everywhere and at every margin.
    """
    factor = 2
    data = tissue(320, 40, 3) * torch.linspace(0.3, 1, 320).view(1, 1, -1, 1, 1)
    whole = reconstruct(trained, data, factor, tile=320)
    tiled = reconstruct(trained, data, factor, tile=96 + 2 * halo, halo=halo)
    residual = (whole - axial_interpolate(data, factor, "linear"))[0, 0, :, :, 1]
    difference = (whole - tiled)[0, 0, :, :, 1].abs()
    assert 0.01 < residual.std() < 0.1
    assert 0 < difference.max() < share * residual.abs().max()
    assert difference.mean() < 0.02 * residual.std()


@pytest.mark.slow
@pytest.mark.parametrize(
    "sides, tta",
    [
        ((200, 40), False),
        ((40, 225), False),
        ((310, 33), False),
        ((200, 193), False),
        ((33, 222), True),
        ((193, 40), True),
    ],
)
def test_tiled_equals_untiled_at_any_side(trained, sides, tta):
    """Also where the plane ends within a cell of averages, seen from either end."""
    data = tissue(*sides, 2) * torch.linspace(0.3, 1, sides[0]).view(1, 1, -1, 1, 1)
    whole, tiled = (reconstruct(trained, data, 2, tile=tile, tta=tta)[0, 0, :, :, 1] for tile in (max(sides), 160))
    residual = whole - axial_interpolate(data, 2, "linear")[0, 0, :, :, 1]
    assert residual.std() > 0.005
    assert 0 < (whole - tiled).abs().max() < 1e-3 * residual.abs().max()


@pytest.mark.parametrize("halo, sides, warned", [(32, (200, 40), True), (33, (200, 40), False), (0, (96, 40), False)])
def test_margin_that_is_too_small_for_that_is_told(untrained, halo, sides, warned, caplog):
    with caplog.at_level(logging.WARNING):
        reconstruct(untrained, volume(*sides, 2), 2, tile=160, halo=halo)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [f"--halo {halo}"] * warned


@pytest.fixture(scope="module")
def shipped() -> AENet:
    settings = {"percentiles": PERCENTILES, "train_factors": (2, 12)}
    weights = Path(__file__).resolve().parents[1] / "bundle" / "models" / "model.pt"
    return load_weights(AENet(settings=settings), weights)


def gray_levels(network, values: torch.Tensor, factor: float, **options) -> torch.Tensor:
    """A volume of 8 bits (1, X, Y, K), reconstructed."""
    scaled = ScalePercentiles(*PERCENTILES)(MetaTensor(values, meta={"dtype": "uint8"}))
    return RestoreIntensity()(reconstruct(network, scaled[None], factor, **options)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "content, sides, factor, options",
    [
        ("noise", (223, 32), 2, {}),
        ("tissue", (32, 200), 2, {"input_slices": "predict"}),
        ("square", (225, 40), 1.5, {}),
    ],
)
def test_with_the_shipped_weights_no_voxel_depends_on_the_cut(shipped, content, sides, factor, options):
    """By a gray level at most: a value may lie where rounding goes either way."""
    values = (255 * (volume if content == "noise" else tissue)(*sides, 2)[0]).round()
    if content == "square":
        values = torch.full((1, *sides, 2), 20.0)
        values[:, 90:130, 12:36, 1] = 255
    whole = gray_levels(shipped, values, factor, tile=max(sides), **options)
    tiled = gray_levels(shipped, values, factor, tile=160, **options)
    assert len(lattice.tiles((0, max(sides)), max(sides), 160, 64, 32)) > 1
    assert (whole - tiled).abs().max() <= 1
    assert (whole != tiled).float().mean() < 0.01
    linear = axial_interpolate(values, factor, "linear")
    assert (whole - linear).abs().max() > 5


@pytest.mark.parametrize("tile", [32, 64])
def test_tiles_of_an_untrained_network_leave_no_seam(untrained, tile):
    data = volume(100, 70, 3)
    result = reconstruct(untrained, data, 4, tile=tile, halo=0)
    assert torch.allclose(result, axial_interpolate(data, 4, "linear"), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [3, 2.5])
def test_input_slices_can_be_predicted(trained, factor):
    data = tissue(32, 64, 7)
    result = reconstruct(trained, data, factor, input_slices="predict")
    copied = reconstruct(trained, data, factor)
    kept = lattice.kept_indices(7, factor)
    for j, place in enumerate(lattice.positions(7, factor)):
        if j in kept:  # the first and the last slice of the volume too
            window = data[..., lattice.window(place.interval, 7)]
            with torch.no_grad():
                expected = trained(window, torch.tensor(0.0), torch.tensor(factor))
            assert torch.allclose(result[..., j], expected, atol=1e-5), j
            assert not torch.allclose(result[..., j], copied[..., j], atol=1e-3), j
        else:
            assert torch.allclose(result[..., j], copied[..., j], atol=1e-5), j


@pytest.mark.slow
def test_tta_does_not_depend_on_how_the_volume_lies(trained):
    """A network alone does; seen from all sides, a turned and reversed volume gives the turned and reversed result."""
    data = tissue(32, 64, 4)
    turned = data.flip(2, 4).transpose(2, 3)
    for tta in (True, False):
        result = reconstruct(trained, data, 3, tta=tta)
        same = reconstruct(trained, turned, 3, tta=tta).transpose(2, 3).flip(2, 4)
        assert torch.allclose(result, same, atol=1e-5) == tta
        assert torch.equal(result[..., ::3], data)  # input slices are copied


@pytest.mark.parametrize(
    "options, words",
    [
        ({"input_slices": "new"}, "--input_slices new: .* copy or predict"),
        ({"tile": 0}, "--tile 0: give a whole number"),
        ({"tile": 1.5}, "--tile 1.5: give a whole number"),
        ({"halo": -1}, "--halo -1: give a whole number"),
    ],
)
def test_impossible_options(options, words):
    with pytest.raises(InputError, match=words):
        AxialInferer(2, **options)


# ---------------------------------------------------------------------------------------------- channels and batches


def item(x: float, z: float, seed: int) -> MetaTensor:
    """Two channels of different range, with a voxel size and an origin of their own."""
    channels = [(volume(20, 24, 4, seed=2 * seed + c)[0, 0] * (200 - 90 * c) + 10 * c).round() for c in (0, 1)]
    affine = torch.diag(torch.tensor([x, x, z, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor([seed, 1, 2])
    return MetaTensor(torch.stack(channels), affine=affine, meta={"dtype": "uint8", "unit": "micrometer"})


@pytest.mark.slow
@pytest.mark.parametrize("factor", [4, None, 2.5])
def test_each_channel_of_each_item_is_what_it_is_alone(trained, factor):
    """From the file's values to the file's values, as collated and taken apart by MONAI."""
    items: list[Any] = [item(2, 8, seed=0), item(3, 12, seed=1), item(2, 8, seed=2)]
    scale, inferer = ScalePercentiles(*PERCENTILES), AxialInferer(factor)
    restore: Any = RestoreIntensity()
    batch = list_data_collate([{"image": scale(one)} for one in items])["image"]
    results = [restore(result) for result in decollate_batch(inferer(batch, trained))]
    assert len(results) == 3
    for one, result in zip(items, results):
        assert result.shape == (2, 20, 24, lattice.output_size(4, factor or 4))
        assert lattice.voxel_size(result.affine.numpy())[2] == pytest.approx(one.affine[2, 2] / (factor or 4))
        assert torch.equal(result.affine[:, 3], one.affine[:, 3])
        for channel in range(2):
            alone: Any = restore(inferer(scale(one[channel : channel + 1])[None], trained)[0])
            assert torch.equal(result[channel].as_tensor(), alone[0].as_tensor())
        assert torch.equal(result[..., 0].as_tensor(), one[..., 0].as_tensor())  # each in its own range
    assert not torch.allclose(results[0].as_tensor(), results[2].as_tensor(), atol=5)


def test_progress_is_that_of_all_volumes(untrained, capsys):
    AxialInferer(3, progress=True)(torch.rand(2, 3, 8, 8, 4), untrained)
    assert "24/24" in capsys.readouterr().err


def test_volumes_of_a_batch_that_need_several_factors(trained):
    batch = list_data_collate([{"image": item(2, 8, 0)}, {"image": item(2, 6, 1)}])["image"]
    with pytest.raises(InputError, match="--factor is missing: .* ask for 2 different ones"):
        reconstruct(trained, batch, None)
    affine = reconstruct(trained, batch, 4).affine
    assert affine[:, 2, 2].tolist() == [2, 1.5]


@pytest.mark.parametrize(
    "data, words",
    [
        (torch.rand(1, 8, 8, 4), r"not \(1, 8, 8, 4\): give a single volume as volume\[None\]"),
        (torch.rand(8, 8, 4), r"volume\[None, None\]"),
        (torch.rand(8, 8), r"not \(8, 8\)$"),
        (torch.rand(1, 1, 8, 8, 4, 2), "not .1, 1, 8, 8, 4, 2"),
        (torch.rand(1, 1, 8, 8, 1), "at least 2 slices"),
        (torch.rand(0, 1, 8, 8, 4), "need voxels"),
        (torch.rand(1, 1, 8, 0, 4), "need voxels"),
        (torch.rand(1, 1, 8, 8, 4).to(torch.complex64), "not torch.complex64"),
        (torch.ones(1, 1, 8, 8, 4, dtype=torch.uint8), "not torch.uint8: scale them first"),
        (np.ones((1, 1, 8, 8, 4)), "not a ndarray"),
    ],
)
def test_what_is_no_batch_of_volumes_is_one_line(untrained, data, words):
    with pytest.raises(InputError, match=words) as error:
        reconstruct(untrained, data, 2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_are_taken(untrained, dtype):
    data = volume(9, 7, 3).to(dtype)
    result = reconstruct(untrained, data, 2)
    assert result.dtype == torch.float32
    assert torch.allclose(result, axial_interpolate(data.float(), 2, "linear"), atol=1e-5)


def test_memory_is_asked_for_all_volumes(untrained, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "scripts.reconstruction.axial_inferer.check_memory", lambda voxels, factor: asked.append(voxels)
    )
    result = reconstruct(untrained, torch.rand(3, 2, 8, 7, 4), 2)
    assert asked == [result.numel()]


def test_network_is_made_ready_once_and_anew_when_it_changes(trained, monkeypatch):
    made, make = [], predictor.optimize_for_inference

    def counted(*given: Any) -> Any:
        made.append(given)
        return make(*given)

    monkeypatch.setattr(predictor, "optimize_for_inference", counted)
    inferer, data, network = AxialInferer(2), tissue(32, 32, 3), copy.deepcopy(trained)
    first = inferer(data, network)
    assert torch.equal(inferer(data, network), first)
    assert len(made) == 1
    with torch.no_grad():
        network.output.head.bias += 0.25
    assert torch.allclose(inferer(data, network)[..., 1], first[..., 1] + 0.25, atol=1e-5)
    assert torch.equal(inferer(data, trained), first)
    assert len(made) == 3


def test_cut_of_an_earlier_run_is_that_of_all_volumes_of_such_planes(untrained):
    inferer, cpu = AxialInferer(2), torch.device("cpu")
    inferer.cut_alike((96, 80, 5), 2, cpu, 64, 3)
    for shape, expected in (((96, 80, 5), (64, 3)), ((96, 80, 9), (64, 3)), ((96, 81, 5), (512, 16))):
        assert inferer.tile_and_batch(shape, 2, untrained, cpu) == expected
    assert inferer.tile_and_batch((96, 80, 5), 3, untrained, cpu) == (512, 16)


def test_blocks_of_a_file_are_as_large_as_a_processor_does_in_some_seconds(untrained, tmp_path):
    """Neither so small that reading and writing count, nor so large that nothing is seen to go on."""
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((9, 512, 512), np.uint8), metadata={"axes": "ZYX"})
    dataset = BlockDataset([{"image": tmp_path / "v.tif"}], None, AxialInferer(8), untrained, "cpu")
    sizes = [[side.stop - side.start for side in block.output(8)] for block in dataset.volumes[0].blocks]
    assert sum(math.prod(size) for size in sizes) == math.prod(dataset.volumes[0].output_shape)
    assert 2**21 < max(math.prod(size) for size in sizes) <= 2**22


# ------------------------------------------------------------------------------------------------- too little memory


class Small(torch.nn.Module):
    """Linear interpolation on a GPU that holds tiles up to some size, and fails late in a tile that it does
    not hold."""

    def __init__(self, network: AENet, largest: int, calls_before: int = 0) -> None:
        super().__init__()
        self.network = network
        self.largest = largest
        self.calls_before = calls_before
        self.sides: list[int] = []

    def __deepcopy__(self, memo: dict) -> Small:
        return self  # for what it was asked is read afterwards

    def encode(self, window: torch.Tensor) -> list[torch.Tensor]:
        self.sides.append(max(window.shape[2:4]))
        if self.sides[-1] > self.largest:
            if self.calls_before == 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.calls_before -= 1
        return self.network.encode(window)

    def decode(self, *arguments: Any) -> torch.Tensor:
        return self.network.decode(*arguments)


@pytest.mark.parametrize("tile", [None, 320])
def test_smaller_tiles_where_memory_is_not_enough(untrained, tile, caplog):
    data = volume(300, 70, 4)
    network = Small(untrained, 192)
    with caplog.at_level(logging.WARNING):
        result = reconstruct(network, data, 3, tile=tile)
    assert torch.allclose(result, axial_interpolate(data, 3, "linear"), atol=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with tiles of 300 x 70 voxels; going on with 172 x 70"
    ]


def test_work_before_the_lack_of_memory_is_not_repeated(untrained):
    network = Small(untrained, 192, calls_before=3)
    data = volume(300, 70, 6)
    result = reconstruct(network, data, 2)
    assert torch.allclose(result, axial_interpolate(data, 2, "linear"), atol=1e-5)
    # three intervals of the whole plane, a vain one, and the last two of the five in tiles
    assert network.sides[:4] == [300] * 4
    assert len(network.sides) == 4 + 2 * len(lattice.tiles((0, 300), 300, 160, 64, 32))


@pytest.mark.slow
@pytest.mark.parametrize("calls_before", [0, 2, 5, 7])
def test_every_tile_goes_on_where_it_was_when_memory_lacked(untrained, calls_before):
    """Of several tiles the first is half done, or done, and the others have not begun."""
    network, data = Small(untrained, 192, calls_before), volume(600, 40, 6)
    result = reconstruct(network, data, 2, tile=320)
    assert torch.allclose(result, axial_interpolate(data, 2, "linear"), atol=1e-5)
    large = [side for side in network.sides if side > 192]
    assert len(large) == calls_before + 1  # one call in vain
    parts = [len(tile.parts(160, 64, 32)) for tile in lattice.whole((600, 40, 6)).parts(320, 64, 32)]
    whole, begun = divmod(calls_before, 5)  # of five intervals each
    rest = [5 * count for count in parts[whole:]]
    assert len(network.sides) - len(large) == sum(rest) - begun * parts[whole]


@pytest.mark.slow
def test_smaller_tiles_in_the_midst_of_a_batch(trained):
    data = torch.stack([tissue(225, 40, 3)[0], volume(225, 40, 3)[0], tissue(225, 40, 3)[0].flip(1)])
    whole = reconstruct(trained, data, 2)
    tiled = reconstruct(Small(trained, 192, calls_before=4), data, 2)  # the second volume is half done
    assert torch.equal(whole[0], tiled[0])
    assert torch.allclose(whole, tiled, atol=1e-3) and not torch.equal(whole[2], tiled[2])


@pytest.mark.parametrize("side", range(161, 225, 7))
def test_too_little_memory_is_found_at_any_side(untrained, side):
    """However small the rest that a tile shares with the plane makes it, no size is tried twice."""
    with pytest.raises(InputError, match="out of memory, even with tiles of"):
        reconstruct(Small(untrained, 100), volume(side, 70, 2), 2)


def test_too_little_memory_for_any_tile_is_one_clear_error(untrained):
    with pytest.raises(InputError, match="out of memory, even with tiles of 172 x 70 voxels: .* --halo"):
        reconstruct(Small(untrained, 100), volume(300, 70, 3), 2)


# ------------------------------------------------------------------------------------------------- from file to file


def on_disk(folder: Path, name: str, dtype: str, *shape: int) -> Path:
    """A volume of smooth structure."""
    values = tissue(*shape)[0]
    scaled = values * 200 if dtype.startswith("float") else (values * 200 + 20).round()
    sizes = torch.diag(torch.tensor([2.0, 2.0, 7.0, 1.0], dtype=torch.float64))
    write_volume(MetaTensor(scaled, affine=sizes, meta={"unit": "micrometer", "dtype": dtype}), folder / name)
    return folder / name


def stream(
    volume: Path, output: Path, network: torch.nn.Module, inferer: AxialInferer, overwrite: bool = False
) -> None:
    """Reconstruct a file by the config, with another network and inferer."""
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "inference.yaml"),
        workflow_type="infer",
        logging_file=False,
        volume=str(volume),
        output=str(output),
        overwrite=overwrite,
        input_slices=inferer.input_slices,
        network_def=network,
        network=network,
        trained={"percentiles": PERCENTILES},
        inferer=inferer,
        device=torch.device("cpu"),
    )
    workflow.initialize()
    try:
        workflow.evaluator.run()
    except RuntimeError as error:  # what MONAI makes of an exception in a section
        raise input_error(error) or error from error


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, dtype, output",
    [
        ("a.tif", "uint8", "b.tif"),
        ("a.ome.tif", "uint16", "b.nii.gz"),
        ("a.nii.gz", "int16", "b.ome.tif"),
        ("a.nii", "float32", "b.nii"),
        ("a.tif", "uint32", "b.tif"),
        ("a.ome.tif", "float64", "b.ome.tif"),
    ],
)
@pytest.mark.parametrize("factor, kept", [(3.5, "copy"), (2, "predict")])
def test_file_is_what_memory_gives(trained, tmp_path, name, dtype, output, factor, kept, capsys):
    """Tile by tile from file to file, and the transforms around the inferer in memory."""
    path = on_disk(tmp_path, name, dtype, 136, 40, 5)
    inferer = AxialInferer(factor, tile=96, halo=20, input_slices=kept)
    stream(path, tmp_path / output, trained, inferer)
    assert capsys.readouterr().out.startswith(
        f"wrote {tmp_path / output}: 136 x 40 x {lattice.output_size(5, factor)} "
    )

    data = ScalePercentiles(*PERCENTILES)(read_volume(path))
    predicted: Any = inferer(data[None], trained)[0]
    expected = RestoreIntensity()(predicted)
    result = read_volume(tmp_path / output)
    assert result.meta["dtype"] == dtype and result.meta["unit"] == "micrometer"
    assert lattice.voxel_size(result.affine.numpy()) == pytest.approx((2, 2, 7 / factor))
    assert torch.allclose(result.as_tensor(), expected.as_tensor(), atol=1e-4)
    if kept == "copy":  # to the bit, floats as well
        kept_indices = lattice.kept_indices(5, factor)
        originals: Any = read_volume(path)[..., [round(j / factor) for j in kept_indices]]
        copies: Any = result[..., kept_indices]
        assert torch.equal(copies.as_tensor(), originals.as_tensor())
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, output]


@pytest.mark.slow
def test_tta_from_file_to_file(trained, tmp_path):
    path = on_disk(tmp_path, "a.nii", "float32", 136, 40, 3)
    inferer = AxialInferer(2, tile=96, halo=20, input_slices="predict", tta=True)
    stream(path, tmp_path / "b.nii", trained, inferer)
    data = ScalePercentiles(*PERCENTILES)(read_volume(path))
    predicted: Any = inferer(data[None], trained)[0]
    expected = RestoreIntensity()(predicted)
    assert torch.allclose(read_volume(tmp_path / "b.nii").as_tensor(), expected.as_tensor(), atol=1e-3)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_where_writing_fails_in_the_background(untrained, tmp_path, monkeypatch, failure):
    path = on_disk(tmp_path, "a.tif", "uint8", 64, 40, 5)
    (tmp_path / "b.tif").write_text("older")
    written: list[Any] = []

    def pwrite(*arguments: Any) -> int:
        if len(written) == 5:
            raise failure
        written.append(arguments)
        return len(arguments[1])

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", pwrite)
        with pytest.raises(InputError if isinstance(failure, OSError) else KeyboardInterrupt) as error:
            stream(path, tmp_path / "b.tif", untrained, AxialInferer(8), overwrite=True)
    if isinstance(failure, OSError):
        assert str(error.value).startswith(f"{tmp_path / 'b.tif'}: cannot be written (No space left on device)")
    assert (tmp_path / "b.tif").read_text() == "older" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("factor", [1e9, 1e306, 1.7e308])
def test_factor_that_no_machine_holds_is_refused_before_anything_is_listed(untrained, tmp_path, monkeypatch, factor):
    path = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 5)
    monkeypatch.setattr(lattice, "positions", None)
    with pytest.raises(InputError, match="--factor .* give a lower --factor"):
        stream(path, tmp_path / "b.tif", untrained, AxialInferer(factor))
    with pytest.raises(InputError, match="--factor .* give a lower --factor"):
        AxialInferer(factor)(read_volume(path)[None], untrained)
    assert os.listdir(tmp_path) == ["a.tif"]


def appears_at_work(network: torch.nn.Module, path: Path) -> torch.nn.Module:
    """A network which has somebody else write a file as soon as it is used."""
    network = copy.deepcopy(network)
    decode: Any = network.decode

    def write_and_decode(*arguments: Any) -> Any:
        path.write_text("of somebody else")
        return decode(*arguments)

    network.decode = write_and_decode  # type: ignore[assignment]
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name, free", [("b.tif", "b_1.tif"), ("b.nii.gz", "b_1.nii.gz"), ("b.ome.tif", "b_1.ome.tif")])
def test_file_that_appears_at_work_is_left_alone_and_the_result_is_kept(untrained, tmp_path, name, free):
    path, inferer = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 3), AxialInferer(2)
    stream(path, tmp_path / f"expected_{name}", untrained, inferer)
    with pytest.raises(InputError) as error:
        stream(path, tmp_path / name, appears_at_work(untrained, tmp_path / name), inferer)
    assert str(error.value).startswith(f"{tmp_path / name}: appeared") and str(tmp_path / free) in str(error.value)
    assert (tmp_path / name).read_text() == "of somebody else"
    assert torch.equal(read_volume(tmp_path / free), read_volume(tmp_path / f"expected_{name}"))
    assert not list(tmp_path.glob(".*"))
    stream(path, tmp_path / name, appears_at_work(untrained, tmp_path / name), inferer, overwrite=True)
    assert torch.equal(read_volume(tmp_path / name), read_volume(tmp_path / free))


def test_output_is_never_the_input(untrained, tmp_path):
    path, inferer = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 3), AxialInferer(2)
    before = path.read_bytes()
    with pytest.raises(InputError, match="is the same file as .*a.tif, which this run reads"):
        stream(path, tmp_path / "." / "a.tif", untrained, inferer, overwrite=True)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.tif"]


def test_second_run_to_an_output_is_told_before_it_reads(untrained, tmp_path, monkeypatch):
    path, said = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 3), []

    def second() -> None:
        with pytest.raises(InputError, match="has been writing it since") as error:
            stream(path, tmp_path / "b.tif", untrained, AxialInferer(2))
        said.append(error)

    with Claim(tmp_path / "b.tif"):
        monkeypatch.setattr(VolumeSource, "read", None)
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert said and os.listdir(tmp_path) == ["a.tif"]


def test_nothing_is_left_where_the_network_fails(untrained, tmp_path):
    path = on_disk(tmp_path, "a.tif", "uint8", 64, 40, 5)
    network = Small(untrained, 1000)
    network.decode = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stream(path, tmp_path / "b.nii.gz", network, AxialInferer(8))
    assert [file.name for file in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_output_of_a_network_that_is_not_finite_is_an_error(untrained, tmp_path, value, dtype):
    """A type of whole numbers would make 0 or the largest value of it."""
    broken = copy.deepcopy(untrained)
    decode = broken.decode

    def decode_wrongly(features, relative_depth, factor):
        slices = decode(features, relative_depth, factor)
        slices[-1, 0, 20, 7] = value
        return slices

    broken.decode = decode_wrongly
    path = on_disk(tmp_path, "a.nii", dtype, 64, 40, 5)
    inferer = AxialInferer(4, depth_batch=3)
    with pytest.raises(
        InputError, match="slices from 0 on came out of the network as NaN or infinite: try --amp false"
    ):
        stream(path, tmp_path / "b.nii", broken, inferer)
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii"]
    with pytest.raises(InputError, match="NaN or infinite"):
        inferer(ScalePercentiles(*PERCENTILES)(read_volume(path))[None], broken)


def test_bad_voxels_are_found_before_anything_is_written(untrained, tmp_path, monkeypatch):
    path = on_disk(tmp_path, "a.tif", "float32", 32, 32, 5)
    broken = read_volume(path)
    broken[0, 3, 4, 4] = float("nan")  # in the last slice
    write_volume(broken, path)
    monkeypatch.setattr("scripts.reconstruction.outputs.volume_writer", None)
    with pytest.raises(InputError, match="a.tif: has 1 voxels that are NaN"):
        stream(path, tmp_path / "b.tif", untrained, AxialInferer(8))


@pytest.mark.parametrize(
    "name, says", [("b.png", "cannot be written"), ("there.tif", "exists already"), ("a.tif", "which this run reads")]
)
def test_an_output_that_cannot_be_is_refused_before_the_volume_is_read(untrained, tmp_path, monkeypatch, name, says):
    path = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 5)
    (tmp_path / "there.tif").write_text("the user's")
    monkeypatch.setattr(VolumeSource, "read", None)
    with pytest.raises(InputError, match=says):
        stream(path, tmp_path / name, untrained, AxialInferer(8))
    assert sorted(os.listdir(tmp_path)) == ["a.tif", "there.tif"]


def test_disk_without_room_is_found_before_the_volume_is_read(untrained, tmp_path, monkeypatch):
    path = on_disk(tmp_path, "a.tif", "uint8", 32, 32, 5)
    monkeypatch.setattr(VolumeSource, "read", None)
    with pytest.raises(InputError, match="--factor 1e.09: the output would need .* give a lower --factor"):
        stream(path, tmp_path / "b.tif", untrained, AxialInferer(1e9))


def test_mixed_precision_stays_close(trained):
    data = tissue(32, 32, 3)
    whole = reconstruct(trained, data, 4)
    half = reconstruct(trained, data, 4, amp=True)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() < 0.05
