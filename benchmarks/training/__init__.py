"""The trainers that are compared, each in a process of its own; see `train_throughput.py`."""
