"""What runs Hive somewhere: the demo on one machine, the checks of a change, and the files for a server."""
