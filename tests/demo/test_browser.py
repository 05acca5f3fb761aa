"""The page of `maml-tf demo` in a headless browser: drawing, dragging, tabs."""

import re
import threading

import browser
import pytest
from strokes import AGAIN, DRAWN

from maml_tf.demo import answers, server
from maml_tf.experiments.demo_command import PRETRAINED

pytestmark = pytest.mark.skipif(not browser.AVAILABLE, reason="no Chromium, or no Playwright (CONTRIBUTING.md)")


@pytest.fixture(scope="module")
def address():
  app = server.application(answers.Characters(PRETRAINED / "omniglot_5way"), answers.Waves(PRETRAINED / "sinusoid"))
  with server.listen(0) as listening, server.server(app, listening) as serving:
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    serving.shutdown()


@pytest.fixture(scope="module")
def page(address):
  with browser.page(viewport={"width": 1000, "height": 900}) as page:
    errors, others = [], []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: others.append(request.url) if not request.url.startswith(address) else None)
    page.goto(address)
    yield page
    assert not errors
    assert not [url for url in others if not url.startswith("data:")]


def shown(page, when):
  """Percentages in a column."""
  return [int(re.match(r"\d+", text)[0]) for text in page.locator(f"#answer td.{when} span").all_inner_texts()]


def test_a_drawn_character_is_recognised_after_one_step(page):
  pads = page.locator("#pads canvas").all()
  assert len(pads) == 5
  for pad, strokes in zip(pads, DRAWN, strict=True):
    browser.draw(page, pad, strokes)
  right = 0
  for index, strokes in enumerate(AGAIN):
    page.locator("#again").click()
    browser.draw(page, page.locator("#asked"), strokes[:1])  # after the first stroke there is an answer already
    browser.expect(page.locator("#answer tr")).to_have_count(5)
    browser.draw(page, page.locator("#asked"), strokes)
    after = shown(page, "after")
    assert len(shown(page, "before")) == 5 and 97 <= sum(after) <= 103
    right += after.index(max(after)) == index
  assert right >= 4


def test_clearing_takes_the_answer_away(page):
  page.locator("#clear").click()
  browser.expect(page.locator("#answer tr")).to_have_count(0)
  page.locator("#example").click()
  browser.draw(page, page.locator("#asked"), DRAWN[0])
  browser.expect(page.locator("#answer tr")).to_have_count(5)


def test_a_dragged_point_moves_the_curve(page):
  page.locator("#tab-wave").click()
  assert page.locator("#characters").is_hidden()
  curve = page.locator("#plot polyline[data-steps='10']")
  curve.wait_for(state="attached")
  before = curve.get_attribute("points")
  dot = page.locator("#plot circle").nth(2)
  dot.scroll_into_view_if_needed()
  box = dot.bounding_box()
  page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
  page.mouse.down()
  page.mouse.move(box["x"], box["y"] + 150, steps=5)
  page.mouse.up()
  browser.expect(curve).not_to_have_attribute("points", before)
  assert page.locator("#key").inner_text().split("\n")[0].startswith("before")
  dot.press("ArrowUp")
  page.locator("#tab-characters").click()
  assert page.locator("#wave").is_hidden()
