"""A model's files on disk: read, resized, merged, exported; no GPU, no model in memory."""
