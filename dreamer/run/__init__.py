"""What ties environments, replay and agent into a training run.

  state.py       class Run: builds the parts, saves and restores them
  driver.py      acts in the environments, fills the replay
  learner.py     gradient updates on replayed batches, prepared in advance
  checkpoint.py  the files of a checkpoint
  device.py      picks device and precision
  plan.py        says what the run will do, need and take
  logger.py      metrics on disk
  progress.py    metrics on screen
  when.py        timers, and the signals that stop a run

Begin with `dreamer/train.py`, which reads top to bottom.
"""
