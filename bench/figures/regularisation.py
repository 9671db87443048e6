"""Collapse against the regulariser, with trained and with frozen biases: PNG and CSV.

python bench/figures/regularisation.py --output FOLDER
"""

from common import colors, figure, parse, save

from derand_fast import discover_structure

LAMBDAS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def main():
    """Run the sweep and draw it."""
    arguments = parse(__doc__, hidden=200, seeds=3)
    rows = []
    for lam in LAMBDAS:
        for biases, train in (("trained", ("W1", "b1")), ("frozen", ("W1",))):
            for seed in range(arguments.seeds):
                result = discover_structure(
                    "tanh", d=2, hidden=arguments.hidden, lam=lam, train=train, seed=seed,
                    time_limit=arguments.time_limit,
                )  # fmt: skip
                rows.append(
                    {
                        "lam": lam,
                        "biases": biases,
                        "seed": seed,
                        "W_perp": result.W_perp_norm,
                        "W_perp_start": result.W_perp_norm_initial,
                        "collapse_bound": result.certificate.collapse_bound,
                        "risk": result.certificate.fun,
                        "certified": result.certificate.certified,
                        "lambda_min": result.certificate.lambda_min,
                        "seconds": result.seconds,
                    }
                )
    fig, axes = figure(1)
    # On a logarithmic axis zero is drawn at the foot.
    foot = 1e-17
    for biases, color in zip(("trained", "frozen"), colors(), strict=False):
        for certified, marker in ((True, "o"), (False, "x")):
            chosen = [r for r in rows if r["biases"] == biases and r["certified"] == certified]
            axes[0].plot(
                [r["lam"] for r in chosen],
                [max(r["W_perp"] / r["W_perp_start"], foot) for r in chosen],
                marker, ls="none", color=color, alpha=0.8,
                label=f"biases {biases}, {'certified' if certified else 'not certified'}",
            )  # fmt: skip
    axes[0].set(
        xscale="log", yscale="log", xlabel="lambda", ylabel="||W_perp|| / its start",
        title="Collapse at second-order stationary points (foot of the axis: exactly 0)",
    )  # fmt: skip
    axes[0].legend(loc="center left")
    save(arguments.output, "regularisation", fig, rows)


if __name__ == "__main__":
    main()
