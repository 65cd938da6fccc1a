# SPDX-License-Identifier: Apache-2.0
"""A recorded step is the function that was recorded, for as long as the rules are kept that it states."""

from __future__ import annotations

import threading

import pytest
import torch
from scripts.networks.recorded import RecordedStep

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CALLS = 6  # of which the first are the warm-up and the last are replays


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, device=DEVICE)


@pytest.mark.parametrize("warmup", [1, 3])
def test_each_call_is_the_function_of_its_inputs(warmup):
    step = RecordedStep(lambda x, y: 2 * x + y.sum(), DEVICE, warmup)
    for _ in range(CALLS):
        x, y = random(3, 4), random(5)
        expected = 2 * x + y.sum()
        found = step(x, y)
        x.zero_()  # the arguments may be changed at once
        assert torch.allclose(found, expected)


def test_an_output_of_several_tensors():
    step = RecordedStep(lambda x: {"twice": 2 * x, "parts": [x[:2], x.sum()]}, DEVICE)
    for _ in range(CALLS):
        x = random(5)
        found = step(x)
        assert torch.equal(found["twice"], 2 * x) and torch.equal(found["parts"][0], x[:2])
        assert torch.allclose(found["parts"][1], x.sum())


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_effects_happen_once_a_call(warmup):
    """As in a training step: neither the warm-up nor the recording is an additional one."""
    total = torch.zeros((), device=DEVICE)
    step = RecordedStep(lambda x: total.add_(x).clone(), DEVICE, warmup)
    found = [float(step(torch.tensor(float(number), device=DEVICE))) for number in range(1, CALLS + 1)]
    assert found == [1, 3, 6, 10, 15, 21] and float(total) == 21


def test_what_is_written_in_place_is_seen():
    weight = torch.ones(3, device=DEVICE)
    step = RecordedStep(lambda x: weight * x, DEVICE)
    for number in range(CALLS):
        weight.fill_(number)
        assert torch.equal(step(torch.ones(3, device=DEVICE)), torch.full_like(weight, number))


def test_random_numbers_go_on_and_follow_the_seed():
    step = RecordedStep(lambda x: x + torch.rand_like(x), DEVICE)

    def draws() -> list[torch.Tensor]:
        torch.manual_seed(7)
        return [step(torch.zeros(50, device=DEVICE)).clone() for _ in range(3)]

    draws()
    first, again = draws(), draws()
    assert all(torch.equal(*pair) for pair in zip(first, again))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


@pytest.mark.parametrize("shapes", [1, 2])
def test_other_shapes_and_types_are_recorded_on_their_own(shapes):
    step = RecordedStep(lambda x: x.cumsum(0), DEVICE, shapes=shapes)
    for _ in range(CALLS):
        for size, dtype in ((4, torch.float32), (9, torch.float32), (4, torch.float64)):
            x = random(size).to(dtype)
            found = step(x)
            assert found.dtype == dtype and torch.allclose(found, x.cumsum(0))


def test_after_forgetting_it_goes_on():
    step = RecordedStep(lambda x: x + 1, DEVICE)
    for _ in range(3):
        for _ in range(3):
            x = random(4)
            assert torch.equal(step(x), x + 1)
        step.forget()


@CUDA
def test_the_output_is_overwritten_by_the_next_call():
    step = RecordedStep(lambda x: x + 1, DEVICE)
    for _ in range(2):
        step(random(4))
    first = step(torch.zeros(4, device=DEVICE))
    second = step(torch.ones(4, device=DEVICE))
    assert first.data_ptr() == second.data_ptr() and first.tolist() == [2] * 4


@CUDA
def test_python_runs_no_more_once_it_is_recorded():
    calls: list[None] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return x + 1

    step = RecordedStep(function, DEVICE, warmup=2)
    counts = []
    for _ in range(CALLS):
        step(random(4))
        counts.append(len(calls))
    assert counts == [1, 2, 3, 3, 3, 3]


@CUDA
def test_forgetting_and_eviction_free_the_memory():
    step = RecordedStep(lambda x: (x + 1).sqrt(), DEVICE)

    def taken(*sizes: int) -> int:
        for size in sizes:
            for _ in range(3):
                step(torch.ones(size, device=DEVICE))
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    before = torch.cuda.memory_allocated()
    one = taken(2**22) - before
    assert one > 2 * 4 * 2**22 - 2**20  # the place of the input, and the output
    assert taken(2**22 + 512, 2**22) - before < 1.5 * one
    step.forget()
    assert torch.cuda.memory_allocated() - before < 2**20


@CUDA
def test_another_thread_may_wait_for_the_gpu_meanwhile():
    """What writes results waits for them while the next batch is recorded."""
    stop = threading.Event()

    def wait() -> None:
        while not stop.is_set():
            torch.ones(8).pin_memory().to(DEVICE, non_blocking=True)
            torch.cuda.Event().synchronize()

    other = threading.Thread(target=wait)
    other.start()
    try:
        for _ in range(20):
            step, x = RecordedStep(lambda x: x * 3, DEVICE), random(100)
            for _ in range(3):
                assert torch.equal(step(x), x * 3)
    finally:
        stop.set()
        other.join()
