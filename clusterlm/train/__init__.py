"""The GPU nodes: model, blocks, callbacks, loop. `loop.py` is the page to start at."""
