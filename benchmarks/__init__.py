"""Speed and memory beside others. PyTorch is imported here only; the package itself never imports this one."""
