"""The one exception that every file here may raise."""


class Unjudged(Exception):
    """Nothing can be said of the product: a tool is missing, a server does not start."""
