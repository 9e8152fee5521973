"""A machine behind SSH: programs run there, files go over. Knows nothing of what is asked of it."""
