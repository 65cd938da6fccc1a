# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Unit tests of the bundle in the form that the MONAI model zoo keeps them in: every stage at toy size, one after the
other."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow
from parameterized import parameterized

# In the zoo this file is ci/unit_tests/test_<bundle>.py and the bundle is models/<bundle>; in the bundle's own
# repository it is tests/zoo/test_<bundle>.py and the bundle is bundle/. Either way the root is two folders above this
# file's.
NAME = "microscopy_axial_super_resolution"
ROOT = Path(__file__).resolve().parents[2]
BUNDLE_ROOT = str(next(path for path in (ROOT / "models" / NAME, ROOT / "bundle") if path.is_dir()))

FACTOR = 4
SIZE = (48, 40, 9)  # x, y, z of the coarse volume

PRIOR = {"width": 4, "encoder_blocks": [1], "middle_blocks": 1, "decoder_blocks": [1]}
AENET = {"widths": [2, 2, 4, 4], "train_factors": [2, 6]}
SHORT = {"max_epochs": 1, "epoch_length": 1, "batch_size": 2, "patch_size": [32, 32], "val_interval": 1}

TRAIN_DIFFUSION = [{**PRIOR, **SHORT, "factor": FACTOR}]
GENERATE = [{**PRIOR, "factor": FACTOR, "num_steps": 2, "batch_size": 16}]
TRAIN = [{**AENET, **SHORT, "num_targets": 1, "val_factor": 4}]
INFER_INTEGER = [{**AENET, "factor": FACTOR}, (48, 40, 33)]
INFER_FRACTION = [{**AENET, "factor": 2.5, "tile": 32, "halo": 0}, (48, 40, 21)]
INFER_SHIPPED = [{"factor": 2}, (48, 40, 17)]


def check_workflow(workflow: ConfigWorkflow) -> None:
    """Initialize, check the properties, run, finalize."""
    workflow.initialize()
    missing = workflow.check_properties()
    if missing:
        raise ValueError(f"check properties failed: {missing}")
    workflow.run()
    workflow.finalize()


class TestAxialSuperResolution(unittest.TestCase):
    """A stage takes what the one before it wrote. The names sort in that order, which is the order test runners use."""

    folder: str

    @classmethod
    def setUpClass(cls):
        sys.path.insert(0, BUNDLE_ROOT)
        cls.folder = tempfile.mkdtemp()
        grid = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij")).astype(np.float64)
        wave = np.sin(grid[0] / 4) + np.sin((grid[1] + 3 * grid[2]) / 5)
        volume = np.rint(127 + 50 * wave + np.random.default_rng(0).normal(0, 5, SIZE)).clip(0, 255).astype(np.uint8)
        nib.save(nib.Nifti1Image(volume, np.diag([1, 1, FACTOR, 1])), cls.path("coarse.nii.gz"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)
        sys.path.remove(BUNDLE_ROOT)

    @classmethod
    def path(cls, *names: str) -> str:
        return os.path.join(cls.folder, *names)

    def check(self, workflow_type: str, config: str, override: dict) -> None:
        workflow = ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=os.path.join(BUNDLE_ROOT, "configs", config),
            logging_file=os.path.join(BUNDLE_ROOT, "configs", "logging.conf"),
            meta_file=os.path.join(BUNDLE_ROOT, "configs", "metadata.json"),
            **override,
        )
        check_workflow(workflow)

    @parameterized.expand([TRAIN_DIFFUSION])
    def test_stage1_train_diffusion(self, override):
        files = {"volume": self.path("coarse.nii.gz"), "output_dir": self.path("prior")}
        self.check("train", "train_diffusion.yaml", {**override, **files})
        self.assertTrue(os.path.isfile(self.path("prior", "model_diffusion.pt")))

    @parameterized.expand([GENERATE])
    def test_stage2_generate(self, override):
        files = {"volume": self.path("coarse.nii.gz"), "output_dir": self.path("pseudo")}
        weights = {"weights": self.path("prior", "model_diffusion.pt")}
        self.check("infer", "generate.yaml", {**override, **files, **weights})
        self.assertTrue(os.path.isfile(self.path("pseudo", "pseudo_hr.tif")))

    @parameterized.expand([TRAIN])
    def test_stage3_train(self, override):
        files = {"volume": self.path("pseudo", "pseudo_hr.tif"), "output_dir": self.path("aenet")}
        self.check("train", "train.yaml", {**override, **files})
        self.assertTrue(os.path.isfile(self.path("aenet", "model.pt")))

    @parameterized.expand([INFER_INTEGER, INFER_FRACTION])
    def test_use_infer(self, override, expected_shape):
        self.infer({**override, "weights": self.path("aenet", "model.pt")}, expected_shape)

    @parameterized.expand([INFER_SHIPPED])
    def test_use_shipped_weights(self, override, expected_shape):
        self.infer(override, expected_shape)

    def infer(self, override: dict, expected_shape: tuple[int, int, int]) -> None:
        output = self.path("fine.nii.gz")
        self.check(
            "infer",
            "inference.yaml",
            {**override, "volume": self.path("coarse.nii.gz"), "output": output, "overwrite": True},
        )
        fine: Any = nib.load(output)
        self.assertEqual(fine.shape, expected_shape)
        np.testing.assert_allclose(fine.header.get_zooms(), (1, 1, FACTOR / override["factor"]), rtol=1e-5)


if __name__ == "__main__":
    unittest.main()
