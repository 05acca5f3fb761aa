"""The real data sets, where this machine has them: `.ci/run` does."""

import os

import pytest

REAL = os.environ.get("MAML_TF_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="MAML_TF_DATA does not name a folder with the real data")
