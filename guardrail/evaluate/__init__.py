"""Measuring: labelled data, metrics with intervals, heads and policies on them."""
