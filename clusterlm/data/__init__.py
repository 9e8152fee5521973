"""One node, no torch: sources -> tokenizer -> encode -> pack -> cache. `preprocess.py` is the page to start at."""
