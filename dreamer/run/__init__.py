"""What ties environments, replay and agent into a training run.

  driver.py      acts in the environments, fills the replay
  learner.py     gradient updates on replayed batches, prepared in advance
  checkpoint.py  saves and restores all of it
  plan.py        says at the start what the run will do and need
  logger.py      metrics on disk;  progress.py  metrics on screen

Begin with `dreamer/train.py`, which reads top to bottom.
"""
