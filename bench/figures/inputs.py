"""Other inputs than Gaussian: how far the lemma's identity is off, and what becomes of W_perp.

python bench/figures/inputs.py --output FOLDER
"""

from common import colors, figure, parse, save

from derand_fast import discover_structure

INPUTS = ("gaussian", "uniform", "rademacher", "student_t")


def main():
    """Run every kind of input with several regularisers and draw the outcome."""
    arguments = parse(__doc__, hidden=50, seeds=3)
    rows = []
    for inputs in INPUTS:
        for lam in (1e-4, 1e-3, 1e-2, 1e-1):
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
    for inputs, color in zip(INPUTS, colors(), strict=False):
        chosen = [row for row in rows if row["inputs"] == inputs]
        axes[0].plot(
            [r["lam"] for r in chosen],
            [max(r["collapse"], 1e-17) for r in chosen],
            "o",
            color=color,
            label=inputs,
            alpha=0.8,
        )
        axes[1].plot(
            [max(r["stein_violation"], 1e-17) for r in chosen],
            [max(r["collapse"], 1e-17) for r in chosen],
            "o",
            color=color,
            alpha=0.8,
        )
    axes[0].set(xscale="log", yscale="log", xlabel="lambda", ylabel="||W_perp|| / its start")
    axes[1].set(
        xscale="log",
        yscale="log",
        ylabel="||W_perp|| / its start",
        xlabel="violation of grad_W f = (H_bb + 2 lam I) W at the start",
    )
    axes[0].legend()
    save(arguments.output, "inputs", fig, rows)


if __name__ == "__main__":
    main()
