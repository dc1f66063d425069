"""`./hive demo`: a coordinator and several agents on one machine, as separate processes, really training.

`plan` holds what was asked for, `records` reads what the agents write, `summary` measures, `processes` starts and ends them,
`run` conducts.
"""
