# SPDX-License-Identifier: Apache-2.0
"""Makes torchvision importable where its build and torch's differ; import it before MONAI Label.

PyPI has torchvision for CUDA alone. Beside a torch for CPUs it misses its operators for object detection, of which
MONAI Label, which imports it to draw pictures, calls none. They are declared here, in the server and in the process
that it starts for ``/batch/infer``.
"""

from __future__ import annotations

import sys

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    for name in [module for module in sys.modules if module.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
