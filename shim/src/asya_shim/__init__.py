"""Asya state: asya_shim."""
