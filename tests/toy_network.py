# SPDX-License-Identifier: Apache-2.0
"""An AENet as after a training, small enough for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scripts.networks.aenet import AENet, ChannelGate


def toy_aenet(
    widths: Sequence[int] = (4, 4, 6, 8), strides: Sequence[int] = (2, 1, 2, 2, 1), device: str = "cpu"
) -> AENet:
    """With residuals of a few per cent of the range, biases, and gates that follow the image from cell to cell."""
    torch.manual_seed(0)
    network = AENet(widths, strides).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ChannelGate):
                module.mix.weight.normal_(std=2.0)
                module.mix.bias.copy_(0.5 * torch.randn(len(module.mix.weight)))  # type: ignore[union-attr]
            elif isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)) and module.bias is not None:
                module.bias.normal_(std=0.1)
        network.output.head.weight.normal_(std=0.5)
        # hardly an offset: what is added varies in space
        network.output.head.weight -= network.output.head.weight.mean((2, 3), keepdim=True)
        network.output.head.bias.fill_(0.01)  # type: ignore[union-attr]
    return network.to(device)
