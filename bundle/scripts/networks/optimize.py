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

"""Networks made ready for use: what can be computed once is, by the fastest operations that a device has."""

from __future__ import annotations

import torch
from scripts.errors import one_line, warn_once
from scripts.networks.aenet import AENet
from scripts.networks.fused_aenet import fuse, to_bfloat16
from scripts.networks.plane_conv import fold_planes
from scripts.networks.precision import autocast
from torch import nn


def optimize_for_inference(network: nn.Module, device: torch.device, amp: bool) -> nn.Module:
    """A copy of a stage III network for use, folded and, if it is AENet in bfloat16 on CUDA, with Triton kernels.

    The one place that decides on the kernels. Where Triton cannot build them (it needs a C compiler), a warning says so
    once and the folded network does the same, slower.

    Args:
        network: on ``device``; it stays as it is.
        device: that computes.
        amp: whether it is called within autocast to bfloat16.
    """
    if device.type == "cuda" and amp and isinstance(network, AENet):
        try:
            return _fused(network, device)
        except Exception as error:  # of Triton, of its compiler, of the system: there is no common type
            warn_once(f"slower than it could be: the fused kernels cannot be built here ({one_line(error)})")
    return fold_planes(network)


def _fused(network: AENet, device: torch.device) -> AENet:
    from scripts.networks.triton_kernels import TRITON  # not a part of every PyTorch

    fused = to_bfloat16(fuse(network, TRITON))
    with torch.no_grad(), autocast(torch.empty(0, device=device), True):  # builds every kernel
        half, factor = torch.tensor([0.5], device=device), torch.tensor([8.0], device=device)
        fused.decode(fused.encode(torch.zeros(1, 1, 64, 64, 4, device=device)), half, factor)
    return fused
