# SPDX-License-Identifier: Apache-2.0
"""The bundle as a MONAI Label server uses it, and which requests it refuses, without the server.

``make monailabel`` tries the server itself.

What MONAI Label 0.8.5 does with a bundle (its modules tasks/infer/bundle.py, tasks/infer/basic_infer.py,
transform/post.py and transform/writer.py), and what :class:`Task` imitates call by call:

- When the server starts, it reads configs/inference.yaml alone, without metadata.json; sets ``bundle_root`` and
  ``use_click``; instantiates ``network_def``; loads models/model.pt into it, not strictly; takes the names of the input
  and the output from metadata.json; and offers the entries of ``displayable_configs`` as options.
- For a request it puts the options into ``displayable_configs`` and parses the config again; replaces ``device`` by
  text; instantiates ``preprocessing``, and calls its transforms one by one on a dictionary with the path under "image";
  instantiates ``inferer`` and calls it with a batch of one and the network; takes the first of the batch as "pred";
  instantiates ``postprocessing``, leaves out transforms that are MONAI's SaveImaged, and calls the others one by one.
- It then resizes "pred", nearest neighbor, to the last three numbers of ``meta["spatial_shape"]`` of the *image*,
  drops the channel, and writes the array with ``meta["original_affine"]`` of the *image* by ITK, as float32 or as the
  type that the request names.
"""

from __future__ import annotations

import configparser
import copy
import json
from pathlib import Path
from typing import Any, cast

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from bundle_run import AENET, BUNDLE
from monai.bundle import ConfigItem, ConfigParser
from monai.transforms import Resize, SaveImaged
from packaging.requirements import Requirement
from scripts.errors import InputError
from scripts.networks.aenet import AENet
from scripts.networks.weights import save_weights
from scripts.phantom import tissue

from monailabel.parameters import OPTIONS, check

AFFINE = np.array([[0.0, -0.5, 0, 7], [0.5, 0, 0, -3], [0, 0, 2.0, 11], [0, 0, 0, 1]])  # turned by 90 degrees
SLICES = 5


class Task:
    """A bundle in a server."""

    def __init__(self, weights: Path) -> None:
        self.config = ConfigParser()
        self.config.read_config(str(BUNDLE / "configs" / "inference.yaml"))
        # Weights of toy size are the only thing here that no server sets.
        if not weights.exists():
            numbers = {"percentiles": [0.1, 99.9], "train_factors": [2, 12]}
            network = AENet(AENET["widths"], AENET["strides"], numbers)
            for tensor in network.parameters():
                if not tensor.any():
                    torch.nn.init.constant_(tensor, 0.01)  # else it interpolates
            save_weights(network, weights)
        cast(dict, self.config.config).update({"bundle_root": str(BUNDLE), "use_click": False, "weights": str(weights)})
        self.network = self.config.get_parsed_content("network_def", instantiate=True)
        formats = json.loads((BUNDLE / "configs" / "metadata.json").read_text())["network_data_format"]
        self.image, self.pred = next(iter(formats["inputs"])), next(iter(formats["outputs"]))
        self.weights = weights
        self.options = self.config.get_parsed_content("displayable_configs", instantiate=True)

    def _parsed(self, name: str) -> Any:
        cast(dict, self.config.config)["device"] = "cpu"  # past the parser, which keeps what it has resolved
        if self.config.ref_resolver.items.get("device"):
            self.config.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")
        return self.config.get_parsed_content(name, instantiate=True)

    def __call__(self, volume: Path, **request: Any) -> dict:
        """The dictionary that is handed to the writer."""
        data: dict = {**copy.deepcopy(self.options), "device": "cpu", "image": str(volume), **request}
        cast(dict, self.config["displayable_configs"]).update({name: data[name] for name in self.options})
        self.config.parse()
        for transform in self._parsed("preprocessing").transforms:
            data = transform(data)
        inferer = self._parsed("inferer")
        network = copy.deepcopy(self.network)
        network.load_state_dict(torch.load(self.weights), strict=False)
        with torch.no_grad():
            data["pred"] = inferer(data["image"][None].to("cpu"), network.eval())[0]
        for transform in self._parsed("postprocessing").transforms:
            if not isinstance(transform, SaveImaged):
                data = transform(data)
        return self._restored(data)

    def _restored(self, data: dict) -> dict:
        meta, result = data["image"].meta, data["pred"]
        size = tuple(meta.get("spatial_shape", result.shape[1:]))[-3:]
        if size != tuple(result.shape[1:]):
            result = Resize(spatial_size=size, mode="nearest")(result)
        return {**data, "pred": result[0], "pred_meta_dict": {"affine": meta.get("original_affine")}}


