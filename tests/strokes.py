"""Strokes of five characters on a pad of 210 x 210, and of the same ones again by another hand."""

import io

from PIL import Image, ImageDraw

DRAWN = (
  [[(40, 45), (170, 45)], [(105, 45), (105, 170)]],
  [[(45, 45), (165, 45), (45, 165), (165, 165)]],
  [[(50, 40), (50, 170)], [(160, 40), (160, 170)], [(50, 105), (160, 105)]],
  [[(60, 165), (60, 40), (150, 40)], [(60, 100), (130, 100)]],
  [[(40, 40), (170, 170)], [(170, 40), (40, 170)]],
)
AGAIN = (
  [[(60, 50), (160, 60)], [(110, 52), (100, 165)]],
  [[(55, 55), (150, 45), (60, 160), (170, 150)]],
  [[(60, 50), (55, 160)], [(150, 45), (155, 165)], [(58, 110), (150, 100)]],
  [[(70, 160), (65, 50), (150, 45)], [(68, 95), (140, 100)]],
  [[(50, 55), (160, 160)], [(165, 50), (55, 165)]],
)


def png(drawing):
  """Dark strokes on a light pad, as the bytes of a file."""
  image = Image.new("L", (210, 210), "white")
  for points in drawing:
    ImageDraw.Draw(image).line(points, 0, 6)
  file = io.BytesIO()
  image.save(file, "PNG")
  return file.getvalue()
