"""The sentences that the simulator's text is made of.

They are chosen for what trips stream readers up: abbreviations, decimals, times, a
URL, quotations and ellipses (cuts into sentences), and characters of two, three and
four bytes in UTF-8 (cuts inside a character). In any order they still read as one
pleasant piece of prose. ``{name}`` and the like are filled in by `story`.
"""

from __future__ import annotations

#: Who the prose is about.
NAMES = (
    "Amsel", "Björn", "Chiara", "Dolores", "Émile", "Femke", "Goran", "Halina",
    "Ines", "Jørgen", "Kavita", "Łucja",
)  # fmt: skip

ENGLISH = (
    "The harbour wakes before the town does.",
    "By {clock} the first boats are already back, low in the water and loud with "
    "gulls.",
    "{name} counts {n} crates of mackerel, writes the number down, and counts again.",
    "The tide turned at {clock}, about {n} minutes later than the table had said.",
    "Dr. {name} keeps the lighthouse logbook, and has not missed a night in {n} years.",
    "A loaf at the bakery costs €{price}, which everybody calls too much and pays.",
    "The old wall is {decimal} metres thick; nobody remembers what it was meant to "
    "keep out.",
    "“Come in,” said {name}, “and mind the step.”",
    "There are {thousands} books in the library, and one chair that does not wobble.",
    "In {year} the bridge was painted green, and it has been green ever since.",
    "Rain is expected in the afternoon, i.e. at about the usual time.",
    "The ferry takes {n} cars, {n} bicycles and, on Sundays, a choir.",
    "{name} plays the cello on the third floor, always the same slow dance.",
    "When the wind comes from the north-west, the whole street smells of bread.",
    "The timetable is at https://example.org/ferry?stop={n}, but the captain has his "
    "own.",
    "It was warm for the season: {decimal} °C in the shade.",
    "Nobody hurried, and yet everything was done by noon.",
    "On the hill stands a pear tree that gives fruit only every {n} years.",
    "“Is that all?” asked {name}. “That is all,” said the postman.",
    "The clock in the tower is slow by {n} minutes; visitors set their watches by it.",
    "Mrs. {name} sells honey, candles, string, etc. from a window with no sign.",
    "For a moment the fog lifted… and the islands were there, all {n} of them.",
    "The engineers measured {decimal} mm of movement since {year}, and were content.",
    "No. {n} is the house with the blue door; the key is under the third stone.",
    "Children have drawn a whale on the quay, {n} paces long, with a kind face.",
    "At low water you can walk to the chapel and back if you do not stop to talk.",
    "The town has {thousands} inhabitants, not counting the cats.",
    "{name} repairs clocks, radios and, when asked politely, disagreements.",
    "About {percent} of the apples were too small to sell, so there was cake.",
    "The train from the city arrives at {clock} and leaves again as if embarrassed.",
    "Someone has left a pair of red boots by the well; they have been there for days.",
    "The recipe wants {n} eggs, half a litre of milk, and patience.",
    "Every window had a light in it — not bright, but steady.",
    "What the sea takes it brings back, only never to the same place.",
    "Prof. {name} says that the comet returns in {year}; the baker says we shall see.",
    "The path goes past the mill, over two stiles, and down to the water.",
    "“Listen!” said {name}, and for once everybody did.",
    "By evening the market is swept, and the pigeons hold their own.",
    "A sailor once measured the square: {n} by {n} steps, vs. {n} by {n} on the map.",
    "It would be wrong to call the place quiet; it is merely in no hurry.",
)

OTHERS = (
    "Über den Dächern kreisen {n} Möwen, und niemand zählt sie.",
    "Le boulanger ouvre à l’aube ; ça sent déjà le pain chaud jusqu’à la gare.",
    "El viento cambió de repente: ¿quién cerró la puerta del jardín?",
    "Śnieg spadł w nocy, cicho i bez żadnej zapowiedzi.",
    "Утром море было совсем спокойным.",
    "港の朝は静かで、空気が澄んでいる。",
    "老人每天早上在海边散步,从不着急。",
    "सुबह की चाय के साथ अख़बार आता है।",
    "الميناء هادئ في الصباح، والبحر صافٍ.",
    "ทะเลสงบมากในตอนเช้า",
    "Η θάλασσα ήταν ήρεμη όλη την ημέρα.",
    "바다는 아침에 가장 조용하다.",
    "On the postcard: “Wish you were here 🌊⛵” and {n} small hearts.",
    "{name} waved from the deck 👋🏽, and the whole quay waved back.",
    "The café’s sign says only ☕ + 🥐 = 🙂, and that is enough.",
    "Fireworks at {clock} 🎆, weather permitting; bring a coat 🧥.",
)
