# SPDX-License-Identifier: Apache-2.0
"""The network made ready for use gives what the network gives, on a CPU and on CUDA."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from scripts import lattice
from scripts.networks.aenet import AENet
from scripts.networks.recorded import RecordedStep
from scripts.reconstruction.axial_inferer import AxialInferer
from scripts.reconstruction.predictor import Predictor, TTAPredictor
from toy_network import toy_aenet

WIDTHS = (6, 8, 12, 16)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def expected(aenet: AENet, windows: torch.Tensor, relative_depths: torch.Tensor, factor: float) -> torch.Tensor:
    """Slice by slice."""
    at_factor = torch.tensor(factor, device=windows.device)
    with torch.no_grad():
        rows = [
            [aenet(window[None, None], relative_depth, at_factor)[0, 0] for relative_depth in row]
            for window, row in zip(windows, relative_depths)
        ]
    return torch.stack([torch.stack(row) for row in rows])


@pytest.mark.slow
@pytest.mark.parametrize(
    "device, amp", [("cpu", False), ("cpu", True), *[pytest.param("cuda", a, marks=CUDA) for a in (False, True)]]
)
@pytest.mark.parametrize("sides", [(64, 64), (72, 85)])
def test_batches_are_what_the_network_gives(device, amp, sides, caplog):
    aenet = toy_aenet(WIDTHS, device=device)
    with caplog.at_level(logging.WARNING):
        predict = Predictor(aenet, 5.0, torch.device(device), 2, amp)
    assert not caplog.records  # on CUDA the fused kernels were built
    for _ in range(3):  # on CUDA the second is recorded, and the third replays it
        windows, relative_depths = torch.rand(3, *sides, 4, device=device), torch.rand(3, 5, device=device)
        found = predict(windows, relative_depths)
        difference = (found - expected(aenet, windows, relative_depths, 5.0)).abs()
        assert found.shape == (3, 5, *sides) and found.dtype == torch.float32
        assert difference.max() < (4 / 255 if amp else 1e-3 if device == "cuda" else 1e-5)
        assert difference.mean() < (0.5 / 255 if amp else 1e-5)


def test_the_network_is_left_alone():
    aenet = toy_aenet(WIDTHS, device="cpu")
    before = {name: value.clone() for name, value in aenet.state_dict().items()}
    Predictor(aenet, 5.0, torch.device("cpu"), 2, True)(torch.rand(1, 32, 32, 4), torch.rand(1, 2))
    assert all(torch.equal(value, before[name]) for name, value in aenet.state_dict().items())


@CUDA
def test_batches_of_another_size_are_recorded_anew():
    aenet = toy_aenet(WIDTHS, device="cuda")
    predict = Predictor(aenet, 5.0, torch.device("cuda"), 2, False)
    for sides in ((64, 64), (32, 96), (64, 64)):
        windows, relative_depths = torch.rand(1, *sides, 4, device="cuda"), torch.rand(1, 2, device="cuda")
        assert torch.allclose(
            predict(windows, relative_depths), expected(aenet, windows, relative_depths, 5.0), atol=1e-3
        )


@CUDA
def test_what_was_warmed_up_is_not_recorded_again(monkeypatch):
    aenet = toy_aenet(WIDTHS, device="cuda")
    recorded: list[tuple[int, ...]] = []
    record = RecordedStep._record

    def counted(self: RecordedStep, inputs: Any) -> Any:
        recorded.append(tuple(inputs[0].shape))
        return record(self, inputs)

    monkeypatch.setattr(RecordedStep, "_record", counted)
    inferer = AxialInferer(factor=3, train_factors=(2, 12), progress=False)
    inferer.warm_up(lattice.whole((72, 85, 9)), 3, aenet, torch.device("cuda"))
    assert recorded[-1] == (4, 72, 85, 4)
    number = len(recorded)
    inferer(torch.rand(1, 1, 72, 85, 9, device="cuda"), aenet)
    assert len(recorded) == number


# ---- the tta ----------------------------------------------------------------------------------------------------

# The turns and flips of an image, each with what undoes it.
TURNS: list[tuple[Callable, Callable]] = [
    *[(partial(torch.rot90, k=k, dims=(-2, -1)), partial(torch.rot90, k=-k, dims=(-2, -1))) for k in range(4)],
    *[
        (
            lambda image, k=k: torch.rot90(image.flip(-1), k, (-2, -1)),
            lambda image, k=k: torch.rot90(image, -k, (-2, -1)).flip(-1),
        )
        for k in range(4)
    ],
]


def by_hand(aenet: AENet, window: torch.Tensor, relative_depth: float, factor: float) -> torch.Tensor:
    """Mean over the sixteen ways, or over eight at relative depth 0: (H, W, 4) -> (H, W)."""
    found = []
    for turn, back in TURNS:
        planes = turn(window.movedim(-1, 0)).movedim(0, -1)[None, None]
        for each, at in [(planes, relative_depth)] + (
            [(planes.flip(-1), 1 - relative_depth)] if relative_depth > 0 else []
        ):
            with torch.no_grad():
                slice_ = aenet(each.contiguous(), *(torch.tensor(n, device=window.device) for n in (at, factor)))
            found.append(back(slice_[0, 0]))
    assert len(found) == (16 if relative_depth > 0 else 8)
    return torch.stack(found).mean(0)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("sides", [(64, 64), (40, 67)])
def test_ensemble_is_the_mean_of_all_ways_to_look_at_a_window(device, sides):
    aenet = toy_aenet(WIDTHS, device=device)
    predict = TTAPredictor(aenet, 5.0, torch.device(device), 2, False)
    windows, relative_depths = torch.rand(2, *sides, 4, device=device), torch.tensor([[0.0, 0.2, 0.6], [0.8, 0.0, 0.4]])
    for _ in range(3):  # on CUDA the second is recorded, and the third replays it
        found = predict(windows, relative_depths.to(device))
        assert found.shape == (2, 3, *sides)
        for b, row in enumerate(relative_depths.tolist()):
            for d, relative_depth in enumerate(row):
                mean = by_hand(aenet, windows[b], relative_depth, 5.0)
                assert torch.allclose(found[b, d], mean, atol=1e-3 if device == "cuda" else 1e-5), (b, d)
    assert not torch.allclose(predict.predictor(windows, relative_depths.to(device)), found, atol=1e-3)
    predict.forget()


def test_ensemble_of_a_network_that_turns_with_its_input_changes_nothing():
    interpolation = AENet(widths=(2, 2, 2, 2)).eval()  # untrained, it is that
    windows, relative_depths = torch.rand(2, 33, 48, 4), torch.rand(2, 3)
    alone, tta = (kind(interpolation, 5.0, torch.device("cpu"), 4, False) for kind in (Predictor, TTAPredictor))
    assert torch.allclose(alone(windows, relative_depths), tta(windows, relative_depths), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
@pytest.mark.parametrize("kind, recordings", [(Predictor, 1), (TTAPredictor, 2)])
def test_a_predictor_that_is_gone_leaves_its_memory(kind, recordings, device):
    """At once, and not when Python next looks for cycles: the tile is chosen from the memory that is then free."""
    predict = kind(toy_aenet(WIDTHS, device=device), 5.0, torch.device(device), 2, True)
    assert predict.recordings == recordings
    for _ in range(3):
        predict(torch.rand(1, 32, 64, 4, device=device), torch.rand(1, 1, device=device))
    gone = weakref.ref(predict)
    gc.disable()
    try:
        del predict
        assert gone() is None
    finally:
        gc.enable()
