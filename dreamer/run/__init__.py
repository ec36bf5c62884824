"""What ties environments, replay and agent into a training run.

  state.py       class Run: builds the parts, saves and restores them
  parts.py       the replay of a run, and what a checkpoint must hold
  budget.py      updates that policy steps have bought and that are owed
  driver.py      acts in the environments, fills the replay
  learner.py     gradient updates on replayed batches, prepared in advance
  nonfinite.py   updates that were not applied
  checkpoint.py  saves and restores a run, in the background
  shelf.py       which checkpoints there are, and which go
  archive.py     the directory of one checkpoint, readable by NumPy
  saver.py       when it saves: with the other processes, and again if need be
  logdir.py      the folder of a run: looked at, locked, begun
  lock.py        one run at a time in a logdir
  record.py      what each start ran, with what, on what
  append.py      files that grow by whole records, whatever the disk does
  patience.py    bears with a disk that is full, for a while
  faults.py      out of memory, in one line
  threads.py     work beside the run
  device.py      picks devices and precision
  peers.py       the processes of one run
  rollcall.py    how they meet, or learn who is missing
  plan.py        says what the run will do, need and take
  dreams.py      films of what the world model predicts
  pictures.py    how their frames are laid out
  logger.py      metrics on disk
  tensorboard.py the same as events of TensorBoard
  wandb_run.py   the same in Weights & Biases
  progress.py    metrics on screen
  when.py        timers, and the signals that stop a run

and of a trained agent that plays:

  policy.py      a checkpoint that acts (begin here)
  snapshot.py    which checkpoint, and its settings
  episodes.py    scores of a fixed number of episodes
  films.py       films of them
  ticker.py      how far it is, on screen

Begin with `dreamer/train.py`, which reads top to bottom.
"""
