"""What every test gets: no deadlines in property tests, longer timeouts for slow ones, GPU tests only with a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

SLOW_TIMEOUT = 900
"""Seconds for a test marked slow that sets no timeout of its own."""

settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("house")


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Leave the framework's logger as a test found it: pytest listens to it in another way once it is configured."""
    yield
    from traiNNer.utils.logging import close_logging

    close_logging()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.accelerator.is_available():
            pytest.skip("needs an accelerator that torch can use")
