"""Standard output that may lose its reader, as in `train.py … | head`: what is printed ends, the run does not."""

import os
from typing import Any, TextIO


class Unread:
    """A stream whose writes go nowhere once nobody reads them. All else is the stream's own."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self.give_up()
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except BrokenPipeError:
            self.give_up()

    def give_up(self) -> None:
        """What is still in the buffer, and all that follows, goes to the null device."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
