"""Batches drawn on a thread of their own, ahead of the step that takes them, so that a GPU does not wait for text."""

from collections.abc import Iterable, Iterator
from queue import Full, Queue
from threading import Event, Thread
from typing import Any

MOST = 4  # batches that wait
PATIENCE = 0.1  # seconds until the thread looks whether anyone still wants its batch


class Ahead:
    """The same batches in the same order, each a named tuple of tensors; in pinned memory, from which a GPU copies
    while it computes, where `pinned`.

    What fails on the thread is raised where its batch would have come. The thread ends with the iteration, however that
    ends: no batch is drawn for nobody.
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
                hand_over(type(batch)(*(one.pin_memory() for one in batch)) if self.pinned else batch)
                if left.is_set():
                    return
            hand_over(None)
        except BaseException as error:  # also what only a debugger or an exit raises: the step would wait for ever
            hand_over(None, error)
