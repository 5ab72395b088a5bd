"""Layers in, layers out. The only place that knows torch."""
