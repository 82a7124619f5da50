"""Measurements that the README's figures come from.

Suites are `adapters`, `gpu`, `lm`, `prefix`, `roofline`, `serve`, `tasks`, `tests` and `train`: their first line says
so. `decoders` are the models of `gpu` and `lm`, whose parts `lm_decode`, `lm_memory` and `lm_llama_cpp` stand alone;
`llama_files` writes what the last one loads.
`suite`, `timing` and `record` are what they share; `peer` runs the other side, whose code is in `peers`; `page` and
`plot` show the results.
"""
