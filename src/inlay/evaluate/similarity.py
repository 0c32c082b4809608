"""Edit similarity: 1 minus the Levenshtein distance over the longer length, by characters.

The distance is the bit-parallel dynamic programme of Myers (1999) in the form of Hyyro (2003): a column of the table is
two big integers, a bit a row, that say where the distance rises and falls by one. One step a character of the shorter
text, so an answer that never ends costs little beside a short gold.
"""


def edit_distance(left: str, right: str) -> int:
    """Fewest insertions, deletions and substitutions of characters that turn `left` into `right`."""
    left, right = _without_common_ends(left, right)
    if len(left) > len(right):
        left, right = right, left
    if not left:
        return len(right)
    places = _places(right, set(left))
    everywhere = (1 << len(right)) - 1
    last = 1 << (len(right) - 1)
    rises, falls, distance = everywhere, 0, len(right)
    for character in left:
        equal = places.get(character, 0)
        diagonal = equal | falls
        across = (((equal & rises) + rises) ^ rises) | equal
        up = falls | (everywhere & ~(across | rises))
        down = rises & across
        distance += bool(up & last) - bool(down & last)
        up, down = (up << 1) | 1, down << 1
        rises = (down | ~(diagonal | up)) & everywhere
        falls = up & diagonal & everywhere
    return distance


def edit_similarity(left: str, right: str) -> float:
    """1 for equal texts, 0 for texts that share nothing; two empty texts are equal."""
    longest = max(len(left), len(right))
    return 1.0 if longest == 0 else 1.0 - edit_distance(left, right) / longest


def _places(text: str, characters: set[str]) -> dict[str, int]:
    """For each of `characters`: an integer whose bit i says that it stands at index i of `text`."""
    found: dict[str, bytearray] = {}
    size = len(text) // 8 + 1
    for index, character in enumerate(text):
        if character in characters:
            found.setdefault(character, bytearray(size))[index >> 3] |= 1 << (index & 7)
    return {character: int.from_bytes(bits, "little") for character, bits in found.items()}


def _without_common_ends(left: str, right: str) -> tuple[str, str]:
    shortest = min(len(left), len(right))
    start = 0
    while start < shortest and left[start] == right[start]:
        start += 1
    stop = 0
    while stop < shortest - start and left[-1 - stop] == right[-1 - stop]:
        stop += 1
    return left[start : len(left) - stop], right[start : len(right) - stop]
