# SPDX-License-Identifier: Apache-2.0
"""Tiles and depth batches as the memory of a GPU holds them, with a GPU that is made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scripts.reconstruction.tile_size import choose_tile

PLANE, HALO = (500, 300), 64
BYTES = 2**10  # a pixel that is decoded


@pytest.fixture
def gpu(monkeypatch) -> SimpleNamespace:
    """Its ``free`` memory; a predictor takes so much for each pixel of a batch."""
    gpu = SimpleNamespace(free=0, peak=0)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: setattr(gpu, "peak", 0))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: gpu.peak)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu.free, 2**40))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return gpu


def chosen(
    gpu: SimpleNamespace,
    tile: int | None = None,
    depth_batch: int | None = None,
    recordings: int = 1,
    plane: tuple[int, int] = PLANE,
) -> Any:
    class Stand:
        windows, device = 1, torch.device("cpu")

        def __init__(self, batch: int) -> None:
            self.batch, self.recordings = batch, recordings

        def __call__(self, windows: torch.Tensor, relative_depths: torch.Tensor) -> None:
            gpu.peak = BYTES * windows[..., 0].numel() * self.batch

    make: Any = Stand
    return choose_tile(plane, 20, tile, depth_batch, HALO, torch.device("cuda"), make)


def holds(side: int, batch: int) -> int:
    """Free memory of which half holds a tile."""
    return 2 * BYTES * batch * side**2


@pytest.mark.parametrize(
    "free, expected",
    [
        (holds(512, 64), (512, 16)),
        (holds(512, 16), (512, 16)),  # the plane as a whole, in cells of 32
        (holds(512, 16) - 1, (512, 8)),  # it is better than many slices at once
        (holds(512, 4), (512, 4)),
        (holds(480, 4), (448, 4)),  # smaller ones may have to be a cell larger
        (holds(192, 4), (160, 4)),
        (holds(32, 4), (160, 4)),  # a smaller one is all margin
    ],
)
def test_plane_is_cut_only_where_memory_does_not_hold_it(gpu, free, expected):
    gpu.free = free
    assert chosen(gpu) == expected


def test_feature_maps_have_no_more_elements_than_kernels_count(gpu):
    """64 channels of all pixels that are decoded at once: 2^31 elements, however much memory there is."""
    gpu.free = 2**60
    side, batch = chosen(gpu, plane=(20000, 9000))
    assert 2**30 < 64 * batch * side**2 <= 2**31


def test_what_is_given_stays(gpu):
    gpu.free = holds(512, 4)
    assert chosen(gpu, depth_batch=2) == (512, 2) and chosen(gpu, depth_batch=16) == (224, 16)
    assert chosen(gpu, tile=256) == (256, 16) and chosen(gpu, tile=320) == (320, 8)
    assert chosen(gpu, tile=100, depth_batch=7) == (100, 7)


def test_two_recordings_take_twice_the_memory(gpu):
    gpu.free = holds(512, 16)
    assert chosen(gpu, recordings=2) == (512, 8)


@pytest.mark.parametrize(
    "tile, depth_batch, expected", [(None, None, (512, 16)), (96, None, (96, 16)), (None, 3, (512, 3))]
)
def test_a_processor_asks_for_no_memory(tile, depth_batch, expected):
    asked: Any = pytest.fail
    assert choose_tile(PLANE, 20, tile, depth_batch, HALO, torch.device("cpu"), asked) == expected
