"""How one number or name is written, in the table and in the report; undefined is a dash, never a number."""

DASH = "-"


def percent(value: float | None) -> str:
    """A fraction or a difference of fractions in percent; an exact zero is told from one that was rounded.

    >>> percent(0.95312), percent(-0.5), percent(0.0), percent(0.00001), percent(None)
    ('95.31', '-50.00', '0', '0.00', '-')
    """
    if value is None:
        return DASH
    return "0" if value == 0 else f"{100 * value:.2f}".replace("-0.00", "0.00")


def count(value: float | None) -> str:
    """A number of parameters in at most 6 characters.

    >>> count(0), count(768), count(92160), count(22713216), count(1.5e9), count(None)
    ('0', '768', '92.2k', '22.7M', '1.5G', '-')
    """
    if value is None:
        return DASH
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.99995 * size and value >= 1000:
            return f"{value / size:.1f}{suffix}"
    return f"{value:.0f}"


def exact(value: float | None) -> str:
    """A whole number with its thousands set apart.

    >>> exact(22713216), exact(None)
    ('22,713,216', '-')
    """
    return DASH if value is None else f"{value:,.0f}"


def ratio(value: float | None) -> str:
    """A quotient to three places, or to three digits below 0.1.

    >>> ratio(0.2951), ratio(1.0), ratio(0.00784493), ratio(0), ratio(None)
    ('0.295', '1.000', '0.00784', '0', '-')
    """
    if value is None:
        return DASH
    if value == 0:
        return "0"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """A wall time in seconds.

    >>> seconds(0.034), seconds(5.24), seconds(512.3), seconds(None)
    ('0.03', '5.2', '512', '-')
    """
    if value is None:
        return DASH
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def size(value: float | None) -> str:
    """Bytes with a binary unit.

    >>> size(160), size(94371840), size(None)
    ('160 B', '90.0 MiB', '-')
    """
    if value is None:
        return DASH
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def duration(value: float | None) -> str:
    """Time left or taken, in the two largest units.

    >>> duration(4.4), duration(64), duration(3700), duration(90061), duration(None)
    ('4s', '1m04s', '1h01m', '1d01h', '-')
    """
    if value is None:
        return DASH
    whole = round(value)
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // part:02d}{part_name}"
    return f"{whole}s"


def shortened(name: str, width: int) -> str:
    """A name of at most `width` characters, its middle left out where it is longer.

    >>> shortened("sequential_lora_one_head", 12)
    'seque…e_head'
    """
    if len(name) <= width:
        return name
    start = (width - 1) // 2
    return f"{name[:start]}…{name[start + 1 - width :]}"
