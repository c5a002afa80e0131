"""Makes the data of the example: orders in words, and the tickets that a kitchen prints for them.

  python examples/tickets/make.py

The rule is made up and simple enough to check by eye: the table, then each thing as NUMBER*THING in the singular, largest
number first. Each file has orders that the others have not: `train.jsonl` to learn from, `validation.jsonl` to choose the
best step by, `test.jsonl` to count right answers in, before and after.
"""

import json, os, random

NUMBERS = "one two three four five six seven eight nine".split()
THINGS = "lemon fig pear bun egg soup tart cake plum bean pie salad".split()
FORMS = ["Table {table} would like {order}.", "{order} for table {table}, please.", "At table {table}: {order}.",
         "Please bring {order} to table {table}."]


def line(draw):
    table = draw.randrange(1, 10)
    counts = draw.sample(range(1, 10), draw.choice([2, 2, 3]))
    things = draw.sample(THINGS, len(counts))
    parts = [f"{NUMBERS[count - 1]} {thing}{'s' if count > 1 else ''}" for count, thing in zip(counts, things)]
    order = ", ".join(parts[:-1]) + " and " + parts[-1]
    text = draw.choice(FORMS).format(table=NUMBERS[table - 1], order=order)
    ticket = " ".join(f"{count}*{thing}" for count, thing in sorted(zip(counts, things), reverse=True))
    return {"prompt": f"{text[0].upper()}{text[1:]}\nTicket:", "completion": f" T{table} {ticket}"}


draw, seen, lines = random.Random(1), set(), []
while len(lines) < 460:
    new = line(draw)
    if new["prompt"] not in seen:
        seen.add(new["prompt"])
        lines.append(new)
folder = os.path.dirname(os.path.abspath(__file__))
for name, part in [("validation.jsonl", lines[:60]), ("train.jsonl", lines[60:400]), ("test.jsonl", lines[400:])]:
    with open(os.path.join(folder, name), "w") as file:
        file.writelines(json.dumps(new) + "\n" for new in part)
