"""Text as bytes, and batches of it as pure functions of (seed, peer, step)."""
