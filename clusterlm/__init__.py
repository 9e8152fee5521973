"""clusterlm: one YAML file, one language model trained on a Slurm cluster."""

__version__ = "0.1.0"
