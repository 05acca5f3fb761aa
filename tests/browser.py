"""Headless Chromium, driven by Playwright, on the page of `maml-tf demo`."""

import contextlib
import importlib.util
import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AVAILABLE = CHROMIUM is not None and importlib.util.find_spec("playwright") is not None
# As root in a container there is no sandbox; and nothing but the page is asked for.
ARGUMENTS = (
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip


def expect(locator):
  """Playwright's assertions, which wait."""
  from playwright.sync_api import expect

  return expect(locator)


@contextlib.contextmanager
def page(**options):
  """A page of Playwright's."""
  from playwright.sync_api import sync_playwright

  with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
    try:
      yield browser.new_page(**options)
    finally:
      browser.close()


def draw(page, canvas, strokes, size=210):
  """Draws with the mouse; strokes are lists of points of a pad of that size."""
  canvas.scroll_into_view_if_needed()
  box = canvas.bounding_box()
  for points in strokes:
    at = [(box["x"] + x * box["width"] / size, box["y"] + y * box["height"] / size) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for point in at[1:]:
      page.mouse.move(*point, steps=4)
    page.mouse.up()
  answered(page)


def answered(page):
  """Waits until everything that was asked has its answer on the page."""
  expect(page.locator("body")).not_to_have_attribute("aria-busy", "true")
