"""The phases of one scenario run in the order in which they stand, whatever shuffles tests elsewhere."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="FOLDER", help="where the scenario puts pictures of Dagster's pages")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts this folder's tests into their places, in the order of their lines."""
    places = [place for place, item in enumerate(items) if FOLDER in item.path.parents]
    for place, item in zip(places, sorted((items[p] for p in places), key=lambda i: i.location[:2]), strict=True):
        items[place] = item
