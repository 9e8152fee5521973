"""Shards: tokens on the disk, written by many workers, read by address."""
