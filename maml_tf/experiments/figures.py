"""What the plots of all domains share."""

import pathlib


def save_all(drawn, folder, formats=("png",)):
  """Writes name -> figure as <folder>/<name>.<format>; returns the paths."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  for name, figure in drawn.items():
    for extension in formats:
      paths.append(folder / f"{name}.{extension}")
      figure.savefig(paths[-1], dpi=120)
  return paths
