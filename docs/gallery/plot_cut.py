"""
A cut, a bound, and how both were found
=======================================

A torus with weights +1 and -1 is a spin glass: neighbours that want to be on different sides, and
others that want to be on the same, in loops where not all can have their way.
"""

# %%
# A sign torus of 1,600 vertices. `max_cut` needs no more than the graph.

from derand_fast import max_cut
from derand_fast.generators import torus_grid

graph = torus_grid(40, 40, seed=1, weights="signs")
result = max_cut(graph, effort="quick")
print(result)

# %%
# The cut and the bound over time. Most of the gap belongs to the bound: the relaxation of a sign
# torus is some ten per cent above its best cuts.

figure = result.plot()

# %%
# What would random rounding of the relaxation have given? `expected_cut` is its expectation in
# closed form, no sampling; the derandomized cut is never below it.

print(f"random rounding {result.expected_cut:.1f}, derandomized {result.cut_value:.0f}")

# %%
# The two sides as a picture: domains of one colour are spins that agree.

import matplotlib.pyplot as plt

fig, axes = plt.subplots(figsize=(4, 4), layout="constrained")
axes.imshow(result.partition.reshape(40, 40), cmap="coolwarm", interpolation="nearest")
axes.set(title="sides of the cut", xticks=[], yticks=[])
plt.show()

# %%
# Several good cuts that differ in at least 50 vertices:

several = max_cut(graph, effort="quick", n_solutions=4, min_distance=50)
print([solution.cut_value for solution in several.solutions])
