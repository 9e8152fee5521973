"""A real Slurm of several nodes on one machine, for the tests.

`slurm.py` holds the bed itself, `fixture.py` hands it to pytest, `__main__.py` to a person.
"""
