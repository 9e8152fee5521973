"""Chat templates and what they do to a conversation."""
