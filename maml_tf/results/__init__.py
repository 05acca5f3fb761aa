"""What is made of finished and unfinished runs: results files, kept checkpoints, tables and figures."""
