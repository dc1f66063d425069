"""The `hive-agent` command: one module per verb. Each has SUMMARY, EXAMPLE, `arguments(parser)` and `run(args) -> exit code`."""
