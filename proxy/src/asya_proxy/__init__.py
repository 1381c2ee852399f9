"""The state proxy: a Unix socket in, a bucket out."""
