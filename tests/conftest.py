"""For all tests: one thread, a known global seed, no time limits, and Triton interpreted on the CPU."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hydra.core.config_store import ConfigStore
from hypothesis import settings

os.environ["TRITON_INTERPRET"] = "1"  # before the first module of tests imports triton, by way of Lightning
torch.set_num_threads(1)
settings.register_profile("memlayers", deadline=None)
settings.load_profile("memlayers")
# Hydra copies all schemas for each composition, and again what it takes from them: the former is a sixth of its time.
ConfigStore.__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def pytest_runtest_setup(item: pytest.Item) -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def arms_of_this_module() -> Iterator[None]:
    """Arms that tests register from files of their own are unknown to the tests of the next module."""
    from memlayers.studies.schemas import register

    register()
    groups = [ConfigStore.instance().repo[name] for name in ("arm", "ffn", "extra")]
    before = [set(group) for group in groups]
    yield
    for group, names in zip(groups, before, strict=True):
        for name in set(group) - names:
            del group[name]


@pytest.fixture(params=[1, 2])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def compiled() -> None:
    """The kernels in C; the test is skipped where there is no compiler."""
    from memlayers.kernels import build

    try:
        build.library()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def fresh(tmp_path, monkeypatch) -> Iterator[Path]:
    """No kernel is loaded or built, and no notice was given, before the test and after it."""
    from memlayers import kernels

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caches = kernels.build.library, kernels._notice
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()
