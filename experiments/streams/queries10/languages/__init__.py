"""A question's answer in ten query languages: one file and one function for each."""

from collections.abc import Callable

from experiments.streams.queries10.languages.cypher import cypher
from experiments.streams.queries10.languages.dplyr import dplyr
from experiments.streams.queries10.languages.jq import jq
from experiments.streams.queries10.languages.julia_frames import julia_frames
from experiments.streams.queries10.languages.kql import kql
from experiments.streams.queries10.languages.linq import linq
from experiments.streams.queries10.languages.mongodb import mongodb
from experiments.streams.queries10.languages.pandas_frames import pandas_frames
from experiments.streams.queries10.languages.polars_frames import polars_frames
from experiments.streams.queries10.languages.sql import sql
from experiments.streams.queries10.query import Query

LANGUAGES: dict[str, Callable[[Query], str]] = {
    "SQL": sql,
    "MongoDB": mongodb,
    "pandas": pandas_frames,
    "Polars": polars_frames,
    "dplyr": dplyr,
    "Cypher": cypher,
    "LINQ": linq,
    "KQL": kql,
    "Julia DataFrames": julia_frames,
    "jq": jq,
}
"""The ten, by the name that a prompt calls them, in the order in which they are learnt."""
