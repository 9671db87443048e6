"""Risk and ||W_perp|| over seconds: SGD, PGD, Hessian descent, Newton-CG. PNG and CSV.

python bench/figures/methods.py --output FOLDER
"""

from common import colors, figure, parse, save

from derand_fast import discover_structure

METHODS = ("sgd", "pgd", "hessian_descent", "newton_cg")


def main():
    """Run the four methods and draw them."""
    arguments = parse(__doc__, hidden=100, seeds=1)
    rows = []
    fig, axes = figure(2)
    for method, color in zip(METHODS, colors(), strict=False):
        options = {"steps": 10**7} if method == "sgd" else {"max_iter": 10**6}
        result = discover_structure(
            "tanh", d=10, hidden=arguments.hidden, lam=1e-3, method=method, rho=1e-5,
            time_limit=arguments.time_limit, **options,
        )  # fmt: skip
        rows += [{"method": method, **row._asdict()} for row in result.history]
        said = "certified" if result.certificate.certified else "not certified"
        seconds = [row.seconds for row in result.history]
        axes[0].plot(
            seconds, [row.fun for row in result.history], color=color, label=f"{method} ({said})"
        )
        axes[1].plot(seconds, [row.W_perp_norm for row in result.history], color=color)
    axes[0].set(xlabel="seconds", ylabel="f", xscale="log", yscale="log")
    axes[1].set(xlabel="seconds", ylabel="||W_perp||", xscale="log")
    axes[1].set_yscale("log", nonpositive="mask")
    axes[0].legend()
    save(arguments.output, "methods", fig, rows)


if __name__ == "__main__":
    main()
