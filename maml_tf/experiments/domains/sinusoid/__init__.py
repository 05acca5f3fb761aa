"""Sine waves (Finn et al. 2017, section 5.1)."""
