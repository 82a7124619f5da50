"""Measurements that the README's figures come from.

Suites are `adapters`, `lm`, `prefix`, `roofline`, `serve`, `tasks`, `tests` and `train`: their first line says so.
`suite`, `timing` and `record` are what they share; `peer` runs the other side, whose code is in `peers`; `page` and
`plot` show the results.
"""
