"""queries10: the same questions over tables in ten query languages. The questions are generated, not asked by people.

`tables` has the tables; `query` says what a question is, without words or a language; `questions` makes all of them;
`wordings` puts one into English, in four ways; `languages` writes its answer, one file for each language. `stream` puts
them together as ten tasks. `rows` fills the tables, `reference` answers a question in plain Python, and `execution`
runs the answers in SQL, pandas and Polars.
"""
