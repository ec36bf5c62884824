"""The learning agent, pure JAX; modules are in the order of the paper.

agent.py         train state, the one update, the acting step
world_model.py   encoder, RSSM, decoder, heads, and their loss
encoder.py       images and vectors to tokens, states to reconstructions
rssm.py          recurrent state-space model: core, prior, posterior
actor_critic.py  actor and critic, in imagination and on replay
returns.py       lambda-returns and the range of returns
dream.py         reconstructions and predictions, for people to look at
optim.py         AGC and LaProp
layout.py        how several devices share an update
networks.py      layers;  distributions.py  what heads predict
"""
