"""The learning agent, pure JAX; modules in reading order.

agent.py          train state, the one update, the acting step
world_model.py    encoder, RSSM, decoder, heads, and their loss
encoder.py        images and vectors to tokens
rssm.py           recurrent state-space model: core, prior, posterior
decoder.py        states to reconstructions
actor_critic.py   actor and critic, in imagination and on replay
returns.py        lambda-returns and the range of returns
optim.py          AGC and LaProp
dream.py          reconstructions and predictions, for people to look at

networks.py       layers
distributions.py  what heads predict, symlog
types.py          names of the dicts that functions pass on

convolutions.py   the layers of encoder and decoder that resize images
convolve.py       stride-1 convolution, fast on every backend
observe_scan.py   the RSSM's loop over observed steps, and its gradient
layout.py         how several devices share an update
"""
