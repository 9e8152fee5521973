"""Files of many formats -> chunks -> records."""
