"""What clusterlm costs, as ratios measured in one run. `make bench` prints every table."""
