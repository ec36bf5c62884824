"""Makes data/excerpt.json: the end of the authors' curves of Atari 100K.

    python tests/scores/make_excerpt.py atari100k-dreamerv3.json.gz

All episodes after 385K frames of all games and seeds; data of the authors'
repository (folder `scores`), MIT licence.
"""

import gzip
import json
import sys
from pathlib import Path

AFTER = 385_000
PATH = Path(__file__).parent / "data" / "excerpt.json"


def main(source):
    with gzip.open(source) as file:
        records = json.load(file)
    for record in records:
        pairs = zip(record["xs"], record["ys"], strict=True)
        late = [pair for pair in pairs if pair[0] > AFTER]
        record["xs"] = [frames for frames, _ in late]
        record["ys"] = [score for _, score in late]
    text = json.dumps(records, separators=(",", ":"))
    PATH.write_text(text.replace("},{", "},\n{") + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
