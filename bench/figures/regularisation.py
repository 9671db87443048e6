"""Collapse against the regulariser, with trained and with frozen biases: PNG and CSV.

python bench/figures/regularisation.py --output FOLDER
"""

from common import colors, figure, legend_above, parse, save, zero_at_foot

from derand_fast import discover_structure

LAMBDAS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FOOT = 1e-10


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
    fig, axes = figure(2)
    for biases, color, shift in (("trained", colors()[0], 0.9), ("frozen", colors()[1], 1.1)):
        for certified, filled in ((True, color), (False, "none")):
            chosen = [r for r in rows if r["biases"] == biases and r["certified"] == certified]
            style = {"ls": "none", "marker": "o", "color": color, "markerfacecolor": filled}
            x = [r["lam"] * shift for r in chosen]
            axes[0].plot(
                x, [max(r["W_perp"] / r["W_perp_start"], FOOT) for r in chosen], **style,
                label=f"biases {biases}, {'certified' if certified else 'not certified in time'}",
            )  # fmt: skip
            axes[1].plot(x, [r["risk"] for r in chosen], **style)
    for ax in axes:
        ax.set(xscale="log", xlabel=r"$\lambda$")
    axes[0].set_ylabel(r"$\|W_\perp\|$ at the end / at the start")
    zero_at_foot(axes[0], FOOT)
    axes[1].set(yscale="log", ylabel="population risk f at the end")
    legend_above(fig, 2)
    save(arguments.output, "regularisation", fig, rows)


if __name__ == "__main__":
    main()
