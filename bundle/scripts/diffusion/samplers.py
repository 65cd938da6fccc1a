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

"""Samplers of stage II: functions that lead x_T = mu + delta * noise back to a sharp image.

Each takes ``network(torch.cat([x - mu, mu], 1), t) -> predicted noise``, the interpolated images ``mu`` (B, 1, H, W) in
[0, 1] and a descending list of timesteps that ends at 0, and returns restored images of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from scripts.diffusion.sde import MeanRevertingSDE
from scripts.errors import InputError

Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def all_timesteps(sde: MeanRevertingSDE) -> list[int]:
    """T, T-1, ..., 1, 0: those of :func:`reverse_sde`."""
    return list(range(sde.timesteps, -1, -1))


def skipped_timesteps(sde: MeanRevertingSDE, num_steps: int) -> list[int]:
    """``num_steps`` timesteps from T downwards, then 0, spaced evenly in Theta.

    Even spacing in t wastes steps where nothing is left to decide and amplifies the network's errors more.
    """
    if not 1 <= num_steps <= sde.timesteps:
        raise InputError(f"--num_steps {num_steps}: give 1 to {sde.timesteps}")
    targets = torch.linspace(float(sde.cumulative[-1]), 0, num_steps + 1, dtype=torch.float64)[:-1]
    timesteps: list[int] = []
    for i, target in enumerate(targets):
        nearest = int((sde.cumulative - target).abs().argmin())
        # Where Theta is steep two targets may share a timestep: each is taken once, and enough are left for the rest.
        below = timesteps[-1] - 1 if timesteps else sde.timesteps
        timesteps.append(max(min(nearest, below), num_steps - i))
    return [*timesteps, 0]


def _batch_of(timestep: int, like: torch.Tensor) -> torch.Tensor:
    return torch.full((like.shape[0],), timestep, device=like.device, dtype=torch.long)


def _start(sde: MeanRevertingSDE, mu: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    return mu + sde.delta * _noise_like(mu, generator)


def _noise_like(x: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    # Drawn on the generator's device, so that a seed gives the same noise on CPU and CUDA.
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, device=device, dtype=torch.float32).to(x.device)


def reverse_sde(
    sde: MeanRevertingSDE,
    network: Network,
    mu: torch.Tensor,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
    stochastic: bool = True,
) -> torch.Tensor:
    """The paper's sampler: one reverse Euler step of Eq. 2 per timestep; ``timesteps`` must not skip any.

    Its last step still adds about one gray level of noise.
    """
    x = _start(sde, mu, generator)
    for value in timesteps[:-1]:
        t = _batch_of(value, x)
        noise = network(torch.cat([x - mu, mu], 1), t).float()
        of_state, of_noise = sde.reverse_drift(t)
        x = x + of_state * (x - mu) - of_noise * noise
        if stochastic:
            x = x + sde.reverse_std(t) * _noise_like(x, generator)
    return x


def posterior(
    sde: MeanRevertingSDE,
    network: Network,
    mu: torch.Tensor,
    timesteps: Sequence[int],
    generator: torch.Generator | None = None,
    stochastic: bool = False,
) -> torch.Tensor:
    """Bridge sampler (Luo et al. 2024, arXiv 2404.09732); timesteps may be skipped.

    Each step estimates x0, clips it to a little beyond the data range (at T an error of the noise is amplified 39
    times) and walks the exact bridge to the next timestep.

    Args:
        stochastic: add the bridge's noise; without it the result follows from the start noise alone.
    """
    x = _start(sde, mu, generator)
    for value, following in zip(timesteps[:-1], timesteps[1:]):
        t, s = _batch_of(value, x), _batch_of(following, x)
        noise = network(torch.cat([x - mu, mu], 1), t).float()
        clean = sde.clean(x, mu, t, noise).clamp(-0.1, 1.1)
        if following == 0:
            return clean
        if stochastic:
            bridge = sde.bridge(t, s)
            x = mu + bridge.from_state * (x - mu) + bridge.from_clean * (clean - mu)
            x = x + bridge.std * _noise_like(x, generator)
        else:
            # The noise that leads from the clipped estimate to x_t, carried over to timestep s (as DDIM does).
            noise = (x - mu - sde.decay(t) * (clean - mu)) / sde.std(t)
            x = sde.state(clean, mu, s, noise)
    return x


SAMPLERS = {"reverse_sde": reverse_sde, "posterior": posterior}
