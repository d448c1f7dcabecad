"""Errors of what a user gives."""


class ParameterError(ValueError):
    """A parameter file or an override that cannot be used; the message says what, where and what to do."""
