# SPDX-License-Identifier: Apache-2.0
"""A stage III network made ready for use: what can be computed once is, and on CUDA a whole batch of windows is one launch."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import torch
from torch import nn

from scripts.networks.optimize import optimize_for_inference
from scripts.networks.precision import autocast

_CUDA_WINDOWS = 4  # fewer leave a GPU idle where feature maps are small; more gain under a tenth and take memory


class Predictor:
    """New slices of batches of windows of one size.

    On CUDA the work on a batch, some hundred small operations, is recorded once as a CUDA graph and then replayed.

    Args:
        network: of stage III, on the device; it is copied.
        factor: gap between the input slices in output slices.
        device: that computes.
        depth_batch: slices of a window decoded at once.
        amp: compute in bfloat16 where torch's autocast finds it safe.

    Attributes:
        windows: how many make a batch.
        recordings: for how many shapes of a tile work is recorded at the same time.
    """

    recordings = 1

    def __init__(self, network: nn.Module, factor: float, device: torch.device, depth_batch: int, amp: bool) -> None:
        self.network: Any = optimize_for_inference(network, device, amp)
        self.factor = factor
        self.device = device
        self.depth_batch = depth_batch
        self.amp = amp
        self.windows = _CUDA_WINDOWS if device.type == "cuda" else 1
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[torch.Tensor] = []
        self._output = torch.empty(0)

    @torch.no_grad()
    def __call__(self, windows: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        """
        Args:
            windows: (B, H, W, 4) in [0, 1], on the device.
            depths: (B, D) in [0, 1), on the device.

        Returns:
            Slices (B, D, H, W), float32. On CUDA they are overwritten by the next call.
        """
        if self.device.type != "cuda":
            return self._compute(windows, depths)
        if [value.shape for value in self._inputs] != [windows.shape, depths.shape]:
            self._record(windows, depths)
        for place, value in zip(self._inputs, (windows, depths)):
            place.copy_(value)
        assert self._graph is not None
        self._graph.replay()
        return self._output

    def _compute(self, windows: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        with autocast(windows, self.amp):
            features = self.network.encode(windows[:, None])
            parts = []
            for some in depths.split(self.depth_batch, 1):
                gap = torch.full_like(some, self.factor).flatten()
                slices = self.network.decode(features, some.flatten(), gap)
                parts.append(slices.float().view(*some.shape, *slices.shape[-2:]))
        return torch.cat(parts, 1)

    def forget(self) -> None:
        """Free the memory of a recording, for one of another size."""
        self._graph, self._inputs, self._output = None, [], torch.empty(0)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _record(self, windows: torch.Tensor, depths: torch.Tensor) -> None:
        self.forget()
        inputs = [windows.clone(), depths.clone()]
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):  # beside the recording, libraries load what they need
            self._compute(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # only what this thread does counts: meanwhile another one may wait for results and write them
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._output = self._compute(*inputs)
        self._graph, self._inputs = graph, inputs


class TTAPredictor:
    """Mean of what a :class:`Predictor` makes of a window in all 16 ways of looking at it, in the place of one.

    Eight are the turns and flips in XY. Eight more are the same with the slices in reverse order, at depth 1 - d, and are left out at
    depth 0: the network was trained for depths in [0, 1), not for 1.

    Args:
        network, factor, device, depth_batch, amp: of the predictor.

    Attributes:
        windows, device, recordings: as those of the predictor.
        looks: calls of the predictor for one of this.
    """

    recordings = 2
    looks = 16

    def __init__(self, network: nn.Module, factor: float, device: torch.device, depth_batch: int, amp: bool) -> None:
        self.upright = Predictor(network, factor, device, depth_batch, amp)
        # On its side a tile that is no square has another shape: with one recording for both, each would undo the other's.
        self.on_its_side = copy.copy(self.upright)
        self.windows, self.device = self.upright.windows, device

    @torch.no_grad()
    def __call__(self, windows: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        """
        Args:
            windows: (B, H, W, 4) in [0, 1], on the device.
            depths: (B, D) in [0, 1), on the device.

        Returns:
            Slices (B, D, H, W), float32.
        """
        kept = depths == 0
        reversed_depths = torch.where(kept, 0.5, 1 - depths)  # what comes out at depth 0 is not used
        forward = self._turns_and_flips(windows, depths)
        backward = self._turns_and_flips(windows.flip(-1), reversed_depths)
        return torch.where(kept[..., None, None], forward, (forward + backward) / 2)

    def forget(self) -> None:
        """Free the memory of the recordings, for tiles of another size."""
        self.upright.forget()
        self.on_its_side.forget()

    def _turns_and_flips(self, windows: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        """Mean over the eight."""
        total = torch.zeros(*depths.shape, *windows.shape[1:3], device=windows.device)
        for on_its_side, *flips in product((False, True), repeat=3):
            axes = [1 + axis for axis, flip in enumerate(flips) if flip]
            turned = windows.flip(axes)
            if on_its_side:
                turned = turned.transpose(1, 2).contiguous()
            square = turned.shape[1] == turned.shape[2]
            predictor = self.on_its_side if on_its_side and not square else self.upright
            slices = predictor(turned, depths)
            if on_its_side:
                slices = slices.transpose(2, 3)
            total += slices.flip([1 + axis for axis in axes])
        return total / 8
