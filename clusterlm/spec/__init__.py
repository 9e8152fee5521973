"""What a user asks for. Pydantic only; `job.py` is where to start, `load.py` reads the YAML."""
