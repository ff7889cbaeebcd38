"""Prefetching: a thread draws batches ahead of the training step, so that a GPU does not wait for text."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

MOST = 4  # batches in the queue
PATIENCE = 0.1  # seconds between the thread's checks whether the iteration has ended


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
        ready: Queue[Any] = Queue(MOST)
        left = Event()
        thread = Thread(target=self._draw, args=(ready, left), daemon=True)
        thread.start()
        try:
            while True:
                batch, error = ready.get()
                if error is not None:
                    raise error
                if batch is None:
                    return
                yield batch
        finally:
            left.set()
            thread.join()

    def _draw(self, ready: "Queue[Any]", left: Event) -> None:
        def hand_over(batch: Any, error: BaseException | None = None) -> None:
            while not left.is_set():
                try:
                    return ready.put((batch, error), timeout=PATIENCE)
                except Full:
                    continue

        try:
            for batch in self.batches:
                hand_over(type(batch)(*(tensor.pin_memory() for tensor in batch)) if self.pinned else batch)
                if left.is_set():
                    return
            hand_over(None)
        except BaseException as error:  # also SystemExit and the like: else the step would wait for ever
            hand_over(None, error)
