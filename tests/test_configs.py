# SPDX-License-Identifier: Apache-2.0
"""Every config as a user runs it, at toy size, from inside the bundle and from another folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from bundle_run import (
    AENET,
    AENET_TRAINING,
    BUNDLE,
    PRIOR_NETWORK,
    PRIOR_TRAINING,
    Finished,
    Place,
    left_behind,
    side_by_side,
    succeed,
    tiff_stack,
)
from PIL import Image
from skimage.metrics import structural_similarity

pytestmark = pytest.mark.slow

SIZE = (64, 64, 41)
FACTOR = 4
GAPS = "[2,6]"
WEIGHTS = BUNDLE / "models" / "model.pt"
Both = dict[str, Finished]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Place]:
    """Started from ``bundle/`` with absolute paths, and from another folder with relative ones."""
    inside, outside = (tmp_path_factory.mktemp(name) for name in ("inside", "outside"))
    return {"inside": Place(BUNDLE, inside), "outside": Place(outside, outside)}


def in_both(places: dict[str, Place], config: str, options: Callable[[str, Place], dict[str, Any]]) -> Both:
    """Run a config from both places, with the options for each."""
    jobs = [partial(succeed, config, options(name, place), place.cwd) for name, place in places.items()]
    return dict(zip(places, side_by_side(jobs)))


# --------------------------------------------------------------------------------- the commands, each in both places


@pytest.fixture(scope="module")
def sample(places) -> Both:
    def options(name, place):
        return {"size": str(list(SIZE)), "factor": FACTOR, "output_dir": place.path("sample")}

    return in_both(places, "sample.yaml", options)


@pytest.fixture(scope="module")
def decimated(places, sample) -> Both:
    def options(name, place):
        file = {"inside": {"output": place.path("decimated.tif"), "factor": FACTOR}}
        file["outside"] = {"output": place.path("new/folder/mean.nii.gz"), "factor": 3, "degradation": "average"}
        return {"volume": place.path("sample/sample_truth.tif"), **file[name]}

    return in_both(places, "decimate.yaml", options)


@pytest.fixture(scope="module")
def prior(places, sample) -> Both:
    def options(name, place):
        files = {"volume": place.path("sample/sample_lowres.tif"), "output_dir": place.path("prior")}
        return {**files, **PRIOR_NETWORK, **PRIOR_TRAINING}

    return in_both(places, "train_diffusion.yaml", options)


@pytest.fixture(scope="module")
def pseudo(places, prior) -> Both:
    def options(name, place):
        files = {"volume": place.path("sample/sample_lowres.tif"), "output_dir": place.path("pseudo")}
        files["weights"] = place.path("prior/model_diffusion.pt")
        return {**files, **PRIOR_NETWORK, "batch_size": 32, "num_steps": {"inside": 3, "outside": 2}[name]}

    return in_both(places, "generate.yaml", options)


@pytest.fixture(scope="module")
def corner(places, prior) -> Place:
    """The paper's sampler, which takes all 100 steps, on a corner of the volume; returns where."""
    place = places["outside"]
    volume, _, _ = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
    tifffile.imwrite(place.folder / "corner.tif", volume[:24, :20, :5].transpose(2, 1, 0))
    files = {"volume": "corner.tif", "output_dir": "corner", "weights": "prior/model_diffusion.pt", "factor": FACTOR}
    sampler = {"sampler": "reverse_sde", "num_steps": 100, "batch_size": 24}
    succeed("generate.yaml", {**files, **sampler, **PRIOR_NETWORK}, place.cwd)
    return place


@pytest.fixture(scope="module")
def aenet(places, pseudo) -> Both:
    def options(name, place):
        files = {"volume": place.path("pseudo/pseudo_hr.tif"), "output_dir": place.path("aenet")}
        truth = {"truth": place.path("sample/sample_truth.tif")} if name == "outside" else {}
        return {**files, **truth, **AENET, **AENET_TRAINING, "train_factors": GAPS}

    return in_both(places, "train.yaml", options)


@pytest.fixture(scope="module")
def reconstructed(places, aenet) -> Both:
    def options(name, place):
        files = {"volume": place.path("sample/sample_lowres.tif"), "output": place.path("x4.tif")}
        return {**files, "weights": place.path("aenet/model.pt"), **AENET, "train_factors": GAPS, "factor": FACTOR}

    return in_both(places, "inference.yaml", options)


