"""Package metadata. Every dependency carries the lowest version that is known to work."""

import pathlib

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent

# tf-agents pins a pygame without wheels for Python 3.12, so it is offered below that only.
TF_AGENTS = [
  "tf-agents>=0.18.0; python_version < '3.12'",
  "tf-keras>=2.16; python_version < '3.12'",
]
DEMO = ["flask>=3.1"]  # with TRUSTED_HOSTS
RENDER = ["imageio>=2.34", "imageio-ffmpeg>=0.5", "pillow>=10.1"]


class BuildWithSplits(build_py):
  """Puts the split files of data/ into the package, where `maml_tf.datasets.splits` looks first.

  Not by `package_data`, which cannot reach outside of a package; an editable installation reads them where they are.
  """

  def run(self):
    super().run()
    if not self.editable_mode:
      target = pathlib.Path(self.build_lib, "maml_tf", "datasets", "split_files")
      self.mkpath(str(target))
      for file in HERE.glob("data/*_split.json"):
        self.copy_file(str(file), str(target / file.name))


setup(
  name="maml_tf",
  cmdclass={"build_py": BuildWithSplits},
  version="0.1.0",
  description="Model-agnostic meta-learning (Finn et al. 2017) on TensorFlow 2 and Keras 3",
  long_description=(HERE / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="MIT",
  packages=find_packages(include=["maml_tf", "maml_tf.*"]),
  package_data={"maml_tf": ["py.typed"], "maml_tf.demo": ["page.html"]},
  entry_points={"console_scripts": ["maml-tf = maml_tf.__main__:console"]},
  python_requires=">=3.10",
  install_requires=[
    "tensorflow>=2.18",
    "keras>=3.5",
    "tensorflow-datasets>=4.9.7",
    "importlib_resources>=6.0",  # tensorflow-datasets needs it and does not name it
    "gymnasium[mujoco]>=1.1",
    "mujoco>=3.3.0",
    "absl-py>=2.0",
    "tensorboard>=2.18",  # TensorFlow 2.21 no longer brings it
    "matplotlib>=3.8",
    "pillow>=10.0",
    "tqdm>=4.66",
    "numpy>=1.26",
    "scipy>=1.11",
  ],
  extras_require={
    "tf-agents": TF_AGENTS,
    "demo": DEMO,
    "render": RENDER,
    "test": [
      "pytest>=8",
      "pytest-xdist>=3.5",
      "hypothesis>=6.100",
      "ruff>=0.6",
      "playwright>=1.45",
      *DEMO,
      *TF_AGENTS,
      *RENDER,
    ],
    "bench": ["torch>=2.2"],
  },
  classifiers=[
    "Programming Language :: Python :: 3",
    "Typing :: Typed",
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
  ],
)
