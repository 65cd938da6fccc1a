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

"""A data loader that reads ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from monai.data import DataLoader
from scripts.errors import InputError

_END = object()
_AHEAD = 2  # batches of a reader that are made or wait: one is made while the one before is in use

_Reader = tuple[ThreadPoolExecutor, Iterator[Any]]


class PrefetchLoader(DataLoader):
    """MONAI's ``DataLoader`` whose batches are made by threads, some ahead of the one in use.

    MONAI's ``ThreadDataLoader`` does the same with one thread, but an error in that thread silently ends the data
    early, so that a reconstruction would be incomplete.

    Args:
        dataset: an item is a batch, such as a block or a list of patches. With several readers it is used by several
            threads at once.
        readers: number of threads; with n of them each makes every n-th batch.
        kwargs: further arguments of ``DataLoader``. Blocks have several sizes, so a batch is one block.

    Raises:
        InputError: another batch size is asked for.
    """

    def __init__(self, dataset: Any, readers: int = 1, **kwargs: Any) -> None:
        if kwargs.get("batch_size", 1) != 1:
            raise InputError(
                f"--dataloader#batch_size {kwargs['batch_size']}: blocks have several sizes and come one at a time; "
                "--tile changes them"
            )
        super().__init__(dataset, **kwargs)
        self._readers = readers

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        loaders: list[Iterator[Any]]
        if self._readers == 1:
            loaders = [super().__iter__()]
        else:
            batches = list(self.batch_sampler)  # type: ignore[arg-type]
            loaders = [iter(self._part(batches[first :: self._readers])) for first in range(self._readers)]
        # each has a thread of its own, so that it makes one batch at a time
        readers = [(ThreadPoolExecutor(1, "prefetch"), loader) for loader in loaders]
        try:
            waiting: deque[tuple[_Reader, Future]] = deque(
                (reader, reader[0].submit(next, reader[1], _END)) for _ in range(_AHEAD) for reader in readers
            )
            while True:
                (pool, loader), made = waiting.popleft()
                batch = made.result()
                if batch is _END:  # those of the readers after this one have ended, too
                    return
                waiting.append(((pool, loader), pool.submit(next, loader, _END)))
                yield batch
        finally:
            for pool, _ in readers:
                pool.shutdown(wait=False, cancel_futures=True)

    def _part(self, batches: list[list[int]]) -> torch.utils.data.DataLoader:
        """A loader of these batches; PyTorch's, for MONAI's would seed the dataset."""
        return torch.utils.data.DataLoader(
            self.dataset, batch_sampler=batches, collate_fn=self.collate_fn, pin_memory=self.pin_memory
        )
