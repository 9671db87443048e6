"""
A network finds its teacher's direction
=======================================

The teacher is y = tanh(u . x) in two dimensions; the student has 100 smooth ReLU units that start
pointing everywhere. With trained biases and a tiny regulariser a second-order stationary point has
no weight outside the direction u.
"""

# %%
from derand_fast import discover_structure

result = discover_structure("tanh", d=2, hidden=100, lam=1e-3, seed=0)
print(result)

# %%
# Each dot is a unit, before and after; and the norms of the two parts of the first layer.

figure = result.plot()

# %%
# The same with frozen biases: the lemma asks for trained ones, and what happens differs.

frozen = discover_structure("tanh", d=2, hidden=100, lam=1e-3, seed=0, train=("W1",), time_limit=5)
print(f"trained biases: {result.collapse:.1e} of W_perp is left")
print(f"frozen biases:  {frozen.collapse:.1e}")
