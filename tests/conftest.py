"""For all tests: one thread, a known global seed, and no time limits."""

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("memlayers", deadline=None)
settings.load_profile("memlayers")


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch.manual_seed(0)
