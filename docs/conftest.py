"""Options of the tests of the built site."""


def pytest_addoption(parser):
    """Add --site."""
    parser.addoption("--site", default="docs/_build/html", help="folder of the built site")
