"""How trainers keep one trunk: the trunk itself, whom to average with and when, and the exchange over the network."""
