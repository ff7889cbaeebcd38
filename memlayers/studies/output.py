"""Standard output whose reader may close the pipe, as in `train.py … | head`: output ends, the run goes on."""

import os
from typing import Any, TextIO


class Unread:
    """Wraps a stream so that writes are discarded once its pipe is closed, instead of raising BrokenPipeError."""

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
        """Redirect the stream to the null device, for its buffer and all later writes."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
