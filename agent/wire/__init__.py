"""One connection's protocol, sans-IO: handshake, framing, calls, flow control. Start at `connection.py`."""
