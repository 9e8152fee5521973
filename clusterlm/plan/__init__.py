"""What a training will need: parameters, FLOPs, memory, time, disk. No torch."""
