"""Numbers and lists as the pages write them."""


def joined(words):
    """One or more words as a list in a sentence: "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def percent(share):
    """A share in 0..1 as "12.34%"; "" of None."""
    return "" if share is None else f"{share:.2%}"


def points(difference, sign=""):
    """A difference of shares in points, "1.23", with `sign` "+" also its sign where it is positive; "" of None."""
    return "" if difference is None else f"{100 * difference:{sign}.2f}"


def between(low, high, show):
    """An interval, both ends as `show` writes them; "" where `low` is None."""
    return "" if low is None else f"{show(low)} to {show(high)}"
