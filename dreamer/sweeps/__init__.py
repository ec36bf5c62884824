"""Many runs: planned, recorded, started here or on a cluster, looked after.

  grid.py      what a command line asks for: runs, each with its own folder
  record.py    sweep.json: the runs and the jobs that were submitted
  standing.py  how a run is doing, seen from outside
  output.py    what a run prints, and the lock that says it is going on
  trial.py     whether tasks of Gymnasium can be built at all
  estimate.py  steps, hours, RAM and disk, before anything is started
  table.py     what a person sees of all that
  local.py     starts the runs on this machine, slots.py with a share of it
  slurm.py     submits them as an array job
  k8s.py       writes them down as an Indexed Job

Nothing here imports JAX: a sweep leaves the accelerators to its runs. Begin
with `dreamer/sweep.py`, which reads top to bottom.
"""
