"""For all tests: one thread, a known global seed, no time limits, and Triton interpreted on the CPU."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

os.environ["TRITON_INTERPRET"] = "1"  # before the first module of tests imports triton, by way of Lightning
torch.set_num_threads(1)
settings.register_profile("memlayers", deadline=None)
settings.load_profile("memlayers")


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch.manual_seed(0)


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
