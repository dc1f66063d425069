"""The Hive agent: the program that a volunteer runs. ARCHITECTURE.md has the map of this package."""

__version__ = "0.1.0"

PROTOCOL_VERSION = 2
"""Version of everything that peers say to each other. Peers with another version are refused in the handshake."""
