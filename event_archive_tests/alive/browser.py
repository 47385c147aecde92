"""A headless Chromium, driven as a person would drive it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE_SECONDS = 60


@contextmanager
def browser(address: str) -> Iterator[Page]:
    """A page; relative addresses are the webserver's. The test is skipped where there is no Chromium."""
    executable = next(filter(None, map(shutil.which, _NAMES)), None)
    if executable is None:
        pytest.skip(f"none of {', '.join(_NAMES)} is on PATH (on Debian: apt-get install chromium)")
    expect.set_options(timeout=_PATIENCE_SECONDS * 1000)
    with sync_playwright() as playwright:
        # A container's root has no sandbox, and little shared memory.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=executable, args=arguments)
        page = chromium.new_page(base_url=address, viewport={"width": 1440, "height": 900}, timezone_id="UTC")
        page.set_default_timeout(_PATIENCE_SECONDS * 1000)
        try:
            yield page
        finally:
            chromium.close()


def show_partition(page: Page, asset: str, day: str) -> None:
    """Opens an asset's partitions with one of them chosen, and waits for what was recorded of it."""
    page.goto(f"/assets/{asset}?view=partitions&partition={day}")
    expect(page.get_by_text("Latest materialization")).to_be_visible()


def show_plots(page: Page, asset: str) -> None:
    """Opens an asset's plots of its numbers by partition."""
    page.goto(f"/assets/{asset}?view=overview")
    page.get_by_role("button", name="Plots").click()
    expect(page.locator("canvas").first).to_be_visible()
    page.get_by_role("button", name="Plots").evaluate("button => button.scrollIntoView()")


def materialize(page: Page, asset: str, day: str) -> None:
    """Launches a run of one partition by the asset page's button and its dialog."""
    show_partition(page, asset, day)
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("textbox").first).to_have_value(day)
    dialog.get_by_role("button", name="Launch 1 run").click()
    expect(dialog).to_be_hidden()


def picture(page: Page, folder: Path | None, name: str) -> None:
    """Keeps what the page shows, where pictures are wanted."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(2000)  # animations
        page.screenshot(path=folder / f"{name}.png")
