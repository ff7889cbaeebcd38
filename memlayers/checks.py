"""Checks of settings. They raise ValueError with one line: the key, the value, and what is accepted."""


def one_of(key: str, value: str, accepted: tuple[str, ...]) -> None:
    """Raises ValueError unless value is one of `accepted`."""
    if value not in accepted:
        raise ValueError(f"{key}={value!r} is not known; accepted: {', '.join(accepted)}")


def at_least(key: str, value: float, least: float) -> None:
    """Raises ValueError for a value below `least`."""
    if not value >= least:  # also for nan
        raise ValueError(f"{key}={value} is too small; accepted: {least} or more")


def positive(key: str, value: float | None, or_null: bool = False) -> None:
    """Raises ValueError for a value that is not above 0, but for None if `or_null`."""
    if not (or_null if value is None else value > 0):  # also for nan
        raise ValueError(f"{key}={value} is not positive; accepted: a number above 0{', or null' if or_null else ''}")


def within(key: str, value: float, low: float, high: float) -> None:
    """Raises ValueError for a value outside low .. high."""
    if not low <= value <= high:
        raise ValueError(f"{key}={value} is out of range; accepted: {low} to {high}")
