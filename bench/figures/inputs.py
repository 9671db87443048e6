"""Other inputs than Gaussian: how far the lemma's identity is off, and what becomes of W_perp.

python bench/figures/inputs.py --output FOLDER
"""

from common import colors, figure, legend_above, parse, save, zero_at_foot

from derand_fast import discover_structure

INPUTS = {
    "gaussian": "Gaussian",
    "uniform": "uniform",
    "rademacher": "Rademacher",
    "student_t": "Student t, 5 degrees of freedom",
}
LAMBDAS = (1e-4, 1e-3, 1e-2, 1e-1)
FOOT = 1e-5


def main():
    """Run every kind of input with several regularisers and draw the outcome."""
    arguments = parse(__doc__, hidden=50, seeds=3)
    rows = []
    for inputs in INPUTS:
        for lam in LAMBDAS:
            for seed in range(arguments.seeds):
                result = discover_structure(
                    "tanh", d=5, hidden=arguments.hidden, lam=lam, inputs=inputs, rho=1e-5,
                    seed=seed, time_limit=arguments.time_limit,
                )  # fmt: skip
                rows.append(
                    {
                        "inputs": inputs,
                        "lam": lam,
                        "seed": seed,
                        "collapse": result.collapse,
                        "stein_violation": result.stein_violation,
                        "certified": result.certificate.certified,
                        "risk": result.certificate.fun,
                        "angle": result.angle,
                        "lemma_applies": result.lemma_applies,
                    }
                )
    fig, axes = figure(2)
    for place, ((inputs, name), color) in enumerate(zip(INPUTS.items(), colors(), strict=True)):
        for certified, filled in ((True, color), (False, "none")):
            chosen = [
                row for row in rows if row["inputs"] == inputs and row["certified"] == certified
            ]
            # Side by side, so that none hides another.
            x = [row["lam"] * 1.15 ** (place - 1.5) for row in chosen]
            style = {"ls": "none", "marker": "o", "color": color, "markerfacecolor": filled}
            collapse = [max(row["collapse"], FOOT) for row in chosen]
            axes[0].plot(x, collapse, **style)
            axes[1].plot(x, [row["stein_violation"] for row in chosen], **style)
        axes[0].plot([], [], "o", color=color, label=name)
    axes[0].plot([], [], "o", color="black", markerfacecolor="none", label="not certified in time")
    for ax in axes:
        ax.set(xscale="log", xlabel=r"$\lambda$")
    axes[0].set_ylabel(r"$\|W_\perp\|$ at the end / at the start")
    zero_at_foot(axes[0], FOOT)
    axes[1].set(yscale="log", ylabel="relative violation of Stein's identity at the start")
    legend_above(fig, 5)
    save(arguments.output, "inputs", fig, rows)


if __name__ == "__main__":
    main()
