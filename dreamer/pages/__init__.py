"""The report page: a run as one HTML file that opens without a network.

`python -m dreamer.report` is the command; `dreamer.train` writes the page at
the end of a run. `read.py` finds what a logdir holds, `page.py` and
`index.py` say it, `charts.py` draws lines, `elements.py` makes HTML. Nothing
here imports JAX or Matplotlib: the page costs a run less than a second.
"""
