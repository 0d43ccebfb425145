"""Figures as people read them: short numbers, sizes and times."""

__all__ = ["age", "seconds", "short", "size"]

_STEPS = (("d", 86400), ("h", 3600), ("m", 60))


def short(number: float) -> str:
    """Return a count in at most five characters: 999, 1.2k, 35M."""
    return _scaled(number, 1000, ("", "k", "M", "G", "T", "P"))


def size(number: float) -> str:
    """Return a number of bytes: 999 B, 1.2 KB, 35 MB; a KB has 1024."""
    return _scaled(number, 1024, (" B", " KB", " MB", " GB", " TB", " PB"))


def seconds(number: float) -> str:
    """Return a short time: 25 us, 1.2 ms, 3.5 s."""
    for unit, factor in ((" us", 1e6), (" ms", 1e3)):
        if number * factor < 999.5:
            return _rounded(number * factor) + unit
    return _rounded(number) + " s"


def age(seconds_ago: float) -> str:
    """Return a long time in one unit, rounded down: 12s, 5m, 3h, 2d."""
    for unit, length in _STEPS:
        if seconds_ago >= length:
            return f"{seconds_ago // length:.0f}{unit}"
    return f"{max(0.0, seconds_ago):.0f}s"


def _scaled(number: float, step: int, units: tuple[str, ...]) -> str:
    for unit in units[:-1]:
        if number < 999.5:
            return (f"{number:.0f}" if unit == units[0] else _rounded(number)) + unit
        number /= step
    return _rounded(number) + units[-1]


def _rounded(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"
