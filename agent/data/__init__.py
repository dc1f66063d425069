"""Text as bytes, images of digits, and batches of them as pure functions of (seed, peer, step)."""
