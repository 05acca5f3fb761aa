"""Pictures with what is said of them, as one picture."""

import io
import pathlib

import numpy as np

COLUMNS = 8
TILE, PICTURE, LINE = 124, 108, 15  # pixels
MOST_QUERIES = 400
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2")  # as matplotlib's


def contact_sheet(support, pictures, captions):
  """A PNG: support pictures by class, then query pictures with their labels, in the color of the class.

  Args:
    support: [(class name, picture uint8 [H, W, C])], by class.
    pictures: uint8 [n, H, W, C], C = 1 or 3.
    captions: for each a tuple of lines; the first is the label, one of the class names.

  Returns:
    Bytes of the file.
  """
  from PIL import Image, ImageDraw, ImageFont

  classes = sorted({name for name, _ in support})
  color_of = {name: COLORS[index % len(COLORS)] for index, name in enumerate(classes)}
  shown = min(len(pictures), MOST_QUERIES)
  left_out = "" if shown == len(pictures) else f", the first {shown}"
  sections = [
    (f"support: {len(support)} pictures of {len(classes)} classes", [(p, (name,)) for name, p in support]),
    (f"queries: {len(pictures)} pictures{left_out}", list(zip(pictures[:shown], captions[:shown], strict=True))),
  ]
  columns = min(COLUMNS, max(len(tiles) for _, tiles in sections))
  heights = [PICTURE + 8 + LINE * max(len(lines) for _, lines in tiles) for _, tiles in sections]
  rows = [-(-len(tiles) // columns) for _, tiles in sections]
  total = sum(26 + count * height for count, height in zip(rows, heights, strict=True)) + 8
  sheet = Image.new("RGB", (max(columns * TILE + 8, 280), total), "white")
  draw, top = ImageDraw.Draw(sheet), 4
  fonts = {name: ImageFont.truetype(_font(name), 11) for name in ("DejaVuSans", "DejaVuSans-Bold")}
  for (title, tiles), height, count in zip(sections, heights, rows, strict=True):
    draw.text((8, top + 4), title, "black", fonts["DejaVuSans-Bold"])
    top += 26
    for index, (picture, lines) in enumerate(tiles):
      x, y = 8 + index % columns * TILE, top + index // columns * height
      sheet.paste(_thumbnail(picture), (x, y))
      draw.rectangle((x - 1, y - 1, x + PICTURE, y + PICTURE), outline=color_of[lines[0]])
      for number, line in enumerate(lines):
        font, color = ("DejaVuSans", "#444444") if number else ("DejaVuSans-Bold", color_of[line])
        draw.text((x, y + PICTURE + 3 + number * LINE), _fitted(line, fonts[font]), color, fonts[font])
    top += count * height
  file = io.BytesIO()
  sheet.save(file, "PNG")
  return file.getvalue()


def _thumbnail(picture):
  from PIL import Image

  grey = picture.shape[-1] == 1
  image = Image.fromarray(np.ascontiguousarray(picture[..., 0] if grey else picture)).convert("RGB")
  # A few pixels of a network's input are shown as such; photographs are made smaller with care.
  larger = image.size[0] > PICTURE
  return image.resize((PICTURE, PICTURE), Image.Resampling.LANCZOS if larger else Image.Resampling.NEAREST)


def _fitted(text, font):
  """The text, cut off where a tile has no more room."""
  if font.getlength(text) <= PICTURE:
    return text
  while text and font.getlength(f"{text}…") > PICTURE:
    text = text[:-1]
  return f"{text}…"


def _font(name):
  """A font with letters of many scripts that comes with matplotlib, whatever the system has."""
  import matplotlib

  return str(pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"))
