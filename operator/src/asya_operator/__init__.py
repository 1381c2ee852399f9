"""Asya state: asya_operator."""
