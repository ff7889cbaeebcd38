"""Prefetching: a thread draws batches ahead of the training step, so that a GPU does not wait for text."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MOST = 4  # batches that are drawn ahead


class Ahead:
    """Iterates over the same batches in the same order, prefetched. A batch is a named tuple of tensors, in pinned
    memory if `pinned`, so that a GPU copies it while it computes.

    An exception on the thread is raised in place of its batch. The thread ends with the iteration, however that ends.
    """

    def __init__(self, batches: Iterable[Any], pinned: bool):
        self.batches, self.pinned = batches, pinned

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        batches, thread = iter(self.batches), ThreadPoolExecutor(1)
        try:
            ready = deque(thread.submit(self._draw, batches) for _ in range(MOST))
            while (batch := ready.popleft().result()) is not None:
                ready.append(thread.submit(self._draw, batches))
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)

    def _draw(self, batches: Iterator[Any]) -> Any:
        """The next batch, None after the last."""
        batch = next(batches, None)
        return type(batch)(*(tensor.pin_memory() for tensor in batch)) if batch is not None and self.pinned else batch
