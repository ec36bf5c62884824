"""DreamerV3 in JAX: learning behaviours inside a learned world model.

The algorithm of "Mastering diverse control tasks through world models"
(Hafner et al., Nature 2025; arXiv 2301.04104v2). `dreamer.train` is where a
run starts and reads from top to bottom; `dreamer.config` lists every setting.

Shape letters, used in comments and docstrings everywhere:

    B  sequences in a batch               (batch_size)
    T  time steps trained on              (batch_length)
    K  context steps before those         (replay_context)
    H  imagined steps                     (agent.imag_length)
    A  actions, or action dimensions
    S  categorical variables of stoch     (agent.dyn.rssm.stoch)
    C  classes of each of them            (agent.dyn.rssm.classes)
    D  units of deter                     (agent.dyn.rssm.deter)
    G  blocks of the recurrent core       (agent.dyn.rssm.blocks)
"""

__version__ = "0.1.0"
