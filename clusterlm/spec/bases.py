"""What each known base image brings: Python, torch, CUDA, NCCL. The base decides what can be added."""

from __future__ import annotations

DEFAULT_BASE = "nvcr.io/nvidia/pytorch:24.08-py3"
