"""Asya state: asya_runtime."""
