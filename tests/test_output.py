"""A run whose output nobody reads any more goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memlayers.studies.output import Unread
from memlayers.training.record import read_record


def test_what_is_printed_arrives_while_somebody_reads_and_is_lost_afterwards():
    reading, writing = os.pipe()
    with open(writing, "w") as stream:
        output = Unread(stream)
        print("first", file=output, flush=True)
        assert os.read(reading, 100) == b"first\n" and output.encoding == stream.encoding and not output.isatty()
        os.close(reading)
        with pytest.raises(BrokenPipeError):
            stream.write("x")
            stream.flush()
        for _ in range(3):
            print("second" * 10_000, file=output, flush=True)


@pytest.mark.slow
def test_a_run_goes_on_when_its_pipe_is_closed(tmp_path):
    script = Path(__file__).resolve().parent.parent / "scripts" / "train.py"
    words = ["world=atlas_airports", "arm=dense", "training.steps=200", f"results={tmp_path}"]
    with subprocess.Popen([sys.executable, str(script), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout is not None and run.stdout.readline()
        run.stdout.close()
        assert run.stderr is not None and run.stderr.read() == b"" and run.wait(timeout=300) == 0
    record = read_record(next(tmp_path.rglob("dense-s0-*.json")))
    assert record is not None and record["status"] == "ok"
