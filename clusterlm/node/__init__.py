"""In the container, on every node: agent, rank parent, heartbeats, exit records, checkpoint seals.

Standard library only and Python 3.10: this runs in images we did not make. Every other room may
import these files, because they define what the rooms write for each other in the run directory.
"""
