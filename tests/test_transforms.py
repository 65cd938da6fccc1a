# SPDX-License-Identifier: Apache-2.0
"""The transforms: geometry against analytic fields, intensity round trips, and random draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd
from scripts import lattice
from scripts.errors import InputError
from scripts.transforms.adopt_grid import AdoptGridd
from scripts.transforms.axial_decimate import AxialDecimate, AxialDecimated, axial_decimate
from scripts.transforms.axial_interpolate import AxialInterpolate, AxialInterpolated, axial_interpolate
from scripts.transforms.copy_recorded import CopyRecordedd
from scripts.transforms.hold_out import HoldOut, HoldOutd
from scripts.transforms.match_noise import MatchNoise, MatchNoised
from scripts.transforms.rand_sequences import RandSequences, RandSequencesd
from scripts.transforms.rand_slice_patches import RandSlicePatches, RandSlicePatchesd
from scripts.transforms.save_volume import SaveVolumed
from scripts.transforms.scale_intensity import (
    RestoreIntensity,
    RestoreIntensityd,
    ScalePercentiles,
    ScalePercentilesd,
    measure_intensity,
)

FACTORS = [2, 8, 6.5, 10 / 3, 1.3]


def field(z: torch.Tensor) -> torch.Tensor:
    """A smooth field at axial positions ``z`` in input slices, (3, 2, len(z))."""
    x = torch.arange(3.0)[:, None, None]
    y = torch.arange(2.0)[None, :, None]
    return 0.5 + 0.4 * torch.sin(0.6 * z + 0.5 * x - 0.3 * y + 0.1)


def random_volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))


def with_affine(volume: torch.Tensor, *spacing: float, origin=(5.0, 6.0, 7.0)) -> MetaTensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(origin)
    return MetaTensor(volume, affine=affine)


def spacing_of(volume: MetaTensor) -> tuple[float, float, float]:
    return lattice.voxel_size(volume.affine.numpy())


# ---- interpolation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("mode, tolerance", [("cubic", 0.004), ("linear", 0.02)])
def test_interpolation_hits_the_field_where_the_lattice_says(factor, mode, tolerance):
    slices = 12
    coarse = field(torch.arange(float(slices)))
    fine = torch.arange(lattice.output_size(slices, factor)) / factor
    error = (axial_interpolate(coarse, factor, mode) - field(fine)).abs()
    inside = (fine >= 1) & (fine <= slices - 2)
    assert error[..., inside].max() < tolerance
    # At the ends the edge slice is repeated, which costs the cubic its order, no more.
    assert error.max() < 0.05


@pytest.mark.parametrize("factor", [2, 8])
def test_misaligned_interpolation_would_be_noticed(factor):
    """The check above, on the shifted lattice of align_corners=False: it must be far out of tolerance."""
    coarse = field(torch.arange(12.0))
    size = lattice.output_size(12, factor)
    shifted = F.interpolate(coarse, size=12 * factor, mode="linear", align_corners=False)[..., :size]
    fine = torch.arange(size) / factor
    inside = (fine >= 1) & (fine <= 10)
    assert (shifted - field(fine)).abs()[..., inside].max() > 0.05


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("mode", ["cubic", "linear"])
def test_originals_stay_where_they_are(factor, mode):
    volume = random_volume(3, 4, 7)
    result = axial_interpolate(volume, factor, mode)
    assert torch.allclose(result[..., 0], volume[..., 0], atol=1e-6)
    for j in lattice.kept_indices(7, factor):
        assert torch.allclose(result[..., j], volume[..., round(j / factor)], atol=1e-5)
    if 6 * factor == round(6 * factor):
        assert torch.allclose(result[..., -1], volume[..., -1], atol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_linear_interpolation_of_a_ramp_is_exact(factor):
    ramp = torch.arange(9.0).expand(1, 2, 2, 9)
    expected = torch.arange(lattice.output_size(9, factor)) / factor
    assert torch.allclose(axial_interpolate(ramp, factor, "linear"), expected.expand(1, 2, 2, -1), atol=1e-5)
    inside = (expected >= 1) & (expected <= 7)
    assert torch.allclose(axial_interpolate(ramp, factor)[0, 0, 0][inside], expected[inside], atol=1e-5)


@pytest.mark.parametrize("factor", FACTORS)
def test_constant_volumes_stay_constant(factor):
    assert torch.allclose(axial_interpolate(torch.full((1, 2, 2, 5), 0.7), factor), torch.tensor(0.7), atol=1e-6)


def test_cubic_is_the_catmull_rom_spline():
    """Against the textbook formula at an inner position."""
    a, b, c, d = (torch.rand(()) for _ in range(4))
    t = 0.25
    expected = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    found = axial_interpolate(torch.stack([a, b, c, d]), 4)[5]
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_decimate_and_interpolate_round_trip(factor):
    fine = field(torch.arange(8 * factor + 1) / factor)[None]
    coarse = AxialDecimate(factor)(with_affine(fine, 1, 1, 1))
    again: Any = AxialInterpolate(factor)(coarse)
    assert again.shape == fine.shape
    assert torch.allclose(again.as_tensor()[..., ::factor], fine[..., ::factor], atol=1e-6)
    inside = slice(factor, -factor)
    assert (again.as_tensor() - fine)[..., inside].abs().max() < 0.004
    assert np.allclose(again.affine, with_affine(fine, 1, 1, 1).affine)


@pytest.mark.parametrize("factor", [8, 6.5])
def test_interpolation_refines_the_affine(factor):
    volume = with_affine(random_volume(3, 3, 5), 2, 3, 26)
    result: Any = AxialInterpolated("image", factor)({"image": volume})["image"]
    assert result.shape == (1, 3, 3, lattice.output_size(5, factor))
    assert spacing_of(result) == pytest.approx((2, 3, 26 / factor))
    assert result.affine[:3, 3].tolist() == [5, 6, 7]
    assert spacing_of(volume) == pytest.approx((2, 3, 26))


# ---- degradation -----------------------------------------------------------------------------------------------------


def test_sampling_is_slicing():
    volume = random_volume(3, 3, 26)
    assert torch.equal(axial_decimate(volume, 8), volume[..., ::8])
    assert torch.equal(axial_decimate(volume, 6.5), volume[..., [0, 6, 13, 20]])


@pytest.mark.parametrize("degradation", ["sampling", "average", "gaussian"])
@pytest.mark.parametrize("factor", [4, 6.5, 7])
def test_degradations_keep_level_and_place(degradation, factor):
    """Constants and ramps pass unchanged (but at the replicated ends): no gain, no shift."""
    constant = torch.full((1, 2, 2, 80), 0.3)
    assert torch.allclose(axial_decimate(constant, factor, degradation), torch.tensor(0.3), atol=1e-6)
    ramp = torch.arange(80.0).expand(1, 2, 2, 80)
    kept = torch.tensor(lattice.decimated_indices(80, factor)).float()
    inside = (kept > 2 * factor) & (kept < 79 - 2 * factor)
    found = axial_decimate(ramp, factor, degradation)[0, 0, 0]
    assert torch.allclose(found[inside], kept[inside], atol=1e-3)


@pytest.mark.parametrize("degradation", ["average", "gaussian"])
@pytest.mark.parametrize("factor", [4, 5, 6.5])
def test_width_of_the_blur(degradation, factor):
    """The response to one bright slice, read with a shift: total 1, and the advertised width."""
    size, center = 121, 60
    responses = []
    for shift in range(-20, 21):
        volume = torch.zeros(1, 1, 1, size)
        volume[..., center + shift] = 1
        kept = lattice.decimated_indices(size, factor)
        nearest = min(range(len(kept)), key=lambda i: abs(kept[i] - center))
        responses.append(
            (kept[nearest] - center - shift, axial_decimate(volume, factor, degradation)[..., nearest].item())
        )
    total = sum(response for _, response in responses)
    assert total == pytest.approx(1, abs=1e-3)
    assert sum(d * response for d, response in responses) == pytest.approx(0, abs=1e-3)
    std = math.sqrt(sum(d**2 * response for d, response in responses))
    expected = factor / math.sqrt(12) if degradation == "average" else factor / 2.3548
    assert std == pytest.approx(expected, rel=0.08)  # a box of 4 voxels is sampled coarsely


def test_blur_lowers_noise_and_sampling_does_not():
    noise = torch.randn(1, 20, 20, 81, generator=torch.Generator().manual_seed(0))
    std = {kind: axial_decimate(noise, 8, kind).std().item() for kind in ("sampling", "average", "gaussian")}
    assert std["sampling"] == pytest.approx(1, abs=0.05)
    assert std["average"] == pytest.approx(1 / math.sqrt(8), abs=0.08)
    assert std["gaussian"] < 0.5


def test_unknown_degradation():
    with pytest.raises(ValueError, match="sampling, average, gaussian"):
        axial_decimate(torch.rand(1, 1, 1, 20), 4, "median")


@pytest.mark.parametrize("factor", [8, 6.5])
def test_decimation_coarsens_the_affine(factor):
    volume = with_affine(random_volume(3, 3, 33), 2, 3, 4)
    result: Any = AxialDecimated("image", factor, "average")({"image": volume})["image"]
    assert spacing_of(result) == pytest.approx((2, 3, 4 * factor))
    assert result.affine[:3, 3].tolist() == [5, 6, 7]
    assert spacing_of(volume) == pytest.approx((2, 3, 4))


@pytest.mark.parametrize("make", [AxialDecimate, AxialInterpolate])
def test_factor_is_checked(make):
    with pytest.raises(InputError, match="--factor"):
        make(1)


# ---- the way back ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [33, 30])
@pytest.mark.parametrize("make", [AxialDecimate, AxialInterpolate, partial(AxialInterpolate, mode="linear")])
def test_inverse_is_on_the_grid_before(make, factor, size):
    """The field where it lay, in as many slices: from a coarse grid up to the bend between its slices."""
    volume = with_affine(field(torch.arange(float(size)) / 10)[None], 2, 3, 4)
    transform = make(factor)
    changed = transform(volume)
    assert volume.applied_operations == [] and len(changed.applied_operations) == 1
    again = transform.inverse(changed)
    assert again.shape == volume.shape and again.applied_operations == []
    assert np.allclose(again.affine, volume.affine)
    inside = slice(None, None)
    if make is AxialDecimate:  # beyond the last slice that was kept there is only its copy, and the kept ones are not
        kept = lattice.decimated_indices(size, factor)  # quite at the places of a real factor
        inside = slice(kept[0], kept[-2] + 1)
    error = (again - volume).as_tensor().abs()[..., inside].max()
    assert error < (0.03 if float(factor).is_integer() else 0.06)


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_inverse_of_a_whole_factor_brings_back_the_slices(mode):
    volume = with_affine(random_volume(3, 4, 7), 1, 1, 8)
    transform = AxialInterpolate(8, mode)
    assert torch.allclose(transform.inverse(transform(volume)), volume, atol=1e-6)


def test_a_chain_of_what_changes_the_grid_is_inverted():
    """By Compose.inverse and by Invertd, which takes a prediction back to the grid of the image."""
    volume = with_affine(random_volume(6, 10, 13), 2, 3, 4)
    chain = Compose(
        [
            HoldOutd(["image", "other"], "validation", "y", 0.5, allow_missing_keys=True),
            AxialDecimated("image", 4),
            AxialInterpolated(["image", "other"], 2, "linear", allow_missing_keys=True),
        ]
    )
    data = chain({"image": volume})
    assert data["image"].shape == (1, 6, 5, 7) and spacing_of(data["image"]) == pytest.approx((2, 3, 8))
    back = chain.inverse(data)["image"]
    assert back.shape == volume.shape and np.allclose(back.affine, volume.affine)
    assert torch.allclose(back[..., 5:, ::4], volume[..., 5:, ::4], atol=1e-6) and not back[:, :, :5].any()

    data = chain({"image": volume})
    for nearest, expected in ((True, [2, 2, 4, 4, 4]), (False, [2, 2.5, 3, 3.5, 4])):
        data["pred"] = MetaTensor(torch.arange(7.0).expand(1, 6, 5, 7))
        pred = Invertd("pred", chain, "image", nearest_interp=nearest)(data)["pred"]
        assert pred.shape == volume.shape and np.allclose(pred.affine, volume.affine)
        assert pred[0, 0, 5, 4:9].tolist() == pytest.approx(expected, abs=1e-6)


def test_inverse_without_the_way_forth_is_refused():
    with pytest.raises(ValueError, match="applied_operations"):
        AxialDecimate(4).inverse(with_affine(random_volume(3, 3, 5), 1, 1, 1))


def test_labels_of_integers_are_interpolated():
    volume = torch.tensor([0, 10, 20]).expand(1, 2, 2, 3)
    assert axial_interpolate(volume, 2, "linear")[0, 0, 0].tolist() == [0, 5, 10, 15, 20]
    assert axial_interpolate(volume, 2.5, "nearest")[0, 0, 0].tolist() == [0, 0, 10, 10, 20, 20]


# ---- keys ------------------------------------------------------------------------------------------------------------


def reconstruction(values: torch.Tensor, copied: bool = True) -> MetaTensor:
    return MetaTensor(values, meta={"factor": 2, "input_slices_copied": copied})


SIDE = random_volume(20, 20, 13, seed=1)
KEYED: dict[str, tuple[Any, Callable[[], Any], list[str]]] = {
    "AxialDecimated": (partial(AxialDecimated, factor=4), lambda: with_affine(SIDE, 1, 1, 1), []),
    "AxialInterpolated": (partial(AxialInterpolated, factor=4), lambda: with_affine(SIDE, 1, 1, 1), []),
    "HoldOutd": (partial(HoldOutd, part="train", axis="x"), lambda: with_affine(SIDE, 1, 1, 1), []),
    "ScalePercentilesd": (partial(ScalePercentilesd, lower=1, upper=99), lambda: MetaTensor(SIDE), []),
    "RestoreIntensityd": (
        RestoreIntensityd,
        lambda: ScalePercentiles(1, 99)(MetaTensor(SIDE, meta={"dtype": "float32"})),
        [],
    ),
    "MatchNoised": (partial(MatchNoised, factor=4, target_key=["ta", "tb"]), lambda: SIDE, ["ta", "tb"]),
    "AdoptGridd": (partial(AdoptGridd, grid_of="grid"), lambda: with_affine(SIDE, 1, 1, 1), []),
    "CopyRecordedd": (
        partial(CopyRecordedd, image_key=["ia", "ib"]),
        lambda: reconstruction(torch.zeros(1, 20, 20, 25)),
        [],
    ),
}


def differs(first: torch.Tensor, second: torch.Tensor) -> bool:
    same = first.shape == second.shape and torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    return not same or str(getattr(first, "meta", None)) != str(getattr(second, "meta", None))


@pytest.mark.parametrize("name", KEYED)
def test_every_key_is_transformed_and_a_missing_one_may_be_missing(name):
    make, item, new = KEYED[name]
    others = {"grid": with_affine(SIDE[..., :3], 1, 1, 1), "ia_recorded": SIDE, "ib_recorded": SIDE}
    both = make(["a", "b"])({"a": item(), "b": item(), **others})
    assert set(both) == {"a", "b", *others, *new}
    assert differs(both["a"], item()) and differs(both["b"], item())
    assert torch.equal(both["a"], both["b"])

    alone = make(["a", "b"], allow_missing_keys=True)({"b": item(), **others})
    assert set(alone) == {"b", *others, *new[1:]} and torch.equal(alone["b"], both["b"])
    with pytest.raises(KeyError):
        make(["a", "b"])({"b": item(), **others})


@pytest.mark.parametrize(
    "make",
    [
        partial(RandSequencesd, patch_size=(8, 8), num_samples=3, target_key=["ta", "tb"]),
        partial(RandSlicePatchesd, patch_size=(8, 9), factor=4, num_samples=3),
    ],
)
def test_every_key_gives_its_samples(make):
    data = {"a": SIDE, "b": 10 + SIDE}
    items = make(["a", "b"])(data)
    assert [bool(item["image"].max() > 5) for item in items] == [False] * 3 + [True] * 3
    assert len(make(["a", "b"], allow_missing_keys=True)({"b": SIDE})) == 3
    with pytest.raises(KeyError):
        make(["a", "b"])({"b": SIDE})


def test_targets_are_those_of_their_key():
    draw = RandSequencesd(["a", "b"], (8, 8), target_key=["ta", "tb"], edge_probability=0)
    items = draw({"a": SIDE, "b": SIDE, "ta": 20 + SIDE, "tb": 30 + SIDE})
    assert [int(item["label"].min() / 10) for item in items] == [2, 3]


def test_recorded_slices_are_those_of_their_volume():
    volumes: dict = {"pa": reconstruction(torch.zeros(1, 2, 2, 5)), "pb": reconstruction(torch.zeros(1, 2, 2, 5))}
    recorded: dict = {"a_recorded": torch.full((1, 2, 2, 3), 1.5), "b_recorded": torch.full((1, 2, 2, 3), 2.5)}
    result = CopyRecordedd(["pa", "pb"], ["a", "b"])({**volumes, **recorded})
    assert result["pa"][0, 0, 0].tolist() == [1.5, 0, 1.5, 0, 1.5]
    assert result["pb"][0, 0, 0].tolist() == [2.5, 0, 2.5, 0, 2.5]
    predicted = {**volumes, "pb": reconstruction(torch.zeros(1, 2, 2, 5), copied=False)}
    assert not CopyRecordedd(["pa", "pb"], ["a", "b"])({**predicted, **recorded})["pb"].any()


# ---- intensity -------------------------------------------------------------------------------------------------------


def stored(values: np.ndarray) -> MetaTensor:
    """As the reader gives it: float32 values with the type of the file in the meta data."""
    volume = MetaTensor(torch.from_numpy(values.astype(np.float32)))
    volume.meta["dtype"] = values.dtype.name
    return volume


@pytest.mark.parametrize("dtype, low, high", [("uint8", 3, 250), ("uint16", 100, 65535), ("int16", -1000, 30000)])
def test_integer_files_come_back_exactly(dtype, low, high):
    values = np.random.default_rng(0).integers(low, high, (1, 9, 10, 11), dtype, endpoint=True)
    original = stored(values)
    scaled = ScalePercentiles(1, 99)(original)
    assert torch.equal(RestoreIntensity()(scaled).as_tensor(), original.as_tensor())
    assert torch.equal(original.as_tensor(), torch.from_numpy(values.astype(np.float32)))


def test_float_files_come_back_in_their_range():
    values = np.random.default_rng(0).normal(-3, 1e-3, (1, 9, 10, 11)).astype(np.float32)
    result = RestoreIntensity()(ScalePercentiles(1, 99)(stored(values)))
    assert np.allclose(result.numpy(), values, atol=1e-6)
    assert not np.array_equal(result.numpy(), result.round().numpy())


def test_percentiles_become_0_and_1():
    values = np.random.default_rng(0).normal(100, 20, (1, 20, 20, 20)).astype(np.float32)
    scaled = ScalePercentiles(2, 98)(stored(values))
    assert np.percentile(scaled.numpy(), (2, 98)) == pytest.approx((0, 1), abs=1e-4)
    assert scaled.min() < 0 and scaled.max() > 1  # nothing is clipped on the way in


def test_output_is_rounded_and_clipped_to_the_inputs_range():
    values = np.arange(20, 120, dtype=np.uint8).reshape(1, 4, 5, 5)
    scaled = ScalePercentiles(0, 100)(stored(values))
    scaled[0, 0, 0] = torch.tensor([-0.5, 1.5, 0.5 / 99, 0.2, 40.4 / 99])
    assert RestoreIntensity()(scaled)[0, 0, 0].tolist() == pytest.approx([20, 119, 20, 40, 60])


def test_scale_is_that_of_the_whole_volume():
    """What is done to a tile after scaling restores to what the whole would give."""
    values = np.random.default_rng(0).integers(0, 255, (1, 8, 8, 8), np.uint8)
    values[:, :, :, 4:] //= 4
    scaled: Any = ScalePercentiles(0.1, 99.9)(stored(values))
    whole: Any = RestoreIntensity()(scaled * 0.9)
    for part in (scaled[:, :4], scaled[..., 4:], scaled[:, 2:3, 2:3, 2:3]):
        assert part.meta["intensity_high"] == scaled.meta["intensity_high"]
    assert torch.equal(RestoreIntensity()(scaled[..., 4:] * 0.9).as_tensor(), whole[..., 4:].as_tensor())


def test_large_volumes_are_scaled_from_a_subsample(monkeypatch):
    values = np.random.default_rng(0).normal(100, 20, (1, 30, 30, 31)).astype(np.float32)
    exact = ScalePercentiles(1, 99)(stored(values)).meta
    monkeypatch.setattr("scripts.transforms.scale_intensity.ENOUGH_VOXELS", 3000)
    sampled = ScalePercentiles(1, 99)(stored(values)).meta
    assert sampled["intensity_low"] != exact["intensity_low"]
    assert sampled["intensity_low"] == pytest.approx(exact["intensity_low"], abs=4)
    assert sampled["intensity_high"] == pytest.approx(exact["intensity_high"], abs=4)
    assert (sampled["value_min"], sampled["value_max"]) == (exact["value_min"], exact["value_max"])


@pytest.mark.parametrize("shape, enough", [((7, 5, 6), 1000), ((7, 5, 6), 50), ((9, 8, 12), 100), ((13, 11, 30), 17)])
def test_scale_is_found_in_one_pass_over_the_slices(monkeypatch, shape, enough):
    """The percentiles are those of the voxels that an even step through the whole volume meets."""
    monkeypatch.setattr("scripts.transforms.scale_intensity.ENOUGH_VOXELS", enough)
    values = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    intensity = measure_intensity((values[:, :, z] for z in range(shape[2])), shape, 1, 98.5)
    step = -(-values.size // enough)
    while math.gcd(step, shape[2]) > 1:
        step += 1
    assert [intensity.low, intensity.high] == np.percentile(values.ravel()[::step], (1, 98.5)).tolist()
    assert [intensity.smallest, intensity.largest] == [values.min(), values.max()]
    scaled = ScalePercentiles(1, 98.5)(stored(values[None]))
    assert torch.equal(scaled.as_tensor()[0], intensity.scale(torch.from_numpy(values)))


def test_mostly_empty_volume_is_scaled_by_its_range():
    values = np.zeros((1, 10, 10, 20), np.uint8)
    values[0, 5, 5, 5] = 200
    scaled = ScalePercentiles(0.1, 99.9)(stored(values))
    assert torch.isfinite(scaled).all() and scaled.max() == 1
    assert np.array_equal(RestoreIntensity()(scaled).numpy(), values)


def test_differences_are_scaled_alone():
    values = np.arange(20, 120, dtype=np.uint8).reshape(1, 4, 5, 5)
    scaled: Any = ScalePercentiles(0, 100)(stored(values))
    difference = RestoreIntensity(difference=True)(scaled * 0 + 0.105)
    assert difference.meta["dtype"] == "float32"
    assert torch.allclose(difference.as_tensor(), torch.tensor(0.105 * 99))
    assert scaled.meta["dtype"] == "uint8"


def test_dictionary_forms_of_the_intensity_scale():
    values = np.random.default_rng(0).integers(0, 255, (1, 4, 5, 6), np.uint8)
    item: Any = {"image": stored(values), "name": "a"}
    data = ScalePercentilesd("image", 1, 99)(item)
    assert data["name"] == "a" and data["image"].max() < 2
    assert np.array_equal(RestoreIntensityd("image")(data)["image"].numpy(), values)


def test_each_channel_has_an_intensity_scale_of_its_own():
    values = torch.cat([random_volume(6, 5, 4, seed=c) * (10.0**c) for c in range(3)])
    data = MetaTensor(values, meta={"dtype": "float32"})
    scaled: Any = ScalePercentiles(1, 99)(data)
    assert torch.equal(data.as_tensor(), values)  # what came in is left alone
    restored: Any = RestoreIntensity()(scaled)
    difference: Any = RestoreIntensity(difference=True)(scaled)
    for c in range(3):
        alone: Any = ScalePercentiles(1, 99)(data[c : c + 1])
        assert torch.equal(scaled[c].as_tensor(), alone[0].as_tensor())
        restored_alone: Any = RestoreIntensity()(alone)
        difference_alone: Any = RestoreIntensity(difference=True)(alone)
        assert torch.equal(restored[c].as_tensor(), restored_alone[0].as_tensor())
        assert torch.equal(difference[c].as_tensor(), difference_alone[0].as_tensor())
        assert scaled.meta["intensity_high"][c] == alone.meta["intensity_high"]
    assert torch.allclose(restored.as_tensor(), values, rtol=1e-5)


def test_scales_of_channels_survive_a_batch():
    items: list[Any] = [MetaTensor(torch.rand(2, 5, 6, 4), meta={"dtype": "float32"}) * (i + 1) for i in range(3)]
    batch = list_data_collate([{"image": ScalePercentiles(1, 99)(item)} for item in items])["image"]
    for item, result in zip(items, decollate_batch(batch)):
        assert torch.allclose(RestoreIntensity()(result).as_tensor(), item.as_tensor(), atol=1e-5)


def test_what_was_made_of_one_channel_has_its_scale_in_all():
    scaled = ScalePercentiles(1, 99)(MetaTensor(100 * random_volume(6, 5, 4), meta={"dtype": "float32"}))
    both = MetaTensor(torch.cat([scaled, scaled])).copy_meta_from(scaled)
    restored: Any = RestoreIntensity()(both)
    assert torch.equal(restored[0].as_tensor(), restored[1].as_tensor()) and restored.max() > 90


SCALE = ScalePercentiles(1, 99)
TWO = torch.rand(2, 30, 30, 30)


@pytest.mark.parametrize(
    "transform, data, words",
    [
        (SCALE, TWO[0], r"ScalePercentiles takes volumes \(C, X, Y, Z\) with voxels, not \(30, 30, 30\)"),
        (SCALE, TWO[None], "ScalePercentiles takes volumes"),
        (SCALE, TWO[:, :0], "ScalePercentiles takes volumes"),
        (SCALE, torch.cat([TWO, torch.ones(1, 30, 30, 30)]), "all voxels have the same value 1"),
        (SCALE, torch.cat([TWO, torch.full((1, 30, 30, 30), float("nan"))]), "NaN or infinite"),
        (SCALE, torch.where(TWO == TWO.max(), float("inf"), TWO), "NaN or infinite"),
        (RestoreIntensity(), TWO, "no intensity scale"),
        (RestoreIntensity(), SCALE(TWO)[:1], "intensities of 2 back"),
        (HoldOut("train", "x"), TWO[0], "HoldOut takes volumes"),
        (MatchNoise(4), TWO, "MatchNoise takes one channel, not 2: give each on its own"),
        (RandSequences((16, 16)), TWO, "RandSequences takes one channel, not 2"),
        (RandSequences((16, 16)), TWO[0], "RandSequences takes volumes"),
        (RandSequencesd("image", (16, 16)), {"image": TWO[:1], "target": TWO}, "RandSequences takes one channel"),
        (RandSlicePatches((16, 16), 4), TWO, "RandSlicePatches takes one channel, not 2"),
        (RandSlicePatches((16, 16), 4), TWO[0, 0], "RandSlicePatches takes volumes"),
    ],
)
def test_other_axes_and_channels_are_one_line(transform, data, words):
    """And never the first channel, in silence."""
    with pytest.raises(InputError, match=words) as error:
        transform(data)
    assert "\n" not in str(error.value)


def test_hold_out_and_lattice_transforms_treat_all_channels_alike():
    for transform in (HoldOut("validation", "y", 0.3), AxialInterpolate(2.5), AxialDecimate(4, "average")):
        result = transform(TWO)
        assert result.shape[0] == 2
        for c in range(2):
            assert torch.allclose(result[c], transform(TWO[c : c + 1])[0], atol=1e-6)


# ---- hold-out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis, dim", [("x", 1), ("y", 2), ("z", 3)])
@pytest.mark.parametrize(
    "fraction, minimum, expected", [(0.1, 1, 2), (0.1, 7, 7), (0.5, 1, 10), (0.9, 1, 10), (0, 40, 10)]
)
def test_hold_out_splits_without_overlap(axis, dim, fraction, minimum, expected):
    volume = random_volume(20, 20, 20)
    train, validation = (HoldOut(part, axis, fraction, minimum)(volume) for part in ("train", "validation"))
    assert validation.shape[dim] == expected
    assert torch.equal(torch.cat([train, validation], dim), volume)


def test_hold_out_knows_where_it_lies_and_can_be_undone():
    volume = MetaTensor(random_volume(4, 20, 4), affine=torch.diag(torch.tensor([2.0, 3.0, 5.0, 1.0])))
    hold_out = HoldOut("validation", "y", 0.25)
    part: Any = hold_out(volume)
    assert part.shape == (1, 4, 5, 4)
    assert part.affine[:3, 3].tolist() == [0, 45, 0]  # the 15 voxels that are left out, 3 wide
    whole = hold_out.inverse(part)
    assert torch.equal(whole[:, :, 15:], volume[:, :, 15:]) and not whole[:, :, :15].any()
    assert torch.equal(whole.affine, volume.affine)


@pytest.mark.parametrize(
    "transform",
    [
        partial(RandSequencesd, patch_size=(8, 8)),
        partial(MatchNoised, factor=2),
        partial(SaveVolumed, path="out.tif"),
        CopyRecordedd,
    ],
)
def test_one_name_for_the_results_of_several_keys_is_refused(transform):
    """One would overwrite the other."""
    transform("image")
    with pytest.raises(ValueError, match=r"has 1 for the keys \['image', 'other'\]: give one for each key"):
        transform(["image", "other"])


def test_hold_out_dictionary_form_and_bad_part():
    volume = random_volume(10, 4, 4)
    assert torch.equal(HoldOutd("image", "train", "x")({"image": volume})["image"], volume[:, :9])
    with pytest.raises(ValueError, match="train or validation"):
        HoldOut("test", "x")


# ---- stage I patches -------------------------------------------------------------------------------------------------


def met(item: dict, factor: int) -> bool:
    """Whether the columns kept at ``factor`` are the same in mu as in the image, and the others are not."""
    image, mu = item["image"], item["mu"]
    same = (image - mu).abs().amax((0, 1)) < 1e-5
    expected = torch.zeros(image.shape[-1], dtype=torch.bool)
    expected[::factor] = True
    return torch.equal(same, expected)


@pytest.mark.parametrize("factor", [4, 8])
def test_patches_and_their_degraded_copies_are_aligned(factor):
    items = RandSlicePatches((16, 33), factor, num_samples=12).set_random_state(0)(random_volume(40, 36, 5))
    assert len(items) == 12
    for item in items:
        assert item["image"].shape == item["mu"].shape == (1, 16, 33)
        assert met(item, factor)
        expected = axial_interpolate(item["image"][..., ::factor], factor)
        assert torch.allclose(item["mu"], expected, atol=1e-6)


@pytest.mark.parametrize("factor", [4, 2.5])
def test_linear_copies_beside_the_cubic_ones(factor):
    """Asking for them changes nothing else."""
    volume = random_volume(40, 36, 5)
    items = RandSlicePatches((16, 31), factor, num_samples=12, with_linear=True).set_random_state(0)(volume)
    for item, other in zip(items, RandSlicePatches((16, 31), factor, num_samples=12).set_random_state(0)(volume)):
        assert sorted(other) == ["image", "mu"] and all(torch.equal(item[key], other[key]) for key in other)
        whole = next(each for each in (math.floor(factor), math.ceil(factor)) if met(item, each))
        width = item["image"].shape[-1]
        lowres = item["image"][..., : (width - 1) // whole * whole + 1 : whole]
        expected = axial_interpolate(lowres, whole, "linear")
        inside = expected.shape[-1]
        assert torch.allclose(item["linear"][..., :inside], expected, atol=1e-6)


def test_patches_are_xy_patches_of_the_volume():
    """A volume that is constant in each XY slice gives constant patches, one value a slice."""
    volume = torch.arange(5.0).expand(1, 30, 30, 5)
    items = RandSlicePatches((16, 17), 4, num_samples=40).set_random_state(1)(volume)
    found = {item["image"].unique().item() for item in items}
    assert found == {0.0, 1.0, 2.0, 3.0, 4.0}


def test_patches_come_in_all_orientations():
    x, y = torch.arange(30.0)[:, None], torch.arange(40.0)[None]
    volume = (100 * x + y)[None, ..., None].expand(1, 30, 40, 2)
    items = RandSlicePatches((16, 17), 4, num_samples=60).set_random_state(2)(volume)
    steps = {tuple(item["image"][0].diff(dim=dim)[0, 0].item() for dim in (0, 1)) for item in items}
    assert steps == {(a, b) for a in (-100, 100) for b in (-1, 1)} | {(a, b) for a in (-1, 1) for b in (-100, 100)}


def test_fractional_factor_is_met_by_its_neighbors():
    items = RandSlicePatches((16, 43), 6.25, num_samples=80).set_random_state(0)(random_volume(60, 60, 3))
    assert len({item["image"].shape for item in items}) == 1  # they stack
    sixes = sum(met(item, 6) for item in items)
    sevens = sum(met(item, 7) for item in items)
    assert sixes + sevens == 80
    assert 6 + sevens / 80 == pytest.approx(6.25, abs=0.15)


def test_smaller_prior_factor_coarsens_the_patch_as_well():
    """k = 2 at r = 8: columns 4 apart, of which every second is kept."""
    volume = torch.arange(100.0)[None, :, None, None] + 1000 * torch.arange(100.0)[None, None, :, None]
    for item in RandSlicePatches((12, 17), 8, 2, num_samples=10).set_random_state(0)(volume.expand(1, 100, 100, 2)):
        assert item["image"].shape == (1, 12, 17)
        across, down = item["image"].diff(dim=2).abs().unique(), item["image"].diff(dim=1).abs().unique()
        assert (across.tolist(), down.tolist()) in (([4], [1000]), ([4000], [1]))
    for item in RandSlicePatches((12, 17), 8, 2, num_samples=10).set_random_state(0)(random_volume(100, 100, 2)):
        assert met(item, 2)


@pytest.mark.parametrize("prior_factor", [3, 16, 2.5])
def test_prior_factor_must_divide_the_factor(prior_factor):
    with pytest.raises(InputError, match="--prior_factor"):
        RandSlicePatches((16, 16), 8, prior_factor)


def test_patches_shrink_to_a_small_volume():
    items = RandSlicePatches((64, 64), 4, num_samples=6).set_random_state(0)(random_volume(19, 30, 3))
    assert {item["image"].shape for item in items} == {(1, 19, 17)}


def test_volume_too_narrow_for_its_factor():
    with pytest.raises(InputError, match="too few for slices 8 apart"):
        RandSlicePatches((64, 64), 8).set_random_state(0)(random_volume(8, 8, 3))


@pytest.mark.parametrize("degradation", ["average", "gaussian"])
def test_patches_under_other_degradations(degradation):
    item = RandSlicePatches((16, 33), 4, degradation=degradation).set_random_state(0)(random_volume(40, 40, 2))[0]
    expected = axial_interpolate(axial_decimate(item["image"], 4, degradation), 4)
    assert torch.allclose(item["mu"][..., 4:-8], expected[..., 4:-8], atol=1e-6)
    assert not torch.allclose(item["mu"][..., ::4], item["image"][..., ::4], atol=0.05)


def same_items(first: list[dict], second: list[dict]) -> bool:
    return all(torch.equal(a[key], b[key]) for a, b in zip(first, second) for key in a)


@pytest.mark.parametrize(
    "transform",
    [RandSlicePatchesd("image", (8, 9), 4, num_samples=4), RandSequencesd("image", (8, 8), (2, 4), 2, num_samples=4)],
)
def test_a_seed_repeats_the_draw(transform):
    data = {"image": random_volume(20, 20, 12)}
    first, again, other = (transform.set_random_state(seed)(data) for seed in (5, 5, 6))
    assert same_items(first, again)
    assert not same_items(first, other)
    assert not same_items(other, transform(data))  # and goes on


# ---- stage III sequences ---------------------------------------------------------------------------------------------


def ramp_along(axis: str, *shape: int) -> torch.Tensor:
    """A volume whose value is the coordinate along ``axis``."""
    dim = "xyz".index(axis) + 1
    view = [1, 1, 1, 1]
    view[dim] = shape[dim - 1]
    return torch.arange(float(shape[dim - 1])).view(view).expand(1, *shape)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_label_lies_where_its_relative_depth_says(axis):
    """On a ramp the label is the linear interpolation of the middle pair at ``relative_depth``, forwards and
    backwards."""
    volume = ramp_along(axis, 40, 44, 42)
    items = RandSequences((8, 8), (2, 7), num_targets=3, num_samples=60, axes=[axis], edge_probability=0)
    directions = set()
    for item in items.set_random_state(0)(volume):
        image, label = item["image"], item["label"]
        relative_depth, factor = item["relative_depth"], item["factor"]
        assert image.shape == (1, 8, 8, 4) and label.shape == (3, 8, 8) and relative_depth.shape == (3,)
        planes = image[0, 0, 0]
        assert torch.equal(image[0], planes.expand(8, 8, 4))  # planes across the axis, nothing else
        directions.add(torch.sign(planes[1] - planes[0]).item())
        assert torch.allclose(planes.diff().abs(), factor)
        assert 2 <= factor <= 7
        assert ((relative_depth > 0) & (relative_depth < 1)).all()
        expected = planes[1] * (1 - relative_depth) + planes[2] * relative_depth
        assert torch.allclose(label, expected[:, None, None].expand(3, 8, 8), atol=1e-4)
    assert directions == {-1.0, 1.0}


def test_all_factors_and_relative_depths_are_drawn():
    items = RandSequences((8, 8), (2, 5), num_samples=300).set_random_state(0)(random_volume(20, 20, 10))
    drawn = {(int(item["factor"]), round(float(item["relative_depth"] * item["factor"]))) for item in items}
    assert drawn == {(factor, offset) for factor in range(2, 6) for offset in range(1, factor)}


def test_first_and_last_plane_of_the_volume_are_used():
    items = RandSequences((4, 4), (3, 3), num_samples=200, axes=["x"], edge_probability=0).set_random_state(0)
    values = torch.stack([item["image"] for item in items(ramp_along("x", 14, 6, 6))])
    assert values.min() == 0 and values.max() == 13


def test_relative_depths_of_a_sequence_differ_where_they_can():
    items = RandSequences((4, 4), (5, 5), num_targets=4, num_samples=5).set_random_state(0)(random_volume(20, 20, 6))
    assert all(len(item["relative_depth"].unique()) == 4 for item in items)
    items = RandSequences((4, 4), (2, 2), num_targets=3, num_samples=2).set_random_state(0)(random_volume(20, 20, 6))
    assert all(item["relative_depth"].tolist() == [0.5] * 3 for item in items)


@pytest.mark.parametrize("axes", [["w"], [], 3, "['z']"])
def test_sequences_along_axes_that_do_not_exist(axes):
    with pytest.raises(InputError, match="--sequence_axes .*: give one or more of x, y and z"):
        RandSequences((6, 6), axes=axes)


@pytest.mark.parametrize(
    "axes, coordinates", [(("x",), {"x"}), (("y",), {"y"}), (("z",), {"z"}), (("x", "y"), {"x", "y"})]
)
def test_sequences_run_along_the_chosen_axes_only(axes, coordinates):
    found = set()
    for axis in "xyz":
        items = RandSequences((6, 6), (2, 3), num_samples=30, axes=axes, edge_probability=0).set_random_state(3)
        if any(item["image"][0, 0, 0].diff().any() for item in items(ramp_along(axis, 16, 16, 16))):
            found.add(axis)
    assert found == coordinates


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_edge_windows_repeat_the_neighbor(probability):
    items = RandSequences((6, 6), (3, 3), num_targets=2, num_samples=40, axes=["x"], edge_probability=probability)
    ends = set()
    for item in items.set_random_state(0)(ramp_along("x", 20, 8, 8)):
        planes = item["image"][0, 0, 0]
        steps = planes.diff().abs().tolist()
        assert steps[1] == 3
        assert sorted(steps) == ([0, 3, 3] if probability else [3, 3, 3])
        ends.add(steps.index(0) if 0 in steps else None)
        expected = planes[1] * (1 - item["relative_depth"]) + planes[2] * item["relative_depth"]
        assert torch.allclose(item["label"][:, 0, 0], expected, atol=1e-4)
    assert ends == ({0, 2} if probability else {None})


def test_label_and_image_keep_their_pixels_together():
    """Separable volume f(x) g(y, z): after any turn and flip, image planes and label differ by a number each."""
    generator = torch.Generator().manual_seed(0)
    pattern = 1 + torch.rand(1, 1, 24, 24, generator=generator)
    volume = ramp_along("x", 24, 24, 24) + 50
    items = RandSequences((10, 10), (2, 4), 2, num_samples=30, axes=["x"], edge_probability=0).set_random_state(0)
    for item in items(volume * pattern):
        ratio = item["label"] / item["image"][0, :, :, 1]
        assert (ratio.amax((1, 2)) - ratio.amin((1, 2))).max() < 1e-5


def test_factor_shrinks_to_a_small_volume():
    items = RandSequences((8, 8), (2, 12), num_samples=40, axes=["x"]).set_random_state(0)(random_volume(13, 9, 9))
    assert {int(item["factor"]) for item in items} == {2, 3, 4}


def test_volume_too_small_for_four_planes():
    with pytest.raises(InputError, match="6 voxels across, too few for four planes 2 apart"):
        RandSequences((8, 8), (2, 12), axes=["x"]).set_random_state(0)(random_volume(6, 20, 20))


def test_patches_of_a_batch_stack():
    """Oblong volumes: sequences along X and along Y give patches of one size."""
    items = RandSequences((16, 16), (2, 3), 2, num_samples=20).set_random_state(0)(random_volume(30, 13, 9))
    assert {item["image"].shape for item in items} == {(1, 13, 9, 4)}
    assert {item["label"].shape for item in items} == {(2, 13, 9)}


# ------------------------------------------------------------------------------------------------------------ noise


@pytest.mark.parametrize("factor", [4, 2.5])
def test_new_slices_get_the_noise_of_the_kept_ones(factor):
    generator = torch.Generator().manual_seed(0)
    slices = lattice.output_size(9, factor)
    smooth = torch.sin(torch.arange(64) / 9)[:, None, None] * torch.cos(torch.arange(slices) / 20)
    volume = smooth.expand(64, 64, slices)[None].clone()
    kept = lattice.kept_indices(9, factor)
    volume[..., kept] += 0.05 * torch.randn(1, 64, 64, len(kept), generator=generator)
    new = [j for j in range(slices) if j not in kept]
    found = MatchNoise(factor)(volume)
    assert torch.equal(found[..., kept], volume[..., kept])
    noise = found[..., new] - volume[..., new]
    assert noise.std().item() == pytest.approx(0.05, rel=0.05) and abs(noise.mean().item()) < 0.002
    assert np.corrcoef(noise[0, ..., :2].reshape(-1, 2).T)[0, 1] == pytest.approx(0, abs=0.05)  # each has its own
    assert torch.equal(MatchNoise(factor)(volume), found) and not torch.equal(MatchNoise(factor, seed=1)(volume), found)


def test_each_new_slice_gets_the_noise_that_it_lacks():
    volume = torch.randn(1, 64, 64, 9, generator=torch.Generator().manual_seed(0))
    volume[..., 1:4] = 0
    volume[..., 5:8] /= 2
    noise = MatchNoise(4)(volume) - volume
    assert noise[..., 1:4].std().item() == pytest.approx(1, rel=0.05)
    assert noise[..., 5:8].std().item() == pytest.approx(0.75**0.5, rel=0.05)


def test_noise_is_for_the_input_planes_and_not_for_the_targets():
    volume = torch.zeros(1, 24, 24, 9)
    volume[..., ::4] = torch.randn(1, 24, 24, 3, generator=torch.Generator().manual_seed(0))
    data = MatchNoised("image", 4)({"image": volume})
    assert torch.equal(data["target"], volume)
    draw = RandSequencesd("image", (9, 9), (2, 3), 3, num_samples=40, axes=["x"], input_slice_probability=0.3)
    for item in draw.set_random_state(0)(data):
        # a row of a plane is one of the slices: those that are all zero in the target are the new ones
        new = [(item["label"] == 0).all(dim=2), (item["label"] == 0).all(dim=1)]
        assert max(share.float().mean().item() for share in new) == pytest.approx(6 / 9)
        assert (item["image"] != 0).all()


def test_new_slices_rougher_than_the_kept_ones_are_left_as_they_are():
    volume = torch.rand(1, 16, 16, 9)
    volume[..., ::4] = 0.5
    assert torch.equal(MatchNoise(4)(volume), volume)
