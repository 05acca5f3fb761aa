"""What goes with a result."""

import pathlib

import pytest

from maml_tf.experiments import provenance


@pytest.mark.parametrize(
  ("cpuinfo", "expected"),
  [
    ("model name\t: A\nflags\t\t: fpu sse4_2 avx avx2 fma\n\nflags\t\t: fpu\n", "sse4_2 avx avx2"),
    ("flags : avx512_bf16 avx512f avx2\n", "avx2 avx512f avx512_bf16"),
    ("processor: 0\nFeatures : fp asimd sve\n", "asimd sve"),
    ("processor: 0\n", None),
  ],
)
def test_the_instruction_set_is_that_of_the_first_processor(cpuinfo, expected, monkeypatch):
  monkeypatch.setattr(pathlib.Path, "read_text", lambda self, encoding: cpuinfo)
  assert provenance.instruction_set() == expected


def test_without_proc_it_is_unknown(monkeypatch):
  def missing(self, encoding):
    raise FileNotFoundError

  monkeypatch.setattr(pathlib.Path, "read_text", missing)
  assert provenance.instruction_set() is None and provenance._processor_name()


def test_a_result_names_the_hardware():
  hardware = provenance.describe()["hardware"]
  assert set(hardware) == {"processor", "instruction_set", "cores", "accelerators"}
