"""Small graphs: the derandomized cut beside the exact optimum and random hyperplane rounding.

    python bench/figures/small_cut.py --output FOLDER [--graphs 20] [--vertices 15]

Random graphs with edge probability 0.6, the setting of the published code. For each:
the exact optimum over all cuts; the expected cut of Goemans-Williamson rounding at the relaxation's
optimum, in closed form, and the best of 10 and 100 random hyperplanes; the cut where a descent of
the smoothed objective from the relaxation's vectors ends, with ||W|| there and whether it is
certified; and the annealed search. Left: cuts as shares of the optimum. Right: ||W|| over the
iterations of the descents.
"""

import networkx as nx
import numpy as np
from common import colors, figure, parse, save

from derand_fast import MaxCutObjective, max_cut, newton_cg
from derand_fast.objectives import pack

TAU, LAM, RHO = 0.1, 0.03, 1e-4
EDGE_PROBABILITY = 0.6


def random_weights(n, seed):
    """Return the matrix of a random graph."""
    graph = nx.gnp_random_graph(n, EDGE_PROBABILITY, seed=seed)
    return nx.to_numpy_array(graph, weight=None)


def exact_optimum(matrix):
    """Return the largest cut by trying all 2^(n - 1)."""
    n = len(matrix)
    bits = np.arange(2 ** (n - 1), dtype=np.int64)[:, None] >> np.arange(n) & 1
    signs = (2 * bits - 1).astype(np.float64)
    quadratic = np.einsum("ci,ij,cj->c", signs, matrix, signs, optimize=True)
    return float((matrix.sum() - quadratic.min()) / 4)


def relaxed_vectors(matrix, generator):
    """Return unit rows that solve the relaxation: a slow, obvious mixing method at full rank."""
    n = len(matrix)
    rows = generator.standard_normal((n, n))
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    for _ in range(2000):
        for i in range(n):
            pull = -matrix[i] @ rows
            length = np.linalg.norm(pull)
            if length > 0.0:
                rows[i] = pull / length
    return rows


def rounded_cuts(matrix, rows, count, generator):
    """Return the cuts of random hyperplanes."""
    signs = np.sign(rows @ generator.standard_normal((rows.shape[1], count)))
    return (matrix.sum() - np.einsum("ic,ij,jc->c", signs, matrix, signs, optimize=True)) / 4


def cut_value(matrix, signs):
    """Return the cut of signs."""
    return float((matrix.sum() - signs @ matrix @ signs) / 4)


def row_of(n, seed):
    """Solve one graph in all ways; return its numbers and ||W|| over the descent."""
    matrix = random_weights(n, seed)
    generator = np.random.default_rng(seed)
    rows = relaxed_vectors(matrix, generator)
    cosines = np.clip(rows @ rows.T, -1.0, 1.0)
    rounded = rounded_cuts(matrix, rows, 100, generator)
    objective = MaxCutObjective(matrix, n, tau=TAU, lam=LAM)
    start = pack(objective, W=rows, b=np.zeros(n))
    descent = newton_cg(objective, start, rho=RHO, curvature_tol=LAM, seed=seed)
    annealed = max_cut(matrix, seed=seed)
    numbers = {
        "seed": seed,
        "edges": int(matrix.sum() / 2),
        "optimum": exact_optimum(matrix),
        "sdp": float((matrix * (1.0 - cosines)).sum() / 4),
        "upper_bound": annealed.upper_bound,
        "expected_rounding": float((matrix * np.arccos(cosines)).sum() / (2 * np.pi)),
        "rounding_best_of_10": float(rounded[:10].max()),
        "rounding_best_of_100": float(rounded.max()),
        "descent": cut_value(matrix, objective.partition(descent.x)),
        "descent_W_norm": descent.W_norm,
        "descent_certified": bool(descent.certified),
        "annealed": annealed.cut_value,
    }
    return numbers, [step.W_norm for step in descent.history]


def main():
    """Solve, draw, write."""
    arguments = parse(__doc__, graphs=20, vertices=15)
    solved = [row_of(arguments.vertices, seed) for seed in range(arguments.graphs)]
    rows = [numbers for numbers, _ in solved]
    fig, (left, right) = figure(2)
    seeds = np.arange(arguments.graphs)
    names = ("expected_rounding", "rounding_best_of_10", "descent", "annealed")
    labels = ("Goemans-Williamson, expected", "best of 10 hyperplanes", "descent of f", "annealed")
    for name, label, color, marker in zip(names, labels, colors(), "o^sx", strict=True):
        shares = [row[name] / row["optimum"] for row in rows]
        left.plot(seeds, shares, marker, color=color, label=label, markerfacecolor="none")
    left.axhline(1.0, color="black", linewidth=0.8)
    left.axhline(0.87856, color="black", linewidth=0.8, linestyle=":", label="0.878 of the optimum")
    left.set(xlabel="graph (seed)", ylabel="cut / exact optimum", xticks=seeds[::2])
    left.legend(loc="lower left", fontsize=8, ncols=2, bbox_to_anchor=(0.0, 1.0))
    for _, norms in solved:
        right.plot(np.maximum(norms, 1e-6), color=colors()[2], alpha=0.5, linewidth=1.0)
    right.set(xlabel="iteration", ylabel="||W||_F (1e-6 stands for 0)", yscale="log")
    right.set_title("randomness left", fontsize=10)
    save(arguments.output, "small_cut", fig, rows)


if __name__ == "__main__":
    main()