@pytest.fixture(scope="module")
def scored(places, reconstructed) -> Both:
    def options(name, place):
        files = {"reconstruction": place.path("x4.tif"), "truth": place.path("sample/sample_truth.tif")}
        output = {"output_dir": place.path("scores")} if name == "inside" else {}  # else beside the reconstruction
        return {**files, "factor": FACTOR, **output}

    return in_both(places, "evaluate.yaml", options)


@pytest.fixture(scope="module")
def whole(places, sample) -> Both:
    """All of D2R, self-trained; with neither diffusion nor self-training when started elsewhere. The factor comes from
    the voxel size."""
    sizes = {
        "prior": PRIOR_TRAINING,
        "prior_network": PRIOR_NETWORK,
        "generate": {"num_steps": 2, "batch_size": 32},
        "teacher": {**AENET_TRAINING, "max_epochs": 1},
        "aenet": {**AENET_TRAINING, "num_targets": 1},
        "aenet_network": AENET,
    }

    def options(name, place):
        files = {"volume": place.path("sample/sample_lowres.tif"), "output": place.path("d2r/out.tif")}
        preset = {"workdir": place.path("work"), "preset": "quick", "presets#quick": sizes}
        return {**files, **preset, **({"prior_factor": 1} if name == "outside" else {"self_training": True})}

    return in_both(places, "d2r.yaml", options)


@pytest.fixture(scope="module")
def srunet(places, sample) -> Path:
    """SRUNet by D2R without diffusion, and supervised along Z of the truth; returns the folder of both."""
    place = places["outside"]
    truth, lowres = "sample/sample_truth.tif", "sample/sample_lowres.tif"
    few = {**AENET_TRAINING, "max_epochs": 1, "batch_size": 1}
    presets = {"presets#quick#aenet": few, "preset": "quick", "prior_factor": 1}
    d2r = {"volume": truth, "spacing": "[40,10,10]", "output": "srunet/x4.tif", "workdir": "srunet"}
    supervised = {"volume": truth, "output_dir": "srunet/sup", "sequence_axes": "['z']", "factor": FACTOR, **few}
    use = {"volume": lowres, "weights": "srunet/sup/model.pt", "output": "srunet/sup.tif"}
    side_by_side(
        [
            partial(succeed, "d2r.yaml", {**d2r, **presets, "architecture": "srunet"}, place.cwd),
            partial(succeed, "train.yaml", {**supervised, "architecture": "srunet"}, place.cwd),
        ]
    )
    succeed(
        "inference.yaml", {**use, "architecture": "srunet", "input_slices": "predict", "tile": 32, "halo": 0}, place.cwd
    )
    return place.folder / "srunet"


@pytest.fixture(scope="module")
def formats(places, aenet) -> Path:
    """Reconstructions of other kinds of input, by the network that was trained inside; returns their folder."""
    place = places["inside"]
    folder = place.folder / "formats"
    stack, _, _ = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
    (folder / "slices").mkdir(parents=True)
    for index, plane in enumerate(stack[:, :40].transpose(2, 1, 0)):
        Image.fromarray(np.ascontiguousarray(plane)).save(folder / "slices" / f"s{index}.png")  # s10 after s9
    (folder / "slices" / "notes.txt").write_text("not a slice")
    affine = np.diag([0.5, 0.5, 3.25, 1])
    affine[:3, 3] = (7, -8, 9)
    image = nib.Nifti1Image(stack.astype(np.uint16) * 200, affine)
    image.header.set_xyzt_units("micron")
    nib.save(image, folder / "in.nii.gz")
    tifffile.imwrite(folder / "plain.tif", stack.transpose(2, 1, 0).astype(np.float32) / 100)

    common = {"weights": place.folder / "aenet" / "model.pt", **AENET, "train_factors": GAPS}
    network = {name: str(value) for name, value in common.items()}
    jobs: list[dict[str, Any]] = [
        {"volume": "slices", "spacing": "[40,10,10]", "output": "slices.ome.tif", "tile": 32, "halo": 0, "tta": "true"},
        {"volume": "in.nii.gz", "output": "out.nii.gz"},  # 6.5, from the voxel size
        {"volume": "plain.tif", "factor": 2.5, "output": "plain_out.tif", "amp": "true"},
    ]
    side_by_side(partial(succeed, "inference.yaml", {**job, **network}, folder) for job in jobs)
    return folder


