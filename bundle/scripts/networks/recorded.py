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

"""Steps of many small operations, which on CUDA are recorded once and then launched as one."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch

Output = TypeVar("Output")


class _Recording(NamedTuple):
    """A CUDA graph with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[torch.Tensor]
    output: Any


class RecordedStep(Generic[Output]):
    """A function of tensors that on CUDA is recorded as a CUDA graph and replayed; elsewhere it is simply called.

    Launching a thousand small operations one by one takes longer than computing them. The function must keep to this:

    - Fixed shapes. What the shapes, types or values decide in Python is decided once, when it is recorded. Inputs of
      other shapes are recorded on their own; the oldest recording goes where there are more than ``shapes``.
    - No waiting for the GPU: no ``.item()``, no printing, no branch on a value, no copy from or to ordinary memory.
    - Tensors other than its arguments, such as weights, the state of an optimizer or a learning rate, are read and
      written where they lie. To change them, write into them; a new tensor in their place is not seen.
    - Random numbers come from the default generator of the device: each replay draws further ones, and
      ``torch.manual_seed`` counts. Those of a generator of its own, or of the CPU, would be the same in each replay;
      draw them before and pass them as an argument.

    Its caller has to know: arguments are copied into place, so they may be freed or changed at once. The output is
    overwritten by the next call with the same shapes; copy what is to last. The first ``warmup`` calls compute as they
    are, on a stream of their own, in which the libraries choose and load what they need; so a function with effects has
    each of them once a call. Other threads may use the GPU meanwhile.

    Args:
        function: takes tensors on the device and returns one, or several in a mapping or a sequence.
        device: that computes.
        warmup: calls before the recording, for each combination of shapes.
        shapes: recordings that are kept at the same time; each has the memory of a call.

    Example::

        step = RecordedStep(lambda x: network(x), torch.device("cuda"))
        first, second = step(x).clone(), step(x + 1).clone()
    """

    def __init__(self, function: Callable[..., Output], device: torch.device, warmup: int = 1, shapes: int = 1) -> None:
        self.function = function
        self.device = device
        self.warmup = warmup
        self.shapes = shapes
        self._calls: OrderedDict[Any, int] = OrderedDict()  # with each combination of shapes, the oldest first
        self._recordings: dict[Any, _Recording] = {}

    def __call__(self, *inputs: torch.Tensor) -> Output:
        """The function's output for these inputs, all on the device."""
        if self.device.type != "cuda":
            return self.function(*inputs)
        key = tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._calls:
            if len(self._calls) == self.shapes:
                oldest, _ = self._calls.popitem(last=False)
                self._recordings.pop(oldest, None)
                torch.cuda.empty_cache()
            self._calls[key] = 0
        self._calls[key] += 1
        if self._calls[key] <= self.warmup:
            return self._beside(*inputs)
        if key not in self._recordings:
            self._recordings[key] = self._record(inputs)
        recording = self._recordings[key]
        for place, value in zip(recording.inputs, inputs):
            place.copy_(value)
        recording.graph.replay()
        return recording.output

    def forget(self) -> None:
        """Free the memory of all recordings; what comes next is recorded anew."""
        self._calls.clear()
        self._recordings.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _beside(self, *inputs: torch.Tensor) -> Output:
        """Compute on a stream of its own, as before a recording one must."""
        current, stream = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        stream.wait_stream(current)  # which is also why memory of an output before can be given away there
        with torch.cuda.stream(stream):
            output = self.function(*inputs)
        current.wait_stream(stream)
        return output

    def _record(self, inputs: tuple[torch.Tensor, ...]) -> _Recording:
        places = [value.clone() for value in inputs]
        graph = torch.cuda.CUDAGraph()
        # thread_local: only what this thread does counts, for meanwhile another may wait for results and write them
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self.function(*places)
        return _Recording(graph, places, output)
