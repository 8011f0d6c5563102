"""A small sample of labelled texts, made from a seed: short reports on weather, sport and cooking.

Half the words of a text are of its class, half of any; so a model can learn the classes, and not from one word.
"""

from __future__ import annotations

import random

CLASSES = ("cooking", "sport", "weather")
WORDS = {
    "cooking": "oven butter simmer garlic recipe dough spoon roast pepper salad broth whisk",
    "sport": "goal striker coach referee league sprint medal keeper stadium penalty relay serve",
    "weather": "storm drizzle forecast humid frost breeze cloudy thunder snowfall sunny gale hail",
}
SHARED = "the a on today we they it was again very after before with some more people expected long good new"


def sample(count: int, seed: int = 0) -> tuple[list[str], list[int]]:
    """`count` texts and their class numbers, the classes in turn."""
    chance = random.Random(seed)
    texts, labels = [], []
    for number in range(count):
        label = number % len(CLASSES)
        own, shared = WORDS[CLASSES[label]].split(), SHARED.split()
        words = [chance.choice(own if chance.random() < 0.5 else shared) for _ in range(chance.randint(6, 20))]
        texts.append(" ".join(words).capitalize() + chance.choice(".!?"))
        labels.append(label)
    return texts, labels
