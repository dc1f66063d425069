"""The distributed hash table: sans-IO, no torch, no asyncio. `node.DhtNode` is the machine; `net/overlay.py` drives it.

Messages are routed recursively over connections that are already open (R/Kademlia, Heep 2010), along several paths that
avoid one another (S/Kademlia, Baumgart and Mies 2007, section 4.4), because opening a WebRTC connection is expensive.
"""
