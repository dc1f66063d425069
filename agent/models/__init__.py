"""The networks that an experiment may train, and the arithmetic of their sizes."""
