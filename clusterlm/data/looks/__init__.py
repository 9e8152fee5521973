"""For people: previews, statistics, checks, what lies in the cache."""
