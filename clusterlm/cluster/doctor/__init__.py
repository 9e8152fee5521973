"""What a cluster has and allows: asked, told in words, kept as a Probe."""
