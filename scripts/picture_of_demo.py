"""Draws on the page of `maml-tf demo` in headless Chromium, and keeps a picture of it: docs/demo.png.

  python scripts/picture_of_demo.py docs/demo.png

Needs Debian's `chromium`, and the extras `demo` and `test`.
"""

import io
import pathlib
import sys
import threading

from common import import_tensorflow, main_of

sys.path.insert(1, str(pathlib.Path(__file__).parents[1] / "tests"))  # its drawings and its browser

import browser
from strokes import AGAIN, DRAWN

from maml_tf.demo import server
from maml_tf.errors import UserError
from maml_tf.experiments.demo_command import PRETRAINED


def take(arguments):
  if len(arguments) != 1:
    raise UserError(f"expected one argument, the file to write, got {' '.join(arguments) or 'none'}")
  if not browser.AVAILABLE:
    raise UserError("no Chromium, or no Playwright: apt-get install chromium, and pip install playwright")
  server.check_installed()
  import_tensorflow()
  from PIL import Image

  from maml_tf.demo import answers
  from maml_tf.training.checkpoints import write_atomically

  characters, waves = answers.Characters(PRETRAINED / "omniglot_5way"), answers.Waves(PRETRAINED / "sinusoid")
  app = server.application(characters, waves)
  with server.listen(0) as listening, server.server(app, listening) as serving:
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    address = f"http://{server.HOST}:{listening.getsockname()[1]}/"
    with browser.page(viewport={"width": 880, "height": 870}) as page:
      page.goto(address)
      shots = [_characters(page), _wave(page)]
    serving.shutdown()
  images = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
  both = Image.new("RGB", (sum(image.width for image in images) + 20, max(image.height for image in images)), "white")
  both.paste(images[0], (0, 0))
  both.paste(images[1], (images[0].width + 20, 0))
  file = io.BytesIO()
  smaller = both.resize((both.width * 2 // 3, both.height * 2 // 3), Image.Resampling.LANCZOS)
  smaller.quantize(64).save(file, "PNG", optimize=True)
  write_atomically(arguments[0], file.getvalue())


def _characters(page):
  for pad, strokes in zip(page.locator("#pads canvas").all(), DRAWN, strict=True):
    browser.draw(page, pad, strokes)
  browser.draw(page, page.locator("#asked"), AGAIN[1])
  return page.screenshot()


def _wave(page):
  page.locator("#tab-wave").click()
  page.locator("#plot polyline").last.wait_for(state="attached")
  return page.screenshot()


if __name__ == "__main__":
  sys.exit(main_of(take, __doc__))
