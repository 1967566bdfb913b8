"""Words of the story grammar: pools of entries, each a dict of forms; `it` is the form that `{pool}` writes.

A pool's entries share their forms, so a template may use any form of a pool (`{skill.doing}`).
"""

from __future__ import annotations

Entry = dict[str, str]

HE = {"he": "he", "him": "him", "his": "his", "boy": "boy"}
SHE = {"he": "she", "him": "her", "his": "her", "boy": "girl"}

GIRLS = ["Lily", "Mia", "Anna", "Sue", "Lucy", "Amy", "Ella", "Rosie", "Sarah", "Emma"]
BOYS = ["Tim", "Tom", "Ben", "Sam", "Max", "Jack", "Leo", "Bob", "Billy", "Joe"]
KINDS = [
    *("cat", "dog", "bird", "rabbit", "bear", "frog", "duck", "mouse"),
    *("pig", "horse", "fox", "lion", "turtle", "cow", "owl"),
]


def people() -> list[Entry]:
    """Every name as a child and as each animal; children weigh as much as all animals together."""
    entries: list[Entry] = []
    for names, pronouns in ((GIRLS, SHE), (BOYS, HE)):
        for name in names:
            boy = pronouns["boy"]
            child = {"it": name, "kind": boy, "full": f"a {boy} named {name}", **pronouns}
            animals = [{"it": name, "kind": kind, "full": f"{name} the {kind}", **pronouns} for kind in KINDS]
            entries += [child] * len(animals) + animals
    return entries


def words(text: str) -> list[Entry]:
    """Entries with only the form `it`, from a comma-separated list."""
    return [{"it": word.strip()} for word in text.split(",")]


def table(forms: str, text: str) -> list[Entry]:
    """Entries from lines of ` / `-separated forms, named by `forms`."""
    names = forms.split()
    rows = [[cell.strip() for cell in line.split("/")] for line in text.strip().splitlines()]
    if any(len(row) != len(names) for row in rows):
        raise ValueError(f"a row does not have the forms {names}")
    return [dict(zip(names, row, strict=True)) for row in rows]


POOLS: dict[str, list[Entry]] = {
    "hero": people(),
    "pal": people(),
    "beast": words(", ".join(KINDS)),
    "number": words("two, three, four"),
    "size": words("little, little, small, tiny, big, young"),
    "trait": words(
        "kind, brave, shy, happy, curious, clever, silly, quiet, gentle, funny, proud, lazy, sweet, friendly"
    ),
    "color": words("red, blue, green, yellow, pink, white, brown, purple, orange"),
    "day": words(
        "One day, One sunny day, One morning, One afternoon, One warm day, One cold day, One windy day"
    ),
    "elder": table(
        "it he him his",
        """
        mom / she / her / her
        mom / she / her / her
        dad / he / him / his
        dad / he / him / his
        grandma / she / her / her
        grandpa / he / him / his
        """,
    ),
    "place": table(
        "it at to",
        """
        the park / in the park / to the park
        the garden / in the garden / to the garden
        the forest / in the forest / to the forest
        the yard / in the yard / out to the yard
        the farm / on the farm / to the farm
        the beach / at the beach / to the beach
        the hill / on the hill / up the hill
        the river / by the river / down to the river
        the lake / by the lake / to the lake
        the field / in the field / to the field
        the village / in the village / to the village
        """,
    ),
    "home": words(
        "in a small house, in a big house, in a cozy house, in a green forest, on a farm, near the sea,"
        " by a river, near a big hill, in a small village, by a blue lake, at the edge of the woods"
    ),
    "toy": words(
        "ball, kite, doll, toy car, toy boat, truck, drum, balloon, hat, teddy bear, toy train, book"
    ),
    "flying": words("ball, kite, balloon, hat, toy plane"),
    "floating": words("ball, hat, toy boat, toy duck, balloon"),
    "food": table(
        "it some",
        """
        apple / apples
        cake / cake
        cookie / cookies
        pear / pears
        banana / bananas
        pie / pie
        carrot / carrots
        sandwich / sandwiches
        berry / berries
        """,
    ),
    "dish": words("cake, soup, pie, bread, pancakes, cookies, apple pie"),
    "treasure": words("shell, stone, key, coin, bell, feather, ring, box"),
    "clothes": words("hat, scarf, coat, cap, sweater, shirt"),
    "stray": words(
        "kitten, puppy, baby bird, duckling, baby rabbit, butterfly, bee, squirrel, baby turtle, little frog"
    ),
    "high": table(
        "it on",
        """
        tall tree / in a tall tree
        big tree / in a big tree
        roof / on the roof
        high branch / on a high branch
        high wall / on top of a high wall
        """,
    ),
    "hiding": words(
        "under the bed, behind the door, under a big leaf, in a box, behind a tree, under a bush,"
        " in the tall grass, under the table, behind a rock, under a pile of leaves"
    ),
    "skill": table(
        "it did doing at",
        """
        swim / swam / swimming / the lake
        ride a bike / rode the bike / riding a bike / the park
        fly a kite / flew the kite / flying a kite / the hill
        climb a tree / climbed the tree / climbing trees / the garden
        dance / danced / dancing / the yard
        sing / sang / singing / the garden
        skate / skated / skating / the pond
        jump rope / jumped rope / jumping rope / the yard
        catch a ball / caught the ball / catching balls / the park
        """,
    ),
    "seed": table(
        "it grown",
        """
        flower / flower
        apple / apple tree
        pumpkin / pumpkin
        bean / bean plant
        carrot / carrot
        berry / berry bush
        """,
    ),
    "building": table(
        "it of",
        """
        tower / blocks
        castle / sand
        house / sticks
        bridge / wood
        boat / wood
        snowman / snow
        fort / boxes
        """,
    ),
    "noise": words(
        "a loud noise, a soft noise, a strange sound, a tapping sound, a scary sound, a funny sound"
    ),
    "source": table(
        "it why",
        """
        a small cat / it wanted to come in
        a branch / the wind was moving it
        a little mouse / it was looking for food
        a tiny bird / it wanted to come in from the rain
        a puppy / it was cold and wanted to be warm
        an old clock / it was time for bed
        """,
    ),
    "fragile": words("cup, plate, vase, lamp, bowl, window, pot"),
    "lost": table(
        "it where",
        """
        hat / your hat is on your head
        ring / your ring is on your finger
        scarf / your scarf is on your neck
        key / the key is in your hand
        spoon / the spoon is in your pot
        book / the book is under your arm
        """,
    ),
    "gift": words("flower, picture, scarf, hat, toy boat, basket of berries, shiny stone, cake, book, card"),
    "game": words("tag, ball, hide and seek, with blocks, with the ball, a new game, catch"),
    "job": words(
        "clean the house, pick apples, carry water, feed the hens, wash the plates,"
        " rake the leaves, carry wood"
    ),
    "sick": words("a cold, a sore leg, a hurt foot, a tummy ache, a fever, a sore nose"),
    "vehicle": words("boat, train, bus, wagon, truck"),
    "sight": words(
        "a rainbow, many ducks, a big whale, a tall mountain, white clouds, a red barn,"
        " the blue sea, many stars"
    ),
    "instrument": words("drum, horn, bell, flute, piano"),
}