def written(data: dict, path: Path, dtype: str | None = None) -> nib.Nifti1Image:
    """The file that a client gets."""
    array = data["pred"].array.transpose().copy()
    image = itk.image_from_array(array.astype(dtype) if dtype else array)
    affine = np.diag([-1, -1, 1, 1]) @ data["pred_meta_dict"]["affine"]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetDirection(itk.matrix_from_array(affine[:3, :3] / spacing))
    image.SetSpacing(spacing)
    image.SetOrigin(affine[:3, 3])
    itk.imwrite(image, str(path), False)
    return nib.Nifti1Image.from_filename(path)


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    path = tmp_path_factory.mktemp("studies") / "volume.nii.gz"
    voxels = tissue((32, 24, SLICES), seed=3)
    nib.Nifti1Image(voxels, AFFINE).to_filename(path)
    return path, voxels


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return Task(tmp_path_factory.mktemp("models") / "model.pt")


def test_names_are_those_the_server_uses(task):
    assert (task.image, task.pred) == ("image", "pred")


def test_options_that_are_offered_are_those_that_are_checked(task):
    assert task.options == {"factor": None, "input_slices": "copy"}
    assert tuple(task.options) == OPTIONS


@pytest.mark.parametrize(
    ("request_", "factor"),
    [
        ({}, 4.0),  # nothing asked: a cube of 0.5
        ({"factor": None}, 4.0),  # a client that leaves options as they are
        ({"factor": ""}, 4.0),  # 3D Slicer's empty field
        ({"factor": 2.5}, 2.5),
        ({"factor": "3"}, 3.0),  # 3D Slicer's field, which is text
    ],
)
def test_file_has_the_new_grid(task, volume, tmp_path, request_, factor):
    path, voxels = volume
    image = written(task(path, **request_), tmp_path / "result.nii.gz")
    assert image.shape == (32, 24, int((SLICES - 1) * factor) + 1)
    expected = AFFINE.copy()
    expected[:3, 2] /= factor
    np.testing.assert_allclose(image.affine, expected, atol=1e-5)
    assert image.get_data_dtype() == np.float32
    result = np.asarray(image.dataobj)
    np.testing.assert_array_equal(result[..., 0], voxels[..., 0])
    assert result.min() >= voxels.min() and result.max() <= voxels.max()
    np.testing.assert_array_equal(result, result.round())  # the gray levels of an integer file


@pytest.mark.parametrize(
    ("request_", "copied"),
    [({}, True), ({"input_slices": None}, True), ({"input_slices": ""}, True), ({"input_slices": "predict"}, False)],
)
def test_input_slices_are_copied_unless_predicted_ones_are_asked_for(task, volume, request_, copied):
    path, voxels = volume
    result = task(path, factor=2, **request_)["pred"].array
    assert result.shape == (32, 24, 2 * (SLICES - 1) + 1)
    assert np.array_equal(result[..., ::2], voxels) == copied


def test_one_request_leaves_nothing_to_the_next(task, volume):
    assert task(volume[0], factor=2)["pred"].shape[-1] == 9
    assert task(volume[0])["pred"].shape[-1] == 17


