"""Writes data/omniglot_split.json from the class names of Lake's folders; kept to show where the list came from.

python data/make_omniglot_split.py DIR/omniglot
"""

import json
import pathlib
import random
import sys

folder = pathlib.Path(sys.argv[1])
names = sorted(f"{p.parent.name}/{p.name}" for p in folder.glob("images_*/*/character*"))
random.Random(1).shuffle(names)  # the published code's seed; its order before shuffling was that of a folder listing
split = {
  "train": sorted(names[:1100]),
  "val": sorted(names[1100:1200]),
  "test": sorted(names[1200:]),
  "evaluation_alphabets": sorted(p.name for p in (folder / "images_evaluation").iterdir()),
}
pathlib.Path(__file__).with_name("omniglot_split.json").write_text(json.dumps(split, indent=0) + "\n")
