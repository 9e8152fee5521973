"""Tests of clusterlm."""
