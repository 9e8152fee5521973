"""Documents that repeat each other, or give the validation away."""
