"""What a run leaves behind: `results.json`, and the table, report and figures that are made of it alone.

`results` and `schema` are that file; `table` is printed; `markdown`, `html` and `page` are the report, `figures`,
`charts` and `svg` its pictures. `announce`, `progress`, `notify`, `scalars` and `event_file`
tell of a run before, while and after it lasts.
"""
