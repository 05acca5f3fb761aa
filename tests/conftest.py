"""Shared by all tests: TensorFlow without its start-up messages, and Keras back in float32 after every test."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture
def float64():
  """Keras variables and initial weights in float64, for finite differences."""
  keras.config.set_floatx("float64")
  yield
  keras.config.set_floatx("float32")
