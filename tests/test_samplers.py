# SPDX-License-Identifier: Apache-2.0
"""The samplers with a network that knows the answer, and the timesteps they take."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from scripts.diffusion.samplers import all_timesteps, posterior, reverse_sde, skipped_timesteps
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.errors import InputError

SDE = MeanRevertingSDE()
GRAY_LEVEL = 1 / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    """A sharp image and a blurred one."""
    x0 = torch.rand(2, 1, 16, 16, generator=seeded(5))
    return x0, torch.nn.functional.avg_pool2d(x0, 5, 1, 2)


def oracle(x0):
    """Predicts exactly the noise that leads from ``x0`` to the state it is shown."""

    def network(x, t):
        difference, mu = x.chunk(2, 1)
        return (difference - SDE.decay(t) * (x0 - mu)) / SDE.std(t)

    return network


def blind(x, t):
    """Sees nothing but the noise: restores mu where there is no clipping."""
    return x[:, :1] / SDE.std(t)


def worst_gain(timesteps):
    """Largest factor by which one step carries an error of the predicted noise into the next state."""
    gains = []
    for t, s in pairwise(timesteps):
        t, s = torch.tensor([t]), torch.tensor([s])
        gains.append((SDE.bridge(t, s).from_clean * SDE.std(t) / SDE.decay(t)).item())
    return max(gains)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("num_steps", [1, 5, 40])
def test_posterior_recovers_the_image(images, num_steps, stochastic):
    x0, mu = images
    found = posterior(SDE, oracle(x0), mu, skipped_timesteps(SDE, num_steps), seeded(), stochastic)
    assert torch.allclose(found, x0, atol=1e-4)


def test_reverse_sde_recovers_the_image_but_for_a_gray_level(images):
    x0, mu = images
    error = reverse_sde(SDE, oracle(x0), mu, all_timesteps(SDE), seeded()) - x0
    assert abs(error.mean().item()) < 0.2 * GRAY_LEVEL
    # The last step adds noise that nothing takes away again.
    assert 0.5 * GRAY_LEVEL < error.std().item() < 1.5 * GRAY_LEVEL


def test_reverse_sde_without_noise_ends_on_the_image(images):
    x0, mu = images
    error = reverse_sde(SDE, oracle(x0), mu, all_timesteps(SDE), seeded(), stochastic=False) - x0
    assert error.abs().max().item() < 0.5 * GRAY_LEVEL


@pytest.mark.parametrize(
    "sampler, timesteps", [(posterior, skipped_timesteps(SDE, 6)), (reverse_sde, all_timesteps(SDE))]
)
@pytest.mark.parametrize("stochastic", [False, True])
def test_the_seed_decides(images, sampler, timesteps, stochastic):
    _, mu = images

    def keep(x, t):  # the score of the stationary state: a reverse step leaves x - mu as it is
        return 0.5 * x[:, :1] * SDE.std(t) / SDE.delta**2

    first, again, other = (sampler(SDE, keep, mu, timesteps, seeded(seed), stochastic=stochastic) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 1e-3


@pytest.mark.parametrize(
    "sampler, timesteps", [(posterior, skipped_timesteps(SDE, 6)), (reverse_sde, all_timesteps(SDE))]
)
def test_without_noise_only_the_start_is_drawn(images, sampler, timesteps):
    """Two generators that agree on the first draw and differ afterwards."""
    _, mu = images
    for stochastic, same in ((False, True), (True, False)):
        results = []
        for seed in (8, 9):
            generator = seeded(7)

            def network(x, t, generator=generator, seed=seed):
                generator.manual_seed(seed)  # whatever is drawn after the start differs
                return 0.9 * blind(x, t)

            results.append(sampler(SDE, network, mu, timesteps, generator, stochastic=stochastic))
        assert torch.equal(*results) == same


@pytest.mark.parametrize(
    "sampler, timesteps", [(posterior, skipped_timesteps(SDE, 6)), (reverse_sde, all_timesteps(SDE))]
)
def test_without_a_generator_torch_draws(images, sampler, timesteps):
    _, mu = images
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(sampler(SDE, lambda x, t: 0.5 * x[:, :1] * SDE.std(t) / SDE.delta**2, mu, timesteps))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_an_outrageous_prediction_is_clipped(images):
    _, mu = images
    found = posterior(SDE, lambda x, t: -100 * torch.ones_like(mu), mu, skipped_timesteps(SDE, 4), seeded())
    assert found.min() >= -0.1 and found.max() <= 1.1


def test_network_sees_difference_mean_and_state(images):
    _, mu = images
    seen = []

    def network(x, t):
        assert x.shape == (2, 2, 16, 16) and torch.equal(x[:, 1:], mu)
        seen.append(t.tolist())
        return blind(x, t)

    timesteps = skipped_timesteps(SDE, 4)
    posterior(SDE, network, mu, timesteps, seeded())
    assert seen == [[timestep, timestep] for timestep in timesteps[:-1]]


def test_start_is_the_last_state(images):
    """x_T is mu plus noise of standard deviation delta."""
    mu = torch.zeros(1, 1, 200, 200)
    starts = []

    def network(x, t):
        starts.append(x[:, :1])
        return blind(x, t)

    posterior(SDE, network, mu, [100, 0], seeded())
    assert starts[0].std().item() == pytest.approx(50 / 255, rel=0.02)


@pytest.mark.parametrize(
    "sampler, timesteps, tolerance",
    [
        (posterior, skipped_timesteps(SDE, 6), 0.02),
        (reverse_sde, all_timesteps(SDE)[:-10], 0.1),
    ],  # Euler's steps are rough
)
def test_states_spread_as_those_of_the_sde(sampler, timesteps, tolerance):
    """With noise along the way, at each timestep: what the prior is shown is what it was trained on."""
    clean = torch.full((1, 1, 160, 160), 0.6)
    mu, predict, spread = clean - 0.2, oracle(clean), {}

    def network(x, t):
        difference = x[:, :1]
        spread[int(t)] = difference.std().item(), difference.mean().item()
        return predict(x, t)

    sampler(SDE, network, mu, timesteps, seeded(), stochastic=True)
    assert list(spread) == timesteps[:-1]
    for timestep, (std, mean) in spread.items():
        t = torch.tensor([timestep])
        assert std == pytest.approx(SDE.std(t).item(), rel=tolerance), timestep
        assert mean == pytest.approx(0.2 * SDE.decay(t).item(), abs=0.005), timestep


def test_all_timesteps():
    assert all_timesteps(SDE) == list(range(100, -1, -1))


@pytest.mark.parametrize("num_steps", [1, 2, 5, 8, 20, 50])
def test_skipped_timesteps_are_even_in_cumulative_theta(num_steps):
    timesteps = skipped_timesteps(SDE, num_steps)
    assert timesteps[0] == 100 and timesteps[-1] == 0
    assert len(timesteps) == num_steps + 1
    assert all(t > s for t, s in pairwise(timesteps))
    targets = torch.linspace(float(SDE.cumulative[-1]), 0, num_steps + 1)
    found = SDE.cumulative[timesteps].float()
    coarsest = float(SDE.cumulative.diff().max())
    assert (found - targets).abs().max() <= coarsest / 2 + 1e-6


def test_skipped_timesteps_amplify_errors_less_than_even_steps():
    even = [100, 80, 60, 40, 20, 0]
    assert worst_gain(even) == pytest.approx(1.44, abs=0.01)
    assert worst_gain(skipped_timesteps(SDE, 5)) == pytest.approx(0.54, abs=0.01)
    for n in (8, 10, 20):
        assert worst_gain(skipped_timesteps(SDE, n)) < worst_gain([round(100 * i / n) for i in range(n, -1, -1)])


@pytest.mark.parametrize("num_steps", [0, -1, 101])
def test_impossible_number_of_evaluations(num_steps):
    with pytest.raises(InputError, match="give 1 to 100"):
        skipped_timesteps(SDE, num_steps)
