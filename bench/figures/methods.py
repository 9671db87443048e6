"""Risk and ||W_perp|| over seconds: SGD, PGD, Hessian descent, Newton-CG. PNG and CSV.

python bench/figures/methods.py --output FOLDER
"""

from common import colors, figure, legend_above, parse, save, zero_at_foot

from derand_fast import discover_structure

METHODS = {
    "sgd": "SGD, fresh samples",
    "pgd": "perturbed gradient descent",
    "hessian_descent": "Hessian descent",
    "newton_cg": "Newton-CG",
}
FOOT = 1e-9
# Seconds are counted from the start of the descent, and drawn from here on.
FIRST = 1e-3


def main():
    """Run the four methods and draw them."""
    arguments = parse(__doc__, hidden=100, seeds=1)
    rows = []
    for method in METHODS:
        # Compile what it needs.
        discover_structure(
            "tanh", d=10, hidden=arguments.hidden, lam=1e-3, method=method, time_limit=0.1
        )
    fig, axes = figure(2)
    for (method, name), color in zip(METHODS.items(), colors(), strict=True):
        options = {"steps": 10**7} if method == "sgd" else {"max_iter": 10**6}
        result = discover_structure(
            "tanh", d=10, hidden=arguments.hidden, lam=1e-3, method=method, rho=1e-5,
            time_limit=arguments.time_limit, **options,
        )  # fmt: skip
        rows += [{"method": method, **row._asdict()} for row in result.history]
        said = "certified" if result.certificate.certified else "not certified"
        begin = result.history[0].seconds
        seconds = [max(row.seconds - begin, FIRST) for row in result.history]
        norms = [max(row.W_perp_norm, FOOT) for row in result.history]
        label = f"{name} ({said})"
        style = {"color": color, "drawstyle": "steps-post"}
        axes[0].plot(seconds, [row.fun for row in result.history], **style, label=label)
        axes[1].plot(seconds, norms, **style)
        axes[0].plot(seconds[-1], result.history[-1].fun, "o", color=color, markersize=4)
        axes[1].plot(seconds[-1], norms[-1], "o", color=color, markersize=4)
    axes[0].set(xlabel="seconds", ylabel="population risk f", xscale="log", yscale="log")
    axes[1].set(xlabel="seconds", ylabel=r"$\|W_\perp\|$", xscale="log")
    zero_at_foot(axes[1], FOOT)
    legend_above(fig, 2)
    save(arguments.output, "methods", fig, rows)


if __name__ == "__main__":
    main()
