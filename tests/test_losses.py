# SPDX-License-Identifier: Apache-2.0
"""Losses against direct computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import SSIMLoss
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.training.losses import FocalFrequencyLoss, ReconstructionLoss, ReverseStepLoss
from scripts.training.prepare_batch import NoisePrepareBatch


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 2, 16, 20, generator=generator), torch.rand(3, 2, 16, 20, generator=generator)


def numpy_focal_frequency(prediction, target, alpha):
    total = []
    for a, b in zip(prediction.flatten(0, 1).numpy().astype(float), target.flatten(0, 1).numpy().astype(float)):
        distance = np.abs(np.fft.fft2(a - b) / np.sqrt(a.size))
        weight = distance**alpha / (distance**alpha).max()
        total.append((weight * distance**2).mean())
    return np.mean(total)


@pytest.mark.parametrize("alpha", [1.0, 0.5, 2.0])
def test_focal_frequency_loss_is_the_papers(pair, alpha):
    prediction, target = pair
    value = FocalFrequencyLoss(alpha)(prediction, target).item()
    assert value == pytest.approx(numpy_focal_frequency(prediction, target, alpha), rel=1e-4)


def test_focal_frequency_loss_of_one_wave():
    """A single wave of amplitude a has two bins of |F|^2 = a^2 n / 4, both with weight 1, out of n."""
    n, amplitude = 16 * 16, 0.1
    wave = amplitude * torch.cos(2 * torch.pi * 3 * torch.arange(16) / 16).expand(16, 16)
    value = FocalFrequencyLoss()(wave[None, None], torch.zeros(1, 1, 16, 16)).item()
    assert value == pytest.approx(2 * amplitude**2 * n / 4 / n, rel=1e-4)


def test_identical_images_cost_nothing_and_have_a_gradient(pair):
    image = pair[0].requires_grad_()
    for loss in (FocalFrequencyLoss(), ReconstructionLoss()):
        value = loss(image, image.detach().clone())
        (gradient,) = torch.autograd.grad(value, image)
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert torch.isfinite(gradient).all()


def test_one_identical_image_does_not_spoil_the_batch(pair):
    prediction, target = pair
    target = target.clone()
    target[0] = prediction[0]
    assert FocalFrequencyLoss()(prediction, target).item() == pytest.approx(
        FocalFrequencyLoss()(prediction[1:], target[1:]).item() * 2 / 3, rel=1e-5
    )


def test_focal_weight_is_detached(pair):
    """The gradient is that of the squared spectral error under a fixed weight."""
    prediction, target = pair
    prediction.requires_grad_()
    (gradient,) = torch.autograd.grad(FocalFrequencyLoss()(prediction, target), prediction)

    spectrum = torch.fft.fft2((prediction - target).detach(), norm="ortho")
    weight = spectrum.abs() / spectrum.abs().amax((-2, -1), keepdim=True)
    expected = 2 * torch.fft.ifft2(weight * spectrum, norm="ortho").real / prediction.numel()
    assert torch.allclose(gradient, expected, atol=1e-8)


def test_half_precision_input_is_computed_in_single(pair):
    prediction, target = (x.bfloat16() for x in pair)
    for loss, tolerance in ((FocalFrequencyLoss(), 1e-3), (ReconstructionLoss(), 1e-6)):
        assert loss(prediction, target).dtype == torch.float32
        expected = loss(prediction.float(), target.float()).item()
        assert loss(prediction, target).item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("ssim_weight, frequency_weight", [(1, 100), (0, 0), (2, 0), (0, 7)])
def test_reconstruction_loss_is_the_weighted_sum(pair, ssim_weight, frequency_weight):
    prediction, target = pair
    expected = (
        (prediction - target).abs().mean()
        + ssim_weight * SSIMLoss(spatial_dims=2)(prediction, target)
        + frequency_weight * FocalFrequencyLoss()(prediction, target)
    )
    value = ReconstructionLoss(ssim_weight, frequency_weight)(prediction, target)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


def test_reconstruction_loss_defaults_are_the_papers(pair):
    assert ReconstructionLoss()(*pair).item() == ReconstructionLoss(1, 100)(*pair).item()


@pytest.mark.parametrize("seed", range(3))
def test_reverse_step_loss_knows_the_true_noise(seed):
    """Eq. 3: the reverse Euler step with the true noise all but hits x*_(t-1); a wrong noise does not."""
    torch.manual_seed(seed)
    sde = MeanRevertingSDE()
    x0, mu = torch.rand(2, 64, 1, 12, 12)
    inputs, target, (t,), _ = NoisePrepareBatch(sde)({"image": x0, "mu": mu})
    noise = (inputs[:, :1] - sde.decay(t) * (x0 - mu)) / sde.std(t)
    loss = ReverseStepLoss()
    exact = loss(noise, target).item()
    assert exact < 1e-3
    for wrong in (torch.zeros_like(noise), -noise, torch.randn_like(noise), 0.5 * noise):
        assert loss(wrong, target).item() > 5 * exact


def test_reverse_step_loss_by_hand():
    target = {
        "mean": torch.full((1, 1, 2, 2), 0.5),
        "gain": torch.full((1, 1, 1, 1), 0.1),
        "optimum": torch.full((1, 1, 2, 2), 0.2),
    }
    assert ReverseStepLoss()(torch.full((1, 1, 2, 2), 2.0), target).item() == pytest.approx(0.1)
