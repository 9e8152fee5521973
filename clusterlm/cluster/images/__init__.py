"""Container images: what goes into one, building and importing it, what is there already."""
