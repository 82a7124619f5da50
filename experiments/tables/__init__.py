"""The published tables: every entry is one stream under one protocol, run with several methods and seeds."""
