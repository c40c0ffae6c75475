"""Numbers in sentences."""


def number_of(count: int, what: str) -> str:
    """'1 file', '2,000 files'."""
    return f'{count:,} {what}{"" if count == 1 else "s"}'
