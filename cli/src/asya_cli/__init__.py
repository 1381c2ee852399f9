"""Asya state: asya_cli."""
