"""The published tables: every entry is one stream under one protocol, run with several methods and seeds.

`entries` lists them, `choices` finds rates and strengths; `runs` and `jobs` run what is missing. `page` and `write`
make the results page, `headline` the short tables of docs/benchmarks, `readme_table` those of the README, `facts`
the sentences beside them, `public` the published figures, and `markers` finds the place in a page that is replaced.
"""
