"""Writes down what arrives: argv and environment, as they are."""

import json
import os
import sys

seen = {"argv": sys.argv[1:], "env": dict(os.environ)}
name = f"seen-{os.environ['RANK']}.json"
with open(os.path.join(os.environ["CLUSTERLM_RUN_DIR"], name), "w") as file:
    json.dump(seen, file)