# --------------------------------------------------------------------------------------------------------- helpers


def curves(folder: Path):
    """What TensorBoard shows of a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def check_training(folder: Path, weights: str, steps: int, epochs: int) -> dict[str, torch.Tensor]:
    """Files, curves and weights that a training leaves; returns the weights."""
    shown = curves(folder)
    losses = [event.value for event in shown.Scalars("loss")]
    assert len(losses) == steps and np.isfinite(losses).all() and len(set(losses)) > 1
    for measure in ("psnr", "ssim"):
        assert [event.step for event in shown.Scalars(measure)] == list(range(1, epochs + 1))
    inputs = ["input"] if weights == "model_diffusion.pt" else ["input_before", "input_after"]
    assert sorted(shown.Tags()["images"]) == sorted([*inputs, "output", "label"])
    label, *others = (shown.Images(name)[-1] for name in ("label", "output", *inputs))
    assert all(
        other.encoded_image_string != label.encoded_image_string for other in others
    )  # each is what it is called
    assert all((other.width, other.height) == (label.width, label.height) for other in others)
    assert (folder / "checkpoint.pt").is_file()
    state = torch.load(folder / weights, weights_only=True)
    assert all(type(value) is torch.Tensor and value.isfinite().all() for value in state.values())
    return state


def settings(folder: Path) -> dict[str, Any]:
    document = json.loads((folder / "provenance.json").read_text())
    assert document["versions"]["torch"] == torch.__version__
    assert document["machine"]
    return document["options"]


def check_copies(volume: np.ndarray, result: np.ndarray, factor: float) -> None:
    """The lattice: floor((K - 1) * factor) + 1 slices, the originals where they were, and nothing else a copy."""
    slices = volume.shape[2]
    assert result.shape == (*volume.shape[:2], int((slices - 1) * factor) + 1)
    for j in range(result.shape[2]):
        if (j / factor).is_integer():
            np.testing.assert_array_equal(result[:, :, j], volume[:, :, int(j / factor)])
        else:
            assert all((result[:, :, j] != volume[:, :, i]).any() for i in range(slices)), f"slice {j} is a copy"


def bars(printed: str) -> list[str]:
    """The states of progress bars, one a line."""
    return [line for line in printed.replace("\r", "\n").split("\n") if re.search(r"\d+%\|", line)]


# --------------------------------------------------------------------------------------------------------- the tests


@pytest.mark.usefixtures("sample")
def test_sample(places):
    volumes = []
    for place in places.values():
        truth, spacing, unit = tiff_stack(place.folder / "sample" / "sample_truth.tif")
        assert truth.shape == SIZE and truth.dtype == np.uint8 and unit == "nm"
        assert spacing == pytest.approx((10, 10, 10))
        lowres, spacing, unit = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
        np.testing.assert_array_equal(lowres, truth[:, :, ::FACTOR])
        assert spacing == pytest.approx((10, 10, 40)) and unit == "nm"
        volumes.append(truth)
    np.testing.assert_array_equal(*volumes)


def test_decimate(places, decimated):
    truth, _, _ = tiff_stack(places["inside"].folder / "sample" / "sample_truth.tif")
    result, spacing, _ = tiff_stack(places["inside"].folder / "decimated.tif")
    np.testing.assert_array_equal(result, truth[:, :, ::FACTOR])
    assert result.dtype == np.uint8 and spacing == pytest.approx((10, 10, 40))
    assert "64 x 64 x 11 voxels (x, y, z) of 10 x 10 x 40 nanometer" in decimated["inside"].stdout

    image = nib.Nifti1Image.from_filename(places["outside"].folder / "new" / "folder" / "mean.nii.gz")
    assert image.get_data_dtype() == np.uint8 and image.shape == (64, 64, 14)
    assert image.header.get_zooms() == pytest.approx((0.01, 0.01, 0.03))
    assert image.header.get_xyzt_units()[0] == "micron"
    padded = np.pad(truth.astype(float), ((0, 0), (0, 0), (1, 1)), mode="edge")
    mean = (padded[..., :-2] + padded[..., 1:-1] + padded[..., 2:])[..., ::3] / 3
    assert np.abs(np.asarray(image.dataobj) - mean).max() < 0.51  # rounded


def test_train_diffusion(places, prior):
    states = []
    for name, place in places.items():
        states.append(check_training(place.folder / "prior", "model_diffusion.pt", steps=4, epochs=2))
        found = settings(place.folder / "prior")
        assert found["factor"] == found["prior_factor"] == FACTOR  # from the voxel size
        assert found["volume"] == "sample_lowres.tif" and found["patch_size"] == [32, 32]
        last = bars(prior[name].stderr)[-1]
        assert "stage I" in last and "4/4" in last and re.search(r"loss=0\.\d+", last)
        assert re.search(r"\d\d:\d\d<\d\d:\d\d", last)  # time passed and time left
        assert "psnr" in prior[name].output
        shown = curves(place.folder / "prior")
        for measure in ("psnr_linear", "psnr_cubic"):
            first, second = (event.value for event in shown.Scalars(measure))
            assert first == second > shown.Scalars("psnr")[-1].value  # four steps teach it nothing
    for key, value in states[0].items():
        torch.testing.assert_close(value, states[1][key], rtol=0, atol=0)


def test_generate(places, pseudo):
    lowres, _, _ = tiff_stack(places["inside"].folder / "sample" / "sample_lowres.tif")
    for name, place in places.items():
        folder = place.folder / "pseudo"
        volume, spacing, unit = tiff_stack(folder / "pseudo_hr.tif")
        assert volume.shape == SIZE and volume.dtype == np.uint8 and unit == "nm"
        assert spacing == pytest.approx((10, 10, 10))
        assert lowres.min() <= volume.min() and volume.max() <= lowres.max()
        difference, spacing, _ = tiff_stack(folder / "disagreement.tif")
        assert difference.shape == SIZE and difference.dtype == np.float32 and spacing == pytest.approx((10, 10, 10))
        assert difference.min() >= 0 and difference.max() > 1
        with Image.open(folder / "disagreement.png") as picture:
            assert min(picture.size) > 100 and len(np.unique(np.asarray(picture.convert("L")))) > 20
        assert not (folder / "unfinished").exists()
        judged = json.loads((folder / "prior_check.json").read_text())
        assert judged["psnr"]["prior"] < judged["psnr"]["cubic"] and not judged["better_than_interpolation"]
        assert f"WARNING - {judged['warning']}" in pseudo[name].output  # four steps teach it nothing
        assert "restoring XZ and YZ slices: 100%" in pseudo[name].stderr
        found = settings(folder)
        assert (found["factor"], found["prior_factor"]) == (FACTOR, FACTOR)
        assert found["sampler"] == "posterior" and found["stochastic"] is False
        assert found["num_steps"] == {"inside": 3, "outside": 2}[name]


def test_generate_by_the_reverse_sde(corner):
    volume = tifffile.imread(corner.folder / "corner.tif")
    result = tifffile.imread(corner.folder / "corner" / "pseudo_hr.tif")
    assert result.shape == (17, 20, 24) and result.dtype == np.uint8
    assert volume.min() <= result.min() and result.max() <= volume.max()
    assert tifffile.imread(corner.folder / "corner" / "disagreement.tif").max() > 1
    found = settings(corner.folder / "corner")
    assert (found["sampler"], found["num_steps"], found["stochastic"]) == ("reverse_sde", 100, True)


def test_generate_without_diffusion(places, sample):
    place = places["outside"]
    options = {"volume": place.path("sample/sample_lowres.tif"), "output_dir": place.path("k1"), "prior_factor": 1}
    succeed("generate.yaml", options, place.cwd)  # needs no weights
    lowres, lowres_spacing, _ = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
    volume, spacing, _ = tiff_stack(place.folder / "k1" / "pseudo_hr.tif")
    np.testing.assert_array_equal(volume, lowres)
    assert spacing == pytest.approx(lowres_spacing)
    assert not tiff_stack(place.folder / "k1" / "disagreement.tif")[0].any()


def test_train(places, aenet):
    for name, place in places.items():
        folder = place.folder / "aenet"
        state = check_training(folder, "model.pt", steps=4, epochs=2)
        assert state["settings.train_factors"].tolist() == [2, 6]
        assert settings(folder)["train_factors"] == [2, 6]
        last = bars(aenet[name].stderr)[-1]
        assert "stage III" in last and "4/4" in last and re.search(r"loss=\d+\.\d+", last)


@pytest.mark.usefixtures("pseudo")
def test_train_validates_on_the_truth(places, tmp_path):
    """An untrained network interpolates linearly, which is right along Z where the truth is a ramp."""
    texture = np.random.default_rng(0).random((64, 64, 1))
    truth = (texture + np.linspace(0, 1, 41)).astype(np.float32)
    tifffile.imwrite(tmp_path / "ramp.tif", truth.transpose(2, 1, 0))
    still = {**AENET, **AENET_TRAINING, "max_epochs": 1, "epoch_length": 1, "learning_rate": 0.0, "train_factors": GAPS}
    files = {"volume": places["outside"].path("pseudo/pseudo_hr.tif"), "truth": tmp_path / "ramp.tif"}
    succeed("train.yaml", {**files, **still, "output_dir": tmp_path}, places["outside"].cwd)
    assert curves(tmp_path).Scalars("psnr")[0].value > 60  # 20 where the volume itself is held out


def test_inference(places, reconstructed):
    for name, place in places.items():
        volume, _, _ = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
        result, spacing, unit = tiff_stack(place.folder / "x4.tif")
        check_copies(volume, result, FACTOR)
        assert result.dtype == np.uint8 and unit == "nm" and spacing == pytest.approx((10, 10, 10))
        assert volume.min() <= result.min() and result.max() <= volume.max()
        assert "64 x 64 x 41 voxels (x, y, z) of 10 x 10 x 10 nanometer" in reconstructed[name].stdout
        assert "[1/1] 100%" in bars(reconstructed[name].stderr)[-1]


def test_inference_on_png_slices(formats):
    volume = np.stack([np.asarray(Image.open(formats / "slices" / f"s{i}.png")).T for i in range(11)], -1)
    with tifffile.TiffFile(formats / "slices.ome.tif") as file:
        assert file.is_ome
        result, header = file.asarray().transpose(2, 1, 0), file.ome_metadata or ""
    check_copies(volume, result, FACTOR)
    assert result.dtype == np.uint8
    for axis in "XYZ":
        found = re.search(f'PhysicalSize{axis}="([^"]+)" PhysicalSize{axis}Unit="([^"]+)"', header)
        assert found and float(found[1]) == pytest.approx(10) and found[2] == "µm"


def test_inference_at_a_real_factor_from_the_voxel_size(formats):
    original, image = (nib.Nifti1Image.from_filename(formats / name) for name in ("in.nii.gz", "out.nii.gz"))
    volume, result = np.asarray(original.dataobj), np.asarray(image.dataobj)
    assert result.shape == (64, 64, 66)  # floor(10 * 6.5) + 1
    check_copies(volume, result, 6.5)
    assert image.get_data_dtype() == np.uint16 and image.header.get_xyzt_units()[0] == "micron"
    expected = np.diag([0.5, 0.5, 0.5, 1])
    expected[:3, 3] = (7, -8, 9)
    np.testing.assert_allclose(image.affine, expected, rtol=1e-6)


def test_inference_of_floats_without_a_voxel_size(formats):
    volume = tifffile.imread(formats / "plain.tif").transpose(2, 1, 0)
    result = tifffile.imread(formats / "plain_out.tif").transpose(2, 1, 0)
    assert result.dtype == np.float32
    assert result.shape == (64, 64, 26)
    # floats go through the intensity scale and back
    np.testing.assert_allclose(result[:, :, ::5], volume[:, :, ::2], atol=1e-5)


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="bundle/models/model.pt is not there yet")
@pytest.mark.usefixtures("sample")
def test_inference_with_the_shipped_weights(places):
    place = places["outside"]
    succeed("inference.yaml", {"volume": "sample/sample_lowres.tif", "output": "shipped.nii"}, place.cwd)
    volume, _, _ = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
    check_copies(volume, np.asarray(nib.Nifti1Image.from_filename(place.folder / "shipped.nii").dataobj), FACTOR)


# --------------------------------------------------------------------------------------------------------- scores


def keys_cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.5, written as its polynomials."""
    x = np.abs(distance)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def interpolated(lowres: np.ndarray, factor: int, kernel: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Interpolation of a volume whose edge slices are repeated outwards, rounded and clipped to its range."""
    padded = np.pad(lowres.astype(float), ((0, 0), (0, 0), (2, 2)), mode="edge")
    at = np.arange((lowres.shape[2] - 1) * factor + 1) / factor
    weights = kernel(at[None] - (np.arange(padded.shape[2])[:, None] - 2))
    return np.rint(np.clip(padded @ weights, lowres.min(), lowres.max()))


def expected_scores(volume: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """Means over slices; XY without every fourth one, which is a copy."""
    found: dict[str, dict[str, float]] = {"psnr": {}, "ssim": {}}
    for plane, axis in {"xy": 2, "xz": 1, "yz": 0}.items():
        chosen = [i for i in range(truth.shape[axis]) if plane != "xy" or i % FACTOR]
        pairs = [(truth.take(i, axis).astype(float), volume.take(i, axis).astype(float)) for i in chosen]
        found["psnr"][plane] = np.mean([10 * np.log10(255**2 / ((a - b) ** 2).mean()) for a, b in pairs])
        how = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        found["ssim"][plane] = np.mean([structural_similarity(a, b, **how) for a, b in pairs])
    return found


def assert_resolutions(found: dict, table: str, figure: Path) -> None:
    """Longer along Z than over all directions, at the stricter threshold than at the other, and as the table shows
    them."""
    for volume, title in {"linear": "aligned linear", "cubic": "aligned cubic", "result": "reconstruction"}.items():
        length = {(d, t): found[volume][d][t]["length"] for d in ("whole", "axial") for t in ("0.5", "0.143")}
        assert length["axial", "0.5"] >= length["whole", "0.5"] >= length["whole", "0.143"] > 0
        (row,) = (line for line in table.splitlines() if line.startswith(f"| {title} "))
        shown = [float(cell.replace("<=", "")) for cell in row.split("|")[2:-1]]
        order = [("whole", "0.5"), ("axial", "0.5"), ("whole", "0.143"), ("axial", "0.143")]
        for cell, key in zip(shown, order):
            assert 0 <= cell - length[key] < 0.11, (title, key)
            assert ("<=" in row.split("|")[2 + order.index(key)]) != found[volume][key[0]][key[1]]["crossed"]
    assert found["unit"] in ("nanometer", "micrometer", "pixel")
    with Image.open(figure) as picture:
        assert picture.format == "PNG"


def test_evaluate(places, scored):
    for name, place in places.items():
        folder = place.folder / ("scores" if name == "inside" else ".")
        truth, _, _ = tiff_stack(place.folder / "sample" / "sample_truth.tif")
        result, _, _ = tiff_stack(place.folder / "x4.tif")
        lowres = truth[:, :, ::FACTOR]
        expected = {
            "linear": expected_scores(interpolated(lowres, FACTOR, lambda x: np.maximum(0, 1 - np.abs(x))), truth),
            "cubic": expected_scores(interpolated(lowres, FACTOR, keys_cubic), truth),
            "result": expected_scores(result, truth),
        }
        document = json.loads((folder / "scores.json").read_text())
        assert (document["factor"], document["shape_xyz"], document["data_range"]) == (FACTOR, list(SIZE), 255)
        assert document["reconstruction"] == "x4.tif" and document["truth"] == "sample_truth.tif"
        for volume, measures in expected.items():
            for measure, planes in measures.items():
                tolerance = {"psnr": 0.005, "ssim": 0.0005}[measure]
                assert document["scores"][volume][measure] == pytest.approx(planes, abs=tolerance), (volume, measure)
        for measure in ("psnr", "ssim"):
            for plane in ("xy", "xz", "yz"):
                scores = {volume: document["scores"][volume][measure][plane] for volume in expected}
                gain = document["gain over the better interpolation"][measure][plane]
                assert gain == pytest.approx(scores["result"] - max(scores["linear"], scores["cubic"]))

        tables = (folder / "scores.md").read_text()
        assert tables.strip() in scored[name].stdout
        table, _, resolutions = tables.partition("| FSC, ")
        assert_resolutions(document["resolution by Fourier shell correlation"], resolutions, folder / "fsc.png")
        for title, volume in {"aligned linear": "linear", "aligned cubic": "cubic", "reconstruction": "result"}.items():
            (row,) = (line for line in table.splitlines() if line.startswith(f"| {title} "))
            shown = [float(cell) for cell in row.split("|")[2:-1]]
            scores = document["scores"][volume]
            stored = [scores[measure][plane] for measure in ("psnr", "ssim") for plane in ("xy", "xz", "yz")]
            assert all(0 <= value - cell < 0.0101 for cell, value in zip(shown, stored)), (
                title,
                shown,
                stored,
            )  # rounded down
        assert "| gain " in table
        with Image.open(folder / "comparison.png") as picture:
            assert min(picture.size) > 300 and len(np.unique(np.asarray(picture.convert("L")))) > 50


# ------------------------------------------------------------------------------------------------------------ D2R


def test_d2r(places, whole):
    for name, place in places.items():
        volume, _, _ = tiff_stack(place.folder / "sample" / "sample_lowres.tif")
        result, spacing, unit = tiff_stack(place.folder / "d2r" / "out.tif")
        check_copies(volume, result, FACTOR)
        assert result.dtype == np.uint8 and unit == "nm" and spacing == pytest.approx((10, 10, 10))
        work = place.folder / "work"
        assert json.loads((work / "run.json").read_text())["factor"] == FACTOR
        check_training(work / "aenet", "model.pt", steps=4, epochs=2)
        found = settings(work / "aenet")
        assert found["widths"] == AENET["widths"]
        stages = re.findall(r"(\d) of (\d): ", whole[name].output)
        if name == "inside":
            check_training(work / "prior", "model_diffusion.pt", steps=4, epochs=2)
            assert settings(work / "pseudo")["num_steps"] == 2
            assert tiff_stack(work / "pseudo" / "pseudo_hr.tif")[0].shape == SIZE
            check_training(work / "teacher", "model.pt", steps=2, epochs=1)
            assert settings(work / "teacher")["volume"] == "pseudo_hr.tif"
            check_copies(volume, tiff_stack(work / "teacher" / "reconstruction.tif")[0], FACTOR)
            assert (found["volume"], found["input_factor"]) == ("reconstruction.tif", FACTOR)
            assert stages == [(str(number), "6") for number in range(1, 7)]
            warning = json.loads((work / "pseudo" / "prior_check.json").read_text())["warning"]
            assert whole[name].stdout.count(warning) == 2  # before stage II, and where a person looks
            assert whole[name].stdout.rstrip().endswith(warning)
        else:  # no diffusion: trained on the input itself
            assert sorted(path.name for path in work.iterdir()) == ["aenet", "run.json"]
            assert found["volume"] == "sample_lowres.tif"
            assert stages == [("1", "2"), ("2", "2")]
            assert "no better than" not in whole[name].output


def test_srunet(places, srunet):
    volume, _, _ = tiff_stack(places["outside"].folder / "sample" / "sample_truth.tif")
    result, spacing, _ = tiff_stack(srunet / "x4.tif")
    check_copies(volume, result, FACTOR)
    assert spacing == pytest.approx((10, 10, 10))
    for name, axes in (("srunet", ["x", "y"]), ("sup", ["z"])):
        state = check_training(srunet / name, "model.pt", steps=2, epochs=1)
        assert state["settings.factor"] == FACTOR and "down.0.0.weight" in state
        found = settings(srunet / name)
        assert (found["architecture"], found["train_factors"], found["sequence_axes"]) == (
            "srunet",
            [FACTOR, FACTOR],
            axes,
        )
    assert json.loads((srunet / "run.json").read_text())["architecture"] == "srunet"
    assert tiff_stack(srunet / "sup.tif")[0].shape == SIZE


@pytest.mark.usefixtures(
    "sample", "decimated", "prior", "pseudo", "aenet", "reconstructed", "scored", "whole", "srunet", "formats"
)
def test_nothing_half_written_is_left(places):
    assert left_behind([place.folder for place in places.values()]) == []
