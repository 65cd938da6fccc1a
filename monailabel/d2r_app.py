# SPDX-License-Identifier: Apache-2.0
"""The app that the server runs: the bundle as a model that returns an image and says why it refuses."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision_operators  # noqa: F401
from fastapi import HTTPException
from parameters import EXTENSIONS, option_types, plain
from scripts.cli.failures import explain, input_error
from scripts.errors import InputError

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from monailabel.tasks.infer.bundle import BundleInferTask

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
MODEL = "d2r"

logger = logging.getLogger(__name__)


class ReconstructionTask(BundleInferTask):
    """The bundle's ``inference.yaml``; of the kind "others", for MONAI Label has none that returns an image."""

    def __init__(self, conf: dict[str, str]) -> None:
        super().__init__(str(BUNDLE), conf, type=InferType.OTHERS)
        self.labels = []
        del self._config["model_filename"]  # the other weights are of another network
        # clients show a list as choices, of which the first is the default
        self._config.update({name: list(kind.names) for name, kind in option_types().items() if kind.names})
        self._lock = threading.Lock()

    def __call__(self, request: dict, callbacks: dict | None = None) -> tuple[Any, dict]:
        with self._lock:  # several workers of a batch share the config
            return super().__call__(request, callbacks)

    def pre_transforms(self, data: dict) -> Sequence[Callable]:  # type: ignore[override]
        first = {name: data[name][0] for name in self.displayable_configs if isinstance(data[name], list)}
        return super().pre_transforms({**data, **first})

    def writer(self, data: dict, extension: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
        """Write what the request asks for; by itself NIfTI, for in TIFF this writer drops the voxel size."""
        dtype = dtype or data.get("result_dtype")
        if dtype and np.dtype(dtype).kind in "iu":
            low, high = float(data["pred"].min()), float(data["pred"].max())
            if low < np.iinfo(dtype).min or high > np.iinfo(dtype).max:
                raise InputError(f"result_dtype {dtype}: does not hold the values, {low:g} to {high:g}")
        return super().writer(data, extension or data.get("result_extension") or EXTENSIONS[0], dtype)


class D2RApp(MONAILabelApp):
    """One model; no training, for that needs labels in MONAI Label."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        super().__init__(app_dir, studies, conf, "D2R", "Axial super-resolution of volume microscopy")

    def init_infers(self) -> dict[str, InferTask]:
        return {MODEL: ReconstructionTask(self.conf)}

    def infer(self, request: dict, datastore: Any = None) -> dict:
        """
        Reconstruct a volume.

        Raises:
            HTTPException: it cannot be done; ``detail`` is one line that says why.
        """
        image = request["image"]
        sent = os.path.exists(image)
        if not sent and not self.datastore().get_image_uri(image):
            raise HTTPException(404, f"image {image}: the server has none of that name; GET /datastore/ lists them")
        try:
            return super().infer(request, datastore)
        except Exception as error:
            user_error = input_error(error)
            if user_error is not None:
                line = plain(user_error)
                # what was sent lies under a name that its sender does not know
                raise HTTPException(400, line.replace(image, "the volume") if sent else line) from error
            logger.exception("a request failed")
            raise HTTPException(500, explain(error)) from error

    def batch_infer(self, request: dict, datastore: Any = None) -> dict:
        """
        Reconstruct volumes of the server's folder, each whatever becomes of the others.

        Raises:
            HTTPException: of some it could not be done; ``detail`` says of which, and why.
        """
        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False}  # else MONAI Label divides by the number of GPUs
        failed: list[str] = []

        def infer(one: dict, datastore: Any) -> dict:
            try:
                return self.infer(one, datastore)
            except HTTPException as error:
                failed.append(f"{one['image']}: {error.detail}")
                return {}

        result = self._batch_infer(request, datastore or self.datastore(), infer)
        if failed:
            raise HTTPException(400, "; ".join(sorted(failed)))
        return result
