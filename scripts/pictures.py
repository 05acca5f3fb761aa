"""Makes the pictures of the documentation that no training makes.

  python scripts/pictures.py episode docs/episode.png    # five drawn characters, and five more with their labels
  python scripts/pictures.py demo docs/demo.png          # the page of `maml-tf demo`, in headless Chromium

The second needs Debian's `chromium`, and the extras `demo` and `test`.
"""

import io
import pathlib
import sys
import threading

from common import import_tensorflow, main_of

sys.path.insert(1, str(pathlib.Path(__file__).parents[1] / "tests"))  # its drawings and its browser

import browser
import strokes

from maml_tf.demo import server
from maml_tf.errors import UserError
from maml_tf.experiments.demo_command import PRETRAINED


def episode():
  """The task of a page's front: one example of each class, and what the network says of others."""
  import tempfile

  from maml_tf import predict_folder

  with tempfile.TemporaryDirectory() as folder:
    for part, drawings in (("support/{}/0.png", strokes.DRAWN), ("query/{}.png", strokes.AGAIN)):
      for name, drawing in zip("TZHFX", drawings, strict=True):
        path = pathlib.Path(folder, part.format(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(strokes.png(drawing))
    predict_folder(PRETRAINED / "omniglot_5way", f"{folder}/support", f"{folder}/query", output=f"{folder}/out")
    return pathlib.Path(folder, "out", "contact_sheet.png").read_bytes()


def demo():
  if not browser.AVAILABLE:
    raise UserError("no Chromium, or no Playwright: apt-get install chromium, and pip install playwright")
  server.check_installed()
  from PIL import Image

  from maml_tf.demo import answers

  characters, waves = answers.Characters(PRETRAINED / "omniglot_5way"), answers.Waves(PRETRAINED / "sinusoid")
  with server.listen(0) as listening, server.server(server.application(characters, waves), listening) as serving:
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    with browser.page(viewport={"width": 880, "height": 870}) as page:
      page.goto(f"http://{server.HOST}:{listening.getsockname()[1]}/")
      for pad, drawing in zip(page.locator("#pads canvas").all(), strokes.DRAWN, strict=True):
        browser.draw(page, pad, drawing)
      browser.draw(page, page.locator("#asked"), strokes.AGAIN[1])
      shots = [page.screenshot()]
      page.locator("#tab-wave").click()
      page.locator("#plot polyline").last.wait_for(state="attached")
      shots.append(page.screenshot())
    serving.shutdown()
  left, right = (Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots)
  both = Image.new("RGB", (left.width + 20 + right.width, left.height), "white")
  both.paste(left, (0, 0))
  both.paste(right, (left.width + 20, 0))
  file = io.BytesIO()
  smaller = both.resize((both.width * 2 // 3, both.height * 2 // 3), Image.Resampling.LANCZOS)
  smaller.quantize(64).save(file, "PNG", optimize=True)
  return file.getvalue()


def make(arguments):
  subjects = {"episode": episode, "demo": demo}
  if len(arguments) != 2 or arguments[0] not in subjects:
    raise UserError(f"expected {' or '.join(subjects)} and a file to write, got {' '.join(arguments) or 'none'}")
  import_tensorflow()
  from maml_tf.training.checkpoints import write_atomically

  write_atomically(arguments[1], subjects[arguments[0]]())


if __name__ == "__main__":
  sys.exit(main_of(make, __doc__))
