"""What ``python -m bench run``, ``report`` and ``compare`` share."""
