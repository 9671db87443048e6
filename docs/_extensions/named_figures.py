"""Scraper of sphinx-gallery: figures that an example has named, though pyplot never saw them."""

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst


def save_named_figures(block, block_vars, gallery_conf):
    """Save the figures among the example's names and take them out of these."""
    names = block_vars["example_globals"]
    saved = []
    for name, figure in list(names.items()):
        # Figures of pyplot have a number; the scraper for matplotlib saves those.
        if isinstance(figure, Figure) and not hasattr(figure, "number"):
            saved.append(next(block_vars["image_path_iterator"]))
            figure.savefig(saved[-1], dpi=100)
            del names[name]
    return figure_rst(saved, gallery_conf["src_dir"])


def _get_sg_image_scraper():
    return save_named_figures