def test_type_that_a_client_asks_for_changes_no_value(task, volume, tmp_path):
    data = task(volume[0])
    small = written(data, tmp_path / "small.nii.gz", "uint8")
    assert small.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(small.dataobj), data["pred"].array)


@pytest.mark.parametrize("factor", [0, 1, "much"])
def test_impossible_factor_is_refused(task, volume, factor):
    with pytest.raises(InputError, match="--factor .* above 1"):
        try:
            task(volume[0], factor=factor)
        except RuntimeError as error:  # MONAI's, around the cause
            raise error.__cause__ or error from None


def test_nothing_else_is_written(task, volume):
    before = sorted(volume[0].parent.iterdir())
    task(volume[0])
    assert sorted(volume[0].parent.iterdir()) == before


@pytest.mark.parametrize(
    ("params", "batch"),
    [
        ({}, False),
        ({"factor": None, "input_slices": None}, False),
        ({"factor": "", "input_slices": ""}, False),  # the empty fields of 3D Slicer
        ({"factor": "2.5", "input_slices": "predict", "device": "cpu"}, False),
        ({"device": "NVIDIA H200", "result_extension": ".nrrd", "result_dtype": "uint8"}, False),
        # what MONAI Label sets for a batch by itself, with a GPU or without
        ({"device": "cuda", "multi_gpu": True, "gpus": "all", "logging": "WARNING", "save_label": True}, True),
        ({"label_tag": "original", "max_workers": 1, "max_batch_size": 0}, True),
    ],
)
def test_requests_that_can_be_done_are_taken(params, batch):
    check(params, ["NVIDIA H200"], batch)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"factor": "abc"}, "factor abc: give a number above 1"),
        ({"factor": -1}, "factor -1: give a number above 1"),
        ({"factor": [8]}, r"factor \[8\]: give a number above 1"),
        ({"factor": True}, "factor True: give a number above 1"),
        ({"input_slices": "x"}, "input_slices x: .* choose copy or predict"),
        ({"kept_slices": "original"}, "kept_slices is now input_slices"),
        ({"factr": 8}, "factr: there is no such parameter; there are factor, input_slices, "),
        ({"max_workers": 2}, "max_workers: there is no such parameter"),  # of a batch alone
        ({"device": "gpu"}, "device gpu: give cpu, cuda"),
        ({"device": ["cpu"]}, "device .*: give cpu, cuda"),
        ({"result_extension": ".png"}, "result_extension .png: .* choose .nii.gz"),
        ({"result_dtype": "float8"}, "result_dtype float8: .* choose uint8"),
        ({"result_compress": "much"}, "result_compress much: must be true or false"),
        ([8], r"params \[8\]: give a JSON object"),
        (None, "params None: give a JSON object"),
    ],
)
def test_requests_that_cannot_be_done_are_refused_with_the_reason(params, reason):
    with pytest.raises(InputError, match=f"^{reason}") as refusal:
        check(params, ["NVIDIA H200"])
    assert "--" not in str(refusal.value)  # a request has no command line


def test_a_batch_is_refused_what_it_cannot_do():
    with pytest.raises(InputError, match="^max_workers many: give a whole number"):
        check({"max_workers": "many"}, [], batch=True)


def test_server_has_the_packages_of_the_bundle():
    setup = configparser.ConfigParser()
    setup.read(BUNDLE.parent / "setup.cfg")

    def requirements(text: str) -> dict[str, Requirement]:
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {requirement.name: requirement for requirement in map(Requirement, lines)}

    listed = requirements((BUNDLE.parent / "monailabel" / "requirements.txt").read_text())
    for name, needed in requirements(setup["options"]["install_requires"]).items():
        assert name in listed
        pinned = [each.version for each in listed[name].specifier if each.operator == "=="]
        assert listed[name].specifier == needed.specifier or (pinned and needed.specifier.contains(pinned[0])), name
