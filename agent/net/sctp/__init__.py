"""SCTP for data channels, sans-IO. `association.py` is the way in; docs/decisions/ says why it is ours."""
