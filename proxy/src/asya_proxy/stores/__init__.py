"""Stores: one file each, sharing nothing but `base`."""
