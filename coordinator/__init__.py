"""The coordinator: the Django site that introduces agents to each other and observes the training. It never carries it."""
