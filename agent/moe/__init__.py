"""Decentralized mixture of experts: gating, beam search, quorum, deadlines, and the layer that calls experts."""
