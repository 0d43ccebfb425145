"""A program that reads through a shared disk cache: `python -m tests.integration.cache_reader ADDRESS CACHE SEED`.

Each answer is a line: oid, the tid before which it was asked for, the tid and end of the revision, its data. It has
next to no cache in memory, so that what does not come from the server comes from the disk. It runs until it is killed,
and opens a new client every now and then.
"""

import random
import sys
from itertools import count

from zeo_client.storage import ClientStorage
from zeo_core.ids import pack_id, successor

__all__ = ["OBJECTS"]

OBJECTS = 30


def main(address: str, cache: str, seed: int) -> None:
    chance = random.Random(seed)
    host, port = address.split(":")
    for session in count():
        storage = ClientStorage((host, int(port)), cache=cache, memory_cache_size=1000 * (session % 2))
        befores = [successor(storage.last_tid())]
        for _ in range(chance.randrange(20, 400)):
            before = successor(storage.last_tid())
            befores.append(before)
            for _ in range(4):
                oid = pack_id(chance.randrange(1, OBJECTS + 1))
                asked = before if chance.random() < 0.7 else chance.choice(befores[-30:])
                found = storage.load_before(oid, asked)
                if found is not None:
                    told = (oid.hex(), asked.hex(), found.tid.hex(), (found.end_tid or b"").hex() or "-")
                    sys.stdout.write(" ".join((*told, found.data.decode(), "\n")))
        hits = storage.cache_stats()["disk_hits"]
        storage.close()
        sys.stdout.write(f"hits {hits}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
